import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vie_jax import finite


def tree():
  return {
    'kernel': jnp.ones((5, 3)),
    'half': jnp.ones(4, jnp.bfloat16),
    'count': jnp.int32(7),
    'scalar': jnp.float32(-1e38),
  }


def with_value(name, value):
  """A tree with one number of a leaf, its last, replaced."""
  leaf = tree()[name]
  changed = jnp.ravel(leaf).at[-1].set(value).reshape(leaf.shape)
  return {**tree(), name: changed}


def test_finite_numbers_of_several_trees_are_finite():
  flag = jax.jit(finite.all_finite)(tree(), (), [tree()])
  assert flag.shape == ()
  assert flag.dtype == bool
  assert flag


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('name', ['kernel', 'half', 'scalar'])
def test_one_number_of_one_leaf_is_enough(name, value):
  all_finite = jax.jit(finite.all_finite)
  assert not all_finite(with_value(name, value), tree())
  assert not all_finite(tree(), with_value(name, value))


def test_all_devices_of_a_split_array_are_asked(mesh):
  placement = jax.NamedSharding(mesh, PartitionSpec('data'))
  for row in range(8):
    array = jnp.ones((8, 3)).at[row, 1].set(jnp.nan)
    assert not jax.jit(finite.all_finite)(jax.device_put(array, placement))


def test_a_program_that_reads_the_flag_often_forms_it_once():
  num_leaves = 100

  def step(old, update):
    new = [o + u for o, u in zip(old, update, strict=True)]
    flag = finite.all_finite(new)
    return finite.kept_unless(flag, old, new), ~flag

  leaves = [jnp.ones(8 + number) for number in range(num_leaves)]
  text = jax.jit(step, donate_argnums=0).lower(leaves, leaves).compile()
  # Of each leaf, a few; of the flag, one more for each leaf. As a chain that
  # each of them forms again it was their square, 10,000.
  assert text.as_text().count(' and(') < 5 * num_leaves
