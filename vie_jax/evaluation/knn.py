"""Weighted k-nearest-neighbour classification against the training videos."""

import dataclasses
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from vie_jax import sharding
from vie_jax.objective import memory_bank, nearest_neighbors

QUERIES_AT_A_TIME = 256


@dataclasses.dataclass(frozen=True)
class Neighbors:
  """Nearest training videos of queries, best first.

  Attributes:
    similarity: float32 [Q, k].
    index: int32 [Q, k], instance indices.
  """

  similarity: np.ndarray
  index: np.ndarray


def as_bank(vectors: np.ndarray, mesh: Mesh) -> jax.Array:
  """Lays out vectors `[N, D]` like a memory bank: padded, split by rows."""
  rows = memory_bank.num_rows(len(vectors), mesh.size)

  def of_device(index):
    start, stop, _ = index[0].indices(rows)
    found = vectors[start:stop]
    return np.pad(found, ((0, stop - start - len(found)), (0, 0)))

  return jax.make_array_from_callback(
    (rows, vectors.shape[1]), sharding.rows(mesh), of_device
  )


@partial(jax.jit, static_argnames=('k', 'num_videos', 'mesh'))
def _top_k(bank, queries, *, k, num_videos, mesh):
  found = nearest_neighbors.top_k(
    bank, queries, k=k, num_videos=num_videos, mesh=mesh
  )
  # Replicated, so that every host can read all of it.
  return jax.lax.with_sharding_constraint(found, sharding.replicated(mesh))


def search(
  bank: jax.Array, queries: np.ndarray, *, k: int, num_videos: int, mesh: Mesh
) -> Neighbors:
  """Finds the k nearest training videos of each query.

  Args:
    bank: float32 [rows, D], rows split over `data`.
    queries: float32 [Q, D].
    k: neighbours, in [1, num_videos].
    num_videos: N; later rows are padding.
    mesh: the mesh that the bank lies on.
  """
  found = []
  # One search even of no queries: it checks k, and finds arrays to cut.
  for start in range(0, max(1, len(queries)), QUERIES_AT_A_TIME):
    chunk = queries[start : start + QUERIES_AT_A_TIME]
    # One shape for all chunks: one compilation.
    padded = np.pad(chunk, ((0, QUERIES_AT_A_TIME - len(chunk)), (0, 0)))
    values = jax.tree.map(
      np.asarray, _top_k(bank, padded, k=k, num_videos=num_videos, mesh=mesh)
    )
    found.append([value[: len(chunk)] for value in values])
  similarity, index = map(np.concatenate, zip(*found, strict=True))
  return Neighbors(similarity, index)


def class_scores(
  neighbors: Neighbors,
  labels: np.ndarray,
  *,
  num_classes: int,
  temperature: float,
) -> np.ndarray:
  """Lets the neighbours vote, each with weight exp(similarity / t) / k.

  Args:
    neighbors: of Q queries.
    labels: int32 [N], of the training videos; -1 casts no vote.
    num_classes: C.
    temperature: t, at least 0.002: at 0.001 float64 has no exp(1 / t).

  Returns:
    float64 [Q, C].

  Source: official code (kNN validation); scores are not normalised.
  """
  num_queries, k = neighbors.index.shape
  scores = np.zeros((num_queries, num_classes))
  voted = labels[neighbors.index]
  weight = np.exp(neighbors.similarity.astype(np.float64) / temperature) / k
  query = np.broadcast_to(np.arange(num_queries)[:, None], voted.shape)
  counts = voted >= 0
  np.add.at(scores, (query[counts], voted[counts]), weight[counts])
  return scores


def accuracy(
  scores: np.ndarray, labels: np.ndarray, *, num_clips: int
) -> dict[str, float]:
  """Accuracies of class scores given clip by clip.

  Args:
    scores: [V * G, C], the G clips of a video in a row.
    labels: int32 [V]; videos labelled -1 are left out.
    num_clips: G.

  Returns:
    `top1` and `top5` of videos, whose clips' scores are averaged (official),
    and `clip_top1`, each clip for itself; nothing if no video has a label. A
    class without a vote is no hit: the official code takes the first classes
    where all scores are 0, or fewer than five are not.
  """
  known = labels >= 0
  truth = labels[known]
  if not truth.size:
    return {}
  by_clip = scores.reshape(len(labels), num_clips, -1)[known]
  by_video = by_clip.mean(axis=1)
  ranked = np.argsort(-by_video, axis=1, kind='stable')
  has_vote = _of_class(by_video, truth) > 0
  in_top5 = (ranked[:, :5] == truth[:, None]).any(axis=1)
  is_best = by_clip.argmax(axis=2) == truth[:, None]
  clip_has_vote = _of_class(by_clip, truth[:, None]) > 0
  return {
    'top1': float((has_vote & (ranked[:, 0] == truth)).mean()),
    'top5': float((has_vote & in_top5).mean()),
    'clip_top1': float((clip_has_vote & is_best).mean()),
  }


def _of_class(scores, labels):
  """The score of each label: [..., C], [...] -> [...]."""
  return np.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
