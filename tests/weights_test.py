"""Weights from every source, and what is said where there are none."""

import functools
import json
import shutil
import types

import jax
import numpy as np
import optax
import pytest
import tiny_run

from vie_jax import (
  blueprint,
  checkpoint,
  linear_eval,
  run_weights,
  sharding,
  train_state,
  weights,
)
from vie_jax.models import official_checkpoint
from vie_jax.training.warm_start import first_weights

NUM_VIDEOS = 20
FINGERPRINT = 'f' * 64


def tiny(name='vie_single', **changes):
  """A config of a network that is built in no time."""
  frames = {'vie_single': 1, 'vie_slowfast': 8, 'vie_twostream_sf': 8}
  num_frames = frames.get(name, 4)
  settings = {
    'model__name': name,
    'clip__num_frames': num_frames,
    'clip__sampler': 'single' if num_frames == 1 else 'slow',
  }
  return tiny_run.config('nowhere', **settings | changes)


@functools.cache
def mesh():
  return sharding.make_mesh(8)


@functools.cache
def first_state(name, seed):
  """The first state of a run; nothing changes it."""
  config = tiny(name)
  initialize = train_state.initializer(
    blueprint.build_model(config),
    optax.identity(),
    clip_shape=blueprint.clip_shape(config),
    num_videos=NUM_VIDEOS,
    embedding_size=config.model.embedding_size,
    num_clusterings=1,
    mesh=mesh(),
  )
  return initialize(jax.random.key(seed))


def save(workdir, name='vie_single', seed=0, step=7, record=None, **changes):
  """Makes a workdir with a checkpoint; returns the variables saved."""
  state = first_state(name, seed).replace(step=jax.numpy.int32(step))
  config = tiny(name, **changes)
  record = {
    'config': json.loads(config.to_json_best_effort()),
    'fingerprint': FINGERPRINT,
    **(record or {}),
  }
  with checkpoint.Checkpoints(workdir) as checkpoints:
    checkpoints.save(state, record)
  return {'params': state.params, 'batch_stats': state.batch_stats}


def load(config, workdir='nowhere'):
  return weights.load(
    config,
    workdir,
    blueprint.build_model(config),
    clip_shape=blueprint.clip_shape(config),
    mesh=mesh(),
  )


def assert_equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for left, right in zip(
    jax.tree.leaves(one), jax.tree.leaves(other), strict=True
  ):
    np.testing.assert_array_equal(left, right)


def refusal(config, workdir='nowhere'):
  with pytest.raises(
    (checkpoint.CheckpointError, official_checkpoint.OfficialCheckpointError)
  ) as error:
    load(config, workdir)
  return str(error.value)


@pytest.mark.slow
def test_of_the_workdir_whole_on_each_device(tmp_path):
  saved = save(tmp_path)
  found = load(tiny(), tmp_path)
  assert_equal(found.variables, saved)
  assert (found.step, found.workdir) == (7, tmp_path)
  leaf = found.variables['params']['projection']['kernel']
  assert leaf.sharding.is_fully_replicated


def test_of_another_workdir(tmp_path):
  saved = save(tmp_path / 'other')
  found = load(tiny(init_from=str(tmp_path / 'other')), tmp_path / 'own')
  assert_equal(found.variables, saved)
  assert not (tmp_path / 'own').exists()


@pytest.mark.parametrize(
  'step, record, training',
  [
    # The tiny run has 10 steps of Instance Recognition.
    (10, {}, 'instance_recognition'),
    (11, {}, 'local_aggregation'),
    (11, {'training': 'supervised'}, 'supervised'),
    (11, {'training': 'finetuned'}, 'finetuned'),
  ],
)
def test_they_say_how_they_came_to_be(tmp_path, step, record, training):
  save(tmp_path, step=step, record=record, dataset__share=0.3)
  found = load(tiny(), tmp_path)
  assert found.training == training
  assert found.trained_on['share'] == 0.3
  assert found.trained_on['fingerprint'] == FINGERPRINT
  # Runs of before do not say what their data set is called.
  assert 'name' not in found.trained_on
  # Only a pretraining has a memory bank to go with them.
  assert (found.workdir is None) == bool(record)
  assert load(tiny(init_from='random')).training == 'random'


