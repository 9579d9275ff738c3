"""The numbers of TensorFlow's stateless random functions, for many seeds.

TensorFlow draws with one seed a call, and a clip takes eight calls: as long as
to decode a fifth of a frame. Here one call of NumPy draws for all clips of a
batch, the same numbers to the bit.

Source: Philox 4x32-10 of Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3", SC'11; keys, counters and ranges are those of TensorFlow's
stateless_random_ops_v2 with its algorithm 'philox', which it takes on a CPU.
"""

import numpy as np

_ROUNDS = 10
_LOW_BITS = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)
# For the words 0 and 2 of a counter, and for the words of a key.
_FACTORS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)[:, np.newaxis]
_KEY_STEPS = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)[:, np.newaxis]
# With which TensorFlow mixes a seed.
_SEED_KEY = np.array([0x3EC8F720, 0x02461E29], np.uint64)[:, np.newaxis]
_WORDS_IN_BLOCK = 4
_FRACTION_BITS = 23


def fold_in(seed, data):
  """As tf.random.fold_in, with one seed and many data.

  Args:
    seed: int64 [2].
    data: int64 [n].

  Returns:
    int64 [n, 2], seeds.
  """
  (first,) = _int64(np.asarray(seed, np.int64)[np.newaxis], 1)
  data = np.asarray(data, np.int64)
  return np.stack([np.broadcast_to(first, data.shape), data], axis=-1)


def split(seeds, num):
  """As tf.random.split, of each of many seeds.

  Args:
    seeds: int64 [n, 2].
    num: int, how many seeds to make of one.

  Returns:
    int64 [num, n, 2].
  """
  seeds = np.asarray(seeds, np.int64)
  drawn = _int64(seeds, 2 * num).reshape(len(seeds), num, 2)
  return np.moveaxis(drawn, 1, 0)


def words(seeds):
  """The bits that `between` makes a number of, one word for each seed.

  Args:
    seeds: int64 [..., 2].

  Returns:
    int64 [...], in [0, 2**32).
  """
  seeds = np.asarray(seeds, np.int64)
  drawn = _words(seeds.reshape(-1, 2), 1)
  return drawn.astype(np.int64).reshape(seeds.shape[:-1])


def between(drawn, low, high):
  """As tf.random.stateless_uniform of int32 and one number, for many seeds.

  Args:
    drawn: int64 [n], from `words`.
    low: integer [n] or scalar, the smallest number.
    high: likewise, above the largest number and above low.

  Returns:
    int32 [n].
  """
  low, high = np.asarray(low, np.int64), np.asarray(high, np.int64)
  return (low + drawn % (high - low)).astype(np.int32)


def floats(seeds, num):
  """As tf.random.stateless_uniform of float32 in [0, 1), for many seeds.

  Args:
    seeds: int64 [n, 2].
    num: int, numbers for each seed.

  Returns:
    float32 [n, num].
  """
  words = _words(np.asarray(seeds, np.int64), num).astype(np.uint32)
  fraction = words & np.uint32(2**_FRACTION_BITS - 1)
  # A float of this fraction and the exponent of 1 is in [1, 2).
  bits = fraction | np.float32(1).view(np.uint32)
  return bits.view(np.float32) - np.float32(1)


def _int64(seeds, num):
  """int64 [n, num]: all bits are drawn."""
  words = _words(seeds, 2 * num)
  return (words[:, ::2] | words[:, 1::2] << _WORD_BITS).view(np.int64)


def _words(seeds, num):
  """uint64 [n, num], in [0, 2**32): what each seed gives."""
  seeds = seeds.view(np.uint64)
  halves = seeds & _LOW_BITS, seeds >> _WORD_BITS
  # Word by word: low and high half of the first number, then of the second.
  mixed = _philox(halves[0].T, halves[1].T, _SEED_KEY)
  num_blocks = -(-num // _WORDS_IN_BLOCK)
  # Each seed has its key and counts blocks.
  words = np.broadcast_to(
    mixed[:, :, np.newaxis], (_WORDS_IN_BLOCK, len(seeds), num_blocks)
  ).reshape(_WORDS_IN_BLOCK, -1)
  blocks = np.tile(np.arange(num_blocks, dtype=np.uint64), len(seeds))
  drawn = _philox(
    np.stack([blocks, words[2]]),
    np.stack([np.zeros_like(blocks), words[3]]),
    words[:2],
  )
  drawn = drawn.T.reshape(len(seeds), num_blocks * _WORDS_IN_BLOCK)
  return drawn[:, :num]


def _philox(even, odd, key):
  """The block of a counter under a key.

  Args:
    even: uint64 [2, n], words 0 and 2 of the counter, each below 2**32.
    odd: uint64 [2, n], words 1 and 3.
    key: uint64 [2, n] or [2, 1].

  Returns:
    uint64 [4, n], its words.
  """
  for _ in range(_ROUNDS):
    product = even * _FACTORS
    even = (product[::-1] >> _WORD_BITS) ^ odd ^ key
    odd = product[::-1] & _LOW_BITS
    key = key + _KEY_STEPS & _LOW_BITS
  return np.stack([even[0], odd[0], even[1], odd[1]])
