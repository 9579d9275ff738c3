"""Recall of labels among nearest neighbours, and labels that they predict."""

from collections.abc import Sequence

import numpy as np

from vie_jax.evaluation import knn


def recall(
  labels: np.ndarray, found: np.ndarray, *, num_neighbors: Sequence[int]
) -> dict[str, float]:
  """Share of queries with at least one of their label among the k nearest.

  Args:
    labels: int32 [Q], of the queries; those labelled -1 are left out.
    found: int32 [Q, K], labels of their neighbours, the nearest first; -1,
      unknown, is never right.
    num_neighbors: the values of k. More than K count as K, so that K must be
      all training videos, or the largest k at least.

  Returns:
    str(k) -> share in [0, 1]; nothing if no query has a label.

  Source: the retrieval protocol of Han et al. 2020, CoCLR, arXiv:2010.09709.
  """
  known = labels >= 0
  if not known.any():
    return {}
  is_right = found[known] == labels[known, None]
  return {
    str(k): float(is_right[:, :k].any(axis=1).mean()) for k in num_neighbors
  }


def chance_recall(
  labels: np.ndarray, train_labels: np.ndarray, *, num_neighbors: Sequence[int]
) -> dict[str, float]:
  """The recall to expect of neighbours drawn at random, none of them twice.

  With n of N training videos of the label of a query, k draws all miss it
  with probability prod_{i < k} (N - n - i) / (N - i).

  Args:
    labels: int32 [Q], of the queries; those labelled -1 are left out.
    train_labels: int32 [N], of the training videos; -1 is never right.
    num_neighbors: the values of k. More than N count as N.

  Returns:
    As `recall`.
  """
  known = labels[labels >= 0]
  if not known.size:
    return {}
  num_videos = len(train_labels)
  counts = np.bincount(
    train_labels[train_labels >= 0], minlength=int(known.max()) + 1
  )
  expected = {}
  for k in num_neighbors:
    drawn = np.arange(min(k, num_videos))
    left = np.maximum(num_videos - counts[known][:, None] - drawn, 0)
    missed = np.prod(left / (num_videos - drawn), axis=1)
    expected[str(k)] = float((1 - missed).mean())
  return expected


def predictions(scores: np.ndarray | knn.ClassScores) -> np.ndarray:
  """The class of the highest score, the first of several.

  Args:
    scores: float [Q, C], not negative.

  Returns:
    int32 [Q]; -1 where no neighbour has a label, and so no score is positive.
  """
  best = np.full(scores.shape[0], -1, np.int32)
  for rows in knn.slices(scores.shape) if scores.shape[1] else ():
    part = scores[rows]
    best[rows] = np.where(part.max(axis=1) > 0, part.argmax(axis=1), -1)
  return best


def evenly_spread(count: int, total: int) -> np.ndarray:
  """Picks so many of the numbers below `total`, or all, evenly: int [n]."""
  count = min(count, total)
  return np.arange(count) * total // max(count, 1)
