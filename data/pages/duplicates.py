"""Finds videos of a data set that are the same or look the same, and where."""

import dataclasses
import itertools

import numpy as np
import pyarrow
from dataset.dataset_layout import SPLITS
from media import file_parts
from progress import progress_bar

from pages import near_duplicates

# What makes two videos a pair, in the order of the page.
SAME_FILE, SAME_FRAMES = 'same file', 'same frames'
OVERLAPPING = 'overlapping parts of a file'
ALIKE, MIRRORED = 'look alike', 'look alike, mirrored'
KINDS = (SAME_FILE, SAME_FRAMES, OVERLAPPING, ALIKE, MIRRORED)
WHERE = ('within train', 'within val', 'across train and val')


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two videos that are the same or look the same.

  Attributes:
    rows: of both, counting the videos of train, then those of val.
    kind: one of KINDS.
    distance: bits that differ; None of parts that overlap.
    where: one of WHERE.
    is_featureless: whether there is nothing to see in them.
  """

  rows: tuple
  kind: str
  distance: int
  where: str
  is_featureless: bool


@dataclasses.dataclass(frozen=True)
class Duplicates:
  """All that was found about videos that are the same.

  Attributes:
    pairs: list of Pair, those across the splits first.
    same_in_train: bool [V], validation videos that are in train, too, all or
      a part of them.
    parts_in_train: bool [V], others of whose file another part is in train.
    alike_in_train: bool [V], others that look like one of train.
    mirrored_in_train: bool [V], others that look like a mirrored one of train.
    featureless: rows of videos that were not compared by their looks.
    num_crowded: as in near_duplicates.Pairs.
    is_cut: likewise.
  """

  pairs: list
  same_in_train: np.ndarray
  parts_in_train: np.ndarray
  alike_in_train: np.ndarray
  mirrored_in_train: np.ndarray
  featureless: np.ndarray
  num_crowded: int
  is_cut: bool

  def count(self, kind, where):
    """Returns the number of pairs of a kind at a place."""
    return sum((p.kind, p.where) == (kind, where) for p in self.pairs)


def find_duplicates(tables, hashes):
  """Finds videos that are the same, and videos that look the same.

  Of videos that are the same, the first stands for all when looks are
  compared. Parts of a file are the same if their times are.

  Args:
    tables: split -> table, as dataset_facts.read_tables returns them.
    hashes: split -> video_hashes.Hashes.

  Returns:
    Duplicates.
  """
  num_train = tables['train'].num_rows
  files, frames = (
    _numbered([tables[split][name] for split in SPLITS])
    for name in ('source_sha256', 'frames_sha256')
  )
  times = file_parts.times_of(
    [path for split in SPLITS for path in tables[split]['path'].to_pylist()]
  )
  parts = _numbered_rows(files, times)
  is_compared, is_featureless = (
    _of_both(hashes, name) for name in ('is_compared', 'is_featureless')
  )
  same = near_duplicates.same_pairs(parts, frames)
  first = np.arange(len(is_compared))
  first[same.rows[:, 1]] = same.rows[:, 0]
  _, first_of_part = np.unique(parts, return_index=True)
  overlapping = file_parts.overlapping_pairs(
    files, times, first_of_part, num_train
  )
  rows = np.flatnonzero(is_compared & (first == np.arange(len(first))))
  is_val = np.arange(len(first)) >= num_train
  near, mirrored = _looking_alike(hashes, rows, is_val[rows], overlapping)
  overlaps = _in_train(overlapping, num_train, len(first))
  overlaps = overlaps[first_of_part[parts]]
  same_in_train = is_val & ((first < num_train) | overlaps)
  parts_in_train = is_val & np.isin(files, files[:num_train]) & ~same_in_train
  # A video that is the same as others speaks for them.
  looks = _in_train(near.rows, num_train, len(first))[first]
  looks_mirrored = _in_train(mirrored.rows, num_train, len(first))[first]
  is_one_file = parts[same.rows[:, 0]] == parts[same.rows[:, 1]]
  found = {
    SAME_FILE: (same.rows[is_one_file], itertools.repeat(0)),
    SAME_FRAMES: (same.rows[~is_one_file], itertools.repeat(0)),
    OVERLAPPING: (_without(overlapping, same.rows), itertools.repeat(None)),
    ALIKE: (near.rows, near.distance.tolist()),
    MIRRORED: (mirrored.rows, mirrored.distance.tolist()),
  }
  return Duplicates(
    pairs=_in_order(found, num_train, is_featureless),
    same_in_train=same_in_train,
    parts_in_train=parts_in_train,
    alike_in_train=looks & is_val & ~same_in_train,
    mirrored_in_train=looks_mirrored & is_val & ~same_in_train & ~looks,
    featureless=np.flatnonzero(is_featureless),
    num_crowded=max(near.num_crowded, mirrored.num_crowded),
    is_cut=near.is_cut or mirrored.is_cut,
  )


def _of_both(hashes, name):
  """Puts an attribute of the Hashes of both splits together."""
  return np.concatenate([getattr(hashes[split], name) for split in SPLITS])


def _looking_alike(hashes, rows, is_val, known):
  """Compares some videos by their looks.

  Args:
    hashes: split -> video_hashes.Hashes.
    rows: int64 [R], of the videos.
    is_val: bool [R], whether they are of validation.
    known: int64 [P, 2], pairs that are left out.

  Returns:
    (near, mirrored): near_duplicates.Pairs; no pair is in both.
  """
  bits, waves, mirrored_bits, mirrored_waves, is_flat = (
    _of_both(hashes, name)[rows]
    for name in ('bits', 'waves', 'mirrored_bits', 'mirrored_waves', 'is_flat')
  )
  total = 2 * near_duplicates.num_bands()
  with progress_bar('comparing', 'band', total) as bar:
    near = near_duplicates.near_pairs(bits, waves, is_flat, is_val, bar.update)
    mirrored = near_duplicates.mirrored_pairs(
      (bits, waves),
      (mirrored_bits, mirrored_waves),
      is_flat,
      is_val,
      bar.update,
    )
  for found in (near, mirrored):
    found.rows = rows[found.rows]
  known = set(map(tuple, known.tolist()))
  for found in (near, mirrored):
    is_new = np.array(
      [tuple(p) not in known for p in found.rows.tolist()], bool
    )
    found.rows, found.distance = found.rows[is_new], found.distance[is_new]
    known.update(map(tuple, found.rows.tolist()))
  return near, mirrored


def _without(rows, others):
  """Leaves out pairs that are others, too: int64 [P, 2]."""
  others = set(map(tuple, others.tolist()))
  is_new = [tuple(ends) not in others for ends in rows.tolist()]
  return rows[np.array(is_new, bool)]


def _in_order(found, num_train, is_featureless):
  """Makes a list of Pair of what was found, in the order of the page.

  Args:
    found: kind -> (rows int64 [P, 2], distance of each).
    num_train: videos of train.
    is_featureless: bool [V].
  """
  pairs = [
    _pair(ends, kind, distance, num_train, bool(is_featureless[ends].all()))
    for kind, (rows, distances) in found.items()
    for ends, distance in zip(rows.tolist(), distances, strict=False)
  ]
  order = {where: k for k, where in enumerate(reversed(WHERE))}
  return sorted(
    pairs,
    key=lambda p: (
      p.is_featureless,
      order[p.where] > 0,
      KINDS.index(p.kind),
      p.distance or 0,
    ),
  )


def _in_train(rows, num_train, num_videos):
  """Marks the validation videos of pairs across the splits: bool [V]."""
  is_across = (rows[:, 0] < num_train) & (rows[:, 1] >= num_train)
  found = np.zeros(num_videos, bool)
  found[rows[is_across, 1]] = True
  return found


def _numbered(columns):
  """Gives equal strings of some columns equal numbers: int64 [V]."""
  strings = [chunk for column in columns for chunk in column.chunks]
  if not strings:
    return np.zeros(0, np.int64)
  encoded = pyarrow.concat_arrays(strings).dictionary_encode()
  return np.asarray(encoded.indices, np.int64)


def _numbered_rows(files, times):
  """Gives equal times of equal files equal numbers: int64 [V]."""
  keys = np.column_stack([files.astype(np.float64), times])
  _, numbers = np.unique(keys, axis=0, return_inverse=True)
  return numbers.reshape(-1)


def _pair(ends, kind, distance, num_train, is_featureless):
  number_in_val = sum(row >= num_train for row in ends)
  where = (WHERE[0], WHERE[2], WHERE[1])[number_in_val]
  return Pair(tuple(ends), kind, distance, where, is_featureless)
