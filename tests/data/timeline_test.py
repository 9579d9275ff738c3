import dataclasses
import fractions

import pytest
from media import timeline


@dataclasses.dataclass
class _Frame:
  time: fractions.Fraction
  duration: fractions.Fraction = fractions.Fraction(40, 1000)
  skipped: fractions.Fraction = fractions.Fraction(0)


@dataclasses.dataclass
class _Video:
  """What a timeline asks of an OpenVideo."""

  claimed_seconds: float | None = None
  is_claim_of_pictures: bool = True
  rate_hz: fractions.Fraction = fractions.Fraction(25)
  num_listed: int = 0
  num_not_shown: int = 0
  num_empty: int = 0
  num_ahead: int = 0
  late_start_seconds: float = 0.0
  problem: str | None = None
  num_damaged_packets: int = 0
  num_damaged_pictures: int = 0
  first_error: str | None = None
  only_rises: bool = True

  def problem_at_end(self):
    return self.problem


def _warnings(milliseconds, **facts):
  line = timeline.Timeline()
  for time in milliseconds:
    line.add(_Frame(fractions.Fraction(time, 1000)))
  return line.warnings(_Video(**facts))


def test_seconds_that_a_clock_jumped_ahead_are_told():
  line = timeline.Timeline()
  for number, skipped in enumerate([0, 0, 15, 0, 15, 15.5]):
    line.add(
      _Frame(
        fractions.Fraction(number, 25), skipped=fractions.Fraction(skipped)
      )
    )
  assert line.warnings(_Video()) == [
    'gaps: its clock jumps ahead 2 times, by 15.50 s in all, which are left out'
  ]
  assert line.warnings(_Video(only_rises=False)) == []


def test_a_jump_before_a_part_is_none_of_it():
  line = timeline.Timeline()
  for number, skipped in enumerate([15, 15, 15.5]):
    line.add(
      _Frame(
        fractions.Fraction(number, 25), skipped=fractions.Fraction(skipped)
      )
    )
  assert line.warnings(_Video()) == [
    'gaps: its clock jumps ahead 1 time, by 0.50 s in all, which are left out'
  ]


EVEN = range(0, 1200, 40)
UNEVEN = [0, 20, 90, 120, 210, 230, 300, 330, 420, 510, 520, 600, 690, 750]


@pytest.mark.parametrize(
  'times, facts',
  [
    (EVEN, {}),
    (EVEN, {'claimed_seconds': 1.2, 'num_listed': 30}),
    (EVEN, {'claimed_seconds': 1.22}),
    (EVEN, {'claimed_seconds': 1.3, 'is_claim_of_pictures': False}),
    ([round(n * 1000 / 30) for n in range(30)], {}),
    ([round(n * 1000 / 60) for n in range(60)], {}),
    (UNEVEN, {}),
    ([0], {'claimed_seconds': 0.04}),
    (range(500, 1700, 40), {'claimed_seconds': 1.2}),
    (range(0, 800, 40), {'num_listed': 30, 'num_not_shown': 10}),
    ([0, 40, 120, 160, 200], {'num_listed': 6, 'num_empty': 1}),
    (EVEN, {'claimed_seconds': 1.28, 'num_ahead': 2}),
    (range(-400, 800, 40), {}),
    ([0, 40, 120, 80, 160, 240, 200], {}),
  ],
)
def test_a_whole_video_has_no_warning(times, facts):
  assert _warnings(times, **facts) == []


@pytest.mark.parametrize(
  'times, facts, word',
  [
    (range(0, 1160, 40), {'claimed_seconds': 1.2}, 'truncated: 1.16 s of 1.20'),
    (
      range(0, 600, 40),
      {'claimed_seconds': 1.2, 'is_claim_of_pictures': False},
      'truncated',
    ),
    ([*range(0, 400, 40), *range(600, 1200, 40)], {}, 'gaps: about 5 pictures'),
    (EVEN, {'num_listed': 31}, '30 of 31 pictures'),
    (EVEN, {'num_listed': 32, 'num_empty': 1}, '30 of 32 pictures'),
    (EVEN, {'claimed_seconds': 1.32, 'num_ahead': 2}, 'truncated'),
    ([0, 40, 200, 240, 280, 320], {'num_empty': 1}, 'gaps: about 2 pictures'),
    ([0, 40, 80, 160, 200, 240], {}, 'gaps: about 1 picture missing'),
    (EVEN, {'late_start_seconds': 7.0}, 'its first picture is at 7.00 s'),
    (EVEN, {'problem': 'no trailer'}, 'incomplete: no trailer'),
    (EVEN, {'num_listed': 90, 'num_not_shown': 60}, '60 of 90 pictures'),
    ([0, 0, 0, 1], {}, '4 pictures within 0.001000 s: its clock'),
    ([0, 40, 80, 10, 20, 70, 120], {}, '3 pictures left out: their times'),
    ([0, 2100, 4200], {}, '3 pictures within 4.20 s: its clock'),
    (EVEN, {'num_damaged_packets': 2, 'first_error': 'no'}, 'packets: 2 (no)'),
    (EVEN, {'num_damaged_pictures': 3}, 'damaged pictures: 3'),
  ],
)
def test_what_is_missing_is_said(times, facts, word):
  (warning,) = _warnings(times, **facts)
  assert word in warning
