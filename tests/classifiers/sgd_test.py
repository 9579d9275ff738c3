import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vie_jax import finite
from vie_jax.classifiers import sgd

RULE = sgd.rule(
  momentum=0.9, weight_decay=0.1, mask={'kernel': True, 'bias': False}
)


@flax.struct.dataclass
class State:
  step: jax.Array
  params: dict
  opt_state: tuple


def first_state():
  params = {'kernel': jnp.array([1.0, -2.0]), 'bias': jnp.array([3.0])}
  return State(jnp.zeros((), jnp.int32), params, RULE.init(params))


def step(state, loss, rate):
  gradient = jax.tree.map(lambda p: p**2, state.params)
  params, opt_state = sgd.updated(
    RULE, state.params, gradient, state.opt_state, jnp.float32(rate)
  )
  return sgd.after_step(
    state, jnp.float32(loss), params=params, opt_state=opt_state
  )


@pytest.mark.parametrize('name, decay', [('kernel', 0.1), ('bias', 0.0)])
def test_steps_are_those_of_a_loop(name, decay):
  state, momentum = first_state(), 0.0
  value = np.array(state.params[name])
  for rate in (0.1, 0.02):
    state, metrics = step(state, 1.5, rate)
    momentum = 0.9 * momentum + value**2 + decay * value
    value = value - rate * momentum
    assert metrics['loss'] == 1.5
    assert not metrics[finite.FLAG]
  np.testing.assert_allclose(state.params[name], value, rtol=1e-6)
  assert state.step == 2


@pytest.mark.parametrize('loss, rate', [(np.nan, 0.1), (1.0, np.inf)])
def test_nothing_is_kept_of_a_step_that_is_not_finite(loss, rate):
  before, _ = step(first_state(), 1.0, 0.1)
  after, metrics = step(before, loss, rate)
  assert metrics[finite.FLAG]
  assert after.step == before.step + 1
  jax.tree.map(
    np.testing.assert_array_equal, after.replace(step=before.step), before
  )
