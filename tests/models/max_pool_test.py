import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vie_jax.models import max_pool

SIZES = [(4, 8, 8), (5, 7, 8), (1, 2, 3), (3, 1, 1)]
TIMES = [(1, 1), (3, 2)]  # window and stride


def positions(output, stride, size):
  """What a window of 3 covers, padded as TensorFlow's 'SAME'."""
  padding = max((-(-size // stride) - 1) * stride + 3 - size, 0)
  first = output * stride - padding // 2
  return range(max(first, 0), min(first + 3, size))


@pytest.mark.parametrize('time', TIMES)
@pytest.mark.parametrize('size', SIZES)
def test_max_pool_is_the_maximum_of_its_window(time, size):
  x = np.random.default_rng(0).standard_normal((1, *size, 2)) - 5.0
  x = x.astype(np.float32)
  window, stride = time
  pool = jax.jit(max_pool.max_pool, static_argnames=('window', 'strides'))
  pooled = pool(x, window=(window, 3, 3), strides=(stride, 2, 2))
  expected = np.empty(
    (1, -(-size[0] // stride), -(-size[1] // 2), -(-size[2] // 2), 2)
  )
  for t, i, j in np.ndindex(expected.shape[1:4]):
    frames = positions(t, stride, size[0]) if window == 3 else [t]
    patch = x[0][
      np.ix_(frames, positions(i, 2, size[1]), positions(j, 2, size[2]))
    ]
    expected[0, t, i, j] = patch.max(axis=(0, 1, 2))
  np.testing.assert_array_equal(pooled, expected.astype(np.float32))


def test_max_pool_pads_even_sizes_at_the_end_only():
  x = jnp.arange(4.0).reshape(1, 4, 1, 1, 1)
  pooled = max_pool.max_pool(x, window=(3, 1, 1), strides=(2, 1, 1))
  np.testing.assert_array_equal(pooled.ravel(), [2.0, 3.0])


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('kind', ['distinct', 'flat', 'few values'])
def test_max_pool_and_its_gradient_are_those_of_xla(kind, dtype):
  draw = np.random.default_rng(1)
  x = {
    'distinct': draw.standard_normal((2, 3, 9, 12, 4)),
    'flat': np.ones((2, 3, 9, 12, 4)),
    'few values': draw.integers(-1, 2, (2, 3, 9, 12, 4)),
  }[kind]
  x = x.astype(dtype)
  weights = draw.standard_normal((2, 3, 5, 6, 4)).astype(np.float32)

  def ours(x):
    return max_pool.max_pool(x, window=(1, 3, 3), strides=(1, 2, 2))

  def theirs(x):
    frames = x.reshape(6, *x.shape[2:])
    pooled = nn.max_pool(frames, (3, 3), (2, 2), padding='SAME')
    return pooled.reshape(weights.shape)

  def values_and_gradient(pool):
    pooled = jax.jit(pool)(x)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(weights * pool(x))))(x)
    return pooled, np.asarray(gradient, np.float32)

  (values, one), (expected, other) = map(values_and_gradient, (ours, theirs))
  np.testing.assert_array_equal(values, expected)
  if kind == 'few values':
    # Which of several equal values it goes to is a matter of order.
    one, other = np.sum(one), np.sum(other)
  bound = 1e-5 if dtype == 'float32' else 2e-2
  np.testing.assert_allclose(one, other, rtol=bound, atol=bound)


def test_max_pool_hides_no_nan():
  pool = jax.jit(max_pool.max_pool, static_argnames=('window', 'strides'))
  for place in np.ndindex(1, 5, 5):
    x = np.zeros((1, 1, 5, 5, 1), np.float32)
    x[(0, *place, 0)] = np.nan
    pooled = pool(x, window=(1, 3, 3), strides=(1, 2, 2))
    _, i, j = place
    windows = np.isnan(np.asarray(pooled))[0, 0, :, :, 0]
    for row, column in np.ndindex(3, 3):
      is_inside = abs(2 * row - i) <= 1 and abs(2 * column - j) <= 1
      assert windows[row, column] == is_inside


def pooled_axis(x, gradient_of_output, axis, size, stride):
  """(maxima, gradient by x) along an axis, window by window, in NumPy."""
  x, dy = np.moveaxis(x, axis, 0), np.moveaxis(gradient_of_output, axis, 0)
  length = len(x)
  padding = max((-(-length // stride) - 1) * stride + size - length, 0)
  y, dx = np.empty_like(dy), np.zeros_like(x)
  for place in np.ndindex(x.shape[1:]):
    for output in range(len(dy)):
      first = output * stride - padding // 2
      window = range(max(first, 0), min(first + size, length))
      values = [x[(i, *place)] for i in window]
      largest = window[int(np.argmax(values))]  # the first of equal ones
      y[(output, *place)] = x[(largest, *place)]
      dx[(largest, *place)] += dy[(output, *place)]
  return np.moveaxis(y, 0, axis), np.moveaxis(dx, 0, axis)


@pytest.mark.parametrize('time', TIMES)
@pytest.mark.parametrize('size', SIZES)
def test_gradient_goes_to_the_first_of_the_largest(time, size):
  draw = np.random.default_rng(0)
  # Few values, so that many windows hold the largest more than once.
  x = draw.integers(-2, 3, (2, *size, 2)).astype(np.float32)
  axes = [(2, 3, 2), (3, 3, 2)] + [(1, 3, 2)] * (time[0] > 1)
  shapes = [x.shape]
  for axis, _, stride in axes:
    shape = list(shapes[-1])
    shape[axis] = -(-shape[axis] // stride)
    shapes.append(tuple(shape))
  weights = draw.standard_normal(shapes[-1]).astype(np.float32)
  maxima = [x]
  for (axis, window, stride), shape in zip(axes, shapes[1:], strict=True):
    unused = np.zeros(shape, np.float32)
    maxima.append(pooled_axis(maxima[-1], unused, axis, window, stride)[0])
  expected = weights
  for (axis, window, stride), before in zip(
    reversed(axes), reversed(maxima[:-1]), strict=True
  ):
    expected = pooled_axis(before, expected, axis, window, stride)[1]

  def total(x):
    pooled = max_pool.max_pool(
      x, window=(time[0], 3, 3), strides=(time[1], 2, 2)
    )
    return jnp.sum(weights * pooled)

  gradient = jax.jit(jax.grad(total))(x)
  np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
  ('length', 'window', 'stride'),
  [(9, 2, 2), (10, 4, 3), (7, 5, 1), (11, 1, 2), (8, 2, 5), (300, 127, 60)],
)
def test_any_window_and_stride_along_an_axis(length, window, stride):
  draw = np.random.default_rng(0)
  x = draw.standard_normal((1, length, 1, 1, 2)).astype(np.float32)
  weights = draw.standard_normal((1, -(-length // stride), 1, 1, 2))
  expected = pooled_axis(x, weights.astype(np.float32), 1, window, stride)

  def total(x):
    pooled = max_pool.max_pool(x, window=(window, 1, 1), strides=(stride, 1, 1))
    return jnp.sum(weights.astype(np.float32) * pooled), pooled

  gradient, pooled = jax.jit(jax.grad(total, has_aux=True))(x)
  np.testing.assert_array_equal(pooled, expected[0])
  np.testing.assert_allclose(gradient, expected[1], rtol=1e-6)


@pytest.mark.parametrize(
  ('window', 'strides'), [((128, 1, 1), (1, 1, 1)), ((1, 1, 3), (1, 1, 128))]
)
def test_places_that_no_byte_holds_are_refused(window, strides):
  with pytest.raises(ValueError, match='at most 127'):
    max_pool.max_pool(
      jnp.zeros((1, 1, 1, 1, 1)), window=window, strides=strides
    )
