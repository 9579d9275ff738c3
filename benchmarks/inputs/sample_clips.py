"""The clips that the input pipeline makes, for others to make them too."""

import dataclasses

import numpy as np
import tensorflow as tf

from vie_jax.input_pipeline import (
  augmentation,
  batch_order,
  frame_sampling,
  stateless_random,
)


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
    instances: Instances.
    config: has clip and crop, as a config of vie_jax.
    batch_size: B.
    seed: of the training.
  """

  def __init__(self, instances, config, *, batch_size, seed):
    self._instances = instances
    self._batch_size = batch_size
    self._seed = seed
    self._clip = config.clip
    self._crop = config.crop

  def of_steps(self, steps):
    """Returns the clips of a range of steps, B for each."""
    return [clip for step in steps for clip in self._of_step(step)]

  def _of_step(self, step):
    store, clip, crop = self._instances.store, self._clip, self._crop
    positions = step * self._batch_size + np.arange(self._batch_size)
    instance_index = batch_order.visited(
      tf.constant(positions, tf.int64),
      self._instances.num_instances,
      batch_size=self._batch_size,
      seed=self._seed,
    ).numpy()
    video = self._instances.video[instance_index]
    clip_seed = stateless_random.fold_in([self._seed, 0], positions)
    frame_seed, box_seed = stateless_random.split(clip_seed, 2)
    numbers = frame_sampling.train_frame_numbers(
      store.num_frames[video],
      sampler=clip.sampler,
      num_frames=clip.num_frames,
      frame_step=clip.frame_step,
      seed=frame_seed,
    )
    box = augmentation.train_box(
      store.height[video],
      store.width[video],
      size=crop.size,
      short_side_min=crop.short_side_min,
      short_side_max=crop.short_side_max,
      seed=box_seed,
    )
    columns = zip(video.tolist(), numbers, box, positions.tolist(), strict=True)
    return [Clip(*row) for row in columns]
