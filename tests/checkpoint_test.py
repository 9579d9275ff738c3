import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from vie_jax import checkpoint, optimizer, sharding, train_state

NUM_VIDEOS = 300
RECORD = {'config': {'seed': 0}, 'fingerprint': 'f' * 64}


class Network(nn.Module):
  """Parameters, batch statistics and little to compute."""

  @nn.compact
  def __call__(self, clip, *, train):
    features = nn.Dense(64)(clip.reshape(clip.shape[0], -1))
    normed = nn.BatchNorm(use_running_average=not train)(features)
    return nn.Dense(16)(normed)


@functools.cache
def initializer(num_devices, name='adam'):
  rule = optimizer.build(
    name, optax.constant_schedule(1e-2), momentum=0.9, weight_decay=1e-4
  )
  return train_state.initializer(
    Network(),
    rule,
    clip_shape=(1, 64, 64, 3),
    num_videos=NUM_VIDEOS,
    embedding_size=16,
    num_clusterings=2,
    mesh=sharding.make_mesh(num_devices),
  )


def first_state(num_devices, seed=0):
  return initializer(num_devices)(jax.random.key(seed))


def shapes(num_devices):
  mesh = sharding.make_mesh(num_devices)
  shape = jax.eval_shape(initializer(num_devices), jax.random.key(0))
  return jax.tree.map(
    lambda leaf, layout: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=layout
    ),
    shape,
    train_state.layout(shape, mesh),
  )


