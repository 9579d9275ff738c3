"""Exact nearest neighbours of embeddings in the row-sharded memory bank."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from vie_jax import sharding

AXIS = sharding.DATA_AXIS


def top_k(
  bank: jax.Array,
  query: jax.Array,
  *,
  k: int,
  num_videos: int,
  mesh: Mesh,
) -> tuple[jax.Array, jax.Array]:
  """Finds the k bank rows with the largest dot product.

  Args:
    bank: float32 [rows, D], rows split over `data`; rows from num_videos on
      are padding and never found.
    query: float32 [B, D]. Carries no gradient: see `memory_bank.similarity`.
    k: neighbours, in [1, num_videos].
    num_videos: N.
    mesh: the mesh that the bank lies on.

  Returns:
    (similarity float32 [B, k], index int32 [B, k]), replicated, best first,
    of equal ones the lower index first.

  Raises:
    ValueError: if k is out of range.

  Sharding: each device searches its own rows; only k candidates per device
  and query travel. Exact, and the same on any number of devices.
  """
  if not 1 <= k <= num_videos:
    raise ValueError(f'k must lie in [1, {num_videos}], got {k}.')

  def local_top_k(local_bank, query):
    rows = local_bank.shape[0]
    first = jax.lax.axis_index(AXIS).astype(jnp.int32) * rows
    products = jnp.einsum(
      'bd,nd->bn', query, local_bank, precision=jax.lax.Precision.HIGHEST
    )
    is_video = first + jnp.arange(rows, dtype=jnp.int32) < num_videos
    products = jnp.where(is_video[None, :], products, -jnp.inf)
    value, index = jax.lax.top_k(products, min(k, rows))
    index = index.astype(jnp.int32) + first
    # Shards in order, each sorted: top_k prefers the lower index at ties.
    value = jax.lax.all_gather(value, AXIS, axis=1, tiled=True)
    index = jax.lax.all_gather(index, AXIS, axis=1, tiled=True)
    value, place = jax.lax.top_k(value, k)
    return value, jnp.take_along_axis(index, place, axis=1)

  return jax.shard_map(
    local_top_k,
    mesh=mesh,
    in_specs=(PartitionSpec(AXIS, None), PartitionSpec()),
    out_specs=(PartitionSpec(), PartitionSpec()),
    # The merged result is equal everywhere, which the checker cannot see.
    check_vma=False,
  )(jax.lax.stop_gradient(bank), jax.lax.stop_gradient(query))
