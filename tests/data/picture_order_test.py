"""Files whose container keeps the times of decoding, or none, for pictures."""

import dataclasses
import fractions
import io
import itertools
import re

import av
import numpy as np
import pytest
import sample_videos
from media import open_video, picture_order
from media.video_frames import FrameOptions, write_frames
from PIL import Image

_NUM_PICTURES = 50
_MILLISECOND = fractions.Fraction(1, 1000)
_B_FRAMES = {'bf': '3', 'b_strategy': '0'}
_MOST_B_FRAMES = {'bf': '16', 'b_strategy': '0', 'b-pyramid': 'none'}

# A picture of MPEG-4 that is "not coded", at rates of 17 to 32 pictures a
# second: a P picture, five bits of time, and padding (ISO 14496-2, 6.2.5).
_NOT_CODED = bytes.fromhex('000001b651cf')
# How DivX says that a packet may hold two pictures.
_PACKED_MARK = b'\0\0\1\xb2DivX503b1393p'


def _brightening(num_pictures=_NUM_PICTURES):
  """Pictures whose grey level says their number."""
  pictures = np.zeros((num_pictures, 64, 96, 3), np.uint8)
  pictures[:] = _level(np.arange(num_pictures))[:, None, None, None]
  return pictures


def _noise():
  """Pictures that are most of a file."""
  return np.random.default_rng(0).integers(
    0, 255, (_NUM_PICTURES, 64, 96, 3), dtype=np.uint8
  )


def _level(number):
  return 20 + 4 * number


def _shown(path):
  """Numbers of the pictures that are stored, and the warnings."""
  jpegs = []
  facts = write_frames(path, FrameOptions(), jpegs.append)
  levels = [np.asarray(Image.open(io.BytesIO(jpeg))).mean() for jpeg in jpegs]
  return [round((level - 20) / 4) for level in levels], facts.warnings


def _times(path):
  with open_video.open_video(path, max_pixels=2**20) as video:
    return [frame.time for frame in video.frames()]


def _remux(source, path, change):
  """Copies the packets of a file, as `change` makes them of the list."""
  with av.open(str(source)) as file, av.open(str(path), 'w') as out:
    stream = out.add_stream_from_template(file.streams.video[0])
    packets = [packet for packet in file.demux(video=0) if packet.size]
    for packet in change(packets):
      packet.stream = stream
      out.mux(packet)


def _with_times_of_decoding(packets):
  times = sorted(packet.pts for packet in packets)
  for packet, time in zip(packets, times, strict=True):
    packet.pts = packet.dts = time
  return packets


@pytest.mark.parametrize(
  'name, codec, options',
  [
    ('x.avi', 'libx264', _B_FRAMES),
    ('x.avi', 'libx264', _MOST_B_FRAMES),
    ('x.avi', 'libx264', _B_FRAMES | {'flags': '+ildct+ilme'}),
    ('x.avi', 'mpeg4', {'bf': '2'}),
    ('x.avi', 'mpeg2video', {'bf': '2'}),
    ('x.asf', 'libx264', _B_FRAMES),
    ('x.asf', 'libx264', _MOST_B_FRAMES),
    ('x.wmv', 'mpeg4', {'bf': '2'}),
    ('x.mkv', 'libx264', _B_FRAMES),
    ('x.mp4', 'libx264', _MOST_B_FRAMES),
    ('x.flv', 'libx264', _B_FRAMES),
    ('x.ts', 'libx264', _B_FRAMES),
    ('x.m1v', 'mpeg1video', {}),
    ('x.m1v', 'mpeg1video', {'bf': '2'}),
    ('x.m2v', 'mpeg2video', {'bf': '2'}),
  ],
)
def test_every_picture_is_shown_once_and_in_order(
  tmp_path, name, codec, options
):
  path = tmp_path / name
  options = {'qmin': '1', 'qmax': '2'} | options
  sample_videos.write(path, _brightening(), codec=codec, options=options)
  numbers, warnings = _shown(path)
  assert numbers == list(range(_NUM_PICTURES))
  assert warnings == []


