"""A convolution of few features, over blocks of pixels of a row.

The matrix units of GPUs compute 64 output channels at a time, of which a fast
pathway's 8 leave the most part empty. The pixels of a block, which lie side by
side in memory, become the channels of one: then there are enough, and what is
computed in vain, of taps that do not reach a pixel, costs less.
"""

import jax
import jax.numpy as jnp
import numpy as np

FEATURES = 64
"""Output channels that a block is filled up to."""
MOST_FEATURES = 16
"""Output channels beyond which it is not worth it (docs/performance.md)."""


def applies(width: int, features: int, stride: int) -> bool:
  """Whether `convolve` can replace a convolution, and is worth it.

  Args:
    width: of the input, in pixels.
    features: output channels.
    stride: along the width.

  Returns:
    True if there are few features and a row splits into blocks.
  """
  return features <= MOST_FEATURES and _block(width, features, stride) > 1


def convolve(
  x: jax.Array, kernel: jax.Array, *, strides: tuple[int, int]
) -> jax.Array:
  """2D convolution, padded by (size - 1) / 2 on each side.

  Args:
    x: bfloat16 or float32 [N, H, W, in].
    kernel: [height, width, in, out], of odd sizes, of x's dtype.
    strides: (height, width).

  Returns:
    [N, H', W', out] of x's dtype, divided by the strides. In bfloat16 the
    kernel's gradient is a sum of parts, one for each output pixel of a block,
    and each of them is rounded.
  """
  height, width, channels, features = kernel.shape
  block = _block(x.shape[2], features, strides[1])
  pixels = block * strides[1]
  taps, padding = _taps_of_block(width, strides[1], block)
  # Of each weight one copy for each output pixel, and otherwise zeros: exact.
  kernel = jnp.einsum(
    'brqw,hwcf->hbrcqf',
    jnp.asarray(taps, kernel.dtype),
    kernel,
    precision=jax.lax.Precision.HIGHEST,
  )
  y = jax.lax.conv_general_dilated(
    x.reshape(*x.shape[:2], x.shape[2] // pixels, pixels * channels),
    kernel.reshape(height, -1, pixels * channels, block * features),
    window_strides=(strides[0], 1),
    padding=[((height - 1) // 2,) * 2, padding],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return y.reshape(*y.shape[:2], y.shape[2] * block, features)


def _block(width, features, stride):
  """Output pixels of a block: a power of two, 1 if a row does not split."""
  block = 1
  while 2 * block * features <= FEATURES and width % (2 * block * stride) == 0:
    block *= 2
  return block


def _taps_of_block(size, stride, block):
  """Where the taps of a block's output pixels lie.

  Args:
    size: taps of the kernel, along the width.
    stride: along the width.
    block: output pixels.

  Returns:
    (float32 [blocks, pixels, block, size], padding): 1 where a tap of an output
    pixel is a pixel of one of the blocks of the input around it, else 0; how
    many blocks lie before and after the one in the middle.
  """
  pixels = block * stride
  output, tap = np.meshgrid(np.arange(block), np.arange(size), indexing='ij')
  place = stride * output + tap - (size - 1) // 2
  first, last = place.min() // pixels, place.max() // pixels
  taps = np.zeros((last - first + 1, pixels, block, size), np.float32)
  taps[place // pixels - first, place % pixels, output, tap] = 1.0
  return taps, (-int(first), int(last))
