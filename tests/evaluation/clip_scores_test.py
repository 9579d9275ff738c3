import numpy as np
import pytest

from vie_jax.evaluation import clip_scores


def test_accuracies_are_those_of_a_loop_over_videos():
  rng = np.random.default_rng(0)
  labels = np.array([0, 6, -1, 3, 2, 6], np.int32)
  scores = rng.uniform(size=(6, 5, 8)).astype(np.float32)
  found = clip_scores.ClipScores()
  for part in np.array_split(np.arange(30), 4):
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
    'judged': videos,
  }


def test_without_labels_there_is_no_accuracy():
  found = clip_scores.ClipScores()
  assert found.accuracy() == {}
  found.add(np.array([0, 1]), np.ones((2, 3)), np.array([-1, -1]))
  assert found.accuracy() == {}


def test_equal_scores_are_ranked_by_class():
  found = clip_scores.ClipScores()
  found.add(np.array([0, 1]), np.ones((2, 9)), np.array([0, 5]))
  assert found.accuracy() == {
    'top1': 0.5,
    'top5': 0.5,
    'clip_top1': 0.5,
    'judged': 2,
  }


def test_clips_out_of_order_are_refused():
  found = clip_scores.ClipScores()
  found.add(np.array([3]), np.ones((1, 2)), np.array([0]))
  with pytest.raises(ValueError, match='video 2 after 3'):
    found.add(np.array([2]), np.ones((1, 2)), np.array([0]))
