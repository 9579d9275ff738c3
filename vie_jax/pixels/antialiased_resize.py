"""Resizes the crop of each window on the device, as Pillow does bilinearly.

The filter is separable: columns first, then rows, with whole grey levels in
between. Each output pixel is a sum of a few pixels along an axis.

Source: pt_loader/transforms.py of the official code (neuroailab/VIE), which
resizes with Pillow; rounding rules as observed in Pillow 13.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vie_jax.machine import platform_choice

# A weight of the resize filter is a whole number of these parts.
_UNITS = 2**16


def resize(window, crop, *, size, is_flipped=None, crops_before_resize=False):
  """Resamples the crop of each window to size x size, antialiased.

  Bilinear, with the triangle stretched when shrinking. The border of the image
  is that of the crop if it is cropped first, else that of the window.

  Args:
    window: uint8 [B, T, W, W, 3].
    crop: float32 [B, 4], offset y, x, height, width in window pixels.
    size: side of the result, in pixels.
    is_flipped: bool [B], mirror left to right; None for no clip.
    crops_before_resize: whether the image is cropped and then resized; False
      for an image resized and then cropped. With it crops are whole pixels.

  Returns:
    float32 [B, T, size, size, 3], whole grey levels.

  Sharding: row-wise over the batch.

  Source: the bilinear filter of Pillow's Image.resize, with its order
  (columns, then rows, rounding after each). Pillow's weights are fixed-point
  numbers of more bits, so single grey levels differ.
  """
  rows, columns = (
    axis_filter(
      crop[:, axis],
      crop[:, 2 + axis],
      size,
      window.shape[2 + axis],
      crops_before_resize,
    )
    for axis in range(2)
  )
  if is_flipped is not None:
    columns = jax.tree.map(functools.partial(_mirror, is_flipped), columns)
  return platform_choice.by_platform(
    window,
    rows,
    columns,
    gpu=filter_by_planes,
    tpu=filter_by_products,
    others=filter_by_taps,
  )


class AxisFilter(NamedTuple):
  """What each output pixel is made of, along one axis.

  Attributes:
    first: int32 [B, size], the first window pixel that it reads.
    weights: float32 [B, size, taps], shares of it and of those that follow.
  """

  first: jax.Array
  weights: jax.Array


def axis_filter(offset, length, size, window, crops_before_resize):
  """The triangle filter around each output pixel, along one axis.

  Args:
    offset: float32 [B], where the crop begins, in window pixels.
    length: float32 [B], of the crop, likewise.
    size: side of the result, in pixels.
    window: side of the window, in pixels.
    crops_before_resize: as in resize.

  Returns:
    AxisFilter.
  """
  scale = length / size
  middle = jnp.arange(size, dtype=jnp.float32) + 0.5
  middle = offset[:, jnp.newaxis] + middle[jnp.newaxis] * scale[:, jnp.newaxis]
  support = jnp.maximum(scale, 1.0)[:, jnp.newaxis]
  # No crop is larger than the window, so that none shrinks more.
  taps = min(math.ceil(2 * max(window / size, 1)), window)
  first = jnp.ceil(middle - support - 0.5).astype(jnp.int32)
  first = jnp.clip(first, 0, window - taps)
  pixel = _places(first, taps).astype(jnp.float32) + 0.5
  distance = jnp.abs(pixel - middle[..., jnp.newaxis])
  weights = jnp.maximum(1.0 - distance / support[..., jnp.newaxis], 0.0)
  if crops_before_resize:
    offset, length = (x[:, jnp.newaxis, jnp.newaxis] for x in (offset, length))
    is_inside = (pixel > offset) & (pixel < offset + length)
    weights = jnp.where(is_inside, weights, 0.0)
  weights /= jnp.sum(weights, axis=2, keepdims=True)
  # Of so many bits, sums of bytes are exact in float32, whichever way a device
  # adds and however many clips it has.
  return AxisFilter(first, jnp.round(weights * _UNITS) / _UNITS)


def _places(first, taps):
  """int32 [B, size, taps]: the pixels that an output pixel reads."""
  tap = jnp.arange(taps, dtype=jnp.int32)
  return first[..., jnp.newaxis] + tap[jnp.newaxis, jnp.newaxis]


def _mirror(is_flipped, values):
  """Reverses [B, size, ...] along its second axis, where a clip is flipped."""
  is_flipped = is_flipped.reshape(-1, *[1] * (values.ndim - 1))
  return jnp.where(is_flipped, values[:, ::-1], values)


def filter_by_taps(window, rows, columns):
  """Sums a few shifted copies along each axis.

  Args:
    window: uint8 [B, T, W, W, 3].
    rows: AxisFilter, of the result's rows.
    columns: AxisFilter, of its columns.

  Returns:
    float32 [B, T, size, size, 3], whole grey levels.
  """

  def of_clip(frames, rows, columns):
    return _sum_of_taps(_sum_of_taps(frames, columns, axis=2), rows, axis=1)

  return jax.vmap(of_clip)(window, rows, columns).astype(jnp.float32)


def filter_by_planes(window, rows, columns):
  """Does the same where threads should read bytes that lie side by side: GPUs.

  Pixels of the axis that is filtered lie as far apart as can be, so that whole
  planes of pixels are added up; between the filters the axes change places.

  Arguments and result are those of filter_by_taps, to the bit.
  """
  along = jax.vmap(functools.partial(_sum_of_taps, axis=0))
  frames = _in_this_order(window.transpose(0, 3, 4, 1, 2))  # [B, x, 3, T, y]
  frames = _in_this_order(along(frames, columns))
  frames = _in_this_order(frames.transpose(0, 4, 2, 3, 1))  # [B, y, 3, T, x]
  frames = _in_this_order(along(frames, rows).transpose(0, 2, 3, 1, 4))
  planes = [frames[:, channel] for channel in range(frames.shape[1])]
  return jnp.stack([plane.astype(jnp.float32) for plane in planes], axis=4)


def _in_this_order(frames):
  """The same array, in memory in the order of its axes.

  Else XLA may leave it as it lies and call it transposed.
  """
  flat = jax.lax.optimization_barrier(frames.reshape(frames.shape[0], -1))
  return flat.reshape(frames.shape)


def _sum_of_taps(frames, axis_filter, *, axis):
  """Filters a clip, uint8 [..., n, ...] -> [..., size, ...], along an axis."""
  first, weights = axis_filter
  shape = [1] * frames.ndim
  shape[axis] = -1
  total = jnp.zeros((), jnp.float32)
  for tap in range(weights.shape[1]):
    pixels = jnp.take(frames, first + tap, axis=axis, mode='clip')
    total += pixels.astype(jnp.float32) * weights[:, tap].reshape(shape)
  return jnp.floor(total + 0.5).astype(jnp.uint8)


def filter_by_products(window, rows, columns):
  """Does the same by matrix products, which TPUs prefer to single pixels.

  Arguments and result are those of filter_by_taps, to the bit.
  """

  def dense(axis_filter, side):
    place = _places(axis_filter.first, axis_filter.weights.shape[2])
    share = jax.nn.one_hot(place, side, dtype=jnp.float32)
    return jnp.sum(share * axis_filter.weights[..., jnp.newaxis], axis=2)

  # Lower precision would be wrong by whole grey levels.
  precision = jax.lax.Precision.HIGHEST
  columns, rows = dense(columns, window.shape[3]), dense(rows, window.shape[2])
  frames = window.astype(jnp.float32)
  frames = jnp.einsum('btyxc,bix->btyic', frames, columns, precision=precision)
  frames = jnp.floor(frames + 0.5)
  frames = jnp.einsum('btyic,boy->btoic', frames, rows, precision=precision)
  return jnp.floor(frames + 0.5)
