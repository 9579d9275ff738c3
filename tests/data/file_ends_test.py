"""The ends of containers that state no length, and what is wrong with them."""

import pytest
from media import file_ends

# The colours of two pixels, and a picture of one, as the specification has it.
_GIF_HEAD = b'GIF89a\1\0\1\0\x80\0\0' + bytes(6)
_GIF_CONTROL = b'!\xf9\4\0\4\0\0\0'
_GIF_PICTURE = _GIF_CONTROL + b',\0\0\0\0\1\0\1\0\0\2\2\x44\1\0'
_GIF = _GIF_HEAD + _GIF_PICTURE * 3 + b';'

_Y4M_HEAD = b'YUV4MPEG2 W2 H2 F25:1 Cmono\n'
_Y4M = _Y4M_HEAD + b'FRAME\nabcdFRAME Ip\nefgh'

_IVF = b'DKIF\0\0\x20\0' + bytes(24) + (b'\3\0\0\0' + bytes(8) + b'abc') * 2


def _problem(tmp_path, content, format_name, **options):
  path = tmp_path / 'x'
  path.write_bytes(content)
  return file_ends.problem_at_end(path, format_name, **options)


def _ogg_page(number, flags, content=b'x', serial=7):
  page = bytearray(
    b'OggS\0'
    + bytes([flags])
    + bytes(8)
    + serial.to_bytes(4, 'little')
    + number.to_bytes(4, 'little')
    + bytes(4)
    + bytes([1, len(content)])
    + content
  )
  page[22:26] = _crc(page).to_bytes(4, 'little')
  return bytes(page)


def _crc(content):
  """The checksum as RFC 3533 defines it, bit by bit."""
  crc = 0
  for byte in content:
    crc ^= byte << 24
    for _ in range(8):
      crc = (crc << 1) ^ (0x104C11DB7 if crc & 0x80000000 else 0)
  return crc


_OGG = [_ogg_page(0, 2), _ogg_page(1, 0, bytes(range(200))), _ogg_page(2, 4)]


@pytest.mark.parametrize(
  'content, format_name, word',
  [
    (_GIF, 'gif', None),
    (_GIF + bytes(10), 'gif', None),
    (_GIF + b'\n', 'gif', None),
    (_GIF[:-1], 'gif', 'before its trailer'),
    (_GIF[:-4], 'gif', 'before its trailer'),
    (_GIF_HEAD + _GIF_PICTURE + b'?' + _GIF_PICTURE + b';', 'gif', 'damaged'),
    (_GIF + _GIF_PICTURE, 'gif', 'behind its trailer'),
    # A length that takes in the picture behind it, up to its end.
    (_GIF.replace(b'\2\2\x44', b'\2\x19\x44', 1), 'gif', 'damaged block'),
    (b''.join(_OGG), 'ogg', None),
    (b''.join(_OGG + _OGG), 'ogg', None),
    (b''.join(_OGG) + bytes(100), 'ogg', None),
    (b''.join(_OGG[:2]) + bytes(100), 'ogg', 'before its last page'),
    (b''.join(_OGG[:2]), 'ogg', 'before its last page'),
    (b''.join(_OGG)[:-1], 'ogg', 'within a page'),
    (_OGG[0] + _OGG[2], 'ogg', 'lost a page'),
    (_OGG[0] + b'?' + _OGG[1] + _OGG[2], 'ogg', 'between two pages'),
    (b''.join(_OGG).replace(b'\5', b'\6'), 'ogg', 'damaged page'),
    (_IVF, 'ivf', None),
    (_IVF + bytes(100), 'ivf', None),
    (_IVF[:-1], 'ivf', 'within a picture'),
    (_IVF[:-10], 'ivf', 'within a picture'),
    (bytes(188 * 3), 'mpegts', None),
    (bytes(188 * 3 + 1), 'mpegts', 'within a packet'),
    (b'cut off anywhere', 'matroska,webm', None),
  ],
)
def test_a_missing_end_is_told_from_one_that_is_there(
  tmp_path, content, format_name, word
):
  problem = _problem(tmp_path, content, format_name)
  assert problem is None if word is None else word in problem


def test_a_cut_y4m_is_told_from_a_whole_one(tmp_path):
  problem = _problem(tmp_path, _Y4M, 'yuv4mpegpipe', picture_bytes=4)
  assert problem is None
  for cut in (_Y4M[:-1], _Y4M[:-6], _Y4M[:-4]):
    assert _problem(tmp_path, cut, 'yuv4mpegpipe', picture_bytes=4)
  # A whole picture less is another video.
  shorter = _Y4M[: len(_Y4M_HEAD) + 10]
  assert not _problem(tmp_path, shorter, 'yuv4mpegpipe', picture_bytes=4)


def _mp4_box(name, content, length=None):
  length = 8 + len(content) if length is None else length
  return length.to_bytes(4, 'big') + name + content


_FTYP = _mp4_box(b'ftyp', b'isom')
_MOOV = _mp4_box(b'moov', bytes(20))


@pytest.mark.parametrize(
  ('content', 'problem'),
  [
    (_FTYP + _mp4_box(b'mdat', bytes(9)) + _MOOV, None),
    (_FTYP + _mp4_box(b'mdat', bytes(9)), 'index (the box moov) is missing'),
    (_FTYP + _mp4_box(b'mdat', bytes(9), length=0), 'its index'),
    (_FTYP + _MOOV[:-3], '3 bytes of its last box'),
    (_FTYP + _MOOV[:6], '22 bytes of its last box'),
    # A length of 64 bits, behind the name.
    (_FTYP + _mp4_box(b'mdat', (99).to_bytes(8, 'big'), length=1), '83 bytes'),
    # Damage, text, nothing.
    (_FTYP + _mp4_box(b'mdat', bytes(9), length=7) + _MOOV, None),
    (_MOOV[:-3], None),
    (b'text, no video', None),
    (b'', None),
  ],
)
def test_the_boxes_of_a_cut_mp4_say_what_is_missing(tmp_path, content, problem):
  path = tmp_path / 'x.mp4'
  path.write_bytes(content)
  found = file_ends.cut_box(path)
  assert found is None if problem is None else problem in found
