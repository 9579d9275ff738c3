"""Convolution over space and time, written as a 2D operation.

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

from vie_jax.machine import platform_choice
from vie_jax.models import frame_parts, space_to_depth, width_to_depth
from vie_jax.models.taps import Size, taps_along


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
    """Maps [B, T, H, W, in] to [B, T', H', W', out], divided by strides.

    Differentiable in reverse mode only.

    Raises:
      ValueError: if a size of the kernel is even.
    """
    if not all(size % 2 for size in self.kernel_size):
      raise ValueError(f'kernel_size must be odd, got {self.kernel_size}.')
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    fold = functools.partial(_convolve, strides=self.strides)
    ways = {'others': fold}
    if space_to_depth.applies(x.shape, self.kernel_size, self.strides):
      ways = {'cpu': fold, 'others': space_to_depth.convolve}
    elif width_to_depth.applies(x.shape[3], self.features, self.strides[2]):
      ways['gpu'] = functools.partial(fold, convolve=width_to_depth.convolve)
    if frame_parts.applies(x.shape, self.kernel_size, self.strides):
      ways['cpu'] = functools.partial(fold, convolve=_convolve_parts)
    if len(ways) == 1:
      return fold(x, kernel)
    return platform_choice.by_platform(x, kernel, **ways)


def _convolve_frames(x, kernel, *, strides):
  """[N, H, W, in], [h, w, in, out] -> [N, H', W', out]."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=strides,
    padding=[((size - 1) // 2,) * 2 for size in kernel.shape[:2]],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


_convolve_parts = functools.partial(
  frame_parts.convolve, convolve_part=_convolve_frames
)


def _convolve(x, kernel, *, strides, convolve=_convolve_frames):
  """[B, T, H, W, in], [t, h, w, in, out] -> [B, T', H', W', out]."""
  time, height, width, _, features = kernel.shape
  padding = ((time - 1) // 2,) * 2
  taps = taps_along(x, 1, time, strides[0], padding, 0.0)
  x = jnp.concatenate(taps, axis=-1) if time > 1 else taps[0]
  # Channels of the concatenation run over (tap, in).
  kernel = jnp.moveaxis(kernel, 0, 2).reshape(height, width, -1, features)
  y = convolve(x.reshape(-1, *x.shape[2:]), kernel, strides=strides[1:])
  return y.reshape(*x.shape[:2], *y.shape[1:])
