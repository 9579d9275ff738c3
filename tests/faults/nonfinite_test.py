"""Numbers that are not finite never get into a state, wherever they arise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from configs import default
from vie_jax import (
  device_augment,
  finite,
  optimizer,
  sharding,
  skipped_steps,
  train_state,
  train_step,
)
from vie_jax.models.batch_norm import BatchNormRelu
from vie_jax.objective import memory_bank

NUM_VIDEOS, BATCH, SIZE = 40, 8, 8
METHOD = train_step.Method(
  num_videos=NUM_VIDEOS,
  temperature=0.07,
  bank_momentum=0.5,
  instance_loss='nce',
  num_noise=16,
  num_neighbors=10,
  num_clusters=4,
  kmeans_iterations=3,
)


@pytest.fixture
def mesh(mesh_of_a_step):
  return mesh_of_a_step


class Network(nn.Module):
  """The smallest that has batch norm and an embedding."""

  @nn.compact
  def __call__(self, clips, *, train):
    x = nn.Dense(8)(clips.reshape(clips.shape[0], -1))
    x = BatchNormRelu(decay=0.9)(x, train=train)
    return memory_bank.normalize(nn.Dense(4)(x))


@functools.cache
def compiled(num_devices):
  """(function to the first state, steps) of a small run."""
  return compile_steps(sharding.make_mesh(num_devices))


def compile_steps(mesh):
  rule = optimizer.build(
    'sgd', optax.constant_schedule(0.01), momentum=0.9, weight_decay=1e-4
  )
  initialize = train_state.initializer(
    Network(),
    rule,
    clip_shape=(1, SIZE, SIZE, 3),
    num_videos=NUM_VIDEOS,
    embedding_size=4,
    num_clusterings=1,
    mesh=mesh,
  )
  steps = train_step.compile_steps(
    initialize.shapes,
    model=Network(),
    optimizer=rule,
    augment=functools.partial(
      device_augment.augment,
      size=SIZE,
      flip_probability=0.5,
      brightness=0.4,
      contrast=0.4,
      saturation=0.4,
      hue=0.4,
      grey_probability=0.3,
    ),
    method=METHOD,
    mesh=mesh,
  )
  return initialize, steps


def batch_of(step):
  rng = np.random.default_rng(step)
  side = SIZE + 4
  return {
    'window': rng.integers(0, 256, (BATCH, 1, side, side, 3), dtype=np.uint8),
    'crop': np.tile(np.float32([1, 2, SIZE, SIZE]), (BATCH, 1)),
    'instance_index': rng.permutation(NUM_VIDEOS)[:BATCH].astype(np.int32),
  }


def started(mesh, num_steps=2):
  """A state some steps on, with clusters; and the steps."""
  initialize, steps = compiled(mesh.size)
  state = initialize(jax.random.key(0))
  for number in range(num_steps):
    state, _ = steps['instance_recognition'](
      state, sharding.global_batch(batch_of(number), mesh)
    )
  return steps['recluster'](state)[0], steps


def on_host(state):
  """Copies of all leaves, as the state is donated."""
  state = state.replace(key=jax.random.key_data(state.key))
  return {
    jax.tree_util.keystr(path): np.array(leaf)
    for path, leaf in jax.tree.leaves_with_path(state)
  }


def spoil(tree, value):
  """Puts a value into the first number of the first float leaf."""
  leaves, structure = jax.tree.flatten(tree)
  number = next(i for i, leaf in enumerate(leaves) if leaf.dtype == jnp.float32)
  leaf = leaves[number]
  spoiled = leaf.at[(0,) * leaf.ndim].set(value)
  leaves[number] = jax.device_put(spoiled, leaf.sharding)
  return jax.tree.unflatten(structure, leaves)


def spoiled(place, state, batch):
  """(state, batch) with a number that is not finite, or soon will not be."""
  if place == 'crop':
    batch['crop'][3, 2] = np.nan
  elif place == 'parameter':
    state = state.replace(params=spoil(state.params, np.nan))
  elif place == 'huge parameter':
    state = state.replace(
      params=jax.tree.map(lambda leaf: leaf * 1e30, state.params)
    )
  elif place == 'statistic':
    state = state.replace(batch_stats=spoil(state.batch_stats, np.inf))
  elif place == 'momentum':
    state = state.replace(opt_state=spoil(state.opt_state, np.inf))
  elif place == 'bank row':
    row = int(batch['instance_index'][0])
    bank = jax.device_put(state.bank.at[row].set(np.nan), state.bank.sharding)
    state = state.replace(bank=bank)
  return state, batch


PLACES = (
  'crop',
  'parameter',
  'huge parameter',
  'statistic',
  'momentum',
  'bank row',
)


@pytest.mark.parametrize('objective', train_step.OBJECTIVES)
@pytest.mark.parametrize('place', PLACES)
def test_a_step_that_is_not_finite_changes_nothing(mesh, place, objective):
  state, steps = started(mesh)
  state, batch = spoiled(place, state, batch_of(7))
  before = on_host(state)
  state, metrics = steps[objective](state, sharding.global_batch(batch, mesh))
  assert bool(metrics[finite.FLAG])
  after = on_host(state)
  for name, value in before.items():
    # The learning rate goes by the number of the step.
    is_counted = name == '.step' or name.endswith('.count')
    np.testing.assert_array_equal(
      after[name], value + 1 if is_counted else value, err_msg=name
    )


def test_the_step_after_it_is_an_ordinary_one(mesh):
  state, steps = started(mesh)
  _, batch = spoiled('crop', state, batch_of(7))
  state, _ = steps['instance_recognition'](
    state, sharding.global_batch(batch, mesh)
  )
  before = on_host(state)
  batch = batch_of(8)
  state, metrics = steps['instance_recognition'](
    state, sharding.global_batch(batch, mesh)
  )
  assert not metrics[finite.FLAG]
  after = on_host(state)
  assert all(np.isfinite(value).all() for value in after.values())
  changed = (after['.bank'] != before['.bank']).any(axis=1)
  assert set(np.flatnonzero(changed)) == set(batch['instance_index'])
  assert int(after['.bank_step'][batch['instance_index'][0]]) == 3


def test_the_guard_changes_no_bit_of_a_sound_run(mesh, monkeypatch):
  def run(initialize, steps):
    state = initialize(jax.random.key(0))
    for number in range(12):
      if number == 6:
        state, _ = steps['recluster'](state)
      name = ['instance_recognition', 'local_aggregation'][number >= 6]
      batch = sharding.global_batch(batch_of(number), mesh)
      state, metrics = steps[name](state, batch)
      assert np.isfinite(metrics['train/loss'])
    return on_host(state)

  guarded = run(*compiled(mesh.size))
  monkeypatch.setattr(finite, 'kept_unless', lambda sound, old, new: new)
  bare = run(*compile_steps(mesh))
  for name, value in bare.items():
    np.testing.assert_array_equal(guarded[name], value, err_msg=name)


def test_bad_rows_of_a_bank_are_found(mesh):
  state, _ = started(mesh)
  rows = [3, 17, 39, 40]  # the last is padding
  bank = state.bank.at[jnp.array(rows), 1].set(np.nan)
  bank = jax.device_put(bank, state.bank.sharding)
  found = finite.bad_rows(bank, num_videos=NUM_VIDEOS, mesh=mesh)
  assert found == [3, 17, 39]
  found = finite.bad_rows(bank, num_videos=NUM_VIDEOS, mesh=mesh, most=2)
  assert found == [3, 17]
  assert finite.bad_rows(state.bank, num_videos=NUM_VIDEOS, mesh=mesh) == []


class StoppedError(Exception):
  pass


def counter(**fields):
  """`SkippedSteps` that raises (step, reason) where the run would stop."""

  def stop(step, reason):
    raise StoppedError(step, reason)

  fault = default.get_config().fault
  fault.update(fields)
  return skipped_steps.SkippedSteps(fault, names='video-{}'.format, stop=stop)


def feed(skipped, flags, loss=np.nan):
  for step, flag in enumerate(flags, start=1):
    metrics = {
      'train/loss': jnp.float32(loss if flag else 1.0),
      'train/gradient_norm': jnp.float32(np.inf if flag else 1.0),
      finite.FLAG: jnp.bool_(flag),
    }
    written = skipped.add(step, metrics, np.array([step, 10 + step]))
    assert set(written) == {'train/loss', 'train/gradient_norm'}
    skipped.settle(all_but=1)
  skipped.settle()


def test_stop_is_at_the_first_such_step_and_names_its_videos(caplog):
  with pytest.raises(StoppedError) as error:
    feed(counter(on_nonfinite='stop'), [0, 0, 1, 0])
  assert error.value.args == (3, 'the loss is nan')
  assert 'Step 3: the loss is nan' in caplog.text
  assert '3 video-3, 13 video-13' in caplog.text


@pytest.mark.parametrize(
  'loss, reason', [(-np.inf, 'the loss is -inf'), (2.0, 'the gradient is inf')]
)
def test_the_reason_is_named(loss, reason):
  with pytest.raises(StoppedError) as error:
    feed(counter(on_nonfinite='stop'), [1], loss=loss)
  assert error.value.args == (1, reason)


def test_skip_goes_on_up_to_so_many_in_a_row():
  options = {'on_nonfinite': 'skip', 'max_skipped_in_a_row': 2}
  skipped = counter(**options)
  feed(skipped, [1, 1, 0, 1, 1, 0])
  assert skipped.count == 4
  with pytest.raises(StoppedError, match='max_skipped_in_a_row') as error:
    feed(counter(**options), [0, 1, 1, 1])
  assert error.value.args[0] == 4


def test_skip_goes_on_up_to_so_many_in_all():
  options = {'on_nonfinite': 'skip', 'max_skipped_steps': 3}
  skipped = counter(**options)
  skipped.count = 2  # of the run before it was restarted
  feed(skipped, [1, 0, 0])
  with pytest.raises(StoppedError, match='as in 4 steps so far') as error:
    feed(skipped, [0, 1])
  assert error.value.args[0] == 2
