"""Packs archives: zip, tar and (stored, not compressed) rar 4."""

import io
import stat
import struct
import tarfile
import zipfile
import zlib

_RAR_MARK = b'Rar!\x1a\x07\x00'


def write_zip(path, members, *, links=()):
  """Packs dict from name to bytes; names in `links` become symlinks."""
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
    for name, content in members.items():
      info = zipfile.ZipInfo(name)
      info.compress_type = zipfile.ZIP_DEFLATED
      kind = stat.S_IFLNK if name in links else stat.S_IFREG
      info.external_attr = (kind | 0o644) << 16
      file.writestr(info, content)


def write_tar(path, members, *, kinds=None):
  """Packs dict from name to bytes; `kinds` has the tarfile type of some."""
  with tarfile.open(path, 'w:gz') as file:
    for name, content in members.items():
      info = tarfile.TarInfo(name)
      info.type = (kinds or {}).get(name, tarfile.REGTYPE)
      if info.type == tarfile.REGTYPE:
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
      else:
        info.linkname = content.decode()
        file.addfile(info)


def write_rar(path, members, *, links=()):
  """Packs dict from name to bytes, by the format's technical note.

  A block is: checksum of the header (uint16), type (uint8), flags (uint16),
  size of the header (uint16), the rest of it, then the data.
  """
  blocks = [_RAR_MARK, _rar_block(0x73, 0, b'\0' * 6)]
  for name, content in members.items():
    encoded = name.encode()
    mode = (stat.S_IFLNK if name in links else stat.S_IFREG) | 0o644
    rest = struct.pack(
      '<IIBIIBBHI',
      len(content),
      len(content),
      3,  # packed on Unix
      zlib.crc32(content),
      0x5A21A000,  # some time
      20,  # readable by version 2.0
      0x30,  # stored
      len(encoded),
      mode,
    )
    blocks.append(_rar_block(0x74, 0x8000, rest + encoded) + content)
  blocks.append(_rar_block(0x7B, 0x4000, b''))
  path.write_bytes(b''.join(blocks))


def _rar_block(kind, flags, rest):
  header = struct.pack('<BHH', kind, flags, 7 + len(rest)) + rest
  return struct.pack('<H', zlib.crc32(header) & 0xFFFF) + header
