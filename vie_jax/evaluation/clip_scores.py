"""Accuracy of class scores that arrive clip by clip, video after video."""

import numpy as np


class ClipScores:
  """Adds up the scores of each video's clips, and counts the right classes.

  It remembers the scores of one video only: that of the last clip.
  """

  def __init__(self):
    self._video = self._label = -1
    self._scores = None
    self._num_videos = self._num_top1 = self._num_top5 = 0
    self._num_clips = self._num_right = 0

  def add(
    self, video: np.ndarray, scores: np.ndarray, labels: np.ndarray
  ) -> None:
    """Adds clips, all those of a video before those of the next.

    Args:
      video: int [b], which video each clip is of; never less than before.
      scores: float [b, C], for example class probabilities.
      labels: int [b] of the clips; -1 where unknown.

    Raises:
      ValueError: if a clip comes after those of a later video.
    """
    known = labels >= 0
    self._num_clips += int(known.sum())
    self._num_right += int((scores.argmax(axis=1) == labels)[known].sum())
    for number, values, label in zip(video, scores, labels, strict=True):
      if number < self._video:
        raise ValueError(f'a clip of video {number} after {self._video}.')
      if number == self._video:
        self._scores = self._scores + values
        continue
      self._finish()
      self._video, self._label, self._scores = number, label, values

  def _finish(self):
    """Counts the video whose clips are all there."""
    if self._label < 0:
      return
    own = self._scores[self._label]
    # Of equal scores the first class goes first.
    rank = (self._scores > own).sum()
    rank += (self._scores[: self._label] == own).sum()
    self._num_videos += 1
    self._num_top1 += int(rank < 1)
    self._num_top5 += int(rank < 5)

  def accuracy(self) -> dict[str, float]:
    """Accuracies of all that was added; nothing can be added afterwards.

    Returns:
      `top1` and `top5` of videos, by the sum over their clips, which ranks
      classes as the mean does (official), `clip_top1`, each clip for itself,
      and `judged`, the number of videos; nothing if no label is known.
    """
    self._finish()
    self._label = -1
    if not self._num_videos:
      return {}
    return {
      'top1': self._num_top1 / self._num_videos,
      'top5': self._num_top5 / self._num_videos,
      'clip_top1': self._num_right / self._num_clips,
      'judged': self._num_videos,
    }
