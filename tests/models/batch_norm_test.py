import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vie_jax.models import batch_norm

SHAPE = (3, 2, 4, 5, 6)


@pytest.fixture
def x():
  return 2.0 * jax.random.normal(jax.random.key(0), SHAPE) + 1.0


@pytest.fixture
def variables():
  keys = jax.random.split(jax.random.key(1), 4)
  scale, bias, mean, var = (jax.random.normal(key, (6,)) for key in keys)
  return {
    'params': {'scale': scale, 'bias': bias},
    'batch_stats': {'mean': mean, 'var': jnp.exp(var)},
  }


def test_equals_flax_batch_norm_in_values_and_gradients(x, variables):
  ours = batch_norm.BatchNormRelu(0.9)
  theirs = nn.BatchNorm(momentum=0.9, use_fast_variance=False)

  def results(apply):
    def total(params, x):
      y, updated = apply(params, x)
      return jnp.sum(jnp.sin(y)), (y, updated)

    gradients, (y, updated) = jax.grad(total, argnums=(0, 1), has_aux=True)(
      variables['params'], x
    )
    return gradients, y, updated

  for train in (True, False):

    def flax(params, x, train=train):
      y, updated = theirs.apply(
        {**variables, 'params': params},
        x,
        use_running_average=not train,
        mutable='batch_stats',
      )
      return nn.relu(y), updated['batch_stats']['mean']

    def own(params, x, train=train):
      y, updated = ours.apply(
        {**variables, 'params': params}, x, train=train, mutable='batch_stats'
      )
      return y, updated['batch_stats']['mean']

    for one, other in zip(
      jax.tree.leaves(results(own)),
      jax.tree.leaves(results(flax)),
      strict=True,
    ):
      np.testing.assert_allclose(one, other, atol=1e-4)


def test_running_variance_is_the_unbiased_one(x, variables):
  _, updated = batch_norm.BatchNormRelu(0.75).apply(
    variables, x, train=True, mutable='batch_stats'
  )
  flat = np.asarray(x, np.float64).reshape(-1, 6)
  old = variables['batch_stats']
  np.testing.assert_allclose(
    updated['batch_stats']['var'],
    0.75 * np.asarray(old['var']) + 0.25 * flat.var(axis=0, ddof=1),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    updated['batch_stats']['mean'],
    0.75 * np.asarray(old['mean']) + 0.25 * flat.mean(axis=0),
    rtol=1e-5,
  )


def test_a_single_value_leaves_the_variance_finite(variables):
  y, updated = batch_norm.BatchNormRelu().apply(
    variables, jnp.ones((1, 1, 1, 1, 6)), train=True, mutable='batch_stats'
  )
  assert jnp.all(jnp.isfinite(y))
  assert jnp.all(jnp.isfinite(updated['batch_stats']['var']))


def test_initialisation_leaves_the_statistics_alone(x):
  variables = batch_norm.BatchNormRelu().init(jax.random.key(0), x, train=True)
  np.testing.assert_array_equal(variables['batch_stats']['mean'], 0.0)
  np.testing.assert_array_equal(variables['batch_stats']['var'], 1.0)


def test_bfloat16_keeps_statistics_in_float32(x, variables):
  y, updated = batch_norm.BatchNormRelu(dtype=jnp.bfloat16).apply(
    variables, x, train=True, mutable='batch_stats'
  )
  assert y.dtype == jnp.bfloat16
  kinds = {leaf.dtype for leaf in jax.tree.leaves(updated)}
  assert kinds == {jnp.dtype('float32')}


@pytest.mark.parametrize(
  ('mean', 'running_mean'), [(15.0, 0.0), (-15.0, 0.0), (3000.0, 2990.0)]
)
def test_a_large_mean_does_not_cancel_the_variance(mean, running_mean):
  rng = np.random.default_rng(0)
  x = rng.normal(mean, 0.5, (64, 1, 8, 8, 3)).astype(np.float32)
  variables = batch_norm.BatchNormRelu().init(jax.random.key(0), x, train=True)
  variables['batch_stats']['mean'] = jnp.full((3,), running_mean)
  _, updated = batch_norm.BatchNormRelu(0.0).apply(
    variables, x, train=True, mutable='batch_stats'
  )
  flat = x.astype(np.float64).reshape(-1, 3)
  np.testing.assert_allclose(
    updated['batch_stats']['var'], flat.var(axis=0, ddof=1), rtol=1e-3
  )


def test_a_variance_that_rounds_below_zero_is_zero():
  constant = np.linspace(1000, 1001, 64, dtype=np.float32)
  x = np.broadcast_to(constant, (4, 1, 3, 3, 64))
  # In one pass, as the layer forms it, some come out far below zero.
  of_squares = np.mean(x**2, axis=(0, 1, 2, 3)) - np.mean(x, (0, 1, 2, 3)) ** 2
  assert of_squares.min() < -1e-2
  layer = batch_norm.BatchNormRelu(0.0)
  variables = layer.init(jax.random.key(0), x, train=True)
  y, updated = layer.apply(variables, x, train=True, mutable='batch_stats')
  assert np.isfinite(y).all()
  assert (np.asarray(updated['batch_stats']['var']) >= 0).all()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_gradient_is_that_of_the_written_out_formula(x, variables, dtype):
  weight = jax.random.normal(jax.random.key(2), SHAPE)

  def ours(params, x):
    y, _ = batch_norm.BatchNormRelu(dtype=dtype).apply(
      {**variables, 'params': params}, x, train=True, mutable='batch_stats'
    )
    return jnp.sum(weight * y.astype(jnp.float32))

  def formula(params, x):
    x = x.astype(jnp.float32)
    axes, shape = (0, 1, 2, 3), (1, 1, 1, 1, 6)
    scale, bias = (params[name].reshape(shape) for name in ('scale', 'bias'))
    deviation = jnp.sqrt(jnp.var(x, axes, keepdims=True) + batch_norm.EPSILON)
    y = (x - jnp.mean(x, axes, keepdims=True)) / deviation
    return jnp.sum(weight * jnp.maximum(y * scale + bias, 0.0))

  x = x.astype(dtype)
  own, expected = (
    jax.grad(f, argnums=(0, 1))(variables['params'], x) for f in (ours, formula)
  )
  assert own[1].dtype == x.dtype
  tolerance = {'float32': 1e-4, 'bfloat16': 0.02}[dtype]
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(
      one.astype(np.float32),
      other.astype(np.float32),
      atol=tolerance * float(jnp.abs(other).max()),
    ),
    own,
    expected,
  )