@pytest.mark.parametrize('name', ['x.mkv', 'x.mp4', 'x.nut', 'x.flv'])
@pytest.mark.parametrize('options', [_B_FRAMES, _MOST_B_FRAMES])
def test_times_of_decoding_become_those_of_pictures(tmp_path, name, options):
  rng = np.random.default_rng(0)
  times = np.cumsum(rng.integers(20, 60, _NUM_PICTURES)).tolist()
  sample_videos.write(
    tmp_path / 'right.mkv',
    _brightening(),
    times=times,
    time_base=_MILLISECOND,
    options=options,
  )
  _remux(tmp_path / 'right.mkv', tmp_path / name, _with_times_of_decoding)
  found = _times(tmp_path / name)
  steps = [later - earlier for earlier, later in itertools.pairwise(found)]
  assert [float(step) for step in steps] == pytest.approx(
    np.diff(times) / 1000, abs=1e-4
  )
  # Not every container keeps how long the last one is shown.
  numbers, _ = _shown(tmp_path / 'right.mkv')
  assert _shown(tmp_path / name)[0] in (numbers, numbers[:-1])


def test_two_pictures_in_a_packet_are_both_shown(tmp_path):
  sample_videos.write(
    tmp_path / 'plain.avi',
    _brightening(49),
    codec='mpeg4',
    options={'bf': '2', 'b_strategy': '0'},
  )

  def packed(packets):
    # I P B B P B B ... becomes I, P and B, B, nothing, P and B, ...
    contents = [bytes(packet) for packet in packets]
    contents[0] = contents[0].replace(
      b'\0\0\1\xb6', _PACKED_MARK + b'\0\0\1\xb6', 1
    )
    for place in range(1, len(contents) - 2, 3):
      both = contents[place] + contents[place + 1]
      contents[place : place + 3] = both, contents[place + 2], _NOT_CODED
    return [_packet_like(*pair) for pair in zip(packets, contents, strict=True)]

  _remux(tmp_path / 'plain.avi', tmp_path / 'packed.avi', packed)
  assert _shown(tmp_path / 'packed.avi') == _shown(tmp_path / 'plain.avi')


def _packet_like(packet, content):
  new = av.Packet(content)
  new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
  new.is_keyframe = packet.is_keyframe
  return new


def test_pictures_that_are_not_coded_are_not_missing(tmp_path):
  sample_videos.write(
    tmp_path / 'a.avi',
    _brightening(),
    codec='mpeg4',
    options={'g': '12', 'qmax': '2'},
  )

  def without_some(packets):
    return [
      packet if number % 12 < 8 else _packet_like(packet, _NOT_CODED)
      for number, packet in enumerate(packets)
    ]

  _remux(tmp_path / 'a.avi', tmp_path / 'x.avi', without_some)
  numbers, warnings = _shown(tmp_path / 'x.avi')
  assert numbers == [n if n % 12 < 8 else n - n % 12 + 7 for n in range(50)]
  assert warnings == []