def test_they_say_on_which_videos_of_which_data_set(tmp_path):
  save(
    tmp_path,
    record={'dataset': {'name': 'demo', 'fingerprint': 'a' * 64}},
    dataset__share=0.3,
    dataset__with_replacement=True,
    dataset__bin_frames=9,
  )
  assert load(tiny(), tmp_path).trained_on == {
    'name': 'demo',
    'dataset_fingerprint': 'a' * 64,
    'path': 'nowhere',
    'fingerprint': FINGERPRINT,
    'share': 0.3,
    'with_replacement': True,
    'bin_frames': 9,
    'sampler': 'single',
    'num_frames': 1,
    'frame_step': 1,
    'size': tiny().crop.size,
  }


@pytest.mark.parametrize(
  'changes, is_untrained',
  [
    ({'init_from': 'random'}, True),
    ({'init_from': 'workdir'}, False),
    ({'init_from': 'official:nowhere'}, False),
    ({'model__streams': 'random, random'}, True),
    ({'model__streams': 'random,nowhere'}, False),
    # The streams go before.
    ({'init_from': 'random', 'model__streams': 'nowhere,nowhere'}, False),
  ],
)
def test_a_config_tells_whether_they_were_never_trained(changes, is_untrained):
  assert weights.are_untrained(tiny(**changes)) == is_untrained


def test_a_look_refuses_a_workdir_without_any_alike(tmp_path):
  other = tmp_path / 'other'
  for config in (tiny(), tiny(init_from=str(other))):
    with pytest.raises(checkpoint.CheckpointError) as error:
      weights.check_are_there(config, tmp_path)
    assert str(error.value) == refusal(config, tmp_path)
  save(other)
  weights.check_are_there(tiny(init_from=str(other)), tmp_path)
  # A damaged one is there, too; what it holds, only reading it tells.
  (other / 'checkpoints' / '7').rename(other / 'checkpoints' / '7.damaged')
  weights.check_are_there(tiny(init_from=str(other)), tmp_path)


def test_readouts_are_no_network(tmp_path):
  readouts = {'params': {'conv5': np.zeros(3, np.float32)}}
  readouts |= {'opt_state': np.zeros(2), 'step': np.int32(4)}
  with checkpoint.Checkpoints(tmp_path, items=linear_eval.ITEMS) as checkpoints:
    state = types.SimpleNamespace(**jax.tree.map(jax.numpy.asarray, readouts))
    checkpoints.save(state, {'config': {}})
  message = refusal(tiny(init_from=str(tmp_path)))
  assert (
    f'The checkpoints of {tmp_path} hold readouts and no network' in message
  )
  assert 'name the workdir of the network' in message


def test_a_workdir_without_any_names_its_trainings_on_labels(tmp_path):
  config = tiny(init_from=str(tmp_path))
  (tmp_path / 'supervised' / 'nothing').mkdir(parents=True)
  assert 'Train there first' in refusal(config)
  for place in ('supervised/my demo', 'finetune/demo'):
    save(tmp_path / place)
  assert (
    f"are taken with --config.init_from='{tmp_path}/supervised/my demo' or "
    f'--config.init_from={tmp_path}/finetune/demo.'
  ) in refusal(config)


@pytest.mark.parametrize(
  'changes',
  [
    {'init_from': 'random'},
    {'init_from': 'official:nowhere'},
    {'embeddings': 'nowhere.npy'},
    {'name': 'vie_twostream_sf', 'model__streams': 'nowhere,nowhere'},
  ],
)
def test_a_look_leaves_what_is_no_workdir_to_its_reader(tmp_path, changes):
  weights.check_are_there(tiny(**changes), tmp_path)


def test_random_ones_are_those_that_training_starts_with():
  state = first_state('vie_single', 3)
  found = load(tiny(init_from='random', seed=3))
  assert_equal(found.variables['params'], state.params)
  assert (found.step, found.workdir) == (0, None)


