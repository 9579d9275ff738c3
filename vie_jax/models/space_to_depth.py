"""A strided convolution of few channels, as matrix units do it well.

A network's first convolution sees three channels, of which the loads of GPUs
and the matrix units of TPUs leave the most part empty, and steps by two. Each
block of 2 x 2 pixels becomes one pixel of four times the channels, after which
the convolution has half as many taps a side, and no stride.
"""

import functools

import jax
import jax.numpy as jnp

from vie_jax.models.taps import taps_along

ALIGNMENT = 8
"""Channels that a GPU loads at once, of two bytes each."""


def applies(
  shape: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...]
) -> bool:
  """Whether `convolve` can replace a convolution, and is worth it.

  Args:
    shape: [B, T, H, W, in], of the input.
    kernel: (time, height, width).
    strides: (time, height, width).

  Returns:
    True if pixels have few channels, height and width are even, and both are
    halved.
  """
  *_, height, width, channels = shape
  return (
    channels < ALIGNMENT
    and tuple(strides) == (1, 2, 2)
    and min(kernel[1:]) > 1
    and height % 2 == width % 2 == 0
  )


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolution of strides (1, 2, 2), padded as `folded_conv.FoldedConv`.

  Taps in time go to the side that has fewer channels: those of the input, or
  those of the output, which are then summed in float32. Differentiable in
  reverse mode only.

  Args:
    x: bfloat16 or float32 [B, T, H, W, in], H and W even.
    kernel: [time, height, width, in, out], of odd sizes, of x's dtype.

  Returns:
    [B, T, H / 2, W / 2, out] of x's dtype. In bfloat16, if out < 4 in, each of
    the taps in time is rounded before they are summed.
  """
  x, kernel = _blocks_of_pixels(x, kernel.shape[1:3]), _blocks_of_taps(kernel)
  time, _, _, channels, features = kernel.shape
  if features < channels:
    kernel = jnp.moveaxis(kernel, 0, 3)
    kernel = kernel.reshape(*kernel.shape[:3], -1)
    return _sum_over_time(_convolve_frames([x], kernel), time)
  if time > 1:
    # On its own, or GPUs look each block's pixels up anew for each tap.
    x = jax.lax.optimization_barrier(x)
  kernel = jnp.moveaxis(kernel, 0, 2)
  kernel = kernel.reshape(*kernel.shape[:2], -1, features)
  return _convolve_frames(_taps_in_time(x, time), kernel)


def _blocks_of_pixels(x, size):
  """[B, T, H, W, C] -> [B, T, H', W', 4 C], padded for a kernel's size."""
  batch, time, height, width, channels = x.shape
  x = x.reshape(batch, time, height // 2, 2, width // 2, 2, channels)
  x = x.transpose(0, 1, 2, 4, 3, 5, 6)
  x = x.reshape(batch, time, height // 2, width // 2, 4 * channels)
  padding = [_padding_in_blocks(taps) for taps in size]
  return jnp.pad(x, [(0, 0), (0, 0), *padding, (0, 0)])


def _padding_in_blocks(taps):
  """Blocks before and after, for a side of a kernel, which is odd."""
  before = (taps + 1) // 4
  return before, (taps + 1) // 2 - 1 - before


def _blocks_of_taps(kernel):
  """[t, h, w, in, out] -> [t, h', w', 4 in, out], filled up with zeros.

  The first output's window begins (size - 1) / 2 before the first pixel: if
  that is odd, in the second half of a block.
  """
  widths = [(0, 0)] * 5
  for axis in (1, 2):
    before = (kernel.shape[axis] // 2) % 2
    widths[axis] = (before, 1 - before)
  kernel = jnp.pad(kernel, widths)
  time, height, width, channels, features = kernel.shape
  kernel = kernel.reshape(
    time, height // 2, 2, width // 2, 2, channels, features
  )
  kernel = kernel.transpose(0, 1, 3, 2, 4, 5, 6)
  return kernel.reshape(time, height // 2, width // 2, 4 * channels, features)


def _convolve_frames(parts, kernel):
  """[B, T, H, W, c] of all parts of the input, [h, w, in, out].

  Returns [B, T, H', W', out]. Nothing is padded but the channels.
  """
  *shape, channels = parts[0].shape
  missing = -len(parts) * channels % ALIGNMENT
  zeros = jnp.zeros((*shape, missing), parts[0].dtype)
  x = jnp.concatenate([*parts, zeros], axis=-1)
  y = jax.lax.conv_general_dilated(
    x.reshape(-1, *x.shape[2:]),
    jnp.pad(kernel, [(0, 0)] * 2 + [(0, missing), (0, 0)]),
    window_strides=(1, 1),
    padding='VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return y.reshape(*x.shape[:2], *y.shape[1:])


def _taps_in_time(x, time):
  return taps_along(x, 1, time, 1, ((time - 1) // 2,) * 2, 0.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum_over_time(y, time):
  """[B, T, H, W, time * C], the taps' results -> [B, T, H, W, C].

  Its gradient is written out: JAX's adds an array of zeros for each tap.
  """
  return _sum_forward(y, time)[0]


def _sum_forward(y, time):
  y = y.reshape(*y.shape[:-1], time, y.shape[-1] // time)
  taps = _taps_in_time(y, time)
  total = sum(
    tap[..., number, :].astype(jnp.float32) for number, tap in enumerate(taps)
  )
  return total.astype(y.dtype), None


def _sum_backward(time, kept, cotangent):
  del kept
  taps = _taps_in_time(cotangent, time)
  return (jnp.concatenate(taps[::-1], axis=-1),)


_sum_over_time.defvjp(_sum_forward, _sum_backward)
