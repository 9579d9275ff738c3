"""The clips that the input pipeline makes, for others to make them too."""

import dataclasses

import numpy as np
import tensorflow as tf

from vie_jax.input_pipeline import augmentation, batch_order, frame_sampling


@dataclasses.dataclass(frozen=True)
class Clip:
  """What is in one clip.

  Attributes:
    video: row of the store.
    frame_numbers: int32 [T].
    box: float64 [4], of the crop in the stored frame, see augmentation.
    position: in the training, a seed for all that is random besides.
  """

  video: int
  frame_numbers: np.ndarray
  box: np.ndarray
  position: int

  def resized(self, height, width, size):
    """Returns (width, height) of the resized frame, (x, y) of its crop."""
    sides = np.round(np.array([height, width]) * size / self.box[2:])
    y, x = np.round(self.box[:2] * size / self.box[2:])
    return (int(sides[1]), int(sides[0])), (int(x), int(y))


class Clips:
  """Draws the clips of a training, as vie_jax.input_pipeline.pipeline does.

  Args:
    store: FrameStore.
    config: has clip and crop, as a config of vie_jax.
    batch_size: B.
    seed: of the training.
  """

  def __init__(self, store, config, *, batch_size, seed):
    self._store = store
    self._batch_size = batch_size
    self._seed = seed
    self._draw = tf.function(self._choose(config.clip, config.crop))

  def of_steps(self, steps):
    """Returns the clips of a range of steps, B for each."""
    first, end = (self._batch_size * step for step in (steps.start, steps.stop))
    return [self._clip(position) for position in range(first, end)]

  def _clip(self, position):
    video, numbers, box = self._draw(tf.constant(position, tf.int64))
    return Clip(int(video), numbers.numpy(), box.numpy(), position)

  def _choose(self, clip, crop):
    store = self._store
    lengths, heights, widths = (
      tf.constant(column)
      for column in (store.num_frames, store.height, store.width)
    )

    def choose(position):
      video = batch_order.visited(
        position,
        store.num_videos,
        batch_size=self._batch_size,
        seed=self._seed,
      )
      clip_seed = batch_order.seed_at(position, seed=self._seed)
      frame_seed, box_seed = tf.unstack(tf.random.split(clip_seed, 2))
      numbers = frame_sampling.train_frame_numbers(
        lengths[video],
        sampler=clip.sampler,
        num_frames=clip.num_frames,
        frame_step=clip.frame_step,
        seed=frame_seed,
      )
      box = augmentation.train_box(
        heights[video],
        widths[video],
        size=crop.size,
        short_side_min=crop.short_side_min,
        short_side_max=crop.short_side_max,
        seed=box_seed,
      )
      return video, numbers, box

    return choose
