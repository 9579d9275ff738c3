import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vie_jax.models import folded_conv

CASES = [
  ((1, 1, 1), (1, 2, 2)),
  ((1, 3, 3), (1, 1, 1)),
  ((1, 7, 7), (1, 2, 2)),
  ((3, 3, 3), (1, 1, 1)),
  ((3, 3, 3), (1, 2, 2)),
  ((3, 3, 3), (2, 2, 2)),
  ((5, 7, 7), (1, 2, 2)),
  ((5, 1, 1), (4, 1, 1)),
]


@pytest.mark.parametrize('size', [(8, 8, 8), (7, 9, 6)])
@pytest.mark.parametrize('kernel,strides', CASES)
def test_folded_form_equals_the_rank_3_convolution(kernel, strides, size):
  x = jax.random.normal(jax.random.key(0), (2, *size, 3))
  conv = folded_conv.FoldedConv(4, kernel, strides)
  params = conv.init(jax.random.key(1), x)
  weight = jax.random.normal(jax.random.key(2), (4,))

  def direct(params, x):
    return jax.lax.conv_general_dilated(
      x,
      params['params']['kernel'],
      window_strides=strides,
      padding=[((k - 1) // 2,) * 2 for k in kernel],
      dimension_numbers=('NTHWC', 'THWIO', 'NTHWC'),
      precision='highest',
    )

  def total(apply):
    return lambda params, x: jnp.sum(jnp.sin(apply(params, x)) @ weight)

  np.testing.assert_allclose(
    conv.apply(params, x), direct(params, x), atol=2e-5
  )
  folded = jax.grad(total(conv.apply), argnums=(0, 1))(params, x)
  plain = jax.grad(total(direct), argnums=(0, 1))(params, x)
  for one, other in zip(
    jax.tree.leaves(folded), jax.tree.leaves(plain), strict=True
  ):
    np.testing.assert_allclose(one, other, atol=2e-4)


def test_kernel_is_initialised_over_its_full_fan_in():
  conv = folded_conv.FoldedConv(64, (3, 3, 3))
  params = conv.init(jax.random.key(0), jnp.zeros((1, 3, 8, 8, 32)))
  kernel = params['params']['kernel']
  assert kernel.shape == (3, 3, 3, 32, 64)
  assert float(kernel.std()) == pytest.approx((27 * 32) ** -0.5, rel=0.02)


def positions(output, stride, size):
  """What a window of 3 covers, padded as TensorFlow's 'SAME'."""
  padding = max((-(-size // stride) - 1) * stride + 3 - size, 0)
  first = output * stride - padding // 2
  return range(max(first, 0), min(first + 3, size))


@pytest.mark.parametrize('time', [(1, 1), (3, 2)])
@pytest.mark.parametrize('size', [(4, 8, 8), (5, 7, 8), (1, 2, 3)])
def test_max_pool_is_the_maximum_of_its_window(time, size):
  x = np.random.default_rng(0).standard_normal((1, *size, 2)) - 5.0
  x = x.astype(np.float32)
  window, stride = time
  pooled = folded_conv.max_pool(
    x, window=(window, 3, 3), strides=(stride, 2, 2)
  )
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
  pooled = folded_conv.max_pool(x, window=(3, 1, 1), strides=(2, 1, 1))
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
  x = jnp.asarray(x, dtype)
  weights = jnp.asarray(draw.standard_normal((2, 3, 5, 6, 4)), jnp.float32)

  def ours(x):
    return folded_conv.max_pool(x, window=(1, 3, 3), strides=(1, 2, 2))

  def theirs(x):
    frames = x.reshape(6, *x.shape[2:])
    pooled = nn.max_pool(frames, (3, 3), (2, 2), padding='SAME')
    return pooled.reshape(weights.shape)

  def gradient(pool):
    return jax.grad(lambda x: jnp.sum(weights * pool(x)))(x)

  np.testing.assert_array_equal(ours(x), theirs(x))
  one, other = (gradient(pool).astype(jnp.float32) for pool in (ours, theirs))
  if kind == 'few values':
    # Which of several equal values it goes to is a matter of order.
    one, other = jnp.sum(one), jnp.sum(other)
  bound = 1e-5 if dtype == 'float32' else 2e-2
  np.testing.assert_allclose(one, other, rtol=bound, atol=bound)


def test_max_pool_hides_no_nan():
  for place in np.ndindex(1, 5, 5):
    x = jnp.zeros((1, 1, 5, 5, 1)).at[(0, *place, 0)].set(jnp.nan)
    pooled = folded_conv.max_pool(x, window=(1, 3, 3), strides=(1, 2, 2))
    _, i, j = place
    windows = np.isnan(np.asarray(pooled))[0, 0, :, :, 0]
    for row, column in np.ndindex(3, 3):
      is_inside = abs(2 * row - i) <= 1 and abs(2 * column - j) <= 1
      assert windows[row, column] == is_inside