def test_empty_places_of_an_avi_are_not_missing_but_what_is_cut_off_is(
  tmp_path,
):
  path = tmp_path / 'x.avi'
  places = [n for n in range(60) if n % 6]
  sample_videos.write(path, _noise(), codec='mpeg4', times=places)
  with open_video.open_video(path, max_pixels=2**20) as video:
    assert video.num_listed == 60
    assert sum(1 for _ in video.frames()) == 50
    assert video.num_empty == 10
  assert _shown(path)[1] == []
  content = path.read_bytes()
  for percent in (40, 60, 80, 95):
    path.write_bytes(content[: len(content) * percent // 100])
    assert any('that the file lists' in text for text in _shown(path)[1])


@pytest.fixture(name='avi_of_two_places_each')
def fixture_avi_of_two_places_each(tmp_path):
  """A picture and an empty place behind it, and so on, up to the end."""
  path = tmp_path / 'x.avi'
  sample_videos.write(
    path,
    _noise(),
    times=range(0, 2 * _NUM_PICTURES, 2),
    time_base=fractions.Fraction(1, 50),
    options=_B_FRAMES,
  )
  with open_video.open_video(path, max_pixels=2**20) as video:
    assert video.num_listed == 2 * _NUM_PICTURES
  return path


def test_empty_places_behind_the_last_picture_are_not_missing(
  avi_of_two_places_each,
):
  assert _shown(avi_of_two_places_each)[1] == []


def _without_its_end(content):
  del content[len(content) * 95 // 100 :]


def _without_a_picture(content):
  # Behind the name of a piece stands its length.
  pieces = re.finditer(rb'00dc(?!\0{4})', content)
  content[next(itertools.islice(pieces, 25, None)).start()] ^= 255


def _with_more_in_its_header(content):
  place = content.index(b'strh') + 40
  assert int.from_bytes(content[place : place + 4], 'little') == 100
  content[place : place + 4] = (104).to_bytes(4, 'little')


@pytest.mark.parametrize(
  'damage', [_without_its_end, _without_a_picture, _with_more_in_its_header]
)
def test_empty_places_hide_no_lost_picture(avi_of_two_places_each, damage):
  content = bytearray(avi_of_two_places_each.read_bytes())
  damage(content)
  avi_of_two_places_each.write_bytes(content)
  warnings = _shown(avi_of_two_places_each)[1]
  assert any('that the file lists' in text for text in warnings)


@pytest.mark.parametrize('options', [_B_FRAMES, {'bf': '0'}])
def test_nothing_is_missing_where_asf_counts_from_decoding(tmp_path, options):
  path = tmp_path / 'x.asf'
  sample_videos.write(path, _noise(), options=options)
  assert _shown(path)[1] == []


# How long pictures are held back.


@dataclasses.dataclass
class _Plane:
  buffer_size: int


@dataclasses.dataclass
class _Picture:
  pts: int | None
  num_bytes: int = 1000

  @property
  def planes(self):
    return [_Plane(self.num_bytes)]


def _most_held(packets, pictures, num_bytes=1000):
  """The most pictures held back at once, and the timestamps given."""
  order = picture_order.PictureOrder(1000)
  packets = iter(packets)
  given, most = [], 0
  for number, pts in enumerate(pictures):
    order.expect(next(packets, None))
    if not number:  # A decoder is ahead by some packets.
      order.expect(next(packets, None))
      order.expect(next(packets, None))
    given += [p.pts for p in order.push(_Picture(pts, num_bytes))]
    most = max(most, number + 1 - len(given))
  given += [p.pts for p in order.flush()]
  return most, given


def test_pictures_in_order_are_not_held():
  decoded = [0, 4, 2, 1, 3, 8, 6, 5, 7, 9, 9, 10]
  assert _most_held(decoded, sorted(decoded)) == (0, sorted(decoded))
  assert _most_held([None] * 5, [None] * 5) == (0, [None] * 5)


def test_pictures_out_of_order_are_held_until_the_earlier_one_comes():
  shown = [1, 4, 3, 5, 2, 7, 6]
  assert _most_held(range(1, 9), shown) == (3, [1, 2, 3, 4, 5, 6, 7])


def test_lost_pictures_are_not_waited_for_without_end():
  decoded = range(100)
  shown = [n for n in decoded if n not in (3, 40)]
  most, given = _most_held(decoded, shown)
  assert given == shown
  assert most == 17
  # 8192 x 4096 pixels, and larger than all that may be held.
  assert _most_held(decoded, shown, 50 * 2**20) == (5, shown)
  assert _most_held(decoded, shown, 2**30) == (0, shown)


def test_a_clock_that_begins_anew_is_no_matter_of_order():
  decoded = [*range(5000, 5010), *range(10)]
  assert _most_held(decoded, decoded) == (0, decoded)
