"""XLA's own convolution, for those that are computed in another way."""

import jax


def convolve(x, kernel, *, strides):
  """[N, H, W, in], [h, w, in, out] -> [N, H', W', out]."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=strides,
    padding=[((size - 1) // 2,) * 2 for size in kernel.shape[:2]],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision='highest',
  )
