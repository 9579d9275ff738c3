import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vie_jax import sharding
from vie_jax.saved_steps import leaf_digest

MASK = 2**32 - 1


def mix(x):
  """The finaliser of MurmurHash3, on Python's integers."""
  x ^= x >> 16
  x = x * 0x85EBCA6B & MASK
  x ^= x >> 13
  x = x * 0xC2B2AE35 & MASK
  return x ^ x >> 16


def digest_by_loop(array):
  """The formula of the module's docstring, word by word."""
  bits = 8 * array.dtype.itemsize
  kind = {1: np.uint8, 2: np.uint16}.get(array.dtype.itemsize, np.uint32)
  words = np.frombuffer(array.tobytes(), kind)
  assert len(words) == array.size * max(1, bits // 32)
  first_sum = second_sum = 0
  for index, word in enumerate(words.tolist()):
    high, low = index >> 32, index & MASK
    pad = mix((low + mix((high + 0x9E3779B9) & MASK)) & MASK)
    first = mix(word ^ pad)
    first_sum += first
    second_sum += mix((first + 0x85EBCA77 * pad) & MASK)
  return f'{first_sum & MASK:08x}{second_sum & MASK:08x}'


def digest(leaf):
  (value,) = leaf_digest.Digests([leaf]).values()
  return value


def arrays():
  """One array of each kind that a state may have, by name."""
  rng = np.random.default_rng(0)
  normal = rng.normal(size=(16, 24)).astype(np.float32)
  special = normal.copy()
  special[0, :5] = [np.nan, np.inf, -np.inf, -0.0, 1e-42]
  return {
    'float32': normal,
    'special values': special,
    'bfloat16': normal.astype(jnp.bfloat16),
    'float16': normal.astype(np.float16),
    'int32': rng.integers(-(2**31), 2**31, (32,), np.int32),
    'uint8': rng.integers(0, 256, (8, 3, 5), np.uint8),
    'bool': rng.integers(0, 2, (8, 7)).astype(bool),
    'scalar': np.float32(3.5),
    'one row': normal[:1],
    'four axes': normal.reshape(8, 2, 3, 8),
    'empty': normal[:0],
    'more than a block': rng.normal(size=(8, 1000)).astype(np.float32),
  }


@pytest.mark.parametrize('name', arrays())
def test_is_what_a_loop_computes(name, mesh):
  array = arrays()[name]
  expected = digest_by_loop(np.asarray(array))
  whole = sharding.replicated(mesh)
  layouts = [whole]
  if array.ndim and array.shape[0] % mesh.size == 0:
    layouts.append(sharding.rows(mesh))
  if array.ndim > 1 and array.shape[1] % mesh.size == 0:
    layouts.append(sharding.columns(mesh))
  for layout in layouts:
    assert digest(jax.device_put(array, layout)) == expected


def test_of_a_random_key_is_that_of_its_words(mesh):
  key = jax.device_put(jax.random.key(5), sharding.replicated(mesh))
  assert digest(key) == digest_by_loop(np.asarray(jax.random.key_data(key)))


def test_of_eight_bytes_is_that_of_two_words():
  with jax.enable_x64(True):
    array = jnp.asarray([1.5, -2.25, np.pi, 0.0], jnp.float64)
    assert digest(array) == digest_by_loop(np.asarray(array))


def test_many_at_a_time_are_each_their_own(mesh8):
  whole, split = sharding.replicated(mesh8), sharding.rows(mesh8)
  given = list(arrays().values())
  placed = [
    jax.device_put(
      array,
      split if array.ndim and array.shape[0] % 8 == 0 and number % 2 else whole,
    )
    for number, array in enumerate(given)
  ]
  expected = [digest_by_loop(np.asarray(array)) for array in given]
  assert leaf_digest.Digests(placed).values() == expected


def test_does_not_depend_on_the_layout_of_two_axes(mesh8):
  array = arrays()['float32']
  grid = jax.sharding.Mesh(mesh8.devices.reshape(4, 2), ('a', 'b'))
  for spec in (('a', 'b'), ('b', 'a'), (('a', 'b'), None), (None, 'b')):
    placed = jax.device_put(array, NamedSharding(grid, PartitionSpec(*spec)))
    assert digest(placed) == digest_by_loop(array)


def test_every_bit_of_a_word_matters():
  array = arrays()['float32']
  before = digest(jnp.asarray(array))
  found = set()
  for bit in range(32):
    changed = array.copy()
    changed.view(np.uint32)[3, 7] ^= np.uint32(1 << bit)
    found.add(digest(jnp.asarray(changed)))
  assert len(found - {before}) == 32


def test_swapped_words_and_rows_are_found():
  array = arrays()['float32']
  before = digest(jnp.asarray(array))
  swapped = array.copy()
  swapped[2, 3], swapped[9, 11] = array[9, 11], array[2, 3]
  assert digest(jnp.asarray(swapped)) != before
  assert digest(jnp.asarray(array[[1, 0, *range(2, 16)]])) != before
  zeros = jnp.zeros((4, 4), jnp.float32)
  assert digest(zeros) != digest(jnp.zeros((4, 5), jnp.float32))


@pytest.mark.parametrize(
  'row, columns',
  [
    (0, 128),
    (2**25 - 1, 128),
    (2**25, 128),
    (999_999_999, 128),
    (2**32 - 1, 2**32 - 1),
    (2**31 + 12345, 2**17 + 77),
  ],
)
def test_the_index_goes_beyond_32_bits(row, columns):
  high, low = leaf_digest._product(jnp.asarray(row, jnp.uint32), columns)
  assert (int(high) << 32) + int(low) == row * columns


def test_the_columns_carry_into_the_high_word():
  columns = 2**16 + 1
  high, low = leaf_digest._index(2, columns)
  index = (np.asarray(high, np.uint64) << np.uint64(32)) + np.asarray(low)
  np.testing.assert_array_equal(
    index, np.arange(2 * columns, dtype=np.uint64).reshape(2, columns)
  )


def test_nothing_is_gathered(mesh8):
  """No device sees more than its rows: the sums alone are exchanged."""
  bank = jax.ShapeDtypeStruct((8 * 1024, 128), jnp.float32).update(
    sharding=sharding.rows(mesh8)
  )
  compiled = leaf_digest._of_one.lower(bank).compile()
  text = compiled.as_text()
  assert 'all-gather' not in text
  assert 'all-to-all' not in text
  assert 'all-reduce' in text
  share = 1024 * 128 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < 2 * share
