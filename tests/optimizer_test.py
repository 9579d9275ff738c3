import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from oracle import official

from vie_jax import optimizer
from vie_jax.classifiers import task
from vie_jax.models import networks, official_checkpoint


def test_drops_equal_the_official_schedule():
  expected = official.load('learning_rate.json')
  boundaries = map(int, expected['arguments']['boundaries'].split(','))
  rate = optimizer.schedule(
    'drops', learning_rate=0.03, num_steps=1000, drop_steps=tuple(boundaries)
  )
  for step, value in zip(expected['steps'], expected['values'], strict=True):
    assert float(rate(step)) == pytest.approx(value, rel=1e-6)


def test_a_step_that_is_named_twice_counts_twice_as_in_classifiers():
  rate = optimizer.schedule(
    'drops', learning_rate=0.2, num_steps=10, drop_steps=(3, 3, 6)
  )
  classifiers = task.Schedule(0.2, 10, (3, 3, 6))
  for step in range(10):
    assert float(rate(step)) == pytest.approx(classifiers.rate(step, 0))
  assert float(rate(4)) == pytest.approx(0.002)


def test_cosine_ends_at_zero_and_warmup_rises_from_it():
  rate = optimizer.schedule(
    'cosine', learning_rate=0.2, num_steps=100, warmup_steps=10
  )
  assert float(rate(0)) == 0.0
  assert float(rate(5)) == pytest.approx(
    0.5 * 0.1 * (1 + np.cos(np.pi * 0.05)), rel=1e-5
  )
  assert float(rate(50)) == pytest.approx(0.1, rel=1e-5)
  assert float(rate(100)) == pytest.approx(0.0, abs=1e-8)


@pytest.fixture
def params():
  return {
    'conv': {'kernel': jnp.asarray([1.0, -2.0])},
    'norm1': {'scale': jnp.ones(2), 'bias': jnp.ones(2)},
    'projection': {'bias': jnp.asarray([3.0])},
  }


def test_decay_spares_batch_norm_only(params):
  assert optimizer.decayed(params) == {
    'conv': {'kernel': True},
    'norm1': {'scale': False, 'bias': False},
    'projection': {'bias': True},
  }


def test_decay_applies_to_the_official_variables():
  model = networks.build('vie_3dresnet', width=4)
  shapes = jax.eval_shape(
    lambda key: model.init(key, jnp.zeros((1, 16, 32, 32, 3)), train=False),
    jax.random.key(0),
  )
  is_decayed = traverse_util.flatten_dict(optimizer.decayed(shapes['params']))
  found = [
    variable.name
    for variable in official_checkpoint.variables_of('vie_3dresnet')
    if variable.collection == 'params' and is_decayed[variable.path]
  ]
  listing = official.load('checkpoint_3dresnet_LA.json')
  assert found == listing['variables_under_weight_decay']


def test_sgd_equals_a_loop_with_coupled_decay(params):
  rule = optimizer.build(
    'sgd', optax.constant_schedule(0.1), momentum=0.9, weight_decay=0.01
  )
  state = rule.init(params)
  ours = params
  plain = {
    'kernel': np.array([1.0, -2.0]),
    'scale': np.ones(2),
  }
  speed = {'kernel': np.zeros(2), 'scale': np.zeros(2)}
  for step in range(4):
    gradient = jax.tree.map(lambda x, s=step: jnp.full_like(x, 0.5 + s), ours)
    updates, state = rule.update(gradient, state, ours)
    ours = optax.apply_updates(ours, updates)
    for name, decay in (('kernel', 0.01), ('scale', 0.0)):
      speed[name] = 0.9 * speed[name] + 0.5 + step + decay * plain[name]
      plain[name] = plain[name] - 0.1 * speed[name]
  np.testing.assert_allclose(ours['conv']['kernel'], plain['kernel'], rtol=1e-5)
  np.testing.assert_allclose(ours['norm1']['scale'], plain['scale'], rtol=1e-5)


def test_adam_decays_apart_from_the_gradient(params):
  rule = optimizer.build(
    'adam', optax.constant_schedule(0.1), momentum=0.9, weight_decay=0.5
  )
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = rule.update(zero, rule.init(params), params)
  np.testing.assert_allclose(updates['conv']['kernel'], [-0.05, 0.1], rtol=1e-5)
  np.testing.assert_array_equal(updates['norm1']['scale'], [0.0, 0.0])


def test_unknown_names_are_refused():
  with pytest.raises(ValueError, match='drops'):
    optimizer.schedule('linear', learning_rate=0.1, num_steps=1)
  with pytest.raises(ValueError, match='sgd'):
    optimizer.build('lion', lambda s: s, momentum=0.9, weight_decay=0.0)


@pytest.mark.parametrize('kind', ['drops', 'cosine'])
def test_the_largest_steps_are_numbers_that_jax_has(kind):
  schedule = optimizer.schedule(
    kind,
    learning_rate=1.0,
    num_steps=2**31 - 1,
    drop_steps=(2**31 - 2,),
    warmup_steps=2**31 - 1,
  )
  rate = jax.jit(schedule)(jnp.int32(2**30))
  assert 0.2 < rate < 0.6
