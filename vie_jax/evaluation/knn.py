"""Weighted k-nearest-neighbour classification against the training videos."""

import dataclasses
from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from vie_jax import sharding
from vie_jax.evaluation import row_progress
from vie_jax.objective import memory_bank, nearest_neighbors

QUERIES_AT_A_TIME = 256
PART_BYTES = 2**26
"""The most memory that class scores take at a time."""


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
  progress = row_progress.RowProgress('Searched', len(queries), 'queries')
  # One search even of no queries: it checks k, and finds arrays to cut.
  for start in range(0, max(1, len(queries)), QUERIES_AT_A_TIME):
    chunk = queries[start : start + QUERIES_AT_A_TIME]
    # One shape for all chunks: one compilation.
    padded = np.pad(chunk, ((0, QUERIES_AT_A_TIME - len(chunk)), (0, 0)))
    values = jax.tree.map(
      np.asarray, _top_k(bank, padded, k=k, num_videos=num_videos, mesh=mesh)
    )
    found.append([value[: len(chunk)] for value in values])
    progress.report(start + len(chunk))
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


class ClassScores:
  """`class_scores` of the queries of a slice, formed when they are asked for.

  All at once they would take 8 Q C bytes: gigabytes with thousands of classes.

  Attributes:
    shape: (Q, C).
  """

  def __init__(
    self,
    neighbors: Neighbors,
    labels: np.ndarray,
    *,
    num_classes: int,
    temperature: float,
  ):
    self._neighbors = neighbors
    self._labels = labels
    self._temperature = temperature
    self.shape = (len(neighbors.index), num_classes)

  def __getitem__(self, rows: slice) -> np.ndarray:
    return class_scores(
      Neighbors(self._neighbors.similarity[rows], self._neighbors.index[rows]),
      self._labels,
      num_classes=self.shape[1],
      temperature=self._temperature,
    )


def slices(shape: tuple[int, int], *, num_clips: int = 1) -> Iterator[slice]:
  """Parts of scores [V * G, C] of PART_BYTES or less, of whole videos."""
  num_rows, num_classes = shape
  videos = max(1, PART_BYTES // (8 * max(1, num_classes) * num_clips))
  for start in range(0, num_rows, videos * num_clips):
    yield slice(start, min(num_rows, start + videos * num_clips))


def accuracy(
  scores: np.ndarray | ClassScores, labels: np.ndarray, *, num_clips: int
) -> dict[str, float]:
  """Accuracies of class scores given clip by clip.

  Args:
    scores: [V * G, C], the G clips of a video in a row.
    labels: int32 [V]; videos labelled -1 are left out.
    num_clips: G.

  Returns:
    `top1` and `top5` of videos, whose clips' scores are averaged (official),
    `clip_top1`, each clip for itself, and `judged`, the number of videos with a
    label; nothing if none has one. A class without a vote is no hit: the
    official code takes the first classes where all scores are 0, or fewer than
    five are not.
  """
  num_judged = int(np.count_nonzero(labels >= 0))
  if not num_judged:
    return {}
  hits = [
    _hits(
      scores[rows].reshape(-1, num_clips, scores.shape[1]),
      labels[rows.start // num_clips : rows.stop // num_clips],
    )
    for rows in slices(scores.shape, num_clips=num_clips)
  ]
  shares = {
    name: float(np.concatenate([part[name] for part in hits]).mean())
    for name in hits[0]
  }
  return {**shares, 'judged': num_judged}


def _hits(by_clip, labels):
  """Which videos [V], or clips [V, G], of those with a label are right."""
  known = labels >= 0
  truth, by_clip = labels[known], by_clip[known]
  by_video = by_clip.mean(axis=1)
  ranked = np.argsort(-by_video, axis=1, kind='stable')
  has_vote = _of_class(by_video, truth) > 0
  is_best = by_clip.argmax(axis=2) == truth[:, None]
  return {
    'top1': has_vote & (ranked[:, 0] == truth),
    'top5': has_vote & (ranked[:, :5] == truth[:, None]).any(axis=1),
    'clip_top1': (_of_class(by_clip, truth[:, None]) > 0) & is_best,
  }


def _of_class(scores, labels):
  """The score of each label: [..., C], [...] -> [...]."""
  return np.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
