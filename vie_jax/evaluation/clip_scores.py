"""Accuracy of class scores that arrive clip by clip."""

import numpy as np


class ClipScores:
  """Adds up the scores of each video's clips, in any order.

  Args:
    labels: int32 [V] of the videos; -1 where unknown, or not known yet.
    num_classes: C.
  """

  def __init__(self, labels: np.ndarray, num_classes: int):
    self._labels = np.array(labels, np.int32)
    self._scores = np.zeros((len(labels), num_classes), np.float32)
    self._num_clips = self._num_right = 0

  def add(
    self, video: np.ndarray, scores: np.ndarray, labels: np.ndarray
  ) -> None:
    """Adds clips.

    Args:
      video: int [b], which video each clip is of.
      scores: float [b, C], for example class probabilities.
      labels: int [b] of the clips; -1 where unknown.
    """
    self._labels[video] = labels
    np.add.at(self._scores, video, scores)
    known = labels >= 0
    self._num_clips += int(known.sum())
    self._num_right += int((scores.argmax(axis=1) == labels)[known].sum())

  def accuracy(self) -> dict[str, float]:
    """Accuracies of what was added.

    Returns:
      `top1` and `top5` of videos, by the sum over their clips, which ranks
      classes as the mean does (official), and `clip_top1`, each clip for
      itself; nothing if no label is known.
    """
    known = self._labels >= 0
    if not known.any():
      return {}
    truth, scores = self._labels[known], self._scores[known]
    ranked = np.argsort(-scores, axis=1, kind='stable')[:, :5]
    return {
      'top1': float((ranked[:, 0] == truth).mean()),
      'top5': float((ranked == truth[:, None]).any(axis=1).mean()),
      'clip_top1': self._num_right / max(self._num_clips, 1),
    }
