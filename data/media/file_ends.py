"""Looks for the end of a video file in containers that state no length.

Their own structure still says where they end: a GIF by a trailer, Ogg by a
mark on its last page, NUT by an index, the others by whole packets or pictures.
Only the structure is read, one piece at a time. Checksums are those of the
specifications: RFC 3533 (Ogg), the GIF89a specification, FFmpeg's nut.txt.
"""

import os
import re
import zlib

from wording import chosen, counted

# Bytes of a packet of a transport stream: bare, with a time before it (Blu-ray
# and camcorders), with error correction behind it.
_TRANSPORT_PACKET_BYTES = (188, 192, 204)

_GIF_EXTENSION, _GIF_IMAGE, _GIF_TRAILER = 0x21, 0x2C, 0x3B
_GIF_CONTROL = 0xF9
# What says how long a picture is shown, and the first byte of what follows.
_GIF_CONTROL_BLOCK = re.compile(rb'!\xf9\x04.{4}\0[,!]', re.DOTALL)
_GIF_CONTROL_BYTES = 9
_OGG_FIRST_PAGE, _OGG_LAST_PAGE = 2, 4
_NUT_INDEX = bytes.fromhex('4e58dd672f23e64e')
_NUT_LONGEST_INDEX = 2**30
_Y4M_LONGEST_LINE = 256
# In place of the length of a box: it is the last, or its length is behind its
# name. Files have some five boxes, those that are written in pieces thousands.
_TO_THE_END, _LONG_BOX = 0, 1
_SHORTEST_BOX = 8
_MOST_BOXES = 100_000
# Some writers fill up the last block.
_PADDING = b'\0'

_REVERSED_BITS = bytes(int(f'{byte:08b}'[::-1], 2) for byte in range(256))


class _IncompleteError(Exception):
  """What a file has in place of its end, in a few words."""


def problem_at_end(path, format_name, *, picture_bytes=None):
  """Tells whether a file was cut off or has lost a part, by its structure.

  Args:
    path: str or path of the file.
    format_name: FFmpeg's name of its demuxer, such as 'gif'.
    picture_bytes: int, bytes of an uncompressed picture, for 'yuv4mpegpipe'.

  Returns:
    str, what is wrong, or None where nothing is known to be.
  """
  check = _CHECKS.get(format_name)
  if check is None:
    return None
  with open(path, 'rb') as file:
    size = os.fstat(file.fileno()).st_size
    try:
      if check is _check_y4m:
        check(file, size, picture_bytes)
      else:
        check(file, size)
    except _IncompleteError as error:
      return str(error)
  return None


def cut_box(path):
  """Tells where an MP4 or MOV file was cut off, if it cannot be opened for it.

  Such a file is a list of boxes, each with its length before its name. The
  one named moov says where the pictures are; many writers put it last.

  Args:
    path: str or path of the file.

  Returns:
    str, what is missing; None where it is no such file, or has all its boxes.
  """
  with open(path, 'rb') as file:
    size = os.fstat(file.fileno()).st_size
    start, names = 0, []
    while start < size and len(names) < _MOST_BOXES:
      file.seek(start)
      length, name = _box(file.read(16))
      if not names and name != b'ftyp':
        return None
      names.append(name)
      if length == _TO_THE_END:
        length = size - start
      if length < _SHORTEST_BOX:
        return None
      start += length
  if start > size:
    num_missing = start - size
    return (
      f'the file ends early: {counted(num_missing, "byte")} of its last box '
      f'{chosen(num_missing, "is", "are")} missing'
    )
  if names and b'moov' not in names:
    return 'the file ends early: its index (the box moov) is missing'
  return None


def _box(header):
  """Returns (length, name) of a box that begins so."""
  length = int.from_bytes(header[:4], 'big')
  if length == _LONG_BOX:
    length = int.from_bytes(header[8:16], 'big')
  return length, header[4:8]


def _check_transport_stream(unused_file, size):
  if all(size % packet for packet in _TRANSPORT_PACKET_BYTES):
    raise _IncompleteError('the transport stream ends within a packet')


def _check_gif(file, size):
  """Walks over the blocks of a GIF, up to its trailer.

  Damage may make a block swallow pictures and end where another one does.
  """
  ending = 'the GIF ends before its trailer'
  num_controls = 0
  header = _read(file, 13, ending)
  file.seek(_color_table_bytes(header[10]), os.SEEK_CUR)
  while True:
    kind = _read(file, 1, ending)[0]
    if kind == _GIF_TRAILER:
      break
    if kind == _GIF_IMAGE:
      descriptor = _read(file, 9, ending)
      # The colour table, and one byte that says how the pixels are coded.
      file.seek(_color_table_bytes(descriptor[8]) + 1, os.SEEK_CUR)
    elif kind == _GIF_EXTENSION:
      num_controls += _read(file, 1, ending)[0] == _GIF_CONTROL
    else:
      raise _IncompleteError('the GIF has a damaged block')
    while length := _read(file, 1, ending)[0]:
      file.seek(length, os.SEEK_CUR)
  if file.tell() > size:
    raise _IncompleteError(ending)
  if file.read(2**16).strip(_PADDING + b'\r\n'):
    raise _IncompleteError('the GIF goes on behind its trailer')
  if _num_gif_controls(file) > num_controls:
    raise _IncompleteError('the GIF has a damaged block')


