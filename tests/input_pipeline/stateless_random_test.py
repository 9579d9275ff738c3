"""The numbers that are drawn for many seeds, against TensorFlow's own."""

import numpy as np
import tensorflow as tf

from vie_jax.input_pipeline import stateless_random

_NUM_SEEDS = 40


def seeds():
  rng = np.random.default_rng(0)
  drawn = rng.integers(-(2**63), 2**63, (_NUM_SEEDS, 2), np.int64)
  drawn[:6] = [[0, 0], [1, 2], [2, 1], [7, -1], [2**40, 0], [-(2**63), 3]]
  return drawn


def test_seeds_are_split_as_tensorflow_splits_them():
  for num in (1, 2, 3, 5):
    drawn = stateless_random.split(seeds(), num)
    assert drawn.dtype == np.int64
    expected = [tf.random.split(tf.constant(seed), num) for seed in seeds()]
    np.testing.assert_array_equal(drawn, np.stack(expected, axis=1))


def test_data_are_folded_in_as_tensorflow_does():
  data = np.array([0, 1, 5, 2**40 * 128, -3], np.int64)
  for seed in seeds()[:8]:
    expected = [
      tf.random.fold_in(tf.constant(seed), tf.constant(each)) for each in data
    ]
    drawn = stateless_random.fold_in(seed, data)
    np.testing.assert_array_equal(drawn, np.stack(expected))


def test_integers_are_those_of_tensorflow():
  rng = np.random.default_rng(1)
  low = rng.integers(-1000, 1000, _NUM_SEEDS).astype(np.int32)
  high = low + rng.integers(1, 2**20, _NUM_SEEDS).astype(np.int32)
  low[0], high[0] = -(2**31), 2**31 - 1  # the whole range but one
  drawn = stateless_random.between(stateless_random.words(seeds()), low, high)
  assert drawn.dtype == np.int32
  expected = [
    tf.random.stateless_uniform(
      (), tf.constant(seed), minval=a, maxval=b, dtype=tf.int32
    )
    for seed, a, b in zip(seeds(), low, high, strict=True)
  ]
  np.testing.assert_array_equal(drawn, np.stack(expected))


def test_words_keep_the_shape_of_their_seeds():
  drawn = stateless_random.words(seeds().reshape(4, 10, 2))
  np.testing.assert_array_equal(drawn.ravel(), stateless_random.words(seeds()))
  assert drawn.shape == (4, 10)


def test_floats_are_those_of_tensorflow():
  for num in (1, 4, 7):
    drawn = stateless_random.floats(seeds(), num)
    assert drawn.dtype == np.float32
    expected = [
      tf.random.stateless_uniform((num,), tf.constant(seed)) for seed in seeds()
    ]
    np.testing.assert_array_equal(drawn, np.stack(expected))


def test_no_seeds_give_no_numbers():
  none = np.zeros((0, 2), np.int64)
  assert stateless_random.split(none, 3).shape == (3, 0, 2)
  assert stateless_random.words(none).shape == (0,)
  assert stateless_random.floats(none, 4).shape == (0, 4)
