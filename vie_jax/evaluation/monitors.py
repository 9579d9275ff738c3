"""Is the embedding healthy? Figures that need no labels, and one that does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from vie_jax import sharding
from vie_jax.evaluation import knn
from vie_jax.objective import memory_bank, row_blocks

SAMPLE_ROWS = 4096
"""Rows that the sampled figures look at; all of them where there are fewer."""

MOMENT_ROWS = 65_536
"""Rows of a device that `effective_rank` looks at at a time."""

MAX_VIDEOS = 2000
"""Validation videos that `same_video_retrieval` looks at, the first ones."""


def sample_rows(num_videos: int) -> np.ndarray:
  """Evenly spread instance indices, int32 [min(N, SAMPLE_ROWS)]."""
  count = min(num_videos, SAMPLE_ROWS)
  return (np.arange(count) * num_videos // count).astype(np.int32)


def same_video_retrieval(embeddings: np.ndarray) -> dict[str, float]:
  """How often a clip's nearest other clip is of the same video.

  Args:
    embeddings: float32 [V, G, D], unit vectors.

  Returns:
    `top1` over all clips of the first `MAX_VIDEOS` videos, and `chance`.
    Nothing if there is one video or one clip of each: then there is no
    question.
  """
  embeddings = embeddings[:MAX_VIDEOS]
  num_videos, num_clips, dim = embeddings.shape
  if num_videos < 2 or num_clips < 2:
    return {}
  flat = embeddings.reshape(-1, dim)
  video = np.repeat(np.arange(num_videos), num_clips)
  hits = 0
  for start in range(0, len(flat), knn.QUERIES_AT_A_TIME):
    rows = np.arange(start, min(start + knn.QUERIES_AT_A_TIME, len(flat)))
    products = flat[rows] @ flat.T
    products[np.arange(len(rows)), rows] = -np.inf  # not itself
    hits += int((video[products.argmax(axis=1)] == video[rows]).sum())
  return {
    'top1': hits / len(flat),
    'chance': (num_clips - 1) / (len(flat) - 1),
  }


_take = jax.jit(memory_bank.take, static_argnames='mesh')


@partial(jax.jit, static_argnames=('num_videos', 'mesh'))
def _second_moment(bank, axes, num_videos, mesh):
  """Of the rows along some axes: [D, E] to [E, E]."""

  # Every device sums over its own rows, a block at a time: it needs no second
  # copy of them without the padding, and only [D, D] travels.
  def local_sum(local_bank, axes):
    rows = local_bank.shape[0]
    first = jax.lax.axis_index(sharding.DATA_AXIS).astype(jnp.int32) * rows

    def of_block(total, row, is_new):
      counts = is_new & (first + row < num_videos)
      block = jnp.where(counts[:, None], row_blocks.read(local_bank, row), 0.0)
      along = jnp.dot(block, axes, precision=jax.lax.Precision.HIGHEST)
      return total + jnp.einsum(
        'nd,ne->de', along, along, precision=jax.lax.Precision.HIGHEST
      )

    total = jnp.zeros((axes.shape[1],) * 2, jnp.float32)
    total = row_blocks.fold(
      of_block,
      jax.lax.pcast(total, sharding.DATA_AXIS, to='varying'),
      num_rows=rows,
      block_rows=MOMENT_ROWS,
    )
    return jax.lax.psum(total, sharding.DATA_AXIS)

  return (
    jax.shard_map(
      local_sum,
      mesh=mesh,
      in_specs=(PartitionSpec(sharding.DATA_AXIS, None), PartitionSpec()),
      out_specs=PartitionSpec(),
    )(bank, axes)
    / num_videos
  )


def effective_rank(bank: jax.Array, *, num_videos: int, mesh: Mesh) -> float:
  """Number of directions that the bank really uses, in [1, D].

  exp of the entropy of its singular values, taken as shares of their sum
  (Roy and Vetterli 2007, "The effective rank").

  Args:
    bank: float32 [rows, D], rows split over `data`.
    num_videos: N; later rows are padding.
    mesh: the mesh that the bank lies on.
  """
  axes = np.eye(bank.shape[1], dtype=np.float32)
  moment = np.asarray(_second_moment(bank, axes, num_videos, mesh), np.float64)
  # The roots of its eigenvalues are off by 3e-4 of the largest in float32, in
  # every direction. Lengths along its own axes are off by 1e-7.
  axes = np.linalg.eigh(moment)[1].astype(np.float32)
  moment = np.asarray(_second_moment(bank, axes, num_videos, mesh), np.float64)
  singular = np.sqrt(np.diagonal(moment))
  share = singular / max(singular.sum(), 1e-12)
  share = share[share > 0]
  return float(np.exp(-(share * np.log(share)).sum()))


@partial(jax.jit, static_argnames=('num_videos', 'never'))
def _ages(bank_step, step, num_videos, never):
  is_video = jnp.arange(bank_step.shape[0], dtype=jnp.int32) < num_videos
  visited = is_video & (bank_step != never)
  age = jnp.where(visited, step - bank_step, 0)
  # Counted in whole numbers: a float32 stops counting at 16.8 million.
  count = jnp.sum(visited, dtype=jnp.int32).astype(jnp.float32)
  return {
    'health/bank_age_mean': jnp.sum(age.astype(jnp.float32))
    / jnp.maximum(count, 1.0),
    'health/bank_age_max': jnp.max(age).astype(jnp.float32),
    'health/bank_share_never_visited': (num_videos - count) / num_videos,
  }


def bank_ages(
  bank_step: jax.Array, step: jax.Array, *, num_videos: int, never: int
) -> dict[str, float]:
  """Steps since the bank rows were last updated.

  Args:
    bank_step: int32 [rows], the step of the last update, or `never`.
    step: int32 scalar, now.
    num_videos: N; later rows are padding.
    never: the value that says a row was not visited yet.
  """
  ages = _ages(bank_step, step, num_videos=num_videos, never=never)
  return {name: float(value) for name, value in ages.items()}


def label_share(
  bank: jax.Array, labels: np.ndarray, *, k: int, num_videos: int, mesh: Mesh
) -> float:
  """Share of a bank row's k nearest other rows that have its label.

  Args:
    bank: float32 [rows, D], rows split over `data`.
    labels: int32 [N], -1 where unknown: not asked and not counted.
    k: neighbours looked at; at most N - 1 of them.
    num_videos: N; later rows are padding.
    mesh: the mesh that the bank lies on.

  Returns:
    The share, over a sample of rows; NaN if no row has a label.
  """
  rows = sample_rows(num_videos)
  rows = rows[labels[rows] >= 0]
  k = min(k + 1, num_videos)
  if not rows.size or k < 2:
    return float('nan')
  queries = np.asarray(_take(bank, rows, mesh=mesh))
  found = knn.search(bank, queries, k=k, num_videos=num_videos, mesh=mesh)
  other = found.index != rows[:, None]
  # A row that is not among its own neighbours has one too many.
  other &= np.cumsum(other, axis=1) < k
  neighbor = labels[found.index]
  counted = other & (neighbor >= 0)
  same = counted & (neighbor == labels[rows][:, None])
  return float(same.sum() / max(counted.sum(), 1))


def sampled_clusters(
  cluster_labels: jax.Array, *, num_videos: int, mesh: Mesh
) -> np.ndarray:
  """Cluster of a sample of videos: int32 [S, R] of labels [R, rows]."""
  rows = sample_rows(num_videos)
  return np.asarray(_take(cluster_labels.T, rows, mesh=mesh))


def cluster_change(before: np.ndarray, after: np.ndarray) -> float:
  """How much a clustering differs from the one before, in [0, 1].

  Of the pairs of videos that share a cluster before or after, the share that
  does not do so both times (Jaccard distance). Names of clusters do not
  matter.

  Args:
    before: int32 [S, R], clusters of sampled videos, one column a clustering.
    after: the same of the same videos.

  Returns:
    The mean over clusterings; 0 if no pair shares a cluster either time.
  """
  changes = []
  for old, new in zip(before.T, after.T, strict=True):
    together_old = _pairs(old)
    together_new = _pairs(new)
    # Videos together both times agree in the pair (old, new).
    together_both = _pairs(old.astype(np.int64) * (new.max() + 2) + new)
    either = together_old + together_new - together_both
    changes.append(1.0 - together_both / either if either else 0.0)
  return float(np.mean(changes))


def _pairs(labels):
  """Number of unordered pairs with equal labels."""
  _, counts = np.unique(labels, return_counts=True)
  counts = counts.astype(np.float64)
  return float((counts * (counts - 1) / 2).sum())