def official_file(path, name, seed=0, **more):
  """Writes a network's first weights under their official names."""
  state = first_state(name, seed)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  arrays = official_checkpoint.to_official(jax.device_get(variables), name)
  np.savez(path, **arrays, **more)
  return variables


@pytest.mark.parametrize(
  'name',
  [
    'vie_single',
    pytest.param('vie_3dresnet', marks=pytest.mark.slow),
    pytest.param('vie_twostream_s', marks=pytest.mark.slow),
  ],
)
def test_of_an_official_checkpoint(tmp_path, name):
  path = tmp_path / 'official.npz'
  saved = official_file(path, name, global_step=np.int64(1_450_000))
  found = load(tiny(name, init_from=f'official:{path}'))
  assert found.training == 'official'
  assert_equal(found.variables, jax.tree.map(np.asarray, saved))
  assert (found.step, found.workdir) == (1_450_000, None)


@pytest.mark.slow
def test_of_two_streams(tmp_path):
  single = save(tmp_path / 'single')
  path = tmp_path / 'slow.npz'
  slow = official_file(path, 'vie_slow', seed=1)
  found = load(
    tiny(
      'vie_twostream_s',
      model__streams=f'{tmp_path / "single"}, official:{path}',
    )
  )
  for group in ('params', 'batch_stats'):
    assert_equal(found.variables[group]['single'], single[group])
    assert_equal(found.variables[group]['motion'], slow[group])
  assert found.step == 7
  single_facts, slow_facts = found.streams['single'], found.streams['motion']
  assert single_facts['training'] == 'instance_recognition'
  assert single_facts['trained_on']['fingerprint'] == FINGERPRINT
  assert slow_facts == {
    'training': 'official',
    'step': 0,
    'trained_on': None,
    'started_from': [],
  }


def test_streams_of_another_width_are_told_what_helps(tmp_path, caplog):
  save(tmp_path / 'narrow', 'vie_single')
  width = tiny().model.width
  config = tiny(
    'vie_twostream_s',
    model__streams=f'{tmp_path / "narrow"},random',
    model__width=2 * width,
  )
  message = refusal(config)
  assert f'config.model.width was {width}, is {2 * width}.' in message
  assert 'All streams have the same config.model: train one of them' in message
  assert 'init_from' not in message
  config.model.width = width
  with caplog.at_level('INFO'):
    load(config)
  said = [line for line in caplog.messages if line.startswith('Weights of')]
  assert said == [
    f"Weights of the stream 'single': step 7 of {tmp_path / 'narrow'}.",
    "Weights of the stream 'motion': untrained.",
  ]


def test_a_two_stream_run_without_weights_names_streams(tmp_path):
  config = tiny('vie_twostream_s')
  with pytest.raises(checkpoint.CheckpointError) as caught:
    weights.check_are_there(config, tmp_path / 'none')
  assert '--config.model.streams=W_SINGLE,W_OTHER' in str(caught.value)


@pytest.mark.slow
def test_two_streams_that_were_never_trained_say_so():
  found = load(tiny('vie_twostream_s', model__streams='random,random'))
  untrained = {
    'training': 'random',
    'step': 0,
    'trained_on': None,
    'started_from': [],
  }
  assert found.streams == {'single': untrained, 'motion': untrained}


@pytest.mark.slow
@pytest.mark.parametrize('missing', ['single', 'motion'])
def test_a_missing_stream_is_named(tmp_path, missing):
  names = {'single': 'vie_single', 'motion': 'vie_slow'}
  for stream, name in names.items():
    if stream != missing:
      save(tmp_path / stream, name)
  streams = f'{tmp_path / "single"},{tmp_path / "motion"}'
  message = refusal(tiny('vie_twostream_s', model__streams=streams))
  assert f"stream '{missing}' of config.model.streams" in message
  assert str(tmp_path / missing) in message
  assert names[missing] in message


@pytest.mark.slow
def test_streams_in_the_wrong_order_are_refused(tmp_path):
  save(tmp_path / 'single')
  save(tmp_path / 'slow', 'vie_slow')
  streams = f'{tmp_path / "slow"},{tmp_path / "single"}'
  message = refusal(tiny('vie_twostream_s', model__streams=streams))
  assert "model.name was 'vie_slow', is 'vie_single'" in message


