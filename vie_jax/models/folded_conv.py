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


def temporal_taps(
  x: jax.Array,
  kernel: int,
  stride: int,
  padding: tuple[int, int],
  fill: float,
) -> list[jax.Array]:
  """Shifted copies of a clip, one per tap of a temporal kernel.

  Args:
    x: [B, T, H, W, C].
    kernel: taps in time.
    stride: distance in frames between outputs.
    padding: frames added before the first and after the last.
    fill: value of the frames added.

  Returns:
    A list of `kernel` arrays [B, T', H, W, C].
  """
  x = jnp.pad(x, ((0, 0), padding, *((0, 0),) * 3), constant_values=fill)
  num_outputs = (x.shape[1] - kernel) // stride + 1
  last = (num_outputs - 1) * stride + 1
  return [x[:, tap : tap + last : stride] for tap in range(kernel)]


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
    taps = temporal_taps(
      x.astype(self.dtype), time, self.strides[0], padding, 0.0
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

  Space is pooled frame by frame; what is left of time is the maximum of
  shifted copies.

  Args:
    x: [B, T, H, W, C].
    window: (time, height, width).
    strides: (time, height, width).

  Returns:
    [B, T', H', W', C], each axis ceil-divided by its stride. At even sizes
    the padding of minus infinity lies at the end only, unlike PyTorch's
    (official code).
  """
  frames = x.reshape(-1, *x.shape[2:])
  pooled = nn.max_pool(frames, window[1:], strides[1:], padding='SAME')
  x = pooled.reshape(*x.shape[:2], *pooled.shape[1:])
  if window[0] == strides[0] == 1:
    return x
  (padding,) = jax.lax.padtype_to_pads(
    x.shape[1:2], window[:1], strides[:1], 'SAME'
  )
  taps = temporal_taps(x, window[0], strides[0], padding, -jnp.inf)
  return functools.reduce(jnp.maximum, taps)
