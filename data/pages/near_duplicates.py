"""Finds videos that are the same, and videos that look the same.

Two videos look the same when the pictures at three places in them do: videos
that differ in few of the 192 bits of `video_hashes`, and whose pictures have
nearly the same lowest frequencies, are pairs. Nothing compares every video with
every other one: see `near_pairs`.

Copies at another size, quality or frame rate are found, mirrored left to right
or not. Copies that were cropped a good deal, cut to another part or sped up in
part are not.
"""

import dataclasses

import numpy as np

from pages.video_hashes import NUM_BITS, NUM_PLACES

# Bits in which two videos that look the same may differ, and how alike their
# lowest frequencies are at least (1 is the same). Of 1,000 rendered videos, no
# two different ones within 40 bits are more alike than 0.86; copies of them at
# half the size, or at H.264's quality 35, differ in up to 32 bits and are more
# alike than 0.93. Some copies that are worse in both are missed.
MAX_DISTANCE = 36
MIN_SIMILARITY = 0.9
_BAND_BITS = 16
_NUM_BANDS = NUM_BITS // _BAND_BITS
# Two videos within this distance have a band in which they differ in one bit or
# none, because two bits in each band are more.
SURE_DISTANCE = 2 * _NUM_BANDS - 1
_MASKS = (0, *(1 << bit for bit in range(_BAND_BITS)))

# Comparisons done at a time, and in a band: they bound memory and time.
_CHUNK = 500_000
_MAX_COMPARISONS = 100_000_000
MAX_PAIRS = 200_000
# Videos of the same bits but of other lowest frequencies: so many of them stand
# for those that are like them. What is like none of these stands for itself.
_MAX_STAND_INS = 8
# Videos of train that a copy is compared with, before it is like none of them.
_MAX_TRIES = 16


@dataclasses.dataclass
class Pairs:
  """Pairs of rows.

  Attributes:
    rows: int64 [P, 2], the lower row first.
    distance: int64 [P], differing bits; 0 for videos that are the same.
    num_crowded: videos so like a great many others in some of their bits that
      they were compared by the rest only.
    is_cut: whether there were more than MAX_PAIRS, so that the farthest are
      left out.
  """

  rows: np.ndarray
  distance: np.ndarray
  num_crowded: int = 0
  is_cut: bool = False


def same_pairs(*keys):
  """Pairs videos of which one key is the same, each with the first such.

  Args:
    *keys: lists or arrays, one value for each video, such as checksums.

  Returns:
    Pairs, of distance 0; a video is the second one of a pair once at most.
  """
  first = np.arange(len(keys[0]))
  for key in keys:
    _, index, inverse = np.unique(
      np.asarray(key), return_index=True, return_inverse=True
    )
    # The first of the first: two videos are often the same by several keys.
    first = np.minimum(first, first[index][inverse])
  first = first[first]
  second = np.flatnonzero(first != np.arange(len(first)))
  rows = np.stack([first[second], second], axis=1)
  return Pairs(rows, np.zeros(len(rows), np.int64))