def test_a_folder_without_a_checkpoint_is_named_with_the_remedy(tmp_path):
  message = refusal(tiny(), tmp_path)
  assert str(tmp_path) in message
  assert '--config.init_from=random' in message
  assert 'no workdir nowhere' in refusal(tiny(init_from='nowhere'))


def test_another_network_is_refused_with_what_differs(tmp_path):
  save(tmp_path)
  message = refusal(tiny('vie_slow'), tmp_path)
  assert "model.name was 'vie_single', is 'vie_slow'" in message
  message = refusal(tiny(model__width=8), tmp_path)
  assert 'model.width was 4, is 8' in message


def test_fields_that_weights_do_not_depend_on_may_differ(tmp_path):
  save(tmp_path)
  load(tiny(model__dtype='bfloat16', model__alpha=2), tmp_path)


@pytest.mark.slow
def test_trn_of_another_number_of_frames_is_refused(tmp_path):
  save(tmp_path, 'vie_trn')
  message = refusal(tiny('vie_trn', clip__num_frames=3), tmp_path)
  assert 'params/projection/kernel' in message


def warm_start(config, variables, workdir='nowhere'):
  return first(config, variables, workdir).variables


def first(config, variables, workdir='nowhere'):
  return first_weights(
    config,
    workdir,
    blueprint.build_model(config),
    variables,
    clip_shape=blueprint.clip_shape(config),
    mesh=mesh(),
  )


def fresh(name, seed=9):
  state = first_state(name, seed)
  return {'params': state.params, 'batch_stats': state.batch_stats}


@pytest.mark.parametrize('source', ['workdir', 'random'])
def test_training_starts_from_its_own_weights_by_default(source):
  drawn = fresh('vie_single')
  assert_equal(warm_start(tiny(init_from=source), drawn), drawn)


@pytest.mark.slow
def test_trn_starts_from_single_but_for_the_projection(tmp_path):
  single = save(tmp_path)
  drawn = fresh('vie_trn')
  found = warm_start(tiny('vie_trn', init_from=str(tmp_path)), drawn)
  assert_equal(found['batch_stats'], single['batch_stats'])
  assert_equal(found['params']['backbone'], single['params']['backbone'])
  projection = found['params']['projection']
  # As officially: the kernel has another shape, the bias has not.
  np.testing.assert_array_equal(
    projection['kernel'], drawn['params']['projection']['kernel']
  )
  np.testing.assert_array_equal(
    projection['bias'], single['params']['projection']['bias']
  )


def test_training_starts_from_an_official_checkpoint(tmp_path):
  path = tmp_path / 'official.npz'
  saved = official_file(path, 'vie_single', seed=0)
  config = tiny(init_from=f'official:{path}')
  assert_equal(warm_start(config, fresh('vie_single')), saved)


@pytest.mark.slow
def test_training_starts_from_two_streams(tmp_path):
  single = save(tmp_path / 'single')
  slow = save(tmp_path / 'slow', 'vie_slow')
  config = tiny(
    'vie_twostream_s',
    model__streams=f'{tmp_path / "single"},{tmp_path / "slow"}',
  )
  found = warm_start(config, fresh('vie_twostream_s'))
  assert_equal(found['params']['single'], single['params'])
  assert_equal(found['params']['motion'], slow['params'])


@pytest.mark.parametrize(
  'name,changes,words',
  [
    ('vie_slow', {}, "config.model.name was 'vie_single', is 'vie_slow'"),
    pytest.param(
      *('vie_single', {'model__embedding_size': 64}, 'embedding_size was 128'),
      marks=pytest.mark.slow,
    ),
    pytest.param(
      *('vie_trn', {'model__width': 8}, 'config.model.width was 4, is 8'),
      marks=pytest.mark.slow,
    ),
  ],
)
def test_training_does_not_start_from_another_network(
  tmp_path, name, changes, words
):
  save(tmp_path)
  config = tiny(name, init_from=str(tmp_path), **changes)
  with pytest.raises(checkpoint.CheckpointError, match=words) as error:
    warm_start(config, fresh(name))
  assert str(tmp_path) in str(error.value)


