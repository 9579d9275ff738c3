"""Maximum over windows of space and time, with a gradient that gathers."""

import functools

import jax
import jax.numpy as jnp

from vie_jax.models.taps import Size, taps_along

_MOST_TAPS = 127  # whose places are int8


def max_pool(x: jax.Array, *, window: Size, strides: Size) -> jax.Array:
  """Maximum over space and time, padded as TensorFlow's 'SAME'.

  One axis after the other, as the maximum of shifted copies, with a gradient
  of its own; docs/performance.md has the times of other forms. Where the
  largest finite values of a window are equal, one of them has the gradient:
  the first of its column, and then of the columns. Differentiable in reverse
  mode only.

  Args:
    x: floating [B, T, H, W, C].
    window: (time, height, width), of at most 127 each.
    strides: (time, height, width), likewise.

  Returns:
    [B, T', H', W', C] of x's dtype, each axis ceil-divided by its stride; NaN
    where the window has one. At even sizes the padding of minus infinity lies
    at the end only, unlike PyTorch's (official code).

  Raises:
    ValueError: if a window or a stride is larger than 127.
  """
  if max(*window, *strides) > _MOST_TAPS:
    raise ValueError(
      f'windows and strides are at most {_MOST_TAPS}, got {window}, {strides}.'
    )
  for axis in (2, 3, 1):
    size, stride = window[axis - 1], strides[axis - 1]
    if size > 1 or stride > 1:
      x = _pool_axis(x, axis, size, stride)
  return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pool_axis(x, axis, size, stride):
  """[..., n, ...] -> [..., n / stride, ...], rounded up."""
  return _forward(x, axis, size, stride)[0]


def _forward(x, axis, size, stride):
  length = x.shape[axis]
  padding = _padding(length, size, stride)
  first, *others = taps_along(x, axis, size, stride, padding, -jnp.inf)
  largest, place = first, jnp.zeros(first.shape, jnp.int8)
  for tap, other in enumerate(others, start=1):
    is_larger = (other > largest) | jnp.isnan(other)
    largest = jnp.where(is_larger, other, largest)
    place = jnp.where(is_larger, jnp.int8(tap), place)
  return largest, (place, length)


def _backward(axis, size, stride, kept, cotangent):
  """Each input gathers from the windows over it; none is scattered to.

  Padded inputs are groups of `stride`. Member r of group g is tap
  r + stride * s of window g - s, for each s.
  """
  place, length = kept
  before, after = _padding(length, size, stride)
  num_groups = -(-(before + length + after) // stride)
  shape = [1] * (place.ndim + 1)
  shape[axis + 1] = stride
  member = jnp.arange(stride, dtype=jnp.int8).reshape(shape)

  def shifted(values, fill, windows):
    widths = [(0, 0, 0)] * values.ndim
    widths[axis] = (windows, num_groups - values.shape[axis] - windows, 0)
    values = jax.lax.pad(values, jnp.asarray(fill, values.dtype), widths)
    return jnp.expand_dims(values, axis + 1)

  gradient = 0
  for windows in range(-(-size // stride)):
    is_place = shifted(place, -1, windows) == member + stride * windows
    gradient += jnp.where(is_place, shifted(cotangent, 0, windows), 0)
  shape = list(cotangent.shape)
  shape[axis] = num_groups * stride
  gradient = jax.lax.slice_in_dim(
    gradient.reshape(shape), before, before + length, axis=axis
  )
  # Else GPUs compute the axis before anew for each tap of this one.
  return (jax.lax.optimization_barrier(gradient),)


_pool_axis.defvjp(_forward, _backward)


def _padding(length, size, stride):
  (padding,) = jax.lax.padtype_to_pads((length,), (size,), (stride,), 'SAME')
  return padding
