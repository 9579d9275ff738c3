import numpy as np
import pytest
from media import file_parts
from media.segments import segment_of_path

INF = np.inf


def pairs_of(files, times, num_train):
  files, times = np.array(files), np.array(times, float).reshape(-1, 2)
  _, rows = np.unique(
    np.column_stack([files, times]), axis=0, return_index=True
  )
  found = file_parts.overlapping_pairs(files, times, rows, num_train)
  return list(map(tuple, found.tolist()))


def overlap(times, one, other):
  return times[one][0] < times[other][1] and times[other][0] < times[one][1]


@pytest.mark.parametrize(
  'path, times',
  [
    ('a.mp4', (0, INF)),
    ('a.mp4#t=1.5,4', (1.5, 4)),
    ('a.mp4#t=10', (10, INF)),
    ('a#b.mp4#t=0,0.1', (0, 0.1)),
    ('a#t=1,2.mp4', (0, INF)),
    ('a.mp4#t=4,1', (0, INF)),
    ('a.mp4#t=1,2,3', (0, INF)),
    ('a.mp4#t=' + '9' * 5000, (0, INF)),
    ('', (0, INF)),
  ],
)
def test_times_are_those_that_the_path_names(path, times):
  assert tuple(file_parts.times_of([path])[0]) == times


def test_a_path_gives_the_segment_that_it_was_made_of():
  segment = segment_of_path('a.mp4#t=0.000001,7')
  assert segment.fragment == '#t=0.000001,7'
  assert segment_of_path('a.mp4') is None


def test_parts_that_touch_do_not_overlap():
  assert pairs_of([0, 0], [(0, 5), (5, 9)], 1) == []
  assert pairs_of([0, 0], [(0, 5), (4.9, 9)], 1) == [(0, 1)]
  assert pairs_of([0, 1], [(0, 5), (0, 5)], 1) == []


def test_a_whole_file_overlaps_with_each_part():
  times = [(0, INF), (3, 4), (7, INF)]
  assert pairs_of([0, 0, 0], times, 1) == [(0, 1), (0, 2)]


def test_a_part_is_paired_with_one_of_train_before_others():
  times = [(6, 9), (0, 7), (1, 8)]
  assert pairs_of([0, 0, 0], times, 1) == [(0, 1), (0, 2)]
  assert pairs_of([0, 0, 0], times, 3) == [(0, 2), (1, 2)]


@pytest.mark.parametrize('seed', range(20))
def test_what_overlaps_is_found_whatever_the_order(seed):
  """Against comparing each with each."""
  rng = np.random.default_rng(seed)
  files, starts = rng.integers(0, 3, 30), rng.integers(0, 30, 30)
  times = np.stack([starts, starts + rng.integers(1, 6, 30)], 1).astype(float)
  times[rng.random(30) < 0.1, 1] = INF
  rows = np.unique(np.column_stack([files, times]), axis=0, return_index=True)[
    1
  ]
  found = pairs_of(files, times, 15)
  every = {
    (one, other)
    for one in rows
    for other in rows
    if one < other and files[one] == files[other] and overlap(times, one, other)
  }
  assert set(found) <= every
  across = {other for one, other in every if one < 15 <= other}
  assert {other for one, other in found if one < 15 <= other} == across
  # Of two that overlap in a split, the one that begins later is in a pair.
  later = {
    max(pair, key=lambda row: (times[row, 0], row))
    for pair in every
    if (pair[0] < 15) == (pair[1] < 15)
  }
  assert later <= {row for pair in found for row in pair}


def test_many_parts_of_one_file_take_no_time_to_compare():
  count = 100_000
  times = np.stack([np.arange(count), np.full(count, 2.0 * count)], 1)
  files = np.zeros(count, int)
  rows = np.arange(count)
  found = file_parts.overlapping_pairs(files, times, rows, count // 2)
  assert len(found) == count - 1
