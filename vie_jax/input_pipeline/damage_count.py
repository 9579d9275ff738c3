"""Counts the damage of the batches that are taken, of clips or of images.

`bad_frames` sums up what is counted here, and says when it is too much.
"""

import collections

import numpy as np

from vie_jax.input_pipeline import bad_frames


class TrainingCount:
  """Counts the damaged frames of the batches of a training.

  Attributes:
    damage: BadFrames, that counts and names them.
  """

  def __init__(
    self, damage, *, num_rows, num_frames, name_of, location, remedy
  ):
    """Begins to count.

    Args:
      damage: BadFrames; None for one of its own.
      num_rows: clips or images of an epoch, or of an evaluation.
      num_frames: T, frames of each of them: 1 of an image.
      name_of: function from an instance index to the name of its video or
        image.
      location: of the data set, for messages.
      remedy: likewise, what to do.
    """
    self.damage = damage or bad_frames.BadFrames()
    self._num_frames = num_frames
    self._num_all = num_rows * num_frames
    self._name_of = name_of
    self._location = location
    self._remedy = remedy

  def count(self, batch):
    """Counts a batch that is taken.

    Args:
      batch: of `pipeline` or `image_pipeline`.

    Raises:
      dataset_folder.DatasetError: if that makes too many.
    """
    # Of a clip that stands for another one, that one is damaged.
    asked = batch.get('asked_index', batch['instance_index'])
    self._count_rows(asked, batch['bad_frames'])
    self.damage.check(num_all=self._num_all)

  def _count_rows(self, instance_index, num_bad):
    """Returns frames in all, and replaced, of a batch."""
    bad = collections.Counter()
    for row in np.flatnonzero(num_bad):
      bad[self._name_of(instance_index[row])] += int(num_bad[row])
    num_frames = len(num_bad) * self._num_frames
    self.damage.count(
      num_frames, bad, location=self._location, remedy=self._remedy
    )
    return num_frames, bad.total()


class EvaluationCount(TrainingCount):
  """The same of one pass over an evaluation, each clip counted once."""

  def __init__(self, damage, *, split, leaves_out=False, **options):
    """Begins to count.

    Args:
      damage: as in TrainingCount.
      split: its name.
      leaves_out: whether what is damaged is left out and so not valid; it is
        counted all the same.
      **options: the others of TrainingCount.
    """
    super().__init__(damage, **options)
    self._split = split
    self._leaves_out = leaves_out
    if leaves_out:
      self.damage.left_out[split] = set()
    self._counts = np.zeros(2, np.int64)

  def go_on_from(self, first, num_rows):
    """Goes on from what is noted of the clips before one, as if just counted.

    Args:
      first: (instance index, clip index) of that one.
      num_rows: clips before it that were this host's.
    """
    num_bad = sum(
      num_bad
      for clip, num_bad in self.damage.clips[self._split].items()
      if tuple(map(int, clip.split('/'))) < first
    )
    self._counts = np.array([num_rows * self._num_frames, num_bad])

  def count(self, batch):
    """See TrainingCount.count."""
    is_counted = batch['is_valid']
    if self._leaves_out:
      # The copies that fill the last batch have no damage of their own.
      is_counted = is_counted | (batch['bad_frames'] > 0)
    index, clip_index, num_bad = (
      batch[name][is_counted]
      for name in ('instance_index', 'clip_index', 'bad_frames')
    )
    self._counts += self._count_rows(index, num_bad)
    clips = self.damage.clips[self._split]
    for row in np.flatnonzero(num_bad):
      clips[f'{index[row]}/{clip_index[row]}'] = int(num_bad[row])
    if self._leaves_out:
      left_out = batch['instance_index'][is_counted & ~batch['is_valid']]
      self.damage.left_out[self._split].update(left_out.tolist())
    num_frames, num_bad = self._counts.tolist()
    self.damage.check(
      num_all=self._num_all,
      num_frames=num_frames,
      num_bad=num_bad,
      what=self._split,
    )
