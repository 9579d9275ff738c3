import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import plain_convolution

from vie_jax.models import width_to_depth

CASES = [
  # Kernel, strides, input and output channels, width.
  ((3, 3), (1, 1), 6, 8, 16),
  ((3, 3), (2, 2), 6, 16, 24),
  ((1, 1), (2, 2), 5, 8, 32),
  ((1, 1), (1, 1), 5, 16, 12),
  ((3, 3), (1, 1), 2, 5, 8),
  ((5, 11), (2, 2), 3, 16, 8),
  ((1, 9), (1, 2), 3, 16, 4),
]


def arrays(size, strides, channels, features, width):
  draw = np.random.default_rng(0)
  shapes = (
    (3, 7, width, channels),
    (*size, channels, features),
    (3, -(-7 // strides[0]), width // strides[1], features),
  )
  return [draw.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(
  ('size', 'strides', 'channels', 'features', 'width'), CASES
)
def test_it_is_the_convolution(size, strides, channels, features, width):
  assert width_to_depth.applies(width, features, strides[1])
  x, kernel, cotangent = arrays(size, strides, channels, features, width)

  @functools.partial(jax.jit, static_argnums=0)
  def values_and_gradients(convolve, x, kernel):
    run = functools.partial(convolve, strides=strides)
    y, pull_back = jax.vjp(run, x, kernel)
    return y, pull_back(cotangent)

  y, gradients = values_and_gradients(plain_convolution.convolve, x, kernel)
  ours, our_gradients = values_and_gradients(width_to_depth.convolve, x, kernel)
  np.testing.assert_allclose(ours, y, atol=2e-4)
  for one, other in zip(our_gradients, gradients, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize(
  ('size', 'strides', 'channels', 'features', 'width'), CASES
)
def test_bfloat16_is_close_to_float32(size, strides, channels, features, width):
  x, kernel, cotangent = (
    array.astype(jnp.bfloat16)
    for array in arrays(size, strides, channels, features, width)
  )

  def run(convolve, *arrays):
    x, kernel, cotangent = arrays
    y, pull_back = jax.vjp(
      functools.partial(convolve, strides=strides), x, kernel
    )
    return y, *pull_back(cotangent)

  ours = jax.jit(functools.partial(run, width_to_depth.convolve))(
    x, kernel, cotangent
  )
  exact = jax.jit(functools.partial(run, plain_convolution.convolve))(
    *(array.astype(np.float32) for array in (x, kernel, cotangent))
  )
  # Units in the last place. The kernel's gradient is a sum of rounded parts.
  for one, other, units in zip(ours, exact, (1, 1, 2), strict=True):
    assert one.dtype == jnp.bfloat16
    error = np.abs(np.asarray(one, np.float32) - other)
    assert np.max(error) <= np.max(np.abs(other)) * 2.0**-8 * units


@pytest.mark.parametrize(
  ('width', 'features', 'stride', 'applies'),
  [
    (56, 8, 1, True),
    (56, 16, 2, True),
    (2, 16, 1, True),
    (56, 17, 1, False),
    (56, 32, 1, False),
    (7, 8, 1, False),
    (14, 16, 2, False),
  ],
)
def test_it_applies_to_few_features_and_rows_that_split(
  width, features, stride, applies
):
  assert width_to_depth.applies(width, features, stride) == applies
