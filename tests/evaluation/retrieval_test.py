"""Recall, its chance and predictions agree with loops written for them."""

import itertools

import numpy as np
import pytest

from vie_jax.evaluation import knn, retrieval

KS = (1, 5, 10, 20)


def some_labels(seed, *, num_queries=40, num_videos=30, num_classes=6):
  """Random labels of queries, of neighbours and of training videos."""
  rng = np.random.default_rng(seed)
  train = rng.integers(-1, num_classes, num_videos).astype(np.int32)
  labels = rng.integers(-1, num_classes, num_queries).astype(np.int32)
  index = np.stack([rng.permutation(num_videos) for _ in range(num_queries)])
  return labels, train, index


@pytest.mark.parametrize('seed', range(3))
def test_recall_counts_queries_with_a_right_label_among_the_nearest(seed):
  labels, train, index = some_labels(seed)
  found = retrieval.recall(labels, train[index[:, :20]], num_neighbors=KS)
  for k in KS:
    hits = total = 0
    for query, label in enumerate(labels):
      if label == -1:
        continue
      total += 1
      for video in index[query][:k]:
        if train[video] == label:
          hits += 1
          break
    assert found[str(k)] == pytest.approx(hits / total, abs=1e-12)
  assert 0 < found['1'] < found['20'] <= 1


def test_recall_of_more_neighbours_than_there_are_is_that_of_all():
  labels = np.array([0, 1, 2], np.int32)
  found = np.array([[1, 0], [1, 1], [0, 1]], np.int32)
  recall = retrieval.recall(labels, found, num_neighbors=(1, 2, 20))
  assert recall == {
    '1': pytest.approx(1 / 3),
    '2': pytest.approx(2 / 3),
    '20': pytest.approx(2 / 3),
  }


def test_unknown_is_never_right_and_without_labels_there_is_no_recall():
  labels = np.array([-1, 0], np.int32)
  found = np.array([[-1, -1], [-1, 0]], np.int32)
  assert retrieval.recall(labels, found, num_neighbors=(1, 2)) == {
    '1': 0.0,
    '2': 1.0,
  }
  assert retrieval.recall(labels[:1], found[:1], num_neighbors=(1,)) == {}
  assert retrieval.chance_recall(labels[:1], found[0], num_neighbors=(1,)) == {}


def test_chance_recall_is_the_mean_over_all_draws():
  labels = np.array([0, 1, -1, 3], np.int32)  # Nothing is of class 3.
  train = np.array([0, 0, 1, 2, 2, -1], np.int32)
  found = retrieval.chance_recall(labels, train, num_neighbors=(1, 2, 4, 9))
  for k in (1, 2, 4, 9):
    shares = []
    for label in (0, 1, 3):
      draws = list(itertools.permutations(range(6), min(k, 6)))
      hits = sum(any(train[i] == label for i in draw) for draw in draws)
      shares.append(hits / len(draws))
    assert found[str(k)] == pytest.approx(np.mean(shares), abs=1e-12)


def test_chance_recall_is_a_number_at_the_size_of_kinetics():
  rng = np.random.default_rng(0)
  train = rng.integers(0, 400, 239_888).astype(np.int32)
  labels = rng.integers(0, 400, 1000).astype(np.int32)
  found = retrieval.chance_recall(labels, train, num_neighbors=KS)
  for k in KS:
    assert found[str(k)] == pytest.approx(1 - (1 - 1 / 400) ** k, rel=0.02)


def test_predictions_are_the_votes_of_the_neighbours():
  labels, train, index = some_labels(7, num_queries=12)
  train[:12] = -1
  index[0] = np.arange(30)  # Its ten nearest have no label.
  rng = np.random.default_rng(7)
  similarity = -np.sort(-rng.uniform(0, 1, (12, 10)), axis=1)
  neighbors = knn.Neighbors(similarity.astype(np.float32), index[:, :10])
  scores = knn.class_scores(neighbors, train, num_classes=6, temperature=0.1)
  predicted = retrieval.predictions(scores)
  assert predicted[0] == -1
  for query in range(1, len(labels)):
    votes = dict.fromkeys(range(6), 0.0)
    for video, value in zip(index[query], similarity[query], strict=False):
      if train[video] != -1:
        votes[train[video]] += np.exp(value / 0.1)
    assert predicted[query] == max(votes, key=votes.get)


def test_a_column_without_classes_predicts_nothing():
  assert retrieval.predictions(np.zeros((2, 0))).tolist() == [-1, -1]


@pytest.mark.parametrize(('count', 'total'), [(3, 10), (50, 7), (1, 1), (4, 0)])
def test_evenly_spread_numbers_differ_and_lie_in_range(count, total):
  chosen = retrieval.evenly_spread(count, total).tolist()
  assert len(chosen) == min(count, total)
  assert chosen == sorted(set(chosen))
  assert set(chosen) <= set(range(total))
  gaps = np.diff(chosen)
  assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