def near_pairs(bits, waves, is_flat, is_val, progress):
  """Pairs videos that differ in few bits, none compared with all others.

  Of the videos of the same bits in one split, and nearly the same waves, the
  first stands for the others: they are paired with it, and those of validation
  also with the nearest video of train that it looks like and they do, too.

  Two different ones that are near have, in at least one of twelve bands of 16
  bits, the same value but for one bit: always within SURE_DISTANCE, and nearly
  always within MAX_DISTANCE. So each band is sorted, and a video is compared
  with those whose band is its own or has one bit turned: 17 of 65,536 values.
  With 240,000 videos of even bits that is a three-hundredth of all pairs.

  Where so many videos share the value of a band that it would be far more, the
  most crowded values of that band are passed over, and the videos counted.

  Args:
    bits: uint64 [N, NUM_PLACES].
    waves: int8 [N, NUM_PLACES, 64].
    is_flat: bool [N, NUM_PLACES]; a flat picture proves nothing, so that the
      others have to be the more alike.
    is_val: bool [N], whether a video is of validation, and not of train.
    progress: called with 1 after each of the `num_bands()` bands.

  Returns:
    Pairs, sorted by distance. Where they are cut, a video of validation that
    looks like one of train is in a pair with one all the same.
  """
  stand_in = _stand_ins(bits, waves, is_flat, is_val)
  number = np.arange(len(bits))
  first = np.flatnonzero(stand_in == number)
  copies = np.flatnonzero(stand_in != number)
  same = np.stack([stand_in[copies], copies], axis=1)
  found = _pairs_of_stand_ins(
    bits[first], waves[first], is_flat[first], is_val[first], progress
  )
  near = first[found.rows]
  of_copies = _pairs_of_copies(
    Pairs(near, found.distance), stand_in, waves, is_flat, is_val
  )
  rows = np.concatenate([same, near, of_copies.rows])
  distance = np.concatenate(
    [np.zeros(len(same), np.int64), found.distance, of_copies.distance]
  )
  order = np.lexsort((rows[:, 1], rows[:, 0], distance))
  found.rows, found.distance = rows[order], distance[order]
  return found


def mirrored_pairs(hashes, mirrored, is_flat, is_val, progress):
  """Pairs videos of which one is near the other one mirrored left to right.

  The mirrored pictures are compared as if they were further videos, so that
  what near_pairs says about the pairs that it finds holds here, too.

  Args:
    hashes: (bits, waves), as near_pairs takes them.
    mirrored: (bits, waves) of the mirrored pictures.
    is_flat: bool [N, NUM_PLACES], of either.
    is_val: bool [N], as near_pairs takes it.
    progress: called with 1 after each of the `num_bands()` bands.

  Returns:
    Pairs of different rows, each once, sorted by distance. A video that looks
    the same when it is mirrored is paired with those that look like it.
  """
  count = len(is_flat)
  bits, waves = map(np.concatenate, zip(hashes, mirrored, strict=True))
  is_flat, is_val = np.tile(is_flat, (2, 1)), np.tile(is_val, 2)
  found = near_pairs(bits, waves, is_flat, is_val, progress)
  one, other = found.rows[:, 0], found.rows[:, 1] - count
  is_mirrored = (one < count) & (other >= 0) & (one != other)
  rows = np.sort(np.stack([one, other], axis=1)[is_mirrored], axis=1)
  # Sorted by distance, so that the first of equal pairs is the nearest one.
  _, first = np.unique(rows, axis=0, return_index=True)
  first.sort()
  found.rows, found.distance = rows[first], found.distance[is_mirrored][first]
  return found


def num_bands():
  """Returns how often near_pairs and mirrored_pairs report progress."""
  return _NUM_BANDS


def _stand_ins(bits, waves, is_flat, is_val):
  """Finds the video of the same bits and split that stands for each: int64 [N].

  It is the first that looks like it; those like none of a few stand for
  themselves.
  """
  keys = np.column_stack([bits, is_val])
  _, group = np.unique(keys, axis=0, return_inverse=True)
  group = group.reshape(-1)
  found = np.arange(len(bits))
  rows = found.copy()
  for _ in range(_MAX_STAND_INS):
    _, first, which = np.unique(
      group[rows], return_index=True, return_inverse=True
    )
    one = rows[first][which]
    one, rows = one[one != rows], rows[one != rows]
    is_alike = _similarity(waves, is_flat, one, rows) >= MIN_SIMILARITY
    found[rows[is_alike]] = one[is_alike]
    rows = rows[~is_alike]
  return found


