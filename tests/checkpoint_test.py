import errno
import functools
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn

from vie_jax import checkpoint, optimizer, run_record, sharding, train_state
from vie_jax.files import disk
from vie_jax.saved_steps import commit_record

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
    clip_shape=(1, 16, 16, 3),
    num_videos=NUM_VIDEOS,
    embedding_size=16,
    num_clusterings=2,
    mesh=sharding.make_mesh(num_devices),
  )


def first_state(num_devices, seed=0):
  return initializer(num_devices)(jax.random.key(seed))


def shapes(num_devices):
  mesh = sharding.make_mesh(num_devices)
  shape = initializer(num_devices).shapes
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


def save(workdir, steps, *, num_devices=1, **options):
  """Saves a state under some steps; returns copies of the states."""
  copies = {}
  with checkpoint.Checkpoints(workdir, **options) as checkpoints:
    for number in steps:
      state = first_state(num_devices, seed=number)
      state = state.replace(step=jnp.asarray(number, jnp.int32))
      copies[number] = on_host(state)
      checkpoints.save(state, RECORD)
  return copies


@pytest.mark.parametrize(
  'num_devices', [pytest.param(1, marks=pytest.mark.slow), 8]
)
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


def test_other_numbers_of_devices_restore_the_same(tmp_path):
  """All 12 pairs of 1, 2, 4 and 8 devices."""
  numbers = (1, 2, 4, 8)
  digests = set()
  for saved in numbers:
    copies = save(tmp_path / str(saved), [7], num_devices=saved)
    folder = tmp_path / str(saved) / 'checkpoints' / '7'
    # The digests that the restored arrays are compared with are the same, too.
    digests.add(
      json.dumps(json.loads(read_commit(folder))['items'], sort_keys=True)
    )
    with checkpoint.Checkpoints(tmp_path / str(saved)) as checkpoints:
      for restored in numbers:
        state = checkpoints.restore(7, shapes(restored))
        assert_equal(state, copies[7])
        wanted = train_state.layout(state, sharding.make_mesh(restored))
        for leaf, layout in zip(
          jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True
        ):
          assert leaf.sharding.is_equivalent_to(layout, leaf.ndim)
  assert len(digests) == 1


def read_commit(folder):
  return (folder / 'commit.json').read_text()


def test_a_number_of_devices_that_does_not_divide_the_bank_is_refused(tmp_path):
  save(tmp_path, [7])
  with (
    checkpoint.Checkpoints(tmp_path) as checkpoints,
    pytest.raises(checkpoint.CheckpointError, match='in memory_bank, bank was'),
  ):
    checkpoints.restore(7, shapes(7))


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


def test_every_so_many_steps_one_is_kept_for_good(tmp_path):
  save(tmp_path, [5, 10, 15, 20, 25, 30], keep=2, keep_every_steps=10)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step == 30
  folder = tmp_path / 'checkpoints'
  kept = sorted(int(path.name) for path in folder.iterdir())
  assert kept == [10, 20, 25, 30]


def test_saving_a_step_twice_is_refused_by_name(tmp_path):
  save(tmp_path, [5])
  with pytest.raises(checkpoint.CheckpointError, match='another run') as error:
    save(tmp_path, [5])
  assert str(tmp_path / 'checkpoints') in str(error.value)
  with pytest.raises(checkpoint.CheckpointError, match='step 3 was not saved'):
    save(tmp_path, [3])


def remove_folder(item):
  return lambda folder: shutil.rmtree(folder / item)


def data_files(folder, item):
  """The files that hold the values of an item."""
  files = [path for path in (folder / item).rglob('d/*') if path.is_file()]
  assert files
  return files