@functools.partial(jax.jit, donate_argnums=0)
def step(state):
  """Changes every leaf, in the memory of the old ones."""

  def other(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jax.random.fold_in(leaf, 1)
    return leaf + jnp.ones((), leaf.dtype)

  return jax.tree.map(other, state)


def on_host(state):
  """Copies of all leaves that share no memory with the state."""

  def copy(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    return np.array(leaf, copy=True)

  return jax.tree.map(copy, state)


def assert_equal(state, expected):
  jax.tree.map(np.testing.assert_array_equal, on_host(state), expected)


def save(workdir, steps, *, keep=None, num_devices=1):
  """Saves a state under some steps; returns copies of the states."""
  copies = {}
  with checkpoint.Checkpoints(workdir, keep=keep) as checkpoints:
    for number in steps:
      state = first_state(num_devices, seed=number)
      state = state.replace(step=jnp.asarray(number, jnp.int32))
      copies[number] = on_host(state)
      checkpoints.save(state, RECORD)
  return copies


@pytest.mark.parametrize('num_devices', [1, 8])
def test_what_is_saved_is_the_state_at_that_time(tmp_path, num_devices):
  state = first_state(num_devices)
  expected = {}
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    for _ in range(4):
      expected[int(state.step)] = on_host(state)
      checkpoints.save(state, RECORD)
      # Overwrites the memory that is being saved, if it may be.
      for _ in range(5):
        state = step(state)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step == 15
    for number, leaves in expected.items():
      restored = checkpoints.restore(number, shapes(num_devices))
      assert_equal(restored, leaves)


def test_a_restored_state_can_be_trained_on_and_saved_again(tmp_path, mesh):
  save(tmp_path, [1], num_devices=mesh.size)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    first = checkpoints.restore(1, shapes(mesh.size))
    second = checkpoints.restore(1, shapes(mesh.size))
    first = step(step(first))
    expected = on_host(first)
    checkpoints.save(first, RECORD)
    first = step(first)
    assert_equal(step(step(second)), expected)
    checkpoints.wait()
    assert_equal(checkpoints.restore(3, shapes(mesh.size)), expected)


@pytest.mark.parametrize('saved, restored', [(1, 8), (8, 1), (8, 2)])
def test_other_numbers_of_devices_restore_the_same(tmp_path, saved, restored):
  copies = save(tmp_path, [7], num_devices=saved)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    state = checkpoints.restore(7, shapes(restored))
  assert_equal(state, copies[7])
  wanted = train_state.layout(state, sharding.make_mesh(restored))
  for leaf, layout in zip(
    jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True
  ):
    assert leaf.sharding.is_equivalent_to(layout, leaf.ndim)


def test_single_items_are_restored_without_the_others(tmp_path):
  copies = save(tmp_path, [1])
  for name in ('memory_bank', 'training'):
    shutil.rmtree(tmp_path / 'checkpoints' / '1' / name)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    whole = sharding.replicated(sharding.make_mesh(8))
    restored = checkpoints.restore_as_saved(
      1, 'model', {'params': whole, 'batch_stats': whole}
    )
  assert set(restored) == {'params', 'batch_stats'}
  assert_equal(restored['params'], copies[1].params)
  assert_equal(restored['batch_stats'], copies[1].batch_stats)
  for leaf in jax.tree.leaves(restored):
    assert len(leaf.sharding.device_set) == 8


def test_only_the_newest_are_kept(tmp_path):
  save(tmp_path, [1, 2, 3, 4, 5], keep=2)
  folder = tmp_path / 'checkpoints'
  assert sorted(path.name for path in folder.iterdir()) == ['4', '5']


def test_saving_a_step_twice_is_refused_by_name(tmp_path):
  save(tmp_path, [5])
  with pytest.raises(checkpoint.CheckpointError, match='another run') as error:
    save(tmp_path, [5])
  assert str(tmp_path / 'checkpoints') in str(error.value)
  with pytest.raises(checkpoint.CheckpointError, match='step 3 was not saved'):
    save(tmp_path, [3])


def remove_folder(item):
  return lambda folder: shutil.rmtree(folder / item)


def truncate(item):
  """Cuts the files that hold the values of an item in half."""

  def damage(folder):
    files = [path for path in (folder / item).rglob('*') if path.is_file()]
    data = [path for path in files if path.parent.name == 'd']
    assert data
    for path in data:
      content = path.read_bytes()
      path.write_bytes(content[: len(content) // 2])

  return damage


def remove_values(item):
  def damage(folder):
    for path in (folder / item).rglob('d/*'):
      path.unlink()

  return damage


def cut_record(folder):
  (path,) = (folder / 'record').glob('metadata*')
  path.write_text(path.read_text()[:-9])


DAMAGES = {
  'no_model': remove_folder('model'),
  'no_memory_bank': remove_folder('memory_bank'),
  'no_training': remove_folder('training'),
  'no_record': remove_folder('record'),
  'truncated_model': truncate('model'),
  'truncated_memory_bank': truncate('memory_bank'),
  'truncated_training': truncate('training'),
  'truncated_record': cut_record,
  'values_removed': remove_values('memory_bank'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_named_with_the_folder_and_the_remedy(tmp_path, damage):
  save(tmp_path, [1, 2])
  folder = tmp_path / 'checkpoints' / '2'
  DAMAGES[damage](folder)

  def go_on():
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
      latest = checkpoints.latest_step
      checkpoints.record(latest)
      checkpoints.restore(latest, shapes(1))

  with pytest.raises(checkpoint.CheckpointError) as error:
    go_on()
  message = str(error.value)
  assert '\n' not in message
  assert f'The checkpoint {folder} cannot be restored' in message
  assert 'move it away to go on from step 1.' in message
  shutil.rmtree(tmp_path / 'checkpoints' / '1')
  with pytest.raises(checkpoint.CheckpointError, match='start anew'):
    go_on()
  # What the first message advises works.
  save(tmp_path / 'again', [1, 2])
  shutil.rmtree(tmp_path / 'again' / 'checkpoints' / '2')
  with checkpoint.Checkpoints(tmp_path / 'again') as checkpoints:
    assert checkpoints.latest_step == 1
    checkpoints.restore(1, shapes(1))


@pytest.mark.parametrize('mode', ['removed', 'cut'])
def test_no_damaged_file_is_restored_as_if_it_were_sound(tmp_path, mode):
  copies = save(tmp_path, [1])
  refused = set()
  files = [path for path in tmp_path.rglob('*') if path.is_file()]
  for path in files:
    content = path.read_bytes()
    path.unlink()
    if mode == 'cut':
      path.write_bytes(content[: len(content) // 2])
    try:
      with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.record(1)
        assert_equal(checkpoints.restore(1, shapes(1)), copies[1])
    except checkpoint.CheckpointError:
      refused.add(path.relative_to(tmp_path / 'checkpoints' / '1').parts[0])
    path.write_bytes(content)
  assert refused == {'model', 'memory_bank', 'training', 'record'}


def test_a_folder_left_by_a_kill_while_saving_is_no_checkpoint(tmp_path):
  save(tmp_path, [1])
  folder = tmp_path / 'checkpoints'
  left = folder / '2.orbax-checkpoint-tmp'
  shutil.copytree(folder / '1', left)
  with checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert checkpoints.latest_step == 1
  save(tmp_path, [2])
  assert sorted(path.name for path in folder.iterdir()) == ['1', '2']


def test_reading_changes_nothing_on_the_disk(tmp_path):
  workdir = tmp_path / 'W'
  with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
    assert checkpoints.latest_step is None
  assert not workdir.exists()
  copies = save(workdir, [1])
  # Another process is saving this one.
  unfinished = workdir / 'checkpoints' / '2.orbax-checkpoint-tmp'
  unfinished.mkdir()
  with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
    assert checkpoints.record(1)['fingerprint'] == RECORD['fingerprint']
    assert_equal(checkpoints.restore(1, shapes(1)), copies[1])
  assert unfinished.is_dir()


def test_a_record_comes_back_with_its_format_version(tmp_path):
  save(tmp_path, [1])
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.record(1) == {
      'format_version': checkpoint.FORMAT_VERSION,
      **RECORD,
    }


def test_another_format_version_is_refused(tmp_path):
  save(tmp_path, [1])
  (path,) = (tmp_path / 'checkpoints' / '1' / 'record').glob('metadata*')
  path.write_text(json.dumps({**RECORD, 'format_version': 99}))
  with (
    checkpoint.Checkpoints(tmp_path) as checkpoints,
    pytest.raises(checkpoint.CheckpointError, match='format version 99'),
  ):
    checkpoints.record(1)


OLD = {
  'config': {
    'seed': 0,
    'num_steps': 100,
    'model': {'width': 64, 'name': 'vie_single'},
    'optimizer': {'name': 'sgd', 'learning_rate': 0.03},
    'local_aggregation': {'num_clusterings': 1, 'num_clusters': 8000},
  },
  'fingerprint': 'a' * 64,
}


def changed(field, value):
  """The old config with one field changed."""
  config = json.loads(json.dumps(OLD['config']))
  *parents, leaf = field.split('.')
  node = config
  for name in parents:
    node = node[name]
  node[leaf] = value
  return config


def test_other_videos_are_refused_with_both_fingerprints():
  with pytest.raises(checkpoint.CheckpointError) as error:
    checkpoint.check_record(OLD, config=OLD['config'], fingerprint='b' * 64)
  message = str(error.value)
  assert 'a' * 16 in message
  assert 'b' * 16 in message
  assert '--workdir' in message


@pytest.mark.parametrize(
  'field, value',
  [
    ('seed', 1),
    ('model.width', 32),
    ('model.name', 'vie_slowfast'),
    ('optimizer.name', 'adam'),
    ('local_aggregation.num_clusterings', 3),
  ],
)
def test_a_changed_field_that_shapes_the_state_is_refused(field, value):
  with pytest.raises(checkpoint.CheckpointError) as error:
    checkpoint.check_record(
      OLD, config=changed(field, value), fingerprint=OLD['fingerprint']
    )
  assert f'{field} was ' in str(error.value)
  assert f', is {value!r}' in str(error.value)


@pytest.mark.parametrize(
  'field, value',
  [
    ('num_steps', 200),
    ('optimizer.learning_rate', 0.003),
    ('local_aggregation.num_clusters', 500),
  ],
)
def test_a_harmless_change_is_listed(field, value):
  config = changed(field, value)
  result = checkpoint.check_record(
    OLD, config=config, fingerprint=OLD['fingerprint']
  )
  assert list(result) == [field]
  assert result[field][1] == value


def test_fields_that_came_or_went_are_listed():
  assert checkpoint.differing_fields(
    {'a': {'b': 1, 'c': 2}, 'd': 3}, {'a': {'b': 1, 'e': 4}, 'd': 3}
  ) == {'a.c': (2, None), 'a.e': (None, 4)}