def test_trn_starts_from_a_trn_of_another_number_of_frames(tmp_path):
  saved = save(tmp_path, 'vie_trn')
  config = tiny('vie_trn', init_from=str(tmp_path), clip__num_frames=3)
  drawn = fresh('vie_trn')
  drawn['params'] = {
    **drawn['params'],
    'projection': {
      'kernel': np.zeros((3 * 32, 128), np.float32),
      'bias': np.ones(128, np.float32),
    },
  }
  found = warm_start(config, drawn)['params']
  assert found['projection']['kernel'].shape == (96, 128)
  assert_equal(found['backbone'], saved['params']['backbone'])


@pytest.mark.parametrize(
  'shape', [(33, 128), (32, 64), (32 * 257, 128), (32,), (4, 8, 128)]
)
def test_a_projection_that_no_number_of_frames_explains_is_not_read(
  tmp_path, shape
):
  drawn = fresh('vie_trn')
  state, whole = first_state('vie_trn', 0), sharding.replicated(mesh())
  projection = {
    'kernel': sharding.place(np.zeros(shape, np.float32), whole),
    'bias': state.params['projection']['bias'],
  }
  state = state.replace(params={**state.params, 'projection': projection})
  config = tiny('vie_trn', init_from=str(tmp_path))
  record = {'config': json.loads(config.to_json_best_effort())}
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, record)
  for path in (tmp_path / 'checkpoints').glob('*/model'):
    shutil.rmtree(path)  # Reading it would be another error.
  with pytest.raises(checkpoint.CheckpointError, match='number of frames'):
    warm_start(config, drawn)


def test_own_checkpoints_that_are_not_used_are_mentioned(tmp_path, caplog):
  save(tmp_path)
  with caplog.at_level('WARNING'):
    load(tiny(), tmp_path)
    assert 'of its own' not in caplog.text
    load(tiny(init_from='random'), tmp_path)
  assert f'{tmp_path} has checkpoints of its own' in caplog.text


def test_other_clips_than_those_of_the_training_are_mentioned(tmp_path, caplog):
  save(tmp_path, 'vie_slow', clip__sampler='slow', clip__num_frames=4)
  same = {'clip__sampler': 'slow', 'clip__num_frames': 4}
  load(tiny('vie_slow', **same), tmp_path)
  assert 'other clips' not in caplog.text
  same['clip__frame_step'] = 7
  load(tiny('vie_slow', **same, crop__size=20), tmp_path)
  assert 'other clips than it sees now' in caplog.text
  assert 'config.clip.frame_step was 1, is 7' in caplog.text
  assert f'config.crop.size was {tiny().crop.size}, is 20' in caplog.text
  assert 'sampler was' not in caplog.text


def test_each_stream_is_compared_with_its_own_training(tmp_path, caplog):
  save(tmp_path / 'single')
  clips = {'clip__sampler': 'slow', 'clip__num_frames': 4}
  save(tmp_path / 'motion', 'vie_slow', **clips)
  streams = f'{tmp_path / "single"},{tmp_path / "motion"}'
  clips |= {'model__streams': streams, 'clip__frame_step': 7}
  load(tiny('vie_twostream_s', **clips))
  (warning,) = (line for line in caplog.messages if 'other clips' in line)
  assert warning.startswith('vie_slow was trained on other clips than it sees')
  assert 'config.clip.frame_step was 1, is 7.' in warning


def test_a_network_of_single_frames_may_see_any_clips(tmp_path, caplog):
  save(tmp_path)
  load(tiny(clip__sampler='slow', clip__num_frames=4), tmp_path)
  assert 'other clips' not in caplog.text


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
  path = tmp_path / 'official.npz'
  official_file(path, 'vie_single')
  arrays = dict(np.load(path))
  arrays['resnet_model/dense/kernel'][3, 5] = np.nan
  np.savez(path, **arrays)
  message = refusal(tiny(init_from=f'official:{path}'))
  assert '1 not finite: resnet_model/dense/kernel' in message


