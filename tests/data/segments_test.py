import fractions
import time

import pytest
from media import segments
from media.open_video import TimedFrame
from media.video_errors import VideoError


def _frames(*times, last=1):
  """Frames named by their numbers, each until the next, at odd times."""
  return [
    TimedFrame(number, fractions.Fraction(time), fractions.Fraction(last))
    for number, time in enumerate(times)
  ]


def _cut(frames, start, end):
  segment = segments.parse_segment(start, end)
  return [
    (frame.picture, float(frame.time), float(frame.time + frame.duration))
    for frame in segment.cut(iter(frames), 'x.mp4')
  ]


def test_pictures_across_a_border_are_cut_there():
  frames = _frames(0, 1, 5, 6)
  assert _cut(frames, 2, 5.5) == [(1, 2, 5), (2, 5, 5.5)]
  assert _cut(frames, 3, 4) == [(1, 3, 4)]
  assert _cut(frames, 6.5, None) == [(3, 6.5, 7)]
  assert _cut(frames, None, 1) == [(0, 0, 1)]


def test_borders_on_pictures_take_the_first_and_not_the_last():
  assert [n for n, _, _ in _cut(_frames(0, 1, 2, 3), 1, 3)] == [1, 2]


def test_nothing_is_read_far_beyond_the_end():
  frames = iter(_frames(*range(100)))
  segment = segments.parse_segment(0, 2)
  assert len(list(segment.cut(frames, 'x.mp4'))) == 2
  assert next(frames).picture == 4


def test_clocks_that_step_back_do_no_harm():
  assert [n for n, _, _ in _cut(_frames(0, 2, 1, 3), 0.5, 4)] == [0, 2, 3]


def test_what_a_clock_jumps_ahead_counts_and_shows_nothing():
  second = fractions.Fraction(1)
  frames = [
    TimedFrame(number, number * second, second, skipped * second)
    for number, skipped in enumerate([0, 0, 15, 15])
  ]
  assert _cut(frames, 17, 18) == [(2, 2, 3)]
  assert _cut(frames, 17.5, None) == [(2, 2.5, 3), (3, 3, 4)]
  assert _cut(frames, 1, 17.5) == [(1, 1, 2), (2, 2, 2.5)]
  for start, end in ((5, 6), (2, 17), (20, None), (19, 19.5)):
    with pytest.raises(VideoError, match='no picture within'):
      _cut(frames, start, end)


def test_a_segment_without_pictures_is_an_error():
  with pytest.raises(VideoError, match=r'no picture within #t=9'):
    _cut(_frames(0, 1), 9, None)


def test_segments_are_written_without_needless_digits():
  for start, end, text in (
    ('1.50', '4', '#t=1.5,4'),
    (None, 0.1, '#t=0,0.1'),
    (10, '', '#t=10'),
    ('1e-6', None, '#t=0.000001'),
  ):
    assert segments.parse_segment(start, end).fragment == text
  assert segments.parse_segment('', None) is None


@pytest.mark.parametrize(
  'start, end',
  [
    ('x', 1),
    (-1, 2),
    ('inf', None),
    ('nan', 1),
    (2, 2),
    (0, '1e9'),
    ('1/0', 2),
    ('1_0', None),
    ('\u0663', None),
    ('1/3', 2),
    ('1e999999999', None),
    (0, '1E+50000000'),
    (0, '1e-999999999'),
    ('9' * 5000, None),
  ],
)
def test_impossible_times_are_refused(start, end):
  with pytest.raises(ValueError, match=r'seconds|after the start'):
    segments.parse_segment(start, end)


@pytest.mark.parametrize(
  'text', ['1e-999999999', '1E-50000000', '0e999999999', '0.' + '0' * 99_999]
)
def test_exponents_of_any_size_are_read_at_once(text):
  began = time.process_time()
  assert segments.parse_segment(text, 1).fragment == '#t=0,1'
  assert time.process_time() - began < 1


def test_a_half_of_a_microsecond_goes_to_the_even_one():
  for text, microseconds in (
    ('0.0000005', 0),
    ('0.0000005000000000000000000000000000001', 1),
    ('0.0000015', 2),
    ('1.0000025', 1_000_002),
  ):
    start = segments.parse_segment(text, None).start
    assert start == fractions.Fraction(microseconds, 1_000_000)


def test_of_a_long_text_the_message_has_the_beginning():
  with pytest.raises(ValueError, match='is not a number of seconds') as caught:
    segments.parse_segment('9' * 5000, None)
  assert len(str(caught.value)) < 100
