"""Convolution and pooling over space and time, written as 2D operations.

XLA's rank-3 convolutions are several times slower than the same arithmetic in
two dimensions, on CPUs above all in their gradients. So frames are folded into
the batch, and the taps of a temporal kernel into the channels.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Size = tuple[int, int, int]  # time, height, width


def temporal_taps(x: jax.Array, kernel: int, stride: int, fill: float):
  """Shifted copies of a clip, one per tap of a temporal kernel.

  Args:
    x: [B, T, H, W, C].
    kernel: taps in time; odd, so that the padding is (kernel - 1) / 2 frames
      on each side.
    stride: distance in frames between outputs.
    fill: value of the frames before the first and after the last.

  Returns:
    A list of `kernel` arrays [B, ceil(T / stride), H, W, C].
  """
  pad = (kernel - 1) // 2
  num_outputs = (x.shape[1] - 1) // stride + 1
  x = jnp.pad(
    x, ((0, 0), (pad, pad), (0, 0), (0, 0), (0, 0)), constant_values=fill
  )
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
    """Maps [B, T, H, W, in] to [B, T', H', W', out], ceil-divided by strides."""
    time, height, width = self.kernel_size
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    taps = temporal_taps(x.astype(self.dtype), time, self.strides[0], 0.0)
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

  Args:
    x: [B, T, H, W, C].
    window: (time, height, width); time must be 1.
    strides: (time, height, width); time must be 1.

  Returns:
    [B, T, H', W', C], H' = ceil(H / stride). At even sizes the padding of
    minus infinity lies at the end only, unlike PyTorch's (official code).

  Raises:
    ValueError: if the pooling reaches over time.
  """
  if window[0] != 1 or strides[0] != 1:
    raise ValueError(f'pooling over time, {window} by {strides}, is not built.')
  frames = x.reshape(-1, *x.shape[2:])
  pooled = nn.max_pool(frames, window[1:], strides[1:], padding='SAME')
  return pooled.reshape(*x.shape[:2], *pooled.shape[1:])
