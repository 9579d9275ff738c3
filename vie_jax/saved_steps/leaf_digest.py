"""A digest of each array of a state, computed where the array lies.

The words of an array are its elements' bits as uint32, in row-major order; an
element of 64 bits is two words, and of fewer than 32 bits one. With `mix` the
finaliser of MurmurHash3, a bijection of 32 bits, word w at index
i = 2^32 high + low contributes

  pad = mix(low + mix(high + 0x9e3779b9))
  first = mix(w ^ pad), second = mix(first + 0x85ebca77 * pad)

and the digest is the two sums modulo 2^32. A sum has no order: the digest does
not depend on the number of devices or on the layout, and nothing is gathered
but two numbers per device.

A change within one word is found for certain, since both terms are bijections
of the word. Any other damage is missed with a probability of 2^-64, as far as
the terms behave as random numbers. This finds damage between the memory of the
device that saved and that of the device that restored. It is no authentication:
whoever can write a checkpoint can write its digests.

MurmurHash3: A. Appleby, 2011, `fmix32`. The way of summing is ours.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Words in a row of the table that small arrays are laid side by side in.
_BLOCK = 1024
# Arrays of more words are never copied into that table.
_LARGEST_PACKED = 2**22


def _constant(value: int) -> np.ndarray:
  return np.asarray(value, np.uint32)


def _mix(x: jax.Array) -> jax.Array:
  """The finaliser of MurmurHash3: a bijection of uint32."""
  x = (x ^ (x >> 16)) * _constant(0x85EBCA6B)
  x = (x ^ (x >> 13)) * _constant(0xC2B2AE35)
  return x ^ (x >> 16)


def _terms(words: jax.Array, high: jax.Array, low: jax.Array):
  """What each word adds to the two sums, given its index."""
  pad = _mix(low + _mix(high + _constant(0x9E3779B9)))
  first = _mix(words ^ pad)
  return first, _mix(first + pad * _constant(0x85EBCA77))


def _words(leaf: jax.Array) -> jax.Array:
  """The bits of an array as uint32; those of 64 get a last axis of two."""
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  if leaf.dtype == jnp.bool_:
    return leaf.astype(jnp.uint32)
  bits = 8 * leaf.dtype.itemsize
  if bits >= 32:
    return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
  return jax.lax.bitcast_convert_type(leaf, f'uint{bits}').astype(jnp.uint32)


def _product(rows: jax.Array, columns: int) -> tuple[jax.Array, jax.Array]:
  """rows * columns in 64 bits: (high, low), from halves of 16 bits."""
  row_high, row_low = rows >> 16, rows & 0xFFFF
  high, low = _constant(columns >> 16), _constant(columns & 0xFFFF)
  lowest = row_low * low
  middle = row_high * low + (lowest >> 16)
  other = row_low * high + (middle & 0xFFFF)
  return (
    row_high * high + (middle >> 16) + (other >> 16),
    (other << 16) | (lowest & 0xFFFF),
  )


def _index(rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
  """The index of each word of [rows, columns], as (high, low)."""
  row = jax.lax.iota(jnp.uint32, rows)[:, None]
  column = jax.lax.iota(jnp.uint32, columns)[None, :]
  high, start = _product(row, columns)
  low = start + column
  return high + (low < start).astype(jnp.uint32), low


@jax.jit
def _of_one(leaf: jax.Array) -> jax.Array:
  """uint32 [2], the digest of one array of any layout."""
  words = _words(leaf)
  rows = words.shape[0] if words.ndim else 1
  words = words.reshape(rows, -1) if words.size else words.reshape(0, 1)
  terms = _terms(words, *_index(*words.shape))
  return jnp.stack([jnp.sum(term, dtype=jnp.uint32) for term in terms])


@jax.jit
def _of_many(leaves: Sequence[jax.Array]) -> jax.Array:
  """uint32 [n, 2], the digests of n arrays that lie whole on each device.

  They are laid side by side, so that the compiler sees one computation, and
  not one for each of hundreds of parameters.
  """
  blocks, owners, starts, ends = [], [], [], []
  for number, leaf in enumerate(leaves):
    words = _words(leaf).reshape(-1)
    count = -(-words.size // _BLOCK)
    blocks.append(
      jnp.pad(words, (0, count * _BLOCK - words.size)).reshape(count, _BLOCK)
    )
    owners += [number] * count
    starts += range(0, count * _BLOCK, _BLOCK)
    ends += [words.size] * count
  table = jnp.concatenate(blocks)
  low = (
    jnp.asarray(starts, jnp.uint32)[:, None]
    + jax.lax.iota(jnp.uint32, _BLOCK)[None, :]
  )
  is_word = low < jnp.asarray(ends, jnp.uint32)[:, None]
  sums = [
    jnp.sum(jnp.where(is_word, term, 0), axis=1, dtype=jnp.uint32)
    for term in _terms(table, jnp.zeros((), jnp.uint32), low)
  ]
  return jax.ops.segment_sum(
    jnp.stack(sums, axis=1),
    jnp.asarray(owners, jnp.int32),
    num_segments=len(leaves),
    indices_are_sorted=True,
  )


class Digests:
  """The digests of arrays, being computed.

  The arrays may be donated as soon as this is made.

  Args:
    leaves: arrays of any layout, of bool, integers, floats or random keys.
  """

  def __init__(self, leaves: Sequence[jax.Array]):
    packed = [
      leaf.sharding.is_fully_replicated and 0 < leaf.size <= _LARGEST_PACKED
      for leaf in leaves
    ]
    small = [
      leaf for leaf, is_small in zip(leaves, packed, strict=True) if is_small
    ]
    self._of_small = _of_many(small) if small else ()
    self._parts = [
      None if is_small else _of_one(leaf)
      for leaf, is_small in zip(leaves, packed, strict=True)
    ]

  def values(self) -> list[str]:
    """Waits for them: 16 hexadecimal digits for each array."""
    of_small = iter(np.asarray(self._of_small))
    pairs = [
      next(of_small) if part is None else np.asarray(part)
      for part in self._parts
    ]
    return [f'{int(first):08x}{int(second):08x}' for first, second in pairs]
