import numpy as np
import pytest
from objective import losses_case
from oracle import official

from vie_jax.evaluation import knn, retrieval

NUM_CLASSES = 10
TEMPERATURE = 0.07


def vote(bank, labels, query, k):
  """Class scores of one query, neighbour by neighbour."""
  products = [float(np.dot(row, query)) for row in bank.astype(np.float64)]
  order = sorted(range(len(bank)), key=lambda i: -products[i])[:k]
  scores = [0.0] * NUM_CLASSES
  for i in order:
    if labels[i] >= 0:
      scores[labels[i]] += np.exp(products[i] / TEMPERATURE) / k
  return order, scores


def unit(vectors):
  vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors.astype(np.float32)


def random_case(num_videos, num_queries, seed=0):
  rng = np.random.default_rng(seed)
  bank = unit(rng.standard_normal((num_videos, 16)))
  queries = unit(rng.standard_normal((num_queries, 16)))
  labels = rng.integers(-1, NUM_CLASSES, num_videos).astype(np.int32)
  return bank, queries, labels


# More queries than are searched at a time, and not a multiple of it.
@pytest.mark.parametrize('num_queries', [1, knn.QUERIES_AT_A_TIME + 3])
def test_search_and_scores_equal_a_loop_over_all_videos(mesh, num_queries):
  bank, queries, labels = random_case(130, num_queries)
  found = knn.search(
    losses_case.padded(bank, mesh), queries, k=10, num_videos=130, mesh=mesh
  )
  scores = knn.class_scores(
    found, labels, num_classes=NUM_CLASSES, temperature=TEMPERATURE
  )
  assert found.index.shape == (num_queries, 10)
  for query, index, score in zip(queries, found.index, scores, strict=True):
    order, expected = vote(bank, labels, query, 10)
    assert index.tolist() == order
    np.testing.assert_allclose(score, expected, rtol=1e-4)


def test_no_queries_have_no_neighbors(mesh):
  bank, queries, labels = random_case(130, 1)
  found = knn.search(
    losses_case.padded(bank, mesh), queries[:0], k=10, num_videos=130, mesh=mesh
  )
  assert found.similarity.shape == found.index.shape == (0, 10)
  scores = knn.class_scores(
    found, labels, num_classes=NUM_CLASSES, temperature=TEMPERATURE
  )
  assert scores.shape == (0, NUM_CLASSES)


def test_scores_and_predictions_are_the_official_ones(mesh):
  official_knn = official.load('losses_11.json')['knn']
  case = losses_case.inputs(11)
  rows, queries = losses_case.knn_queries(11, case)
  assert rows.tolist() == official_knn['video_rows']
  found = knn.search(
    losses_case.padded(case['bank'], mesh),
    queries,
    k=10,
    num_videos=losses_case.NUM_VIDEOS,
    mesh=mesh,
  )
  scores = knn.class_scores(
    found, case['label'], num_classes=NUM_CLASSES, temperature=TEMPERATURE
  )
  by_video = scores.reshape(20, 5, NUM_CLASSES).mean(axis=1)
  np.testing.assert_allclose(
    by_video[:3], official_knn['scores_first3'], rtol=1e-4, atol=1e-6
  )
  predictions = by_video.argmax(axis=1)
  assert predictions.tolist() == official_knn['predictions']
  accuracy = knn.accuracy(scores, case['label'][rows], num_clips=5)
  assert accuracy['top1'] == official_knn['official_top1']


def test_videos_without_a_label_cast_no_vote():
  found = knn.Neighbors(
    np.array([[0.9, 0.8, 0.1]], np.float32), np.array([[0, 1, 2]], np.int32)
  )
  labels = np.array([-1, -1, 1], np.int32)
  scores = knn.class_scores(found, labels, num_classes=2, temperature=1.0)
  np.testing.assert_allclose(scores, [[0.0, np.exp(0.1) / 3]], rtol=1e-6)


