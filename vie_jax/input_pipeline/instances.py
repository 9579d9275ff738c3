"""What the rows of the memory bank stand for: videos, some, or their parts.

As a rule an instance is a video, and the instances of a split are its videos
in order. A data set can also be cut down to a share of its videos, and a video
into bins, each of which is an instance of its own: its clips start in this
part of the video only.

Source: `part_vd` and `bin_interval` of pt_loader/datasets.py of the official
code (neuroailab/VIE); the rows 30 %, 70 %, 2bin and 5bin of the paper's
table 3.
"""

import dataclasses
import hashlib

import numpy as np

from vie_jax.input_pipeline import dataset_folder, frame_sampling, frame_store

_MAX_INSTANCES = np.iinfo(np.int32).max
_SUBSET_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Instances:
  """The instances of one split; made by the functions of this module.

  The row of an instance here is its `instance_index` in a batch and its row
  of the memory bank, in [0, N).

  Attributes:
    store: the FrameStore that holds the videos.
    video: int32 [N], row of each instance's video in the store.
    start_low: int32 [N], the first start that clips of the instance may have;
      None if they may start anywhere.
    start_high: int32 [N], the end of these starts, not one of them; None
      likewise.
    fingerprint: hex digest of the data set's content and the instances. It is
      the store's own if each of its videos is one instance.
  """

  store: frame_store.FrameStore
  video: np.ndarray
  start_low: np.ndarray | None
  start_high: np.ndarray | None
  fingerprint: str

  @property
  def num_instances(self):
    """N, may be 0."""
    return len(self.video)

  @property
  def label_columns(self):
    """Names of the label columns, sorted."""
    return self.store.label_columns

  def label(self, column):
    """Gives the labels of every instance: those of its video.

    Args:
      column: one of `label_columns`.

    Returns:
      (labels, class_names): int32 [N], -1 where unknown, and the list of
      str that the other values index.

    Raises:
      DatasetError: if there is no such column.
    """
    labels, class_names = self.store.label(column)
    return labels[self.video], class_names

  def distinct_videos(self):
    """Gives each video of these instances once, in order, without bins."""
    return _make(self.store, np.unique(self.video))


def all_videos(store):
  """Makes each video of a split one instance.

  Args:
    store: FrameStore, of any number of videos.

  Returns:
    Instances, in the order of the store.
  """
  return _make(store, np.arange(store.num_videos))


def spread(instances, count):
  """Takes so many instances, evenly spread over all.

  Args:
    instances: Instances of whole videos.
    count: how many; 0, or as many as there are or more, takes all.

  Returns:
    Instances, in order; `instances` itself where all are taken.
  """
  if not 0 < count < instances.num_instances:
    return instances
  return take(instances, np.arange(count) * instances.num_instances // count)


def take(instances, rows):
  """Takes some instances.

  Args:
    instances: Instances of whole videos.
    rows: int or bool array that says which.

  Returns:
    Instances.
  """
  return _make(instances.store, instances.video[rows])


def select(store, *, clip, share=1.0, with_replacement=False, bin_frames=0):
  """Takes a share of the videos, whole or in bins.

  The result depends on the arguments only. A smaller share is a part of a
  larger one, unless drawn with replacement.

  Bin j of a video holds the starts j * bin_frames to (j + 1) * bin_frames - 1
  of a clip, and no more than the sampler allows, so that the last bin may be
  short. Instances are in the order of the videos, then of the bins.

  Args:
    store: FrameStore of V videos.
    clip: has sampler, num_frames, frame_step; read only if there are bins.
    share: int(V * share) videos are taken, in (0, 1].
    with_replacement: draw as the official code does, which takes some videos
      more than once, each time as an instance of its own: of 30 % of the
      videos some 26 % of V are different ones, of 70 % some 50 %.
    bin_frames: starts in a bin, 130 for 2bin and 52 for 5bin (official); 0
      for no bins.

  Returns:
    Instances.

  Raises:
    ValueError: if share or bin_frames is out of range, or the sampler has no
      bins.
    DatasetError: if no video is left, or there are too many bins.

  Source: as the module. Deviations: drawing without replacement, which is
    what the paper describes; a short video has bins of the starts that
    frame_sampling gives it, where the official code shows another video.
  """
  if not 0.0 < share <= 1.0:
    raise ValueError(f'the share of videos must lie in (0, 1], got {share}.')
  if bin_frames < 0:
    raise ValueError(
      f'bin_frames must be at least 1, or 0 for no bins, got {bin_frames}.'
    )
  if not store.num_videos:
    raise dataset_folder.DatasetError(
      f'{store.directory} has no videos in its split {store.split!r}: prepare '
      'the videos to another --out, with another --val-percent, or with lists '
      'or folders that name videos for it.'
    )
  count = int(store.num_videos * share)
  if not count:
    raise dataset_folder.DatasetError(
      f'a share of {share} of the {store.num_videos} videos in split '
      f'{store.split!r} of {store.directory} is no video: raise the share or '
      'add videos.'
    )
  # The legacy generator: NumPy keeps its numbers as they are, and the official
  # code uses it.
  random = np.random.RandomState(_SUBSET_SEED)
  if with_replacement:
    video = np.sort(random.choice(store.num_videos, count))
  elif count < store.num_videos:
    video = np.sort(random.permutation(store.num_videos)[:count])
  else:
    video = np.arange(store.num_videos)
  if not bin_frames:
    return _make(store, video)
  return _make_bins(store, video, clip, bin_frames)


def _make_bins(store, video, clip, bin_frames):
  lengths = store.num_frames[video]
  sampling = {
    'sampler': clip.sampler,
    'num_frames': clip.num_frames,
    'frame_step': clip.frame_step,
  }
  num_starts = frame_sampling.num_starts(lengths, **sampling)
  num_bins = frame_sampling.num_bins(lengths, bin_frames=bin_frames, **sampling)
  total = int(num_bins.sum())
  if total > _MAX_INSTANCES:
    raise dataset_folder.DatasetError(
      f'bins of {bin_frames} frames make {total} instances of split '
      f'{store.split!r} of {store.directory}, more than {_MAX_INSTANCES}: '
      'make the bins longer or take a smaller share of the videos.'
    )
  first = np.cumsum(num_bins) - num_bins
  low = (np.arange(total) - np.repeat(first, num_bins)) * bin_frames
  high = np.minimum(low + bin_frames, np.repeat(num_starts, num_bins))
  return _make(store, np.repeat(video, num_bins), low, high)


def _make(store, video, start_low=None, start_high=None):
  """Instances of any integer arrays, with their fingerprint."""
  columns = [
    None if column is None else column.astype(np.int32)
    for column in (video, start_low, start_high)
  ]
  is_store = start_low is None and np.array_equal(
    video, np.arange(store.num_videos)
  )
  fingerprint = store.fingerprint
  if not is_store:
    kind = 'videos' if start_low is None else 'bins'
    digest = hashlib.sha256(f'{kind} of {fingerprint}'.encode())
    for column in columns:
      if column is not None:
        digest.update(column.astype('<i4').tobytes())
    fingerprint = digest.hexdigest()
  return Instances(store, *columns, fingerprint)
