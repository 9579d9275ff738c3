"""Which videos are parts of one file, and which of these overlap."""

import collections

import numpy as np

from media.segments import segment_of_path


def times_of(paths):
  """Returns when videos start and end within their files.

  Args:
    paths: list of str, [V], as `VideoFile.path`.

  Returns:
    float64 [V, 2], seconds; 0 and infinity for a whole file.
  """
  times = np.empty((len(paths), 2))
  for row, path in enumerate(paths):
    segment = segment_of_path(path)
    start, end = (segment.start, segment.end) if segment else (0, None)
    times[row] = start, np.inf if end is None else end
  return times


def overlapping_pairs(files, times, rows, num_train):
  """Pairs videos that share a part of a file.

  Each video is paired with one at most: of validation with one of train where
  one overlaps, else with one that begins before it, or with it, in its split.

  Args:
    files: int64 [V], equal for the same file.
    times: float64 [V, 2], as `times_of` returns them.
    rows: int64 [R], those that are looked at, no two of equal file and times.
    num_train: the number of rows of train, which are the first.

  Returns:
    int64 [P, 2], the lower row first.
  """
  rows_of_file = collections.defaultdict(list)
  for row in rows.tolist():
    rows_of_file[files[row]].append(row)
  pairs = []
  for group in rows_of_file.values():
    if len(group) > 1:
      pairs += _pairs_of_file(np.array(group), times, num_train)
  return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _pairs_of_file(group, times, num_train):
  group = group[np.lexsort((group, times[group, 0]))]
  train, val = group[group < num_train], group[group >= num_train]
  pairs = _within(train, times)
  in_train = dict(_across(train, val, times))
  pairs += [(row, other) for other, row in in_train.items()]
  pairs += [pair for pair in _within(val, times) if pair[1] not in in_train]
  return [tuple(sorted(pair)) for pair in pairs]


def _within(group, times):
  """Pairs each row with the one of those before it that ends last."""
  pairs, last = [], None
  for row in group.tolist():
    if last is not None and times[last, 1] > times[row, 0]:
      pairs.append((last, row))
    if last is None or times[row, 1] > times[last, 1]:
      last = row
  return pairs


def _across(train, val, times):
  """Yields (row of val, row of train) of those that overlap, each row once."""
  lasts, last = [], None
  for row in train.tolist():
    if last is None or times[row, 1] > times[last, 1]:
      last = row
    lasts.append(last)
  # Of those that begin before it ends, the one that ends last.
  counts = np.searchsorted(times[train, 0], times[val, 1])
  for row, count in zip(val.tolist(), counts.tolist(), strict=True):
    if count and times[lasts[count - 1], 1] > times[row, 0]:
      yield row, lasts[count - 1]
