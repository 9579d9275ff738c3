import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vie_jax.models import space_to_depth

CASES = [
  # Kernel, input and output channels: taps in time on either side.
  ((1, 7, 7), 3, 16),
  ((5, 7, 7), 3, 8),
  ((7, 7, 7), 3, 16),
  ((3, 3, 5), 2, 9),
  ((3, 5, 11), 2, 3),
  ((1, 9, 3), 1, 4),
]


def rank_3(x, kernel):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(1, 2, 2),
    padding=[((size - 1) // 2,) * 2 for size in kernel.shape[:3]],
    dimension_numbers=('NTHWC', 'THWIO', 'NTHWC'),
    precision='highest',
  )


def normal(*shapes):
  draw = np.random.default_rng(0)
  return [draw.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(('size', 'channels', 'features'), CASES)
def test_it_is_the_strided_convolution(size, channels, features):
  x, kernel, cotangent = normal(
    (2, 6, 12, 10, channels),
    (*size, channels, features),
    (2, 6, 6, 5, features),
  )

  @functools.partial(jax.jit, static_argnums=0)
  def values_and_gradients(convolve, x, kernel):
    y, pull_back = jax.vjp(convolve, x, kernel)
    return y, pull_back(cotangent)

  y, gradients = values_and_gradients(rank_3, x, kernel)
  ours, our_gradients = values_and_gradients(space_to_depth.convolve, x, kernel)
  np.testing.assert_allclose(ours, y, atol=2e-4)
  for one, other in zip(our_gradients, gradients, strict=True):
    np.testing.assert_allclose(one, other, atol=2e-3)


@pytest.mark.parametrize(('size', 'channels', 'features'), CASES)
def test_bfloat16_is_close_to_float32(size, channels, features):
  x, kernel = (
    array.astype(jnp.bfloat16)
    for array in normal((2, 6, 12, 10, channels), (*size, channels, features))
  )
  y = jax.jit(space_to_depth.convolve)(x, kernel)
  exact = jax.jit(rank_3)(x.astype(np.float32), kernel.astype(np.float32))
  assert y.dtype == jnp.bfloat16
  error = np.abs(np.asarray(y, np.float32) - exact)
  # Half a unit in the last place, for each tap in time and for their sum.
  assert np.max(error) <= np.max(np.abs(exact)) * 2.0**-9 * (size[0] + 1)


@pytest.mark.parametrize(
  ('shape', 'kernel', 'strides', 'applies'),
  [
    ((2, 4, 16, 16, 3), (5, 7, 7), (1, 2, 2), True),
    ((2, 4, 16, 16, 3), (1, 3, 3), (1, 2, 2), True),
    ((2, 4, 16, 16, 8), (5, 7, 7), (1, 2, 2), False),
    ((2, 4, 16, 15, 3), (5, 7, 7), (1, 2, 2), False),
    ((2, 4, 16, 16, 3), (5, 7, 7), (2, 2, 2), False),
    ((2, 4, 16, 16, 3), (5, 7, 7), (1, 1, 1), False),
    ((2, 4, 16, 16, 3), (1, 1, 1), (1, 2, 2), False),
  ],
)
def test_it_applies_to_few_channels_and_even_sizes(
  shape, kernel, strides, applies
):
  assert space_to_depth.applies(shape, kernel, strides) == applies
