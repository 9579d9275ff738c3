"""The memory bank: one running mean on the unit sphere per training video.

The bank is a float32 array `[rows, D]`, its rows split over the mesh axis
`data`. Rows beyond the number of videos N are padding: they are never read,
because every index is below N, and the neighbour search masks them.

Reads and writes by index run under `shard_map`: each device touches only the
rows it owns, so nothing of size N is ever gathered. Source of the method: Wu
et al. 2018 (arXiv:1805.01978, section 3) for the bank, Zhuang et al. 2019
(arXiv:1903.12355, section 3) for its use in Local Aggregation.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from vie_jax import sharding

AXIS = sharding.DATA_AXIS
ROW_MULTIPLE = 1024
"""Rows are padded to a multiple of this, whatever the number of devices, so
that a checkpoint has the same shapes on 1, 2, 4 ... 1024 of them."""
# Of many videos, rows are padded to a larger multiple, of which there are still
# so many: then those of a device are whole groups, see `row_blocks.MULTIPLE`.
_LARGEST_MULTIPLE = 2**17
_LEAST_MULTIPLES = 64
GATHERED_BYTES = 2**28
"""Bytes of gathered rows that a device holds at a time. More are gathered in a
loop."""

_SPLIT_ROWS = PartitionSpec(AXIS, None)
_WHOLE = PartitionSpec()


def num_rows(num_videos: int, num_devices: int) -> int:
  """Rows of a bank for `num_videos`, padding included.

  On 1, 2, 4 ... 1024 devices they are as many, and padding is less than 1,024
  rows, or, of 131,072 videos and more, than a 64th.
  """
  step = ROW_MULTIPLE
  most = min(_LARGEST_MULTIPLE, num_videos // _LEAST_MULTIPLES)
  while 2 * step <= most:
    step *= 2
  multiple = step
  while multiple % num_devices:
    multiple += step
  return -(-num_videos // multiple) * multiple


def normalize(vectors: jax.Array) -> jax.Array:
  """Projects vectors `[..., D]` onto the unit sphere, in float32.

  As the official code does it: x * rsqrt(max(sum(x^2), 1e-12)), which leaves
  a zero vector zero.
  """
  vectors = vectors.astype(jnp.float32)
  square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
  return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


def init_uniform(key: jax.Array, rows: int, embedding_size: int) -> jax.Array:
  """Draws the official initial bank.

  Args:
    key: a JAX random key.
    rows: rows of the bank, padding included.
    embedding_size: D.

  Returns:
    float32 [rows, D], uniform in (-b, b) with b = 1 / sqrt(D / 3): rows of
    expected norm 1, not normalised. A row is unit from its first update on.
    Row i does not depend on the number of rows.

  Source: official code (`memory_bank.py`); the paper does not say.
  """
  bound = (embedding_size / 3) ** -0.5
  return jax.random.uniform(
    key, (rows, embedding_size), jnp.float32, -bound, bound
  )


def _owned(index, local_rows):
  """Local row numbers of global indices, and which of them are ours."""
  local = index - jax.lax.axis_index(AXIS).astype(jnp.int32) * local_rows
  mine = (local >= 0) & (local < local_rows)
  return jnp.where(mine, local, 0), mine


def take(table: jax.Array, index: jax.Array, *, mesh: Mesh) -> jax.Array:
  """Reads rows of a row-sharded table by global index.

  Args:
    table: [rows, ...], of bools or any number type, rows split over `data`:
      the bank, or a column of numbers per video such as a clustering.
    index: int32 of any shape, in [0, rows).
    mesh: the mesh that the table lies on.

  Returns:
    [*index.shape, *table.shape[1:]], of the table's type, replicated.

  Sharding: one all-reduce of the result.
  """

  def local_take(local_table, index):
    local, mine = _owned(index, local_table.shape[0])
    values = local_table[local]
    mine = mine.reshape(mine.shape + (1,) * (values.ndim - mine.ndim))
    values = jnp.where(mine, values, jnp.zeros_like(values))
    # Sums of bools are int32.
    return jax.lax.psum(values, AXIS).astype(table.dtype)

  split = PartitionSpec(AXIS, *[None] * (table.ndim - 1))
  return jax.shard_map(
    local_take, mesh=mesh, in_specs=(split, _WHOLE), out_specs=_WHOLE
  )(table, index)


def put(table: jax.Array, index: jax.Array, values: jax.Array, *, mesh: Mesh):
  """Writes rows of a row-sharded table by global index.

  Args:
    table: [rows, ...], rows split over `data`.
    index: int32 [B], in [0, rows), no value twice.
    values: [B, ...], the new rows.
    mesh: the mesh that the table lies on.

  Returns:
    A table like the old one; the other rows are bit-identical.

  Sharding: no communication beyond making index and values known everywhere.
  """

  def local_put(local_table, index, values):
    local, mine = _owned(index, local_table.shape[0])
    # A row that another device owns is sent beyond the end, and dropped.
    target = jnp.where(mine, local, local_table.shape[0])
    return local_table.at[target].set(values, mode='drop')

  split = PartitionSpec(AXIS, *[None] * (table.ndim - 1))
  return jax.shard_map(
    local_put, mesh=mesh, in_specs=(split, _WHOLE, _WHOLE), out_specs=split
  )(table, index, values)


def similarity(
  bank: jax.Array,
  embedding: jax.Array,
  index: jax.Array,
  *,
  mesh: Mesh,
  known: jax.Array | None = None,
) -> jax.Array:
  """Dot products of each embedding with chosen rows of the bank.

  Args:
    bank: float32 [rows, D], rows split over `data`; carries no gradient.
    embedding: float32 [B, D]; differentiable.
    index: int32 [B, K], the rows to compare embedding b with.
    mesh: the mesh that the bank lies on.
    known: float32 [B, K], the products where a search has found them; they
      only receive their gradient here.

  Returns:
    float32 [B, K], replicated.

  Sharding: rows stay where they are; one all-reduce of [B, K] products, if
  they are not known, and one of [B, D] in the backward pass.

  Memory: at most `GATHERED_BYTES` of rows are gathered at a time, again in
  the backward pass, so that [B, K, D] never exists where it is large.
  """
  if not index.size:
    return jnp.zeros(index.shape, jnp.float32)
  bank = jax.lax.stop_gradient(bank)
  if known is None:
    products = _products(bank, jax.lax.stop_gradient(embedding), index, mesh)
  else:
    products = jax.lax.stop_gradient(known)
  return _with_gradient(mesh, bank, embedding, index, products)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _with_gradient(mesh, bank, embedding, index, products):
  """The products of embeddings with bank rows, differentiable as such."""
  del mesh, bank, embedding, index
  return products


def _forward(mesh, bank, embedding, index, products):
  del mesh, embedding
  return products, (bank, index)


def _backward(mesh, kept, cotangent):
  bank, index = kept
  return None, _weighted_rows(bank, cotangent, index, mesh), None, None


_with_gradient.defvjp(_forward, _backward)


def _products(bank, embedding, index, mesh):
  """[B, K]: dot products of embedding b [D] with the rows index[b]."""

  def of_rows(rows, mine, vector):
    products = jnp.einsum(
      'kd,d->k', rows, vector, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.where(mine, products, 0.0)

  return _over_rows(of_rows, bank, embedding, index, mesh)


def _weighted_rows(bank, weight, index, mesh):
  """[B, D]: sums of the rows index[b], weighted by weight[b] [K]."""

  def of_rows(rows, mine, weight):
    weight = jnp.where(mine, weight, 0.0)
    return jnp.einsum(
      'kd,k->d', rows, weight, precision=jax.lax.Precision.HIGHEST
    )

  return _over_rows(of_rows, bank, weight, index, mesh)


def _over_rows(of_rows, bank, values, index, mesh):
  """Sums over devices what a function makes of the rows of each embedding."""

  def local(local_bank, values, index):
    def of_one(pair):
      value, chosen = pair
      row, mine = _owned(chosen, local_bank.shape[0])
      return of_rows(local_bank[row], mine, value)

    batch, num_chosen = index.shape
    at_a_time = GATHERED_BYTES // (4 * num_chosen * local_bank.shape[1])
    if at_a_time >= batch:
      found = jax.vmap(of_one)((values, index))
    else:
      found = jax.lax.map(of_one, (values, index), batch_size=max(1, at_a_time))
    return jax.lax.psum(found, AXIS)

  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(_SPLIT_ROWS, _WHOLE, _WHOLE),
    out_specs=_WHOLE,
  )(bank, values, index)


def updated_rows(
  old: jax.Array, embedding: jax.Array, *, momentum: float
) -> jax.Array:
  """Moves bank rows towards the new embeddings of their videos.

  Each becomes normalize(momentum * old + (1 - momentum) * embedding).

  Args:
    old: float32 [B, D], rows of the bank, see `take`.
    embedding: float32 [B, D], unit rows; no gradient passes.
    momentum: share of the old row that is kept, in [0, 1); 0 replaces it.

  Returns:
    float32 [B, D], unit rows, for `put`.

  Raises:
    ValueError: if shapes do not fit together or momentum is out of range.

  Source: official code (`instance_model.py`), momentum 0.5.
  """
  if embedding.shape != old.shape:
    raise ValueError(
      f'embeddings {embedding.shape} do not match rows {old.shape}.'
    )
  if not 0.0 <= momentum < 1.0:
    raise ValueError(f'momentum must lie in [0, 1), got {momentum}.')
  new = jax.lax.stop_gradient(embedding).astype(jnp.float32)
  return normalize(momentum * old + (1.0 - momentum) * new)