@pytest.mark.parametrize('step', [np.zeros(2, np.int64), np.float32(1.5)])
def test_a_step_that_is_no_whole_number_is_refused(tmp_path, step):
  path = tmp_path / 'official.npz'
  official_file(path, 'vie_single', global_step=step)
  message = refusal(tiny(init_from=f'official:{path}'))
  assert 'global_step' in message


def test_names_with_an_output_number_give_the_step_too(tmp_path):
  path = tmp_path / 'official.npz'
  official_file(path, 'vie_single', **{'global_step:0': np.int64(77)})
  assert load(tiny(init_from=f'official:{path}')).step == 77


def test_a_step_of_a_run_is_taken_by_its_folder(tmp_path):
  first = save(tmp_path, seed=1, step=7)
  save(tmp_path, seed=2, step=8)
  found = load(tiny(init_from=f'{tmp_path}/checkpoints/7/'))
  assert (found.step, found.workdir) == (7, tmp_path)
  assert_equal(found.variables, first)
  started = warm_start(
    tiny(init_from=f'{tmp_path}/checkpoints/7'), fresh('vie_single')
  )
  assert_equal(started, first)
  message = refusal(tiny(init_from=f'{tmp_path}/checkpoints/9'))
  assert f'{tmp_path}/checkpoints holds no step 9, but 7, 8.' in message


def test_a_refused_network_is_named_with_its_step(tmp_path):
  variables = save(tmp_path, step=7)
  save(tmp_path, step=8)
  other = {**variables, 'params': {'scale': np.zeros(3)}}
  with pytest.raises(checkpoint.CheckpointError) as error:
    first_weights(
      tiny(init_from=f'{tmp_path}/checkpoints/7'),
      'nowhere',
      blueprint.build_model(tiny()),
      other,
      clip_shape=blueprint.clip_shape(tiny()),
      mesh=mesh(),
    )
  assert f'Step 7 of {tmp_path} holds another network: ' in str(error.value)


def test_a_damaged_step_that_is_asked_for_is_an_error(tmp_path):
  save(tmp_path, step=7)
  save(tmp_path, step=8)
  for path in (tmp_path / 'checkpoints/8/model').glob('**/d/*'):
    path.unlink()
  assert load(tiny(init_from=str(tmp_path))).step == 7
  message = refusal(tiny(init_from=f'{tmp_path}/checkpoints/8'))
  assert f'{tmp_path}/checkpoints/8' in message


def test_a_workdir_may_be_called_like_a_step(tmp_path):
  workdir = tmp_path / 'checkpoints' / '5'
  save(workdir, step=7)
  assert load(tiny(init_from=str(workdir))).workdir == workdir


def test_an_own_step_is_no_foreign_network(tmp_path, caplog):
  save(tmp_path, step=7)
  with caplog.at_level('WARNING'):
    load(tiny(init_from=f'{tmp_path}/checkpoints/7'), tmp_path)
  assert 'of its own' not in caplog.text


def test_network_and_bank_of_another_run_are_of_one_step(tmp_path):
  save(tmp_path, seed=1, step=7)
  save(tmp_path, seed=2, step=8)
  for path in (tmp_path / 'checkpoints/8/memory_bank').glob('**/d/*'):
    path.unlink()
  steps = {}
  for init in ('uniform', 'init_from'):
    config = tiny(init_from=str(tmp_path), memory_bank__init=init)
    steps[init] = first(config, fresh('vie_single')).source_step
  assert steps == {'uniform': 8, 'init_from': 7}


def load_bank(workdir, fingerprint=FINGERPRINT, embedding_size=128):
  return run_weights.load_bank(
    workdir,
    fingerprint=fingerprint,
    num_videos=NUM_VIDEOS,
    embedding_size=embedding_size,
    mesh=mesh(),
  )


def test_a_run_without_a_bank_is_refused_as_the_source_of_one(tmp_path):
  state = first_state('vie_single', 0)
  record = {
    'config': json.loads(tiny('vie_single').to_json_best_effort()),
    'fingerprint': FINGERPRINT,
  }
  items = {'model': checkpoint.ITEMS['model']}
  with checkpoint.Checkpoints(tmp_path, items=items) as checkpoints:
    checkpoints.save(state, record)
  with pytest.raises(checkpoint.CheckpointError, match='has no memory bank'):
    load_bank(tmp_path)


