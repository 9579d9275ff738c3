"""Batches of clips from a prepared data set.

The batch at step t is a pure function of (seed, t): its instances, their frames
and their crops are computed, not remembered. So a run resumes at any step at
once, with the batches it would have had, and one host or several see the
same global batch.

The frames of a clip are chosen before anything is read, and read before
anything is decoded. A damaged frame is replaced by another one of its video,
see `sound_frames`. Of a video that has no sound frame, clips are replaced in
training, and left out of evaluations.
"""

import contextlib

import numpy as np
import tensorflow as tf

from vie_jax.input_pipeline import (
  augmentation,
  batch_iterator,
  batch_order,
  clip_batches,
  clip_crops,
  damage_count,
  eval_clips,
  frame_sampling,
  sound_frames,
  stateless_random,
)


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
  decode_in='auto',
  num_prefetched=2,
  damage=None,
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
    decode_in: 'threads', as many 'processes' instead, or 'auto'; see
      clip_batches.open_batches.
    num_prefetched: batches made ahead of time.
    damage: BadFrames that counts and names damaged frames; None for one of
      its own.

  Yields:
    An iterator over dicts of NumPy arrays, b = B / host_count rows each:
      window: uint8 [b, T, W, W, 3], RGB.
      crop: float32 [b, 4], offset y, x, height, width in window pixels.
      instance_index: int32 [b], rows of `instances`, no value twice in a
        global batch: of what is shown, like label and frame_numbers.
      asked_index: int32 [b], what the order of the epoch has there: another
        one only where that has no sound frame.
      frame_numbers: int32 [b, T], of the video at `frame_rate_hz`.
      label: int32 [b], -1 where unknown.
      bad_frames: int32 [b], how many of the T frames stand for damaged ones.
    A clip of a video without any sound frame is replaced by the one in the same
    row of the next batch of the epoch, or after the last of the first, as often
    as that has no sound frame, either, up to 100 times; at last by one of those
    that the epoch leaves over. It is a clip of that other video with its own
    instance_index, so that no row of the memory bank moves towards what it does
    not show, and all of its T frames count as bad.
    It raises dataset_folder.DatasetError, naming the video, where there is no
    such clip, and when too many frames are damaged, see BadFrames.check.

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
  rows = batch_order.host_rows(batch_size, host_index, host_count)
  store, num_instances = instances.store, instances.num_instances
  if batch_size > num_instances:
    raise ValueError(
      f'a batch of {batch_size} different instances cannot be made from '
      f'{num_instances}, made of the videos of split {store.split!r} of '
      f'{store.directory}: lower the batch size or add videos.'
    )
  steps = batch_order.training_steps(start_step=start_step, seed=seed)
  window, draw_box = clip_crops.train_crop(crop, store)
  batch_iterator.hide_accelerators()
  table = _Table(instances, label_column)

  def visit(positions):
    return batch_order.visited(
      positions, num_instances, batch_size=batch_size, seed=seed
    )

  def choose(positions, instance_index):
    """Which frames and which crops make the clips at global positions."""
    video_length, height, width = table.shape(instance_index)
    clip_seed = stateless_random.fold_in([seed, 0], positions)
    frame_seed, box_seed = stateless_random.split(clip_seed, 2)
    frame_numbers = frame_sampling.train_frame_numbers(
      video_length,
      sampler=clip.sampler,
      num_frames=clip.num_frames,
      frame_step=clip.frame_step,
      seed=frame_seed,
      start_range=table.start_range(instance_index),
    )
    box = draw_box(height, width, box_seed)
    asked = {'asked_index': instance_index.astype(np.int32)}
    return instance_index, frame_numbers, box, asked

  def stand_ins(position):
    return batch_order.same_row(
      position, num_instances, batch_size=batch_size, seed=seed
    )

  epoch_size = num_instances // batch_size * batch_size
  counted = damage_count.TrainingCount(
    damage,
    num_rows=epoch_size,
    num_frames=clip.num_frames,
    **named(instances),
  )
  clips = clip_batches.Clips(
    store,
    table,
    visit,
    choose,
    clip.num_frames,
    crop.size,
    window,
    counted,
    crops_before_resize=augmentation.crops_before_resize(crop.method),
    extra={'asked_index': tf.int32},
    stand_ins=stand_ins,
  )
  with clip_batches.open_batches(
    clips,
    steps=steps,
    batch_size=batch_size,
    rows=rows,
    num_threads=num_threads,
    decode_in=decode_in,
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
  start_step=0,
  is_consecutive=False,
  host_index=0,
  host_count=1,
  label_column=None,
  num_threads=None,
  decode_in='auto',
  num_prefetched=2,
  leaves_out=False,
  damage=None,
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
    start_step: number of the first batch, those before are left out; what
      `damage` notes of their clips counts.
    is_consecutive: whether all clips of a video are taken, one after the
      other, as many as it has, instead of num_eval_clips.
    host_index: which share of each global batch this host reads.
    host_count: number of hosts, a divisor of batch_size.
    label_column: column of labels; None for labels of -1.
    num_threads: for reading and decoding; None for one per core.
    decode_in: 'threads', 'processes' in place of them, as many, or 'auto'; see
      clip_batches.open_batches.
    num_prefetched: batches made ahead of time.
    leaves_out: whether clips of a video without any sound frame are left out;
      else they are an error: where each video must have its row, nothing can
      stand for it.
    damage: as in train_batches.

  Yields:
    An iterator over ceil(N * G / B) dicts of NumPy arrays from start_step on,
    the same number on each host; N * G is the number of all clips. They are as
    in train_batches, without asked_index, and
      clip_index: int32 [b], in [0, G).
      is_valid: bool [b], False for the copies of the last clip that fill the
        last batch, whose bad_frames are 0, and for clips that are left out,
        which are black, and whose T frames all count as bad.
    It raises dataset_folder.DatasetError, naming the video, when one has no
    sound frame and is not left out, and when too many frames are damaged, see
    BadFrames.check.

  Raises:
    ValueError: if a number does not fit the others or the data set.
  """
  rows = batch_order.host_rows(batch_size, host_index, host_count)
  store = instances.store
  window, place_box = clip_crops.eval_crop(crop, store)
  batch_iterator.hide_accelerators()
  table = _Table(instances, label_column)
  take = eval_clips.consecutive if is_consecutive else eval_clips.spread
  total, clip_at = take(instances, clip)

  def visit(positions):
    return tf.minimum(positions, total - 1)

  def choose(positions, clip_number):
    """Which frames and which crops make the clips at global positions."""
    instance_index, clip_index, frame_numbers = clip_at(clip_number)
    _, height, width = table.shape(instance_index)
    extra = {
      'clip_index': clip_index.astype(np.int32),
      'is_valid': positions < total,
    }
    return instance_index, frame_numbers, place_box(height, width), extra

  counted = damage_count.EvaluationCount(
    damage,
    num_rows=total,
    num_frames=clip.num_frames,
    split=store.split,
    leaves_out=leaves_out,
    **named(instances),
  )
  if start_step:
    first = min(start_step * batch_size, total - 1)
    instance_index, clip_index, _ = clip_at(np.array([first]))
    counted.go_on_from(
      (instance_index.item(), clip_index.item()), start_step * len(rows)
    )
  clips = clip_batches.Clips(
    store,
    table,
    visit,
    choose,
    clip.num_frames,
    crop.size,
    window,
    counted,
    crops_before_resize=augmentation.crops_before_resize(
      augmentation.eval_method(crop)
    ),
    extra={'clip_index': tf.int32, 'is_valid': tf.bool},
    leaves_out=leaves_out,
  )
  with clip_batches.open_batches(
    clips,
    steps=range(start_step, -(-total // batch_size)),
    batch_size=batch_size,
    rows=rows,
    num_threads=num_threads,
    decode_in=decode_in,
    num_prefetched=num_prefetched,
  ) as batches:
    yield batches


class _Table:
  """What is known of each instance before anything is read."""

  def __init__(self, instances, label_column):
    self._instances = instances
    self._labels = np.full(instances.num_instances, -1, np.int32)
    if label_column is not None:
      self._labels, _ = instances.label(label_column)

  def video(self, instance_index):
    """int32 [n]: rows of the store."""
    return self._instances.video[instance_index]

  def shape(self, instance_index):
    """Three int32 [n]: number of frames, height, width."""
    store, video = self._instances.store, self.video(instance_index)
    return store.num_frames[video], store.height[video], store.width[video]

  def label(self, instance_index):
    """int32 [n], -1 where unknown."""
    return self._labels[instance_index]

  def start_range(self, instance_index):
    """Two int32 [n] for train_frame_numbers, or None without bins."""
    if self._instances.start_low is None:
      return None
    return (
      self._instances.start_low[instance_index],
      self._instances.start_high[instance_index],
    )


def named(instances):
  """What damage_count and BadFrames need to name the videos of instances."""
  store, video = instances.store, instances.video
  return {
    'name_of': lambda instance_index: store.paths[video[instance_index]],
    'location': f'split {store.split!r} of {store.directory}',
    'remedy': sound_frames.remedy(store),
  }
