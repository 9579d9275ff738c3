"""How much a network keeps of a clip between its two passes."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from vie_jax.machine import platform_choice

TPU_ROWS_BYTES = 32
"""What the last axis but one is filled up to there, of one lane: 8 float32."""


def saved_bytes(
  model: nn.Module,
  variables: dict,
  shape: tuple,
  *,
  num_clips: int = 1,
  platform: str = 'gpu',
) -> float:
  """Bytes that the backward pass needs of each clip.

  What automatic differentiation keeps for the backward pass, counted without
  running anything. The compiler may compute some of it again, or keep it
  beside what it is made of: an estimate, not a bound.

  Args:
    model: from clips to embeddings.
    variables: its `params` and `batch_stats`, or their shapes.
    shape: (T, H, W, 3), of a clip.
    num_clips: of a device. Matters on TPUs alone, see `bytes_on_tpu`.
    platform: 'cpu', 'gpu' or 'tpu', which have ways of their own.

  Returns:
    Bytes of what differs in size between so many clips and one clip more,
    which parameters do not, divided by the clips.
  """

  def backward(variables, clips):
    def embed(params):
      return model.apply(
        {**variables, 'params': params},
        clips,
        train=True,
        mutable='batch_stats',
      )[0]

    return jax.vjp(embed, variables['params'])[1]

  def of(batch_size):
    clips = jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)
    with platform_choice.only(platform):
      return jax.tree.leaves(jax.eval_shape(backward, variables, clips))

  num_bytes = bytes_on_tpu if platform == 'tpu' else _bytes
  kept = zip(of(num_clips), of(num_clips + 1), strict=True)
  total = sum(num_bytes(a) for a, b in kept if a.shape != b.shape)
  return total / num_clips


def bytes_on_tpu(array: jax.Array | jax.ShapeDtypeStruct) -> int:
  """Bytes that an array of pictures takes of a TPU's memory.

  Of [..., H, W, C] either the channels lie on the last axis in memory, which
  is filled up to `TPU_LANES`, or the frames do, all leading axes as one, and
  the channels on the axis before, which is filled up to `TPU_ROWS_BYTES`. The
  compiler is free to choose, and is taken to choose the smaller.
  """
  if array.ndim < 4:
    return _bytes(array)
  *leading, height, width, channels = array.shape
  frames = math.prod(leading)
  rows = TPU_ROWS_BYTES // array.dtype.itemsize
  return (
    min(
      frames * _filled(channels, platform_choice.TPU_LANES),
      _filled(frames, platform_choice.TPU_LANES) * _filled(channels, rows),
    )
    * height
    * width
    * array.dtype.itemsize
  )


def _bytes(array):
  return math.prod(array.shape) * array.dtype.itemsize


def _filled(count, multiple):
  return -(-count // multiple) * multiple
