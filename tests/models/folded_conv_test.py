import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vie_jax.machine import platform_choice
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
  draw = np.random.default_rng(0)
  x = draw.standard_normal((2, *size, 3)).astype(np.float32)
  weight = draw.standard_normal(4).astype(np.float32)
  conv = folded_conv.FoldedConv(4, kernel, strides)
  params = jax.jit(conv.init)(jax.random.key(1), x)

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
    jax.jit(conv.apply)(params, x), jax.jit(direct)(params, x), atol=2e-5
  )
  folded, plain = (
    jax.jit(jax.grad(total(apply), argnums=(0, 1)))(params, x)
    for apply in (conv.apply, direct)
  )
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


@pytest.mark.parametrize(
  ('platform', 'is_strided'), [('cpu', True), ('cuda', False), ('tpu', False)]
)
def test_only_cpus_convolve_few_channels_by_strides(platform, is_strided):
  conv = folded_conv.FoldedConv(8, (5, 7, 7), (1, 2, 2))
  x = jax.ShapeDtypeStruct((2, 4, 16, 16, 3), jnp.float32)
  params = jax.eval_shape(conv.init, jax.random.key(0), x)

  def total(params, x):
    return jnp.sum(conv.apply(params, x) ** 2)

  traced = jax.jit(jax.grad(total)).trace(params, x)
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  # Forward, and the gradient by the kernel.
  assert program.count('stablehlo.convolution') == 2
  assert ('stride = [2, 2]' in program) == is_strided


@pytest.mark.parametrize(
  ('platform', 'is_in_blocks'), [('cpu', False), ('cuda', True), ('tpu', False)]
)
def test_only_gpus_convolve_few_features_in_blocks(platform, is_in_blocks):
  conv = folded_conv.FoldedConv(8, (3, 3, 3))
  x = jax.ShapeDtypeStruct((2, 4, 16, 16, 6), jnp.float32)
  params = jax.eval_shape(conv.init, jax.random.key(0), x)
  traced = jax.jit(conv.apply).trace(params, x)
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  # Rows of 2 blocks of 8 pixels, each of 3 x 6 channels.
  assert ('tensor<8x16x2x144xf32>' in program) == is_in_blocks


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
@pytest.mark.parametrize('channels', [3, 6])
@pytest.mark.parametrize('kernel,strides', CASES)
def test_ways_of_each_platform_are_the_same(
  kernel, strides, channels, platform
):
  x = np.random.default_rng(0).standard_normal((2, 4, 8, 16, channels))
  x = x.astype(np.float32)
  conv = folded_conv.FoldedConv(4, kernel, strides)
  params = jax.jit(conv.init)(jax.random.key(1), x)

  def values_and_gradients(way):
    def run(params, x):
      y, pull_back = jax.vjp(conv.apply, params, x)
      return y, *pull_back(jnp.sin(y))

    with platform_choice.only(way):
      return jax.tree.leaves(jax.jit(run)(params, x))

  for one, other in zip(
    values_and_gradients(platform), values_and_gradients('cpu'), strict=True
  ):
    np.testing.assert_allclose(one, other, atol=2e-4)


@pytest.mark.parametrize('kernel', [(2, 3, 3), (1, 4, 3), (1, 3, 2)])
def test_even_kernels_are_refused(kernel):
  conv = folded_conv.FoldedConv(4, kernel, (1, 2, 2))
  with pytest.raises(ValueError, match='kernel_size must be odd'):
    conv.init(jax.random.key(0), jnp.zeros((1, 4, 8, 8, 3)))
