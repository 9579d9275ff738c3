"""What archives hold, and its bytes: zip, tar and, with the extra `rar`, rar.

Each format is a class of two functions: `members(archive)` lists Member, and
`unpack(archive, wanted, opened)` reads those of the names in `wanted`, a dict
from name to bytes. `opened(name, size)` is a context manager that gives what
takes the bytes. Nothing is written and no name is trusted here: `archives` does
the one and checks the other. Errors are InputError and those of the libraries.
"""

import dataclasses
import os
import stat
import zipfile

from dataset.staging import OutputError
from errors import InputError
from untrusted import tar_stream

_CHUNK = 2**20
# Videos are compressed already; lists of names shrink to a tenth.
_MAX_RATIO = 100
_SMALL_BYTES = 2**26
_ZIP_READ = (
  zipfile.ZIP_STORED,
  zipfile.ZIP_DEFLATED,
  zipfile.ZIP_BZIP2,
  zipfile.ZIP_LZMA,
)
UNPACK_IT = (
  'unpack it yourself, such as with "7z x", and name the folder instead'
)
_RAR_END = 10
_RAR_ENCRYPTED = 0x04
_RAR_ON_UNIX = 3


@dataclasses.dataclass(frozen=True)
class Member:
  """A member of an archive.

  Attributes:
    name: str, with '/'.
    size: bytes, unpacked.
    is_folder: bool.
    problem: str, why it must not be unpacked, or None.
  """

  name: str
  size: int
  is_folder: bool
  problem: str | None


def max_bytes(packed_bytes):
  """Bytes that an archive of so many may become, and no more."""
  return max(_MAX_RATIO * packed_bytes, _SMALL_BYTES)


def format_of(archive):
  """Zip, Tar or Rar, by the ending of a path."""
  name = os.fspath(archive).lower()
  if name.endswith('.zip'):
    return Zip
  return Rar if name.endswith('.rar') else Tar


class Zip:
  """Zip archives."""

  @staticmethod
  def members(archive):
    """Lists what an archive holds: list of Member."""
    with zipfile.ZipFile(archive) as file:
      return [
        Member(info.filename, info.file_size, info.is_dir(), _zip_problem(info))
        for info in file.infolist()
      ]

  @staticmethod
  def unpack(archive, wanted, opened):
    """Gives the bytes of each wanted member to what `opened` opens."""
    with zipfile.ZipFile(archive) as file:
      for name, size in wanted.items():
        with opened(name, size) as write, file.open(name) as content:
          _copy(content, write)


def _zip_problem(info):
  kind = stat.S_IFMT(info.external_attr >> 16)
  if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
    return 'is a link or a device'
  if info.flag_bits & 1:
    return 'is encrypted'
  if info.compress_type not in _ZIP_READ:
    method = zipfile.compressor_names.get(info.compress_type, 'an unknown one')
    return (
      f'is packed with a method that is not read ({info.compress_type}, '
      f'{method}); {UNPACK_IT}'
    )
  return None


class Tar:
  """Tar archives, compressed or not."""

  @staticmethod
  def members(archive):
    """Lists what an archive holds: list of Member."""
    with _opened_tar(archive) as file:
      return [
        Member(
          info.name,
          info.size,
          info.isdir(),
          None if info.isreg() or info.isdir() else 'is a link or a device',
        )
        for info in file
        if info.name != '.'
      ]

  @staticmethod
  def unpack(archive, wanted, opened):
    """Gives the bytes of each wanted member to what `opened` opens."""
    with _opened_tar(archive) as file:
      for info in file:
        if info.name in wanted:
          with opened(info.name, info.size) as write:
            _copy(file.extractfile(info), write)


def _opened_tar(archive):
  # Each member has up to three blocks more than its size, and names.
  return tar_stream.open_tar(
    archive, max_bytes=2 * max_bytes(os.stat(archive).st_size)
  )


class Rar:
  """Rar archives, by the UnRAR library."""

  @staticmethod
  def members(archive):
    """Lists what an archive holds: list of Member."""
    return [_rar_member(header) for header in _rar_headers(archive)]

  @staticmethod
  def unpack(archive, wanted, opened):
    """Gives the bytes of each wanted member to what `opened` opens."""
    for header in _rar_headers(archive, wanted):
      name = header.FileNameW
      with opened(name, wanted[name]) as write:
        errors = []

        def keep(chunk, write=write, errors=errors):
          # An exception would be lost inside of the library.
          try:
            if not errors:
              write(chunk)
          except (InputError, OutputError) as error:
            errors.append(error)

        header.test(keep)
        if errors:
          raise errors[0]


def _rar_headers(archive, wanted=None):
  """Yields the headers of a rar archive, all or those of some names.

  The library's own loop takes a damaged header for the end.
  """
  unrarlib = _unrarlib(archive)
  with unrarlib.RarArchive.open_for_processing(os.fspath(archive)) as opened:
    while True:
      data = unrarlib.RARHeaderDataEx()
      code = unrarlib.RARReadHeaderEx(opened.handle, data)
      if code == _RAR_END:
        return
      if code:
        raise InputError(f'{archive} is damaged, or a part of it is missing')
      header = unrarlib.RarHeader(opened, data)
      if wanted is None:
        yield header
        header.skip()
      elif header.FileNameW in wanted:
        yield header
      else:
        header.skip()


def _unrarlib(archive):
  try:
    from unrar.cffi import unrarlib
  except ImportError:
    raise InputError(
      f'{archive} needs a program for rar archives: "pip install unrar2-cffi", '
      f'or unpack it yourself, with "unrar x {archive}" or "bsdtar -xf '
      f'{archive}", and name the folder instead'
    ) from None
  return unrarlib


def _rar_member(header):
  data = header.headerDataEx
  is_folder = bool(header.Flags & 0x20)
  is_link = bool(data.RedirType) or (
    header.HostOS == _RAR_ON_UNIX and stat.S_ISLNK(data.FileAttr)
  )
  problem = 'is a link' if is_link else None
  if header.Flags & _RAR_ENCRYPTED:
    problem = 'is encrypted'
  size = header.UnpSize + (header.UnpSizeHigh << 32)
  return Member(header.FileNameW, size, is_folder, problem)


def _copy(content, write):
  while chunk := content.read(_CHUNK):
    write(chunk)