def test_a_bank_of_other_dimensions_is_refused(tmp_path):
  save(tmp_path)
  with pytest.raises(checkpoint.CheckpointError, match='128 dimensions'):
    load_bank(tmp_path, embedding_size=64)


def test_the_bank_is_that_of_the_run(tmp_path):
  save(tmp_path)
  found, saved = load_bank(tmp_path), first_state('vie_single', 0)
  np.testing.assert_array_equal(found['bank'], saved.bank)
  np.testing.assert_array_equal(found['bank_step'], saved.bank_step)
  assert not found['bank'].sharding.is_fully_replicated


def test_the_bank_of_other_videos_is_refused(tmp_path):
  save(tmp_path)
  with pytest.raises(checkpoint.CheckpointError, match='is of other videos'):
    load_bank(tmp_path, fingerprint='0' * 64)


FINETUNED = {
  'training': 'finetuned',
  'network': {
    'name': 'vie_single',
    'training': 'local_aggregation',
    'step': 14,
    'source': 'W',
    'trained_on': {'name': 'demo'},
    'started_from': [],
  },
}


def test_they_say_what_their_training_started_from(tmp_path):
  assert load(tiny(init_from='random')).started_from == []
  save(tmp_path, record=FINETUNED)
  (before,) = load(tiny(), tmp_path).started_from
  assert before == {
    'training': 'local_aggregation',
    'step': 14,
    'source': 'W',
    'trained_on': {'name': 'demo'},
  }


def test_a_training_has_those_behind_its_first_weights_behind_it(tmp_path):
  assert list(first(tiny(), fresh('vie_single')).started_from) == []
  save(tmp_path, step=9, record=FINETUNED)
  config = tiny(init_from=str(tmp_path))
  nearest, before = first(config, fresh('vie_single')).started_from
  assert nearest['training'] == 'finetuned'
  assert (nearest['step'], nearest['source']) == (9, str(tmp_path))
  assert nearest['trained_on']['fingerprint'] == FINGERPRINT
  assert (before['training'], before['step']) == ('local_aggregation', 14)


def test_a_training_says_that_it_started_from_official_weights(tmp_path):
  path = tmp_path / 'official.npz'
  official_file(path, 'vie_single', global_step=np.int64(77))
  config = tiny(init_from=f'official:{path}')
  (found,) = first(config, fresh('vie_single')).started_from
  assert (found['training'], found['step']) == ('official', 77)
  assert found['source'] == f'official:{path}'


@pytest.mark.slow
def test_each_stream_says_what_it_started_from(tmp_path):
  save(tmp_path / 'single', record=FINETUNED)
  save(tmp_path / 'slow', 'vie_slow')
  streams = f'{tmp_path / "single"},{tmp_path / "slow"}'
  config = tiny('vie_twostream_s', model__streams=streams)
  found = load(config)
  assert [
    [entry['training'] for entry in found.streams[name]['started_from']]
    for name in ('single', 'motion')
  ] == [['local_aggregation'], []]
  (together,) = first(config, fresh('vie_twostream_s')).started_from
  assert together['training'] == 'side_by_side'
  assert together['source'] == streams
  assert together['streams'] == found.streams


@pytest.mark.parametrize('record', [FINETUNED, {'training': 'supervised'}])
def test_a_training_that_takes_over_an_untrained_projection_says_so(
  tmp_path, caplog, record
):
  config = tiny(init_from=str(tmp_path))
  save(tmp_path, step=7)
  first(config, fresh('vie_single'))
  assert 'projection to the embedding' not in caplog.text
  save(tmp_path, step=8, record=record)
  first(config, fresh('vie_single'))
  (said,) = (line for line in caplog.messages if 'projection' in line)
  assert said == (
    f'These weights are {record["training"]}: the projection to the embedding '
    'was not trained with them, and this training goes on with it as it is.'
  )
