"""Pairs of near videos against comparing all."""

import numpy as np
import pytest
import sample_pictures
from pages import near_duplicates, video_hashes
from PIL import ImageOps

NUM_BITS = video_hashes.NUM_BITS


def turned(bits, places):
  """A row of uint64 with some of its bits turned."""
  row = np.unpackbits(bits.view(np.uint8))
  row[places] ^= 1
  return np.packbits(row).view(np.uint64)


def clustered(num_rows, *, seed=0):
  """Random rows, half of which are others with up to 40 bits turned."""
  rng = np.random.default_rng(seed)
  bits = rng.integers(0, 2**64, (num_rows, 3), np.uint64)
  for row in range(num_rows // 2, num_rows):
    of = bits[rng.integers(num_rows // 2)]
    places = rng.choice(NUM_BITS, rng.integers(0, 41), replace=False)
    bits[row] = turned(of, places)
  return bits


def all_near(bits, is_flat):
  """(row, row) -> distance, by comparing all with all."""
  found = {}
  for i, one in enumerate(bits):
    for j in range(i + 1, len(bits)):
      distance = int(np.bitwise_count(one ^ bits[j]).sum())
      places = 3 - max(is_flat[i].sum(), is_flat[j].sum())
      if distance * 3 <= near_duplicates.MAX_DISTANCE * places:
        found[i, j] = distance
  return found


def near(bits, is_flat=None, waves=None, num_train=None):
  if is_flat is None:
    is_flat = np.zeros(bits.shape, bool)
  if waves is None:
    waves = np.ones((*bits.shape, 64), np.int8)
  is_val = np.arange(len(bits)) >= (
    len(bits) if num_train is None else num_train
  )
  return near_duplicates.near_pairs(
    bits, waves, is_flat, is_val, lambda number: None
  )


def leaning(degrees):
  """Waves int8 [3, 64] at an angle to others."""
  angle = np.radians(degrees)
  pair = np.rint(100 * np.array([np.cos(angle), np.sin(angle)]))
  return np.tile(pair.astype(np.int8), (3, 32))


def as_dict(pairs):
  return dict(
    zip(map(tuple, pairs.rows.tolist()), pairs.distance.tolist(), strict=True)
  )


@pytest.mark.parametrize('chunk', [7, 1_000_000])
def test_near_pairs_are_those_that_comparing_all_finds(chunk, monkeypatch):
  monkeypatch.setattr(near_duplicates, '_CHUNK', chunk)
  # Of rows that are equal, only the first is compared with others.
  bits = np.unique(clustered(300), axis=0)
  expected = all_near(bits, np.zeros(bits.shape, bool))
  found = as_dict(near(bits))
  assert found.items() <= expected.items()
  sure = {pair for pair, bits in expected.items() if bits <= 23}
  assert len(sure) > 50
  assert sure <= found.keys()
  # Of those that differ more, nearly all.
  assert len(found) - len(sure) > 0.8 * (len(expected) - len(sure)) > 20


def test_flat_pictures_make_the_others_count_for_more():
  bits = clustered(200, seed=1)
  is_flat = np.zeros(bits.shape, bool)
  is_flat[:, 1] = True
  bits[:, 1] = 0
  expected = all_near(bits, is_flat)
  found = as_dict(near(bits, is_flat))
  assert found.items() <= expected.items()
  assert 20 < max(found.values()) <= 24
  assert len(expected) < len(all_near(bits, np.zeros(bits.shape, bool)))


def test_the_distance_that_counts_is_never_missed():
  rng = np.random.default_rng(2)
  original = rng.integers(0, 2**64, (1, 3), np.uint64)
  for _ in range(10):
    places = rng.choice(NUM_BITS, 37, replace=False)
    for distance in (23, 37):
      other = turned(original[0], places[:distance])
      pairs = near(np.stack([original[0], other]))
      assert len(pairs.rows) == (distance == 23)


def test_videos_of_other_pictures_are_no_pair_whatever_their_bits():
  bits = np.random.default_rng(4).integers(0, 2**64, (3, 3), np.uint64)
  bits[1] = bits[0]
  bits[2] = turned(bits[0], [7])
  waves = np.ones((3, 3, 64), np.int8)
  assert as_dict(near(bits, waves=waves)) == {(0, 1): 0, (0, 2): 1}
  waves[1:, :, ::4] = -1
  assert as_dict(near(bits, waves=waves)) == {(1, 2): 1}
  waves[2] = -1
  assert as_dict(near(bits, waves=waves)) == {}
  # A flat picture says nothing, for or against.
  waves[:, 1:] = 1
  is_flat = np.zeros((3, 3), bool)
  is_flat[:, 0] = True
  assert len(near(bits, is_flat, waves).rows) == 2


def test_each_validation_copy_is_paired_with_the_video_of_train():
  bits = np.random.default_rng(5).integers(0, 2**64, (1, 3), np.uint64)
  bits = np.repeat(bits, 4, axis=0)
  bits[0] = turned(bits[0], [7, 100])
  within = {(1, 2): 0, (1, 3): 0}
  across = {(0, 1): 2, (0, 2): 2, (0, 3): 2}
  assert as_dict(near(bits, num_train=1)) == within | across
  # The same bits in both splits.
  bits[0] = bits[1]
  across = dict.fromkeys(across, 0)
  assert as_dict(near(bits, num_train=1)) == within | across


def test_a_copy_of_other_pictures_than_the_first_is_compared_with_the_rest():
  bits = np.random.default_rng(6).integers(0, 2**64, (4, 3), np.uint64)
  bits[1:] = bits[0]
  bits[3] = turned(bits[0], [7])
  waves = np.stack([leaning(each) for each in (0, 90, 90, 90)])
  assert as_dict(near(bits, waves=waves)) == {(1, 2): 0, (1, 3): 1}


def test_a_copy_is_paired_with_train_only_where_it_looks_like_it():
  bits = np.random.default_rng(7).integers(0, 2**64, (4, 3), np.uint64)
  bits[3] = bits[2]
  bits[0], bits[1] = turned(bits[2], [7]), turned(bits[2], [7, 100])
  waves = np.stack([leaning(each) for each in (0, 40, 20, 40)])
  across = {(0, 2): 1, (1, 2): 2, (1, 3): 2}
  assert as_dict(near(bits, waves=waves, num_train=2)) == {(2, 3): 0} | across


def test_many_equal_videos_make_one_pair_each():
  bits = np.repeat(clustered(2), 5000, axis=0)
  pairs = near(bits)
  assert len(pairs.rows) >= 9998
  assert (np.bincount(pairs.rows[:, 1], minlength=10000) <= 1).all()


def test_crowded_values_bound_the_work_and_are_counted(monkeypatch):
  bits = np.random.default_rng(3).integers(0, 2**64, (500, 3), np.uint64)
  bits[:, 0] &= np.uint64(0xFFFFFFFFFFFF0000)
  bits[1] = turned(bits[0], [100])
  assert near(bits).num_crowded == 0
  monkeypatch.setattr(near_duplicates, '_MAX_COMPARISONS', 1000)
  pairs = near(bits)
  assert pairs.num_crowded == 500
  assert as_dict(pairs) == {(0, 1): 1}


def test_too_many_pairs_are_cut_to_the_nearest(monkeypatch):
  monkeypatch.setattr(near_duplicates, 'MAX_PAIRS', 10)
  bits = clustered(300)
  everything = sorted(all_near(bits, np.zeros(bits.shape, bool)).values())
  pairs = near(bits)
  assert pairs.is_cut
  is_different = pairs.distance > 0
  nearest = [distance for distance in everything if distance][:10]
  assert sorted(pairs.distance[is_different]) == nearest


def test_a_validation_video_keeps_a_pair_where_pairs_are_cut(monkeypatch):
  monkeypatch.setattr(near_duplicates, 'MAX_PAIRS', 10)
  monkeypatch.setattr(near_duplicates, '_CHUNK', 10)
  rng = np.random.default_rng(8)
  bits = np.repeat(rng.integers(0, 2**64, (1, 3), np.uint64), 40, axis=0)
  for row in range(1, 36):
    bits[row] = turned(bits[row], [row])
  # One of train is far from the many, and those of val are far from it.
  bits[36] = turned(bits[36], range(60, 90))
  for row in range(37, 40):
    bits[row] = turned(bits[36], range(row + 60, row + 80))
  pairs = near(bits, num_train=37)
  assert pairs.is_cut
  across = pairs.rows[
    (pairs.rows < 37).any(axis=1) & (pairs.rows > 36).any(axis=1)
  ]
  assert sorted(across[:, 1].tolist()) == [37, 38, 39]
  assert 10 <= len(pairs.rows) <= 13


def test_the_pictures_of_two_videos_are_compared_once(monkeypatch):
  compared = []
  similarity = near_duplicates._similarity

  def counted(waves, is_flat, left, right):
    compared.extend(zip(left.tolist(), right.tolist(), strict=True))
    return similarity(waves, is_flat, left, right)

  monkeypatch.setattr(near_duplicates, '_similarity', counted)
  bits = np.unique(clustered(100), axis=0)
  pairs = near(bits)
  assert len(compared) == len({frozenset(pair) for pair in compared})
  assert len(compared) == len(pairs.rows) > 20
  # Where there are too many pairs, of far ones not even that.
  compared.clear()
  monkeypatch.setattr(near_duplicates, 'MAX_PAIRS', 10)
  monkeypatch.setattr(near_duplicates, '_CHUNK', 10)
  assert near(bits).is_cut
  assert len(compared) < len(pairs.rows)


def hashed(pictures):
  """(bits, waves) of videos of three pictures each."""
  hashes = [[video_hashes.picture_hash(p) for p in row] for row in pictures]
  bits = np.array([[h[0] for h in row] for row in hashes], np.uint64)
  return bits, np.array([[h[1] for h in row] for row in hashes])


def test_a_mirrored_copy_is_paired_as_such_and_only_once():
  videos = [
    [sample_pictures.smooth(3 * k + place) for place in range(3)]
    for k in range(4)
  ]
  videos.append([ImageOps.mirror(each) for each in videos[1]])
  videos.append(videos[0])
  mirrored = [[ImageOps.mirror(each) for each in row] for row in videos]
  is_flat = np.zeros((len(videos), 3), bool)
  pairs = near_duplicates.mirrored_pairs(
    hashed(videos),
    hashed(mirrored),
    is_flat,
    np.zeros(len(videos), bool),
    lambda number: None,
  )
  assert as_dict(pairs) == {(1, 4): 0}
  # What is no mirrored copy is found without mirroring alone.
  bits, waves = hashed(videos)
  assert as_dict(near(bits, is_flat, waves)) == {(0, 5): 0}


def test_each_validation_copy_is_paired_with_its_mirror_image_in_train():
  original = [sample_pictures.smooth(place) for place in range(3)]
  turned_over = [ImageOps.mirror(each) for each in original]
  bits, waves = hashed([original, *[turned_over] * 3])
  mirrored_bits, mirrored_waves = hashed([turned_over, *[original] * 3])
  mirrored_bits[1:] = turned(mirrored_bits[1], [7])
  pairs = near_duplicates.mirrored_pairs(
    (bits, waves),
    (mirrored_bits, mirrored_waves),
    np.zeros((4, 3), bool),
    np.arange(4) > 0,
    lambda number: None,
  )
  assert pairs.rows[:, 0].tolist() == [0, 0, 0]
  assert sorted(pairs.rows[:, 1].tolist()) == [1, 2, 3]


def test_same_videos_are_paired_with_the_first_by_any_key():
  pairs = near_duplicates.same_pairs(
    ['a', 'b', 'a', 'c', 'd', 'e'], ['1', '2', '3', '1', '2', '6']
  )
  assert pairs.rows.tolist() == [[0, 2], [0, 3], [1, 4]]


def test_nothing_makes_no_pairs():
  assert len(near(np.zeros((0, 3), np.uint64)).rows) == 0
  assert len(near_duplicates.same_pairs([], []).rows) == 0
