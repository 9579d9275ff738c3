"""Which validation videos are said to look like those of train."""

import numpy as np
import pyarrow
from pages import duplicates, video_hashes


def table(names):
  """The columns of a table of videos that are read here, all different."""
  return pyarrow.table(
    {
      'path': pyarrow.chunked_array([names]),
      'source_sha256': pyarrow.chunked_array([[f'{n} file' for n in names]]),
      'frames_sha256': pyarrow.chunked_array([[f'{n} frames' for n in names]]),
    }
  )


def hashes(bits, mirrored_bits):
  """Hashes of videos with the same waves, mirrored or not."""
  waves = np.ones((*bits.shape, 64), np.int8)
  is_flat, sizes = np.zeros(bits.shape, bool), np.ones(len(bits))
  return video_hashes.Hashes(
    bits, waves, mirrored_bits, waves, is_flat, sizes, {}
  )


def found_of(train, val, mirrored_train, mirrored_val):
  names = [f'{number}.mp4' for number in range(len(val))]
  return duplicates.find_duplicates(
    {'train': table(['train.mp4']), 'val': table(names)},
    {'train': hashes(train, mirrored_train), 'val': hashes(val, mirrored_val)},
  )


def test_all_validation_copies_of_one_hash_look_like_the_one_of_train():
  original, other, another = np.random.default_rng(0).integers(
    0, 2**64, (3, 1, 3), np.uint64
  )
  copies = np.repeat(original, 3, axis=0)
  others = np.repeat(other, 3, axis=0)
  near = original ^ np.uint64([3, 0, 0])
  found = found_of(near, copies, another, others)
  assert found.alike_in_train.tolist() == [False, True, True, True]
  assert not found.mirrored_in_train.any()
  assert found.count(duplicates.ALIKE, 'across train and val') == 3
  found = found_of(near, others, another, copies)
  assert found.mirrored_in_train.tolist() == [False, True, True, True]
  assert found.count(duplicates.MIRRORED, 'across train and val') == 3
