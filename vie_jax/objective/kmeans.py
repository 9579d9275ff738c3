"""k-means over the row-sharded memory bank.

Lloyd's iterations as faiss runs them for the official code: Euclidean
distance, distinct rows as first centroids, empty clusters split off the
largest ones, 20 iterations, no subsampling, centroids not normalised.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from vie_jax import sharding
from vie_jax.objective import memory_bank, nearest_neighbors, row_blocks

AXIS = sharding.DATA_AXIS
SPLIT_EPSILON = 1.0 / 1024
"""Relative distance between the halves of a split cluster, as in faiss."""

CHUNK = 1024
"""Rows that are compared with all centroids at a time, unless on a GPU: their
scores should fit the cache of a CPU."""
SCORE_BYTES = 2**29
"""Bytes of scores that a GPU forms at a time, unless those of CHUNK rows are
more."""

# Scores that are looked at together for the largest one: the lanes of a TPU.
_GROUP = 128
# Compute capabilities of A100, H100 and H200, B200 and B300.
_QUICK_TENSORFLOAT = ('8.0', '9.', '10.')


class Clustering(NamedTuple):
  """A k-means result.

  Attributes:
    labels: int32 [rows], nearest centroid of every row, split over `data`;
      -1 for padding.
    centroids: float32 [C, D], replicated.
    sizes: int32 [C], rows per cluster.
    objective: float32 [iterations + 1], sum of squared distances to the
      centroids that each assignment was made with; the last belongs to
      `labels`.
  """

  labels: jax.Array
  centroids: jax.Array
  sizes: jax.Array
  objective: jax.Array


def fit(
  points: jax.Array,
  *,
  key: jax.Array,
  num_videos: int,
  num_clusters: int,
  num_iterations: int,
  mesh: Mesh,
  chunk_size: int | None = None,
  last_labels: jax.Array | None = None,
) -> Clustering:
  """Clusters the rows of the bank.

  Args:
    points: float32 [rows, D], rows split over `data`, at the scale that they
      have (rows not yet visited are not unit).
    key: decides the first centroids; the same key picks the same rows.
    num_videos: N; later rows are padding and belong to no cluster.
    num_clusters: C, in [1, N].
    num_iterations: Lloyd iterations.
    mesh: the mesh that the points lie on.
    chunk_size: rows compared with all centroids at a time on a device, if not
      those of `rows_of_chunk`.
    last_labels: int32 [rows], split like the points, a clustering of these
      videos into C clusters. The first centroids are then the means of its
      clusters, at the places that the points have now; `key` is not used.

  Returns:
    A `Clustering`.

  Raises:
    ValueError: if there are fewer videos than clusters, no clusters, or no rows
      in a chunk.

  Sharding: centroids are replicated, points stay where they are; per
  iteration one all-reduce of [C, D + 2].

  Products with the centroids are float32 ones; on A100, H100 and their
  successors they are sums of three products of TensorFloat-32 parts, with
  which the objective is the same to 1e-6 (docs/performance.md).

  Source: official code (`cluster_km.py`, faiss). Deviations: the donors of
  empty clusters are the largest ones in order, where faiss draws them by
  size; the first centroids come from another random generator. The official
  code knows no `last_labels`.
  """
  if num_clusters < 1:
    raise ValueError(f'num_clusters must be at least 1, got {num_clusters}.')
  if num_clusters > num_videos:
    raise ValueError(
      f'{num_clusters} clusters need at least as many videos, got {num_videos}.'
    )
  if chunk_size is None:
    platform = mesh.devices.flat[0].platform
    chunk_size = rows_of_chunk(platform, num_clusters)
  if chunk_size < 1:
    raise ValueError(f'chunk_size must be at least 1, got {chunk_size}.')
  if last_labels is None:
    first = _first_centroids(points, key, num_videos, num_clusters, mesh)
  else:
    sums, sizes = _sums(points, last_labels, num_clusters, mesh)
    first = _updated_centroids(jnp.zeros_like(sums), sums, sizes)

  def lloyd(centroids, _):
    _, sums, sizes, objective = _assign(
      points, centroids, num_videos, chunk_size, mesh
    )
    return _updated_centroids(centroids, sums, sizes), objective

  centroids, objectives = jax.lax.scan(lloyd, first, length=num_iterations)
  labels, _, sizes, objective = _assign(
    points, centroids, num_videos, chunk_size, mesh
  )
  objectives = jnp.append(objectives, objective)
  return Clustering(labels, centroids, sizes, objectives)


def rows_of_chunk(platform: str, num_clusters: int) -> int:
  """Rows that a device compares with all centroids at a time.

  On GPUs as many as SCORE_BYTES hold: for fewer, the time goes into starting
  kernels (docs/performance.md).

  Args:
    platform: of the device, as JAX names it.
    num_clusters: C.
  """
  if platform != 'gpu':
    return CHUNK
  return max(CHUNK, SCORE_BYTES // (4 * num_clusters))


def _first_centroids(points, key, num_videos, num_clusters, mesh):
  """Distinct rows, every choice equally likely: the C largest of N draws."""
  draws = jax.random.uniform(key, (points.shape[0], 1))
  draws = jax.lax.with_sharding_constraint(
    draws, jax.NamedSharding(mesh, PartitionSpec(AXIS, None))
  )
  _, chosen = nearest_neighbors.top_k(
    draws,
    jnp.ones((1, 1), jnp.float32),
    k=num_clusters,
    num_videos=num_videos,
    mesh=mesh,
  )
  return memory_bank.take(points, chosen[0], mesh=mesh)


def _sums(points, labels, num_clusters, mesh):
  """Sums and sizes of the clusters that the rows belong to."""

  def local_sums(local_points, local_labels):
    # Padding is sent beyond the end, and dropped.
    target = jnp.where(local_labels < 0, num_clusters, local_labels)
    sums = jnp.zeros((num_clusters, local_points.shape[1]), jnp.float32)
    sums = sums.at[target].add(local_points, mode='drop')
    sizes = jnp.zeros((num_clusters,), jnp.int32).at[target].add(1, mode='drop')
    return jax.lax.psum((sums, sizes), AXIS)

  return jax.shard_map(
    local_sums,
    mesh=mesh,
    in_specs=(PartitionSpec(AXIS, None), PartitionSpec(AXIS)),
    out_specs=(PartitionSpec(), PartitionSpec()),
  )(points, labels)


def _assign(points, centroids, num_videos, chunk_size, mesh):
  """Nearest centroid of every row, and the sums that move the centroids."""
  num_clusters = centroids.shape[0]
  precision = _product_precision(mesh.devices.flat[0])

  def local_assign(local_points, centroids):
    rows = local_points.shape[0]
    first = jax.lax.axis_index(AXIS).astype(jnp.int32) * rows
    columns, half_norm = _columns(centroids)

    def of_chunk(carry, row, is_new):
      x = row_blocks.read(local_points, row)
      is_video = first + row < num_videos
      product = jnp.einsum('nd,cd->nc', x, columns, precision=precision)
      best, place = _first_largest(product - half_norm[None, :])
      # The place of NaN may be beyond the clusters.
      label = jnp.minimum(place, num_clusters - 1)
      # |x - c|^2 = |x|^2 - 2 (x c - |c|^2 / 2)
      square = jnp.sum(jnp.square(x), axis=1)
      distance = jnp.maximum(square - 2.0 * best, 0.0)
      labels, sums, sizes, objective = carry
      labels = jax.lax.dynamic_update_slice_in_dim(
        labels, jnp.where(is_video, label, -1), row[0], axis=0
      )
      counts = is_video & is_new
      target = jnp.where(counts, label, num_clusters)
      sums = sums.at[target].add(x, mode='drop')
      sizes = sizes.at[target].add(1, mode='drop')
      objective += jnp.sum(jnp.where(counts, distance, 0.0))
      return labels, sums, sizes, objective

    start = jax.lax.pcast(
      (
        jnp.full((rows,), -1, jnp.int32),
        jnp.zeros_like(centroids),
        jnp.zeros((num_clusters,), jnp.int32),
        jnp.zeros((), jnp.float32),
      ),
      AXIS,
      to='varying',
    )
    labels, *totals = row_blocks.fold(
      of_chunk, start, num_rows=rows, block_rows=chunk_size
    )
    return labels, *jax.lax.psum(totals, AXIS)

  whole = PartitionSpec()
  return jax.shard_map(
    local_assign,
    mesh=mesh,
    in_specs=(PartitionSpec(AXIS, None), whole),
    out_specs=(PartitionSpec(AXIS), whole, whole, whole),
  )(points, centroids)


def _columns(centroids):
  """Centroids and halves of their squares, filled up to groups of _GROUP."""
  half_norm = 0.5 * jnp.sum(jnp.square(centroids), axis=1)
  beyond = -centroids.shape[0] % _GROUP
  columns = jnp.pad(centroids, ((0, beyond), (0, 0)))
  return columns, jnp.pad(half_norm, (0, beyond), constant_values=jnp.inf)


def _first_largest(score):
  """The largest value of each row, and its first place.

  The maxima of groups of values are formed in one pass, and then only the first
  group with the largest is looked at. XLA's argmax takes several times as long
  on CPUs, and looking for the place in a second pass 1.4 times
  (docs/performance.md).

  Args:
    score: float32 [rows, C], C a multiple of _GROUP.

  Returns:
    (float32 [rows], int32 [rows]); of a row with NaN the last place.
  """
  groups = score.reshape(-1, _GROUP)
  largest = jnp.max(groups, axis=1).reshape(score.shape[0], -1)
  best = jnp.max(largest, axis=1)
  group = _first_place(largest, best)
  row = jnp.arange(score.shape[0], dtype=jnp.int32)
  chosen = groups[row * largest.shape[1] + group]
  return best, group * _GROUP + _first_place(chosen, best)


def _first_place(values, wanted):
  """int32 [rows]: where [rows, n] first equals [rows]; n - 1 where nowhere."""
  place = jnp.arange(values.shape[1], dtype=jnp.int32)[None, :]
  is_wanted = values == wanted[:, None]
  return jnp.min(jnp.where(is_wanted, place, values.shape[1] - 1), axis=1)


def _product_precision(device):
  """How products of rows and centroids come to be float32 ones on a device.

  Three products of TensorFloat-32 parts, added up, pay where one is more than
  three times as quick as one of float32: on NVIDIA's GPUs for data centres, but
  not on others of the same generations. An H100 is 1.6 times as quick with them
  (docs/performance.md).
  """
  capability = str(getattr(device, 'compute_capability', ''))
  if device.platform == 'gpu' and capability.startswith(_QUICK_TENSORFLOAT):
    return jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3
  return jax.lax.Precision.HIGHEST


def _updated_centroids(centroids, sums, sizes):
  """The means of the clusters; empty ones split off the largest clusters."""
  filled = sizes > 0
  count = jnp.maximum(sizes, 1).astype(jnp.float32)[:, None]
  means = jnp.where(filled[:, None], sums / count, centroids)
  num_clusters, dim = means.shape
  # The n-th empty cluster takes the n-th largest as its donor, in turn.
  by_size = jnp.argsort(-sizes, stable=True).astype(jnp.int32)
  turn = jnp.cumsum(~filled, dtype=jnp.int32) - 1
  num_filled = jnp.maximum(jnp.sum(filled, dtype=jnp.int32), 1)
  donor = by_size[turn % num_filled]
  own = jnp.arange(num_clusters, dtype=jnp.int32)
  source = jnp.where(filled, own, donor)
  is_donor = jnp.zeros((num_clusters,), bool).at[source].max(~filled)
  sign = jnp.where(jnp.arange(dim, dtype=jnp.int32) % 2 == 0, 1.0, -1.0)
  direction = jnp.where(filled, jnp.where(is_donor, -1.0, 0.0), 1.0)
  # A donor that gives several times sends each piece further away.
  round_ = jnp.where(filled, 0, turn // num_filled).astype(jnp.float32)
  step = SPLIT_EPSILON * (1.0 + round_)
  factor = 1.0 + (direction * step)[:, None] * sign[None, :]
  return means[source] * factor
