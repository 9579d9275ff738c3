"""Counts damaged frames, names whose they are, and says when it is too many.

What a damaged frame is replaced by is the business of `sound_frames`, and of
`image_pipeline` for images.
"""

import collections
import threading

from absl import logging

from vie_jax.input_pipeline import dataset_folder
from vie_jax.wording import chosen

# Of so few frames a share tells nothing.
_MIN_FRAMES = 1000
_NUM_WORST = 5


class BadFrames:
  """What a training, or the evaluations beside it, have met of damage.

  Frames are counted when their batch is taken, not when it is made ahead of
  time, so that the figures are a function of what was taken.

  Attributes:
    num_frames: frames of all batches taken; repeats count.
    num_bad: how many of them were replaced.
    clips: split -> {'instance/clip': replaced frames} of evaluation clips, so
      that a clip that is evaluated again does not count twice. JSON-compatible.
    left_out: split -> set of the instances, videos or images, that its last
      evaluation has left out, or some clips of them.
  """

  def __init__(self, max_share=0.05, *, is_shared=False):
    """Begins to count.

    Args:
      max_share: share of the frames that may be replaced, in [0, 1].
      is_shared: whether several processes count, each its own frames. Then no
        process stops by itself: see `counted` and `check_all`.
    """
    self.num_frames = 0
    self.num_bad = 0
    self.clips = collections.defaultdict(dict)
    self.left_out = collections.defaultdict(set)
    self._max_share = max_share
    self._is_shared = is_shared
    self._asked = {}
    self._by_name = collections.Counter()
    self._remedy = ''
    self._named = set()
    self._lock = threading.Lock()

  def go_on_from(self, counts):
    """Goes on from the counts of a checkpoint.

    Args:
      counts: num_frames and num_bad, as the keys of a dict.
    """
    self.num_frames = counts['num_frames']
    self.num_bad = counts['num_bad']

  def name(self, key, message):
    """Logs a message, if there was none of this key; from any thread."""
    with self._lock:
      if key in self._named:
        return
      self._named.add(key)
    logging.warning('%s', message)

  def count(self, num_frames, bad, *, location, remedy):
    """Counts the frames of a batch.

    Args:
      num_frames: in it.
      bad: name of a video or image -> number of its frames that were
        replaced; only of those that had any.
      location: of the data set, for messages.
      remedy: likewise, what to do.
    """
    self.num_frames += num_frames
    self.num_bad += sum(bad.values())
    self._by_name.update({f'{name!r} of {location}': bad[name] for name in bad})
    self._remedy = remedy

  def check(self, *, num_all, num_frames=None, num_bad=None, what='training'):
    """Stops when too many frames were replaced.

    A share of fewer than 1000 frames, or of less than all there are, is not
    taken for one.

    Args:
      num_all: frames of an epoch, or of an evaluation.
      num_frames: of which num_bad were replaced; those of all batches if they
        are not given.
      num_bad: see num_frames.
      what: name of this training or evaluation.

    Raises:
      DatasetError: naming the worst videos, and the remedy.
    """
    if num_frames is None:
      num_frames, num_bad = self.num_frames, self.num_bad
    if self._is_shared:
      self._asked[what] = num_all, num_frames, num_bad
    else:
      self._stop_if_too_many(num_all, num_frames, num_bad, self._by_name)

  def check_clips(self, split, *, num_frames, name_of, location, remedy):
    """Does what `check` does, of all that `clips` has of a split.

    So calls that made an evaluation together are judged by all of it.

    Args:
      split: its name.
      num_frames: of all of its clips.
      name_of: function from an instance index to the name of its video.
      location: of the data set, for messages.
      remedy: likewise, what to do.

    Raises:
      DatasetError: as `check`.
    """
    self._remedy = remedy
    by_name = collections.Counter()
    for clip, num_bad in self.clips[split].items():
      name = name_of(int(clip.partition('/')[0]))
      by_name[f'{name!r} of {location}'] += num_bad
    self._stop_if_too_many(num_frames, num_frames, by_name.total(), by_name)

  def counted(self):
    """What this process has counted, and what it was to check since.

    Returns:
      JSON-compatible, for `check_all`.
    """
    asked, self._asked = self._asked, {}
    return {
      'asked': asked,
      'worst': dict(self._by_name.most_common(_NUM_WORST)),
      'remedy': self._remedy,
    }

  def check_all(self, parts):
    """Does what `check` does, of the frames of all processes.

    Args:
      parts: `counted` of each process.

    Raises:
      DatasetError: as `check`, in all processes or in none.
    """
    worst = collections.Counter()
    for part in parts:
      worst.update(part['worst'])
      self._remedy = self._remedy or part['remedy']
    # All processes take the same number of batches, so all have asked.
    for what in parts[0]['asked']:
      asked = [part['asked'][what] for part in parts]
      num_frames = sum(counts[1] for counts in asked)
      num_bad = sum(counts[2] for counts in asked)
      self._stop_if_too_many(asked[0][0], num_frames, num_bad, worst)

  def _stop_if_too_many(self, num_all, num_frames, num_bad, by_name):
    enough = max(num_frames, min(_MIN_FRAMES, num_all))
    if num_bad > self._max_share * enough:
      raise dataset_folder.DatasetError(
        f'{num_bad} of {num_frames} frames '
        f'{chosen(num_bad, "is", "are")} damaged, more than the share '
        f'{self._max_share} that config.input.max_bad_share allows: most of '
        f'them in {_listing(by_name)}. {self._remedy}'
      )

  def log_summary(self):
    """Says at the end, in one line, how much was damaged; or nothing."""
    if self._by_name:
      logging.warning(
        'Replaced or left out %d damaged %s of %d %s, most of them in %s. %s',
        self._by_name.total(),
        chosen(self._by_name.total(), 'frame', 'frames'),
        len(self._by_name),
        chosen(len(self._by_name), 'video or image', 'videos or images'),
        _listing(self._by_name),
        self._remedy,
      )


def _listing(by_name):
  worst = by_name.most_common(_NUM_WORST)
  return ', '.join(f'{name} ({count})' for name, count in worst)
