"""A device's rows of the memory bank, one block after the other.

What every row of the bank takes part in, a search or a sum, forms numbers for
each pair of row and embedding. On one device these grow with N / devices, and
at some size no longer fit beside the bank; then they are formed for a block of
rows at a time.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Carry = TypeVar('Carry')

PRODUCT_BYTES = 2**30
"""Bytes of the largest block of float32 products on a device."""
MULTIPLE = 128
"""Of several blocks, the rows of each are a multiple of this if that many fit:
`nearest_neighbors` searches whole groups of them, and TPUs lay so many side by
side."""


def rows_of_products(batch_size: int, product_bytes: int) -> int:
  """Rows whose products with a batch take so many bytes, one at least."""
  return max(1, product_bytes // (4 * batch_size))


def rows_of_block(num_rows: int, most_rows: int) -> int:
  """Rows of each of the fewest equal blocks, which may overlap.

  Args:
    num_rows: rows on a device.
    most_rows: the most rows of a block.
  """
  if num_rows <= most_rows:
    return num_rows
  most_rows = most_rows // MULTIPLE * MULTIPLE or most_rows
  evenly = -(-num_rows // -(-num_rows // most_rows))
  return min(-(-evenly // MULTIPLE) * MULTIPLE, most_rows)


def fold(
  step: Callable[[Carry, jax.Array, jax.Array], Carry],
  carry: Carry,
  *,
  num_rows: int,
  block_rows: int,
  is_differentiated: bool = False,
) -> Carry:
  """Goes over rows in blocks of equal size, which overlap where they must.

  Args:
    step: (carry, row int32 [n], is_new bool [n]) -> carry, of one block. `row`
      are consecutive row numbers; those that the block before had, too, are
      not new and must not count again.
    carry: before the first block.
    num_rows: rows on this device.
    block_rows: the most rows of a block.
    is_differentiated: whether a gradient passes; then a loop computes each
      block again in the backward pass, and keeps nothing of it until then.

  Returns:
    The carry after the last block. One block is computed without a loop.
  """
  block = rows_of_block(num_rows, block_rows)
  if block == num_rows:
    row = jnp.arange(num_rows, dtype=jnp.int32)
    return step(carry, row, jnp.ones((num_rows,), bool))
  offset = jnp.arange(block, dtype=jnp.int32)

  def body(carry, number):
    begin = number * block
    row = jnp.minimum(begin, num_rows - block) + offset
    return step(carry, row, row >= begin), None

  if is_differentiated:
    body = jax.checkpoint(body)
  numbers = jnp.arange(-(-num_rows // block), dtype=jnp.int32)
  return jax.lax.scan(body, carry, numbers)[0]


def read(table: jax.Array, row: jax.Array) -> jax.Array:
  """The rows of a block: `table[row]` for the `row` that `fold` gives."""
  return jax.lax.dynamic_slice_in_dim(table, row[0], row.shape[0])
