import numpy as np
import pytest

from vie_jax.evaluation import clip_scores


def test_accuracies_are_those_of_a_loop_over_videos():
  rng = np.random.default_rng(0)
  labels = np.array([0, 6, -1, 3, 2, 6], np.int32)
  scores = rng.uniform(size=(6, 5, 8)).astype(np.float32)
  found = clip_scores.ClipScores(labels, 8)
  order = rng.permutation(30)
  for part in np.array_split(order, 4):
    video, clip = part // 5, part % 5
    found.add(video, scores[video, clip], labels[video])
  top1 = top5 = clips = videos = 0
  for video, label in enumerate(labels):
    if label < 0:
      continue
    videos += 1
    mean = scores[video].mean(axis=0)
    better = sum(score > mean[label] for score in mean)
    top1 += better < 1
    top5 += better < 5
    clips += sum(row.argmax() == label for row in scores[video])
  assert found.accuracy() == {
    'top1': pytest.approx(top1 / videos),
    'top5': pytest.approx(top5 / videos),
    'clip_top1': pytest.approx(clips / (5 * videos)),
  }


def test_labels_may_come_with_the_clips():
  found = clip_scores.ClipScores(np.full(3, -1, np.int32), 2)
  assert found.accuracy() == {}
  scores = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
  found.add(np.array([2, 0]), scores, np.array([0, 0], np.int32))
  assert found.accuracy() == {'top1': 0.5, 'top5': 1.0, 'clip_top1': 0.5}