def test_padding_is_never_a_neighbor(mesh):
  bank = unit(-np.ones((5, 4)))
  # Padded rows of `as_bank` are zero: nearer to this query than any video.
  found = knn.search(
    knn.as_bank(bank, mesh),
    unit(np.ones((2, 4))),
    k=5,
    num_videos=5,
    mesh=mesh,
  )
  assert found.index.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_accuracy_equals_a_loop_and_leaves_unknown_labels_out():
  rng = np.random.default_rng(3)
  num_videos, num_clips = 40, 3
  scores = rng.uniform(size=(num_videos * num_clips, NUM_CLASSES))
  labels = rng.integers(-1, 4, num_videos).astype(np.int32)
  assert (labels == -1).any()
  top1 = top5 = clip_top1 = counted = 0
  for video, label in enumerate(labels):
    if label < 0:
      continue
    counted += 1
    clips = scores[video * num_clips : (video + 1) * num_clips]
    ranked = sorted(range(NUM_CLASSES), key=lambda c: -sum(clips[:, c]))
    top1 += ranked[0] == label
    top5 += label in ranked[:5]
    clip_top1 += sum(clip.argmax() == label for clip in clips) / num_clips
  assert knn.accuracy(scores, labels, num_clips=num_clips) == {
    'top1': pytest.approx(top1 / counted),
    'top5': pytest.approx(top5 / counted),
    'clip_top1': pytest.approx(clip_top1 / counted),
    'judged': counted,
  }


@pytest.mark.parametrize('num_parts', [1, 3, 7])
def test_scores_in_parts_give_the_same(monkeypatch, num_parts):
  rng = np.random.default_rng(1)
  found = knn.Neighbors(
    rng.random((14, 4)).astype(np.float32), rng.integers(0, 30, (14, 4))
  )
  votes = {
    'labels': rng.integers(-1, NUM_CLASSES, 30).astype(np.int32),
    'num_classes': NUM_CLASSES,
    'temperature': TEMPERATURE,
  }
  labels = np.array([1, -1, 3, 4, 5, 6, 0], np.int32)
  whole = knn.class_scores(found, **votes)
  expected = knn.accuracy(whole, labels, num_clips=2)
  predicted = retrieval.predictions(whole)
  videos = -(-7 // num_parts)
  monkeypatch.setattr(knn, 'PART_BYTES', 8 * NUM_CLASSES * 2 * videos)
  scores = knn.ClassScores(found, **votes)
  assert len(list(knn.slices(scores.shape, num_clips=2))) == num_parts
  assert knn.accuracy(scores, labels, num_clips=2) == expected
  np.testing.assert_array_equal(retrieval.predictions(scores), predicted)


def test_a_score_of_a_video_may_take_more_than_a_part():
  assert [*knn.slices((4, 10**9), num_clips=2)] == [slice(0, 2), slice(2, 4)]


def test_accuracy_without_any_label_is_left_out():
  accuracy = knn.accuracy(
    np.zeros((4, 3)), np.full(2, -1, np.int32), num_clips=2
  )
  assert accuracy == {}


def test_accuracy_of_no_videos_is_left_out():
  scores, labels = np.zeros((0, 3)), np.zeros(0, np.int32)
  assert knn.accuracy(scores, labels, num_clips=2) == {}


def test_a_class_without_a_vote_is_no_hit():
  scores = np.array(
    [
      [0, 0, 0],  # No neighbour of video 0 has a label,
      [0, 0, 0],
      [0, 0, 0],  # and of video 1 one clip's have.
      [0, 0, 1],
      [0, 2, 0],  # Of the class 0 there is no vote for video 2.
      [0, 1, 1],
    ]
  )
  accuracy = knn.accuracy(scores, np.array([0, 2, 0]), num_clips=2)
  assert accuracy == {
    'top1': 1 / 3,
    'top5': 1 / 3,
    'clip_top1': 1 / 6,
    'judged': 3,
  }


def test_a_vote_for_nothing_and_no_classes_are_no_hits():
  accuracy = knn.accuracy(np.zeros((4, 3)), np.array([0, 1, 2, 0]), num_clips=1)
  assert accuracy == {
    'top1': 0.0,
    'top5': 0.0,
    'clip_top1': 0.0,
    'judged': 4,
  }