def truncate(item):
  """Cuts the files that hold the values of an item in half."""

  def damage(folder):
    for path in data_files(folder, item):
      content = path.read_bytes()
      path.write_bytes(content[: len(content) // 2])

  return damage


def remove_values(item):
  def damage(folder):
    for path in data_files(folder, item):
      path.unlink()

  return damage


def flip_bit(item):
  """Changes one bit in the middle of the largest file of an item."""

  def damage(folder):
    path = max(data_files(folder, item), key=lambda path: path.stat().st_size)
    # The digests find this, not the checksums of small files.
    assert path.stat().st_size > 2**16
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)

  return damage


def change_record(folder):
  """Another fingerprint, as if the run had been on other videos."""
  path = folder / 'commit.json'
  path.write_text(path.read_text().replace('ffff', 'fffe'))


def cut_record(folder):
  path = folder / 'commit.json'
  path.write_text(path.read_text()[:-9])


DAMAGES = {
  'no_model': (remove_folder('model'), 'model/'),
  'no_memory_bank': (remove_folder('memory_bank'), 'memory_bank/'),
  'no_training': (remove_folder('training'), 'training/'),
  'no_record': (lambda folder: (folder / 'commit.json').unlink(), 'is missing'),
  'truncated_model': (truncate('model'), 'bytes instead of'),
  'truncated_training': (truncate('training'), 'bytes instead of'),
  'values_removed': (remove_values('memory_bank'), 'is missing'),
  'flipped_model': (flip_bit('model'), 'model: '),
  'truncated_record': (cut_record, 'is not JSON of this kind'),
  'changed_record': (change_record, 'SHA-256'),
}


def steps_in(workdir):
  return sorted(path.name for path in (workdir / 'checkpoints').iterdir())


def go_on(workdir, **options):
  """The newest step that is whole: its number and the copies of its state."""
  with checkpoint.Checkpoints(workdir, **options) as checkpoints:

    def read(step):
      assert checkpoints.record(step) == RECORD
      return step, on_host(checkpoints.restore(step, shapes(1)))

    found = checkpoints.read_newest(read)
    if found:
      assert checkpoints.latest_step == found[0]
    return found


def content_of(folder):
  """Path -> bytes of all files in a folder."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


@pytest.mark.parametrize('name', DAMAGES)
def test_a_damaged_step_is_named_and_left_for_the_one_before(
  tmp_path, caplog, name
):
  damage, words = DAMAGES[name]
  copies = save(tmp_path, [1, 2])
  folder = tmp_path / 'checkpoints' / '2'
  damage(folder)
  before = content_of(tmp_path)

  # Who only reads changes nothing.
  step, state = go_on(tmp_path, read_only=True)
  assert step == 1
  jax.tree.map(np.testing.assert_array_equal, state, copies[1])
  assert content_of(tmp_path) == before
  (line,) = caplog.messages
  assert f'The checkpoint {folder} is damaged: ' in line
  assert words in line
  assert 'Going on from step 1 instead.' in line
  assert '\n' not in line
  caplog.clear()

  # A training moves it aside and saves the step again.
  assert go_on(tmp_path)[0] == 1
  (line,) = caplog.messages
  assert line.endswith('Going on from step 1 instead. It is kept as 2.damaged.')
  assert content_of(folder.with_name('2.damaged')) == {
    path.removeprefix('checkpoints/2/'): content
    for path, content in before.items()
    if path.startswith('checkpoints/2/')
  }
  save(tmp_path, [2])
  step, state = go_on(tmp_path)
  assert step == 2
  jax.tree.map(np.testing.assert_array_equal, state, copies[2])


def gives_errors(monkeypatch, number, times):
  """Has commit records not be read: step -> how often."""
  read = commit_record.read

  def read_or_not(folder):
    step = int(folder.name)
    if times.get(step, 0) > 0:
      times[step] -= 1
      reason = os.strerror(number)
      commit_record.refuse(f'commit.json: {reason}', number, folder)
    return read(folder)

  monkeypatch.setattr(commit_record, 'read', read_or_not)


def test_a_step_that_could_not_be_read_for_a_while_is_used(
  tmp_path, monkeypatch
):
  copies = save(tmp_path, [1, 2, 3])
  gives_errors(monkeypatch, errno.EIO, {2: 1, 3: 1})
  step, state = go_on(tmp_path)
  assert step == 3
  jax.tree.map(np.testing.assert_array_equal, state, copies[3])
  assert steps_in(tmp_path) == ['1', '2', '3']


def test_a_bad_sector_does_not_stop_a_run_for_ever(tmp_path, monkeypatch):
  save(tmp_path, [1, 2])
  gives_errors(monkeypatch, errno.EIO, {2: 2})
  assert go_on(tmp_path)[0] == 1
  assert steps_in(tmp_path) == ['1', '2.damaged']


@pytest.mark.parametrize('number', [errno.EIO, errno.EHOSTUNREACH])
def test_if_no_step_can_be_read_for_a_while_all_stay(
  tmp_path, monkeypatch, number
):
  save(tmp_path, [1, 2])
  gives_errors(monkeypatch, number, {1: 9, 2: 9})
  with pytest.raises(OSError, match=os.strerror(number)) as error:
    go_on(tmp_path)
  assert error.value.errno == number
  assert steps_in(tmp_path) == ['1', '2']


@pytest.mark.parametrize('number', [errno.ENOTCONN, errno.ENOSPC])
def test_a_folder_that_may_be_written_to_later_is_no_mistake(
  tmp_path, monkeypatch, number
):
  def sync(path):
    raise OSError(number, os.strerror(number), str(path))

  monkeypatch.setattr(disk, 'sync', sync)
  with pytest.raises(checkpoint.SaveFailedError, match=os.strerror(number)):
    checkpoint.Checkpoints(tmp_path)
  assert os.listdir(tmp_path / 'checkpoints') == []


@pytest.mark.parametrize('count, is_read', [(1, True), (2, False)])
def test_a_step_that_is_named_is_tried_once_more(
  tmp_path, monkeypatch, count, is_read
):
  save(tmp_path, [1, 2])
  gives_errors(monkeypatch, errno.EIO, {2: count})
  with checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints:
    if is_read:
      assert checkpoints.read_step(2, checkpoints.record) == RECORD
      return
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as error:
      checkpoints.read_step(2, checkpoints.record)
  assert error.value.errno == errno.EIO
  assert error.value.filename == str(tmp_path / 'checkpoints' / '2')


def test_if_all_steps_are_damaged_nothing_begins_anew(tmp_path):
  save(tmp_path, [1, 2, 3])
  folder = tmp_path / 'checkpoints'
  flip_bit('model')(folder / '1')
  remove_folder('training')(folder / '2')
  (folder / '3' / 'commit.json').unlink()
  before = content_of(tmp_path)
  for options in ({}, {'read_only': True}):
    with pytest.raises(checkpoint.CheckpointError) as error:
      go_on(tmp_path, **options)
    message = str(error.value)
    assert '\n' not in message
    assert f'No checkpoint in {folder} can be restored: 3: ' in message
    assert '; 2: training/' in message
    assert '; 1: model: ' in message
    assert 'move them away to start anew' in message
  assert content_of(tmp_path) == before
  for step in (1, 2, 3):
    (folder / str(step)).rename(folder / f'{step}.damaged')
  with pytest.raises(checkpoint.CheckpointError, match=r'1\.damaged, 2'):
    go_on(tmp_path)


@pytest.mark.parametrize('mode', ['removed', 'cut'])
def test_no_damaged_file_is_restored_as_if_it_were_sound(tmp_path, mode):
  save(tmp_path, [1])
  folder = tmp_path / 'checkpoints' / '1'
  for path in [path for path in folder.rglob('*') if path.is_file()]:
    content = path.read_bytes()
    path.unlink()
    if mode == 'cut':
      path.write_bytes(content[: len(content) // 2])
    with pytest.raises(checkpoint.CheckpointError):
      go_on(tmp_path, read_only=True)
    path.write_bytes(content)
  assert go_on(tmp_path)[0] == 1


def test_a_digest_is_checked_where_files_are_not(tmp_path, monkeypatch):
  """What the files do not tell, such as memory that fails, digests do."""
  save(tmp_path, [1])
  path = tmp_path / 'checkpoints' / '1' / 'commit.json'
  content = json.loads(path.read_text())
  leaf = content['items']['memory_bank']['bank']
  leaf['digest'] = leaf['digest'][:-1] + '0'
  del content['sha256']
  content['sha256'] = commit_record._checksum(content)
  path.write_text(json.dumps(content))
  with pytest.raises(checkpoint.CheckpointError, match='the array bank has'):
    go_on(tmp_path)


@pytest.mark.parametrize(
  'name', ['2.saving', '2.saving.orbax-checkpoint-tmp', '3.deleting']
)
def test_what_a_kill_leaves_behind_is_no_checkpoint(tmp_path, name):
  save(tmp_path, [1])
  folder = tmp_path / 'checkpoints'
  shutil.copytree(folder / '1', folder / name)
  # Another process may be saving this one: readers leave it alone.
  assert go_on(tmp_path, read_only=True)[0] == 1
  assert (folder / name).is_dir()
  save(tmp_path, [2])
  assert sorted(path.name for path in folder.iterdir()) == ['1', '2']


def test_what_is_no_checkpoint_is_left_alone(tmp_path, caplog):
  folder = tmp_path / 'checkpoints'
  for name in ('3', '3.tmp-x', '007', 'old', '4'):
    (folder / name).mkdir(parents=True)
  (folder / 'notes.txt').write_text('mine')
  (folder / '5').write_text('a file')
  (folder / '4' / 'picture.png').write_bytes(b'png')
  before = content_of(tmp_path)
  assert go_on(tmp_path) is None
  assert sorted(caplog.messages) == [
    f'{folder / name} is no checkpoint; it is left alone.' for name in '34'
  ]
  save(tmp_path, [1])
  assert go_on(tmp_path)[0] == 1
  assert {**content_of(tmp_path), **before} == content_of(tmp_path)
  # The name of a step is taken over, and what bore it is kept.
  save(tmp_path, [4])
  assert (folder / '4.damaged' / 'picture.png').exists()
  assert go_on(tmp_path)[0] == 4
  # Be it a link to nothing, or a file.
  (folder / '6').symlink_to(tmp_path / 'nothing')
  (folder / '6.damaged').symlink_to(tmp_path / 'nothing')
  save(tmp_path, [5, 6])
  assert (folder / '5.damaged').read_text() == 'a file'
  assert (folder / '6.damaged-2').is_symlink()
  assert go_on(tmp_path)[0] == 6


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
  folder = tmp_path / 'checkpoints'
  with ocp.CheckpointManager(folder) as manager:
    manager.save(7, args=ocp.args.StandardSave({'w': jnp.ones(3)}))
  before = content_of(tmp_path)
  for options in ({}, {'read_only': True}):
    with pytest.raises(checkpoint.CheckpointError, match=r'commit\.json'):
      go_on(tmp_path, **options)
  assert content_of(tmp_path) == before


def test_a_step_that_a_training_removes_meanwhile_is_not_called_damaged(
  tmp_path, caplog
):
  copies = save(tmp_path, [1])
  with checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints:

    def read(step):
      if step == 1:
        save(tmp_path, [2], keep=1)
      return step, on_host(checkpoints.restore(step, shapes(1)))

    step, _ = checkpoints.read_newest(read)
  assert step == 2
  assert not caplog.messages
  assert copies


def test_reading_makes_no_folder(tmp_path):
  workdir = tmp_path / 'W'
  with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
    assert checkpoints.latest_step is None
  assert not workdir.exists()


def test_a_folder_that_takes_no_files_is_refused_at_once(tmp_path):
  (tmp_path / 'file').write_text('in the way')
  with pytest.raises(checkpoint.CheckpointError) as error:
    checkpoint.Checkpoints(tmp_path / 'file')
  message = str(error.value)
  assert f'{tmp_path / "file" / "checkpoints"} cannot be written to' in message
  assert 'Not a directory' in message


def test_a_format_version_of_old_is_refused(tmp_path):
  """Before there were commit records, the version stood with the record."""
  folder = tmp_path / 'checkpoints' / '5'
  (folder / 'record').mkdir(parents=True)
  (folder / '_CHECKPOINT_METADATA').write_text('{}')
  (folder / 'record' / 'metadata').write_text('{"format_version": 2}')
  before = content_of(tmp_path)
  with pytest.raises(checkpoint.CheckpointError) as error:
    go_on(tmp_path)
  assert f'{folder} has format version 2; this code reads version 3.' in str(
    error.value
  )
  assert content_of(tmp_path) == before


def test_a_format_version_to_come_is_refused(tmp_path):
  save(tmp_path, [1, 2])
  path = tmp_path / 'checkpoints' / '2' / 'commit.json'
  content = json.loads(path.read_text())
  del content['sha256']
  content['format_version'] = 99
  content['sha256'] = commit_record._checksum(content)
  path.write_text(json.dumps(content))
  with pytest.raises(checkpoint.CheckpointError, match='format version 99'):
    go_on(tmp_path)


def test_other_arrays_are_named_before_any_is_read(tmp_path):
  save(tmp_path, [1])
  for path in (tmp_path / 'checkpoints' / '1').rglob('d/*'):
    path.unlink()
  given = shapes(1)
  bank = given.bank.update(shape=(10**12, 16))
  rule = optimizer.build(
    'sgd', optax.constant_schedule(0.1), momentum=0.9, weight_decay=1e-4
  )
  for other, words in (
    (given.replace(bank=bank), r'bank was float32 \(.*16\), is float32 \(10'),
    (given.replace(params={}), 'has params/Dense_0/kernel, which this run'),
    (
      given.replace(
        opt_state=jax.tree.map(
          lambda leaf: leaf.update(sharding=given.step.sharding),
          jax.eval_shape(rule.init, given.params),
        )
      ),
      'in training, it has opt_state/0/count, which this',
    ),
  ):
    with (
      checkpoint.Checkpoints(tmp_path) as checkpoints,
      pytest.raises(checkpoint.CheckpointError, match=words) as error,
    ):
      checkpoints.restore(1, other)
    assert not isinstance(error.value, checkpoint.DamagedError)


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
    run_record.check_record(OLD, config=OLD['config'], fingerprint='b' * 64)
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
    ('model.embedding_size', 64),
    ('model.fast_width', 4),
    ('model.alpha', 4),
    ('model.dtype', 'bfloat16'),
    ('model.batch_norm_decay', 0.5),
    ('model.name', 'vie_trn'),
  ],
)
def test_a_changed_field_that_shapes_the_state_is_refused(field, value):
  with pytest.raises(checkpoint.CheckpointError) as error:
    run_record.check_record(
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
  result = run_record.check_record(
    OLD, config=config, fingerprint=OLD['fingerprint']
  )
  assert list(result) == [field]
  assert result[field][1] == value


def test_fields_that_came_or_went_are_listed():
  assert run_record.differing_fields(
    {'a': {'b': 1, 'c': 2}, 'd': 3}, {'a': {'b': 1, 'e': 4}, 'd': 3}
  ) == {'a.c': (2, None), 'a.e': (None, 4)}


def test_a_save_that_is_settled_is_the_latest_step(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.settle()
    assert checkpoints.latest_step is None
    state = first_state(1)
    checkpoints.save(state, RECORD)
    checkpoints.settle()
    assert checkpoints.latest_step == int(state.step)
    with pytest.raises(checkpoint.CheckpointError, match='was not saved'):
      checkpoints.save(state, RECORD)


def test_who_only_reads_has_no_save_to_wait_for(tmp_path):
  save(tmp_path, [1])
  with checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints:
    checkpoints.poll()
    checkpoints.settle()
    checkpoints.wait()
    assert checkpoints.latest_step == 1


def test_who_only_reads_cannot_save(tmp_path):
  save(tmp_path, [1])
  with (
    checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints,
    pytest.raises(checkpoint.CheckpointError, match='was opened read_only'),
  ):
    checkpoints.save(first_state(2), RECORD)


def test_a_field_without_a_placement_is_named(tmp_path):
  save(tmp_path, [1])
  whole = sharding.replicated(sharding.make_mesh(1))
  with (
    checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints,
    pytest.raises(checkpoint.CheckpointError) as error,
  ):
    checkpoints.restore_as_saved(1, 'memory_bank', {'bank': whole})
  message = str(error.value)
  assert str(tmp_path / 'checkpoints' / '1') in message
  assert 'no placement of bank_step, cluster_labels' in message


@pytest.mark.parametrize(
  ('steps', 'others'), [([], 'nor any other'), ([1, 3], 'but 1, 3')]
)
def test_a_step_that_never_was_is_not_called_damaged(tmp_path, steps, others):
  save(tmp_path, steps)
  with (
    checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints,
    pytest.raises(checkpoint.CheckpointError) as error,
  ):
    checkpoints.record(777)
  assert str(error.value) == (
    f'{tmp_path / "checkpoints"} holds no step 777, {others}.'
  )
