"""Exact nearest neighbours of embeddings in the row-sharded memory bank."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from vie_jax import sharding
from vie_jax.machine import platform_choice
from vie_jax.objective import row_blocks

AXIS = sharding.DATA_AXIS
GROUP = 16
"""Rows whose best one stands for all of them, in the first part of a search."""


def top_k(
  bank: jax.Array,
  query: jax.Array,
  *,
  k: int,
  num_videos: int,
  mesh: Mesh,
  product_bytes: int = row_blocks.PRODUCT_BYTES,
) -> tuple[jax.Array, jax.Array]:
  """Finds the k bank rows with the largest dot product.

  Args:
    bank: float32 [rows, D], rows split over `data`; rows from num_videos on
      are padding and never found.
    query: float32 [B, D]. Carries no gradient: see `memory_bank.similarity`.
    k: neighbours, in [1, num_videos].
    num_videos: N.
    mesh: the mesh that the bank lies on.
    product_bytes: the most memory that dot products take on a device; more
      are formed block by block, with the same result.

  Returns:
    (similarity float32 [B, k], index int32 [B, k]), replicated, best first,
    of equal ones the lower index first.

  Raises:
    ValueError: if k is out of range.

  Sharding: each device searches its own rows; only k candidates per device
  and query travel, to the device that merges those of this query. Exact, and
  the same on any number of devices.
  """
  if not 1 <= k <= num_videos:
    raise ValueError(f'k must lie in [1, {num_videos}], got {k}.')
  if not query.shape[0]:
    return _nothing(0, k)

  def local_top_k(local_bank, query):
    rows, batch = local_bank.shape[0], query.shape[0]
    first = jax.lax.axis_index(AXIS).astype(jnp.int32) * rows

    def of_block(best, row, is_new):
      products = jnp.einsum(
        'bd,nd->bn',
        query,
        row_blocks.read(local_bank, row),
        precision=jax.lax.Precision.HIGHEST,
      )
      is_video = is_new & (first + row < num_videos)
      value, place = _best_columns(products, is_video, min(k, row.shape[0]))
      found = value, place.astype(jnp.int32) + first + row[0]
      return found if best is None else _merge(best, found, min(k, rows))

    block = row_blocks.rows_of_products(batch, product_bytes)
    found = row_blocks.fold(
      of_block,
      None if block >= rows else _nothing(batch, min(k, rows)),
      num_rows=rows,
      block_rows=block,
    )
    return _merge_over_devices(found, k, mesh.size)

  return jax.shard_map(
    local_top_k,
    mesh=mesh,
    in_specs=(PartitionSpec(AXIS, None), PartitionSpec()),
    out_specs=(PartitionSpec(), PartitionSpec()),
    # The merged result is equal everywhere, which the checker cannot see.
    check_vma=False,
  )(jax.lax.stop_gradient(bank), jax.lax.stop_gradient(query))


def is_grouped(num_columns: int, k: int) -> bool:
  """Whether a search among so many products forms maxima of groups first."""
  return num_columns % GROUP == 0 and num_columns >= 2 * GROUP * (k + 2)


def _best_columns(products, is_video, k):
  """The k best columns of each row, by groups of columns where there are many.

  Only the k groups with the best maxima can hold a column that is sought: any
  other has k columns before it, one in each of these. So one pass forms the
  maxima, and top_k sees N / 16 of them and then some 16 k columns, not N.
  Groups are neighbouring columns and stay in their order, so that of equal
  values the lower column is still the first.

  Columns are masked after the search for groups: a mask on the products is a
  second matrix of them wherever XLA does not fuse it into the maxima, as on a
  CPU. At most two groups hold columns of both kinds, where the block before
  ends and where padding begins. Their maxima may be too large; with two groups
  more the k best columns of the block are found nevertheless.
  """
  batch, num_columns = products.shape
  if not is_grouped(num_columns, k):
    products = jnp.where(is_video[None, :], products, -jnp.inf)
    return jax.lax.top_k(products, k)

  def tpu_or(for_others, for_tpu, *arguments):
    if num_columns % platform_choice.TPU_LANES:
      return for_others(*arguments)
    return platform_choice.by_platform(
      *arguments, tpu=for_tpu, others=for_others
    )

  is_video = is_video.reshape(-1, GROUP)
  maxima = tpu_or(maxima_of_groups, maxima_of_groups_on_tpu, products)
  maxima = jnp.where(jnp.any(is_video, axis=1)[None], maxima, -jnp.inf)
  _, group = jax.lax.top_k(maxima, k + 2)
  group = jnp.sort(group, axis=1)
  value = tpu_or(columns_of_groups, columns_of_groups_on_tpu, products, group)
  value = jnp.where(is_video[group], value, -jnp.inf).reshape(batch, -1)
  value, place = jax.lax.top_k(value, k)
  group = jnp.take_along_axis(group, place // GROUP, axis=1)
  return value, group * GROUP + place % GROUP


def maxima_of_groups(products: jax.Array) -> jax.Array:
  """float32 [B, N] -> [B, N / GROUP]: of neighbouring columns."""
  return jnp.max(products.reshape(products.shape[0], -1, GROUP), axis=2)


def maxima_of_groups_on_tpu(products: jax.Array) -> jax.Array:
  """The same for TPUs, where an axis of GROUP takes as much as one of TPU_LANES."""
  return jax.lax.reduce_window(
    products, -jnp.inf, jax.lax.max, (1, GROUP), (1, GROUP), 'VALID'
  )


def columns_of_groups(products: jax.Array, group: jax.Array) -> jax.Array:
  """float32 [B, N], int32 [B, n] -> [B, n, GROUP]: of n groups."""
  grouped = products.reshape(products.shape[0], -1, GROUP)
  return jnp.take_along_axis(grouped, group[:, :, None], axis=1)


def columns_of_groups_on_tpu(
  products: jax.Array, group: jax.Array
) -> jax.Array:
  """The same for TPUs: TPU_LANES columns at a time, and of these the group.

  N is a multiple of TPU_LANES.
  """
  batch, num_groups = group.shape
  in_row = platform_choice.TPU_LANES // GROUP
  rows = products.reshape(batch, -1, platform_choice.TPU_LANES)
  rows = jnp.take_along_axis(rows, group[:, :, None] // in_row, axis=1)
  rows = rows.reshape(batch, num_groups, in_row, GROUP)
  is_group = group[:, :, None] % in_row == jnp.arange(in_row)[None, None]
  return jnp.sum(jnp.where(is_group[..., None], rows, 0.0), axis=2)


def _nothing(batch, k):
  """Candidates that any row is better than."""
  value = jnp.full((batch, k), -jnp.inf, jnp.float32)
  return value, jnp.zeros((batch, k), jnp.int32)


def _merge(best, found, k):
  """The k best of two lists, of which the first has the lower indices."""
  value, index = (
    jnp.concatenate(pair, axis=1) for pair in zip(best, found, strict=True)
  )
  return _best(value, index, k)


def _best(value, index, k):
  # top_k prefers the first of equal values: the lower index, in this order.
  value, place = jax.lax.top_k(value, k)
  return value, jnp.take_along_axis(index, place, axis=1)


def _merge_over_devices(found, k, num_devices):
  """Merges the candidates of all devices, the shards in their order.

  Each device merges its share of the queries, so that no device ever holds
  the candidates of all devices for all queries. A batch that does not split
  evenly, such as a single query, is merged everywhere.
  """
  if found[0].shape[0] % num_devices:
    value, index = (
      jax.lax.all_gather(part, AXIS, axis=1, tiled=True) for part in found
    )
    return _best(value, index, k)
  # XLA knows a top_k by its shape, a sort and one slice of it. Cut into the
  # shares of the devices at once, it would sort all rows in earnest.
  found = jax.lax.optimization_barrier(found)
  share = (
    jax.lax.all_to_all(part, AXIS, split_axis=0, concat_axis=1, tiled=True)
    for part in found
  )
  value, index = (
    jax.lax.all_gather(part, AXIS, axis=0, tiled=True)
    for part in _best(*share, k)
  )
  return value, index