def _num_gif_controls(file):
  """Counts what looks like control blocks, wherever it stands."""
  file.seek(0)
  count, before = 0, b''
  while content := file.read(2**20):
    count += len(_GIF_CONTROL_BLOCK.findall(before + content))
    before = content[1 - _GIF_CONTROL_BYTES :]
  return count


def _color_table_bytes(flags):
  return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _check_ogg(file, size):
  """Walks over the pages of all streams in an Ogg file.

  FFmpeg passes over a page whose checksum is wrong, without a word.
  """
  next_numbers = {}  # Of the streams that have not ended.
  ending = 'the Ogg file ends within a page'
  while file.tell() < size:
    header = _read_unless_padding(file, 27, ending)
    if header is None:
      break
    if header[:4] != b'OggS':
      raise _IncompleteError('the Ogg file has something between two pages')
    lengths = _read(file, header[26], ending)
    content = _read(file, sum(lengths), ending)
    checksum = header[22:26]
    page = header[:22] + bytes(4) + header[26:] + lengths + content
    if _ogg_checksum(page) != checksum:
      raise _IncompleteError('the Ogg file has a damaged page')
    serial, number = header[14:18], int.from_bytes(header[18:22], 'little')
    if header[5] & _OGG_FIRST_PAGE:
      next_numbers[serial] = number
    if next_numbers.get(serial) != number:
      raise _IncompleteError('the Ogg file has lost a page')
    next_numbers[serial] = (number + 1) % 2**32
    if header[5] & _OGG_LAST_PAGE:
      del next_numbers[serial]
  if next_numbers:
    raise _IncompleteError('the Ogg file ends before its last page')


def _ogg_checksum(page):
  """CRC-32 of polynomial 0x04c11db7 from 0, highest bit first, 4 bytes.

  zlib's is of the same polynomial, but lowest bit first, and inverted.
  """
  crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
  return crc.to_bytes(4, 'big').translate(_REVERSED_BITS)


def _check_nut(file, size):
  """Looks for the index, whose last bytes say where it begins."""
  problem = 'the NUT file does not end with its index'
  if size < 12:
    raise _IncompleteError(problem)
  file.seek(size - 12)
  length = int.from_bytes(_read(file, 8, problem), 'big')
  if not 12 < length <= min(size, _NUT_LONGEST_INDEX):
    raise _IncompleteError(problem)
  file.seek(size - length)
  if _read(file, 8, problem) != _NUT_INDEX:
    raise _IncompleteError(problem)


def _check_y4m(file, size, picture_bytes):
  """Walks over the pictures: a line each, and bytes of a fixed number."""
  file.readline(_Y4M_LONGEST_LINE)
  while picture_bytes and file.tell() < size:
    line = file.readline(_Y4M_LONGEST_LINE)
    if not line.startswith(b'FRAME') or len(line) == _Y4M_LONGEST_LINE:
      raise _IncompleteError('the Y4M file has something between two pictures')
    file.seek(picture_bytes, os.SEEK_CUR)
  if file.tell() > size:
    raise _IncompleteError('the Y4M file ends within a picture')


def _check_ivf(file, size):
  """Walks over the pictures: their size, their time and their bytes."""
  ending = 'the IVF file ends within a picture'
  header = _read(file, 32, ending)
  file.seek(int.from_bytes(header[6:8], 'little'))
  while file.tell() < size:
    header = _read_unless_padding(file, 12, ending)
    if header is None:
      return
    file.seek(int.from_bytes(header[:4], 'little'), os.SEEK_CUR)
  if file.tell() > size:
    raise _IncompleteError(ending)


def _check_mjpeg(file, size):
  """Looks for the mark at the end of the last picture."""
  file.seek(max(size - 2**16, 0))
  if not file.read().rstrip(_PADDING).endswith(b'\xff\xd9'):
    raise _IncompleteError('the file ends within a picture')


def _read_unless_padding(file, count, ending):
  start = file.tell()
  content = file.read(count)
  if not content.strip(_PADDING):
    file.seek(start)
    if not file.read(2**16).strip(_PADDING):
      return None
    file.seek(start + count)
  if len(content) < count:
    raise _IncompleteError(ending)
  return content


def _read(file, count, ending):
  content = file.read(count)
  if len(content) < count:
    raise _IncompleteError(ending)
  return content


_CHECKS = {
  'gif': _check_gif,
  'ivf': _check_ivf,
  'mjpeg': _check_mjpeg,
  'mpegts': _check_transport_stream,
  'nut': _check_nut,
  'ogg': _check_ogg,
  'yuv4mpegpipe': _check_y4m,
}
