import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


@pytest.mark.parametrize('side', [8, 7])
def test_max_pool_pads_at_the_end_only(side):
  x = np.random.default_rng(0).standard_normal((1, 2, side, side, 1))
  x = x.astype(np.float32)
  pooled = folded_conv.max_pool(x, window=(1, 3, 3), strides=(1, 2, 2))
  out = -(-side // 2)
  first = 0 if side % 2 == 0 else -1
  for t in range(2):
    for i in range(out):
      for j in range(out):
        rows = range(max(first + 2 * i, 0), min(first + 2 * i + 3, side))
        columns = range(max(first + 2 * j, 0), min(first + 2 * j + 3, side))
        patch = x[0, t][np.ix_(rows, columns)]
        assert pooled[0, t, i, j, 0] == patch.max()


def test_pooling_over_time_is_refused():
  with pytest.raises(ValueError, match='over time'):
    folded_conv.max_pool(
      jnp.zeros((1, 4, 8, 8, 1)), window=(3, 3, 3), strides=(1, 2, 2)
    )
