"""Convolution and pooling over space and time, written as 2D operations.

XLA's rank-3 convolutions are several times slower than the same arithmetic in
two dimensions, on CPUs above all in their gradients. So frames are folded into
the batch, and the taps of a temporal kernel into the channels.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Size = tuple[int, int, int]  # time, height, width


def taps_along(
  x: jax.Array,
  axis: int,
  kernel: int,
  stride: int,
  padding: tuple[int, int],
  fill: float,
) -> list[jax.Array]:
  """Shifted copies of an array, one per tap of a kernel along an axis.

  Args:
    x: any shape.
    axis: of time, height or width.
    kernel: taps.
    stride: distance between outputs.
    padding: how much is added before the first and after the last.
    fill: value of what is added.

  Returns:
    A list of `kernel` arrays, shorter than `x` along the axis by the stride.
  """
  widths = [(0, 0)] * x.ndim
  widths[axis] = padding
  x = jnp.pad(x, widths, constant_values=fill)
  num_outputs = (x.shape[axis] - kernel) // stride + 1
  last = (num_outputs - 1) * stride + 1
  return [
    jax.lax.slice_in_dim(x, tap, tap + last, stride, axis)
    for tap in range(kernel)
  ]


class FoldedConv(nn.Module):
  """3D convolution without bias, computed as one 2D convolution.

  Padding is (kernel - 1) / 2 on each side of each axis, for every stride:
  at stride 1 that is 'SAME', at larger strides it is what the official code
  pads explicitly.

  Attributes:
    features: output channels.
    kernel_size: odd (time, height, width).
    strides: (time, height, width).
    dtype: of the computation; the parameter is float32.

  Parameters:
    kernel: float32 [time, height, width, in, out], as a 3D convolution has it,
      initialised LeCun-normal over its full fan-in (official code).
  """

  features: int
  kernel_size: Size
  strides: Size = (1, 1, 1)
  dtype: Any = jnp.float32
  kernel_init: Callable = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, T, H, W, in] to [B, T', H', W', out], divided by strides."""
    time, height, width = self.kernel_size
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    padding = ((time - 1) // 2,) * 2
    taps = taps_along(
      x.astype(self.dtype), 1, time, self.strides[0], padding, 0.0
    )
    x = jnp.concatenate(taps, axis=-1) if time > 1 else taps[0]
    # Channels of the concatenation run over (tap, in).
    kernel = jnp.moveaxis(kernel.astype(self.dtype), 0, 2)
    kernel = kernel.reshape(height, width, -1, self.features)
    y = jax.lax.conv_general_dilated(
      x.reshape(-1, *x.shape[2:]),
      kernel,
      window_strides=self.strides[1:],
      padding=[((size - 1) // 2,) * 2 for size in (height, width)],
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])


def max_pool(x: jax.Array, *, window: Size, strides: Size) -> jax.Array:
  """Maximum over space and time, padded as TensorFlow's 'SAME'.

  One axis after the other, as the maximum of shifted copies: the gradient of
  XLA's own pooling takes several times as long (docs/performance.md). Where
  values of a window are equal, the first has the gradient, as there.

  Args:
    x: [B, T, H, W, C].
    window: (time, height, width).
    strides: (time, height, width).

  Returns:
    [B, T', H', W', C], each axis ceil-divided by its stride; NaN where the
    window has one. At even sizes the padding of minus infinity lies at the end
    only, unlike PyTorch's (official code).
  """
  for axis in (2, 3, 1):
    size, stride = window[axis - 1], strides[axis - 1]
    if size == stride == 1:
      continue
    (padding,) = jax.lax.padtype_to_pads(
      x.shape[axis : axis + 1], (size,), (stride,), 'SAME'
    )
    taps = taps_along(x, axis, size, stride, padding, -jnp.inf)
    x = functools.reduce(_larger, taps)
  return x


def _larger(one: jax.Array, other: jax.Array) -> jax.Array:
  """The larger of two; of equal ones the first alone has the gradient."""
  return jnp.where((other > one) | jnp.isnan(other), other, one)
