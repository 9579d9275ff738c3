import dataclasses
import fractions

import pytest
from media import stream_clock

_TICK = fractions.Fraction(1, 25)


@dataclasses.dataclass
class _Picture:
  pts: int | None
  dts: int | None = None
  duration: int = 1
  time_base: fractions.Fraction = _TICK


def _clock(*, is_spliced=True, is_untimed=False, offset=0):
  return stream_clock.StreamClock(
    offset=None if offset is None else offset * _TICK,
    time_base=_TICK,
    frame_seconds=_TICK,
    is_spliced=is_spliced,
    is_untimed=is_untimed,
  )


def _times(pictures, **options):
  """The times given to pictures, in ticks."""
  clock = _clock(**options)
  return [clock.read(picture)[0] / _TICK for picture in pictures]


def _shown_at(*ticks, **options):
  return _times([_Picture(tick) for tick in ticks], **options)


def test_parts_of_a_spliced_stream_follow_one_another():
  assert _shown_at(0, 1, 2, 3, 4, 0, 1, 2, 3, 4) == [*range(10)]
  assert _shown_at(0, 1, 2, 9000, 9001, 9002) == [*range(6)]
  assert _shown_at(0, 1, 5, 6) == [0, 1, 5, 6]
  assert _shown_at(0, 1, 2, 3, 1, 4) == [0, 1, 2, 3, 1, 4]


def _skipped(*ticks, **options):
  """Ticks that were skipped, after each picture."""
  clock = _clock(**options)
  skipped = []
  for tick in ticks:
    clock.read(_Picture(tick))
    skipped.append(clock.skipped / _TICK)
  return skipped


def test_a_jump_ahead_counts_from_when_the_next_time_fits_it():
  assert _skipped(0, 1, 2, 9000, 9001, 9002) == [0, 0, 0, 0, 8997, 8997]
  assert _skipped(0, 1, 9000, 3, 4) == [0] * 5
  assert _skipped(0, 1, 2, 3, 4, 0, 1, 2) == [0] * 6 + [-5] * 2
  assert _skipped(0, 1, 5, 6) == [0] * 4
  assert _skipped(0, 9000, 9001, 9002) == [0] * 4
  assert _skipped(0, 30, 9000, 9001, is_spliced=False) == [0] * 4
  # What a step back to before 0 looks like in 33 bits.
  end = 2**33 // 3600
  assert _skipped(0, 1, end - 9000, end - 8999, end - 8998) == [0] * 5


def test_late_pictures_of_before_a_gap_take_it_back():
  # H.264 may give them behind the first ones of after it.
  assert _skipped(0, 1, 403, 404, 2, 3, 405, 406) == [
    *(0, 0, 0, 401),
    *(401, -2, -2, 399),
  ]


@pytest.mark.parametrize(
  'ticks, rises',
  [
    ([], True),
    ([0, 1, 9000, 9001], True),
    ([0, 3, None, 1, 3, 2, 4], True),
    ([0, 1, 9000, 2, 3], False),
    ([9, 10, 6, 7], False),
  ],
)
def test_a_clock_that_steps_back_does_not_only_rise(ticks, rises):
  clock = stream_clock.DecodingClock(time_base=_TICK, frame_seconds=_TICK)
  for tick in ticks:
    clock.add(tick)
  assert clock.only_rises == rises


def test_other_streams_step_back_by_up_to_a_second():
  assert _shown_at(0, 20, 5, 6, is_spliced=False) == [0, 20, 5, 6]
  assert _shown_at(0, 30, 4, 5, is_spliced=False) == [0, 30, 31, 32]


@pytest.mark.parametrize('wrong', [-90_000, -10, 90_000])
def test_one_wrong_time_moves_no_other_picture(wrong):
  assert _shown_at(20, 21, wrong, 23, 24, 25) == [20, 21, 22, 23, 24, 25]


def test_a_missing_time_is_that_of_decoding_or_follows_the_last():
  pictures = [_Picture(0), _Picture(None, 1), _Picture(None), _Picture(3)]
  assert _times(pictures) == [0, 1, 2, 3]


def test_a_stream_without_times_takes_those_of_decoding():
  pictures = [_Picture(0, 1), _Picture(2, 2), _Picture(3, 3), _Picture(4)]
  assert _times(pictures, is_untimed=True) == [1, 2, 3, 4]
  assert _times(pictures, is_untimed=True, offset=None) == [0, 1, 2, 3]


def test_a_clock_of_unknown_start_begins_with_the_first_picture():
  assert _shown_at(7, 8, 10, offset=None) == [0, 1, 3]
  pictures = [_Picture(None), _Picture(7), _Picture(8)]
  assert _times(pictures, offset=None) == [0, 1, 2]
