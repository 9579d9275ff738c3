"""Batches of clips from a prepared data set.

The batch at step t is a pure function of (seed, t): its instances, their frames
and their crops are computed, not remembered. So a run resumes at any step at
once, with the batches it would have had, and one host or several see the
same global batch.

The frames of a clip are chosen before anything is read, and read before
anything is decoded.
"""

import contextlib

import numpy as np
import tensorflow as tf

from vie_jax.input_pipeline import (
  augmentation,
  batch_iterator,
  frame_sampling,
  frame_store,
)

# Training has no end of its own; steps * batch size must fit into int64.
_LAST_STEP = 2**40


@contextlib.contextmanager
def train_batches(
  instances,
  *,
  clip,
  crop,
  batch_size,
  seed,
  start_step=0,
  host_index=0,
  host_count=1,
  label_column=None,
  num_threads=None,
  num_prefetched=2,
):
  """Gives an endless iterator over training batches.

  An epoch has N // batch_size batches and visits no instance twice. Each epoch
  has an order of its own; the last N % batch_size instances of that order wait
  for a later epoch.

  To be used in a with-statement, at the end of which reading stops.

  Args:
    instances: Instances, N of them: as a rule the videos of a split.
    clip: has num_frames (T), frame_step, sampler; see frame_sampling.
    crop: has size and method, see augmentation; 'short_side' needs
      short_side_min and short_side_max, in pixels, 'multiscale' needs
      multiscale_scales, shares of the short side.
    batch_size: B, clips in a global batch, at most N.
    seed: int >= 0, decides everything that is random.
    start_step: step of the first batch.
    host_index: which share of each global batch this host reads.
    host_count: number of hosts, a divisor of batch_size.
    label_column: column of labels; None for labels of -1.
    num_threads: for reading and decoding; None for one per core.
    num_prefetched: batches made ahead of time.

  Yields:
    An iterator over dicts of NumPy arrays, b = B / host_count rows each:
      window: uint8 [b, T, W, W, 3], RGB.
      crop: float32 [b, 4], offset y, x, height, width in window pixels.
      instance_index: int32 [b], rows of `instances`, no value twice in a
        global batch.
      label: int32 [b], -1 where unknown.
    It raises frame_store.DatasetError, naming the video, when a frame cannot
    be read or decoded.

  Raises:
    ValueError: if a number does not fit the others or the data set.

  Source: as the official loader (neuroailab/VIE), every epoch is shuffled
  and its incomplete last batch dropped. Deviations: its random numbers depend
  on the workers that draw them. Of a video in bins it takes the next bin at
  each visit, in shuffled rounds, and an epoch visits each video once: so a
  video's bins come equally often, but each the more rarely the more there are.
  Here each bin is visited once an epoch, so that long videos are seen more
  often, all bank rows are equally fresh, and a batch may hold two bins of a
  video.
  """
  rows = _host_rows(batch_size, host_index, host_count)
  store, num_instances = instances.store, instances.num_instances
  if batch_size > num_instances:
    raise ValueError(
      f'a batch of {batch_size} different instances cannot be made from '
      f'{num_instances}, made of the videos of split {store.split!r} of '
      f'{store.directory}: lower the batch size or add videos.'
    )
  if not 0 <= start_step < _LAST_STEP:
    raise ValueError(f'start_step must be at least 0, got {start_step}.')
  if seed < 0:
    raise ValueError(f'seed must be at least 0, got {seed}.')
  window, draw_box = _train_crop(crop, store)
  _hide_accelerators()
  table = _Table(instances, label_column)
  epoch_size = num_instances // batch_size * batch_size

  def choose(position):
    """Which frames and which crop make the clip at a global position."""
    instance_index = _shuffled(
      position % epoch_size,
      num_instances,
      seed=tf.stack([seed, position // epoch_size]),
    )
    video_length, height, width = table.shape(instance_index)
    clip_seed = tf.random.fold_in(tf.constant([seed, 0], tf.int64), position)
    frame_seed, box_seed = tf.unstack(tf.random.split(clip_seed, 2))
    frame_numbers = frame_sampling.train_frame_numbers(
      video_length,
      sampler=clip.sampler,
      num_frames=clip.num_frames,
      frame_step=clip.frame_step,
      seed=frame_seed,
      start_range=table.start_range(instance_index),
    )
    box = draw_box(height, width, box_seed)
    return instance_index, frame_numbers, box, {}

  clips = _Clips(store, table, choose, clip.num_frames, crop, window)
  with batch_iterator.open_batches(
    clips,
    steps=range(start_step, _LAST_STEP),
    batch_size=batch_size,
    rows=rows,
    num_threads=num_threads,
    num_prefetched=num_prefetched,
  ) as batches:
    yield batches


@contextlib.contextmanager
def eval_batches(
  instances,
  *,
  clip,
  crop,
  batch_size,
  host_index=0,
  host_count=1,
  label_column=None,
  num_threads=None,
  num_prefetched=2,
):
  """Gives an iterator over all evaluation clips of all instances, in order.

  They are those of the whole video: bins play no part.

  To be used in a with-statement, at the end of which reading stops.

  Args:
    instances: Instances, N of them: as a rule the videos of a split.
    clip: has num_frames (T), frame_step, sampler, num_eval_clips (G).
    crop: has size and method, see augmentation; 'short_side' needs
      eval_short_side, in pixels.
    batch_size: B, clips in a global batch.
    host_index: which share of each global batch this host reads.
    host_count: number of hosts, a divisor of batch_size.
    label_column: column of labels; None for labels of -1.
    num_threads: for reading and decoding; None for one per core.
    num_prefetched: batches made ahead of time.

  Yields:
    An iterator over ceil(N * G / B) dicts of NumPy arrays, the same number on
    each host. They are as in train_batches, and
      clip_index: int32 [b], in [0, G).
      is_valid: bool [b], False for the copies of the last clip that fill the
        last batch.

  Raises:
    ValueError: if a number does not fit the others or the data set.
  """
  rows = _host_rows(batch_size, host_index, host_count)
  store = instances.store
  window, place_box = _eval_crop(crop, store)
  _hide_accelerators()
  table = _Table(instances, label_column)
  num_clips = clip.num_eval_clips
  total = instances.num_instances * num_clips

  def all_frame_numbers(video_length):
    return frame_sampling.eval_frame_numbers(
      int(video_length),
      sampler=clip.sampler,
      num_frames=clip.num_frames,
      frame_step=clip.frame_step,
      num_clips=num_clips,
    )

  if total:
    all_frame_numbers(store.num_frames[0])  # refuses bad settings at once

  def choose(position):
    """Which frames and which crop make the clip at a global position."""
    is_valid = position < total
    position = tf.minimum(position, total - 1)
    instance_index = position // num_clips
    clip_index = tf.cast(position % num_clips, tf.int32)
    video_length, height, width = table.shape(instance_index)
    frame_numbers = tf.ensure_shape(
      tf.numpy_function(
        all_frame_numbers, [video_length], tf.int32, stateful=False
      ),
      (num_clips, clip.num_frames),
    )[clip_index]
    box = place_box(height, width)
    extra = {'clip_index': clip_index, 'is_valid': is_valid}
    return instance_index, frame_numbers, box, extra

  clips = _Clips(store, table, choose, clip.num_frames, crop, window)
  with batch_iterator.open_batches(
    clips,
    steps=range(-(-total // batch_size)),
    batch_size=batch_size,
    rows=rows,
    num_threads=num_threads,
    num_prefetched=num_prefetched,
  ) as batches:
    yield batches


def _train_crop(crop, store):
  """Gives W and a function (height, width, seed) -> box."""
  if augmentation.crops_before_resize(crop.method):
    scales = tuple(crop.multiscale_scales)
    window = augmentation.multiscale_window_size(
      scales=scales, max_short_side=store.max_short_side
    )

    def draw_box(height, width, seed):
      return augmentation.multiscale_train_box(
        height, width, scales=scales, seed=seed
      )

    return window, draw_box

  def draw_box(height, width, seed):
    return augmentation.train_box(
      height,
      width,
      size=crop.size,
      short_side_min=crop.short_side_min,
      short_side_max=crop.short_side_max,
      seed=seed,
    )

  return _window_size(crop, crop.short_side_min, store), draw_box


def _eval_crop(crop, store):
  """Gives W and a function (height, width) -> box."""
  if augmentation.crops_before_resize(crop.method):
    window = augmentation.multiscale_window_size(
      scales=(1.0,), max_short_side=store.max_short_side
    )
    return window, augmentation.multiscale_eval_box

  def place_box(height, width):
    return augmentation.eval_box(
      height, width, size=crop.size, short_side=crop.eval_short_side
    )

  return _window_size(crop, crop.eval_short_side, store), place_box


def _window_size(crop, short_side, store):
  return augmentation.window_size(
    size=crop.size,
    short_side=short_side,
    max_short_side=store.max_short_side,
    max_long_side=store.max_long_side,
  )


class _Table:
  """What the graph knows of each instance."""

  def __init__(self, instances, label_column):
    store = instances.store
    if label_column is None:
      labels = np.full(store.num_videos, -1, np.int32)
    else:
      labels, _ = store.label(label_column)
    self._video = tf.constant(instances.video, tf.int32)
    # By video, so that several instances of a video share a row.
    columns = [store.num_frames, store.height, store.width, labels]
    self._columns = tf.constant(np.stack(columns, axis=1), tf.int32)
    self._starts = None
    if instances.start_low is not None:
      starts = [instances.start_low, instances.start_high]
      self._starts = tf.constant(np.stack(starts, axis=1), tf.int32)

  def video(self, instance_index):
    """int32 scalar: the row of the store."""
    return self._video[instance_index]

  def shape(self, instance_index):
    """Three int32 scalars: number of frames, height, width."""
    return tf.unstack(self._columns[self.video(instance_index), :3], num=3)

  def label(self, instance_index):
    return self._columns[self.video(instance_index), 3]

  def start_range(self, instance_index):
    """Two int32 scalars for train_frame_numbers, or None without bins."""
    if self._starts is None:
      return None
    return tf.unstack(self._starts[instance_index], num=2)


class _Clips:
  """Makes the clip of a position: choose, read, decode."""

  def __init__(self, store, table, choose, num_frames, crop, window):
    self._store = store
    self._table = table
    self._choose = choose
    self._num_frames = num_frames
    self._window_options = {
      'size': crop.size,
      'window': window,
      'crops_before_resize': augmentation.crops_before_resize(crop.method),
    }

  def make(self, position):
    """Gives one row of the batch, in a graph.

    Args:
      position: int64 scalar tensor.

    Returns:
      dict of tensors.
    """
    instance_index, frame_numbers, box, extra = self._choose(position)
    frames = tf.numpy_function(
      self._read,
      [self._table.video(instance_index), frame_numbers],
      tf.string,
    )
    pixels, crop = self._decode(instance_index, frames, box)
    return {
      'window': pixels,
      'crop': crop,
      'instance_index': tf.cast(instance_index, tf.int32),
      'label': self._table.label(instance_index),
      **extra,
    }

  def find_damage(self, position):
    """Makes a clip frame by frame.

    Args:
      position: int64 scalar tensor.

    Raises:
      frame_store.DatasetError: for the first frame that cannot be read or
        decoded.
    """
    instance_index, frame_numbers, box, _ = self._choose(position)
    video = int(self._table.video(instance_index))
    for number in frame_numbers.numpy():
      try:
        frames = self._read(video, [number])
        self._decode(instance_index, tf.constant(frames), box, num_frames=1)
      except (tf.errors.OpError, ValueError) as error:
        reason = getattr(error, 'message', str(error)).strip().split('\n')[0]
        raise frame_store.DatasetError(
          f'Frame {number} of video '
          f'{self._store.paths[video]!r} (split '
          f'{self._store.split!r} of {self._store.directory}) cannot be read '
          f'or decoded: {reason} Run "python data/prepare.py check '
          f'{self._store.directory}" to find all damaged frames.'
        ) from error

  def _read(self, video, frame_numbers):
    frames = self._store.read_frames(video, frame_numbers)
    return np.array(frames, dtype=object)

  def _decode(self, instance_index, frames, box, num_frames=None):
    _, height, width = self._table.shape(instance_index)
    return augmentation.decode_window(
      tf.ensure_shape(frames, (num_frames or self._num_frames,)),
      box,
      height=height,
      width=width,
      **self._window_options,
    )


def _shuffled(index, count, *, seed):
  """The index-th number of a random order of range(count), in no memory.

  Args:
    index: int64 scalar tensor in [0, count).
    count: int >= 1.
    seed: int64 [2]; each seed has an order of its own.

  Returns:
    int64 scalar tensor.
  """
  # The op uses few bits of each word of its key, 8 for a count up to 2**16:
  # given (seed, epoch) itself it would repeat every 256th epoch. Hence three
  # words with all bits mixed; hence not index_shuffle, which takes two.
  key = tf.random.stateless_uniform(
    (3,), seed=seed, minval=None, maxval=None, dtype=tf.int32
  )
  return tf.raw_ops.RandomIndexShuffle(
    index=index, seed=key, max_index=tf.constant(count - 1, tf.int64), rounds=8
  )


def _host_rows(batch_size, host_index, host_count):
  """The rows of each global batch that are this host's."""
  if batch_size < 1 or batch_size % host_count:
    raise ValueError(
      f'a batch of {batch_size} clips cannot be shared equally by '
      f'{host_count} hosts.'
    )
  if not 0 <= host_index < host_count:
    raise ValueError(f'host {host_index} is not one of {host_count} hosts.')
  share = batch_size // host_count
  return range(host_index * share, (host_index + 1) * share)


def _hide_accelerators():
  """Keeps TensorFlow off the devices that JAX computes on."""
  for kind in ('GPU', 'TPU'):
    # Too late once TensorFlow has started; then it can only be left alone.
    with contextlib.suppress(RuntimeError):
      tf.config.set_visible_devices([], kind)