def _pairs_of_stand_ins(bits, waves, is_flat, is_val, progress):
  """As near_pairs, of videos none of which stands for another one."""
  count = len(bits)
  content = NUM_PLACES - is_flat.sum(axis=1)
  limit = (MAX_DISTANCE * content // NUM_PLACES).astype(np.uint8)
  bands = np.ascontiguousarray(bits).view(np.uint16).reshape(count, _NUM_BANDS)
  allowed = [_uncrowded(values) for values in bands.T]
  is_used = np.stack(
    [each[values] for each, values in zip(allowed, bands.T, strict=True)], 1
  )
  nearest = _Nearest(is_val)
  for band in range(_NUM_BANDS):
    order = np.argsort(bands[:, band], kind='stable')
    values = bands[order, band].astype(np.int64)
    ordered, ordered_limit = bits[order].T.copy(), limit[order]
    for left, right in _candidates(values, allowed[band]):
      distance = _distance(ordered, left, right)
      is_near = np.flatnonzero(
        distance <= np.minimum(ordered_limit[left], ordered_limit[right])
      )
      distance = distance[is_near].astype(np.int64)
      rows = np.stack([order[left[is_near]], order[right[is_near]]], axis=1)
      is_new = nearest.is_wanted(rows, distance)
      rows, distance = rows[is_new], distance[is_new]
      is_new = ~_was_met(bands[:, :band], is_used[:, :band], rows)
      rows, distance = rows[is_new], distance[is_new]
      is_alike = _similarity(waves, is_flat, *rows.T) >= MIN_SIMILARITY
      nearest.add(np.sort(rows[is_alike], axis=1), distance[is_alike])
    progress(1)
  nearest.cut()
  num_crowded = int((~is_used).any(axis=1).sum())
  return Pairs(nearest.rows, nearest.distance, num_crowded, nearest.is_cut)


def _was_met(bands, is_used, rows):
  """Whether the videos of a pair were compared by one of these bands: [P]."""
  left, right = rows.T
  found = np.zeros(len(rows), bool)
  for values, used in zip(bands.T, is_used.T, strict=True):
    is_like = np.bitwise_count(values[left] ^ values[right]) <= 1
    found |= is_like & used[left] & used[right]
  return found


class _Nearest:
  """Takes pairs, and keeps the nearest MAX_PAIRS.

  Of a validation video with one of train, which is what matters, one pair is
  kept in any case.

  Attributes:
    rows: int64 [P, 2].
    distance: int64 [P].
    is_cut: whether there were more.
  """

  def __init__(self, is_val):
    self.rows, self.distance = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    self.is_cut = False
    self._is_val = is_val
    self._is_in_train = np.zeros(len(is_val), bool)
    self._farthest = NUM_BITS + 1
    self._added = []

  def is_wanted(self, rows, distance):
    """Whether pairs would be kept: bool [P]. What is not, never will be."""
    is_across, val, _ = _ends(rows, self._is_val)
    return (distance < self._farthest) | (is_across & ~self._is_in_train[val])

  def add(self, rows, distance):
    """Takes pairs; none may come twice."""
    is_across, val, _ = _ends(rows, self._is_val)
    self._is_in_train[val[is_across]] = True
    self._added.append((rows, distance))
    if sum(len(each) for _, each in self._added) > MAX_PAIRS:
      self.cut()

  def cut(self):
    """Leaves out what is too much of what came until now."""
    parts = [(self.rows, self.distance), *self._added]
    rows, distance = map(np.concatenate, zip(*parts, strict=True))
    self._added = []
    if len(rows) > MAX_PAIRS:
      self.is_cut = True
      order = np.argsort(distance, kind='stable')
      rows, distance = rows[order], distance[order]
      self._farthest = int(distance[MAX_PAIRS - 1])
      is_across, val, _ = _ends(rows, self._is_val)
      _, first = np.unique(val[is_across], return_index=True)
      kept = np.flatnonzero(is_across)[first]
      kept = np.union1d(np.arange(MAX_PAIRS), kept)
      rows, distance = rows[kept], distance[kept]
    self.rows, self.distance = rows, distance


def _pairs_of_copies(near, stand_in, waves, is_flat, is_val):
  """Pairs validation videos that another one stands for with those of train.

  Args:
    near: Pairs, of the videos that stand for others.
    stand_in: int64 [N].
    waves: as for near_pairs.
    is_flat: likewise.
    is_val: likewise.

  Returns:
    Pairs; a copy is in one of them at most, with the nearest.
  """
  is_across, val, train = _ends(near.rows, is_val)
  order = np.flatnonzero(is_across)
  order = order[np.lexsort((near.distance[order], val[order]))]
  val, train, distance = val[order], train[order], near.distance[order]
  copies = np.flatnonzero(is_val & (stand_in != np.arange(len(stand_in))))
  place = np.searchsorted(val, stand_in[copies])
  found = [Pairs(np.zeros((0, 2), np.int64), np.zeros(0, np.int64))]
  for _ in range(_MAX_TRIES):
    is_left = place < np.searchsorted(val, stand_in[copies], 'right')
    copies, place = copies[is_left], place[is_left]
    rows = np.stack([train[place], copies], axis=1)
    is_alike = _similarity(waves, is_flat, *rows.T) >= MIN_SIMILARITY
    rows = np.sort(rows[is_alike], axis=1)
    found.append(Pairs(rows, distance[place[is_alike]]))
    copies, place = copies[~is_alike], place[~is_alike] + 1
  return Pairs(
    np.concatenate([each.rows for each in found]),
    np.concatenate([each.distance for each in found]),
  )


def _ends(rows, is_val):
  """Returns (is_across, val, train) of pairs: which are across, and the rows."""
  one, other = rows.T
  is_second = is_val[other]
  is_across = is_val[one] != is_second
  return (
    is_across,
    np.where(is_second, other, one),
    np.where(is_second, one, other),
  )


def _distance(columns, left, right):
  """Counts the bits in which rows differ: uint8 [P], of [NUM_PLACES, N]."""
  return sum(np.bitwise_count(each[left] ^ each[right]) for each in columns)


def _similarity(waves, is_flat, left, right):
  """Mean cosine of the waves of places that are flat in neither: [P]."""
  similarity = np.zeros(len(left))
  size = max(1, _CHUNK // 64)
  for start in range(0, len(left), size):
    part = slice(start, start + size)
    one = waves[left[part]].astype(np.float32)
    other = waves[right[part]].astype(np.float32)
    norms = np.linalg.norm(one, axis=2) * np.linalg.norm(other, axis=2)
    cosine = np.einsum('ijk,ijk->ij', one, other) / np.maximum(norms, 1.0)
    is_shown = ~(is_flat[left[part]] | is_flat[right[part]])
    places = np.maximum(is_shown.sum(axis=1), 1)
    similarity[part] = (cosine * is_shown).sum(axis=1) / places
  return similarity


def _uncrowded(values):
  """Which values of a band may be compared within _MAX_COMPARISONS.

  Args:
    values: int64 [N] in [0, 2**16).

  Returns:
    bool [2**16].
  """
  counts = np.bincount(values, minlength=1 << _BAND_BITS)
  number = np.arange(len(counts))
  while True:
    partners = sum(counts[number ^ mask] for mask in _MASKS)
    if (counts * partners).sum() // 2 <= _MAX_COMPARISONS:
      return counts > 0
    counts[counts > counts.max() // 2] = 0


def _candidates(values, allowed):
  """Yields pairs of places whose values differ in one bit or none.

  Args:
    values: int64 [N], sorted.
    allowed: bool [2**16], the values that are looked at.

  Yields:
    (left, right): int64 [P], each pair once, P about _CHUNK at most.
  """
  counts = np.bincount(values, minlength=len(allowed))
  starts = np.cumsum(counts) - counts
  place = np.arange(len(values))
  for mask in _MASKS:
    other = values ^ mask
    is_used = allowed[values] & allowed[other] & (values <= other)
    begin = np.where(other == values, place + 1, starts[other])
    number = np.where(is_used, starts[other] + counts[other] - begin, 0)
    ends = np.cumsum(number)
    cuts = np.searchsorted(ends, np.arange(_CHUNK, number.sum(), _CHUNK))
    for rows in np.split(place, np.unique(cuts)):
      repeats = number[rows]
      left = np.repeat(rows, repeats)
      within = np.arange(len(left)) - np.repeat(
        np.cumsum(repeats) - repeats, repeats
      )
      yield left, np.repeat(begin[rows], repeats) + within
