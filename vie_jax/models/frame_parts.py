"""A convolution of many frames on a CPU, a few frames at a time.

XLA writes the pixels that the kernel meets at each place side by side, of all
frames at once, before it multiplies them. Those of a batch of 16 large frames a
clip are tens of gigabytes; and far less is slow already, as new memory is.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vie_jax.models.taps import Size

PART_BYTES = 128 * 2**20
"""What a part's pixels side by side take: docs/performance.md."""
MOST_PARTS = 32
"""Each of them is compiled."""


def applies(shape: tuple[int, ...], kernel_size: Size, strides: Size) -> bool:
  """Whether `convolve` takes the frames of a folded convolution apart.

  Not where there are several devices: frames are split over them already, and
  those of a part would have to travel. And not where the size of the batch is
  not known yet, as in an export.

  Args:
    shape: of the clips, [B, T, H, W, in].
    kernel_size: (time, height, width).
    strides: (time, height, width).
  """
  batch, time, height, width, channels = shape
  if not isinstance(batch, int):
    return False
  folded = (batch * -(-time // strides[0]), height, width)
  taps = (*kernel_size[1:], kernel_size[0] * channels)
  return jax.device_count() == 1 and _num_parts(folded, taps, strides[1:]) > 1


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  strides: tuple[int, int],
  convolve_part: Callable[..., jax.Array],
) -> jax.Array:
  """2D convolution of [N, H, W, in], some of the N after the others.

  Args:
    x: float [N, H, W, in].
    kernel: [height, width, in, out].
    strides: (height, width).
    convolve_part: the same convolution, of fewer frames.

  Returns:
    [N, H', W', out], as `convolve_part` gives it. The kernel's gradient is a
    sum over the parts.
  """
  num_parts = _num_parts(x.shape[:3], kernel.shape[:3], strides)
  size = -(-len(x) // num_parts)
  return jnp.concatenate(
    [
      convolve_part(x[start : start + size], kernel, strides=strides)
      for start in range(0, len(x), size)
    ]
  )


def _num_parts(frames, taps, strides):
  """Of frames [N, H, W], by the numbers of taps (height, width, in)."""
  num_frames, height, width = frames
  places = -(-height // strides[0]) * -(-width // strides[1])
  num_bytes = 4 * num_frames * places * taps[0] * taps[1] * taps[2]
  return max(min(-(-num_bytes // PART_BYTES), num_frames, MOST_PARTS), 1)
