import json

import jax
import numpy as np
import pytest
import tiny_run

from configs import default
from vie_jax import blueprint, experiment, train_state
from vie_jax.config import config_check
from vie_jax.input_pipeline import dataset_folder


def refusal(config):
  with (
    pytest.raises(
      (config_check.ConfigError, dataset_folder.DatasetError)
    ) as error,
    experiment.open_experiment(config),
  ):
    pass
  return str(error.value)


def test_a_config_that_cannot_work_is_refused_before_the_data_set():
  message = refusal(tiny_run.config('nowhere', batch_size=0))
  assert 'config.batch_size is 0' in message


def test_a_data_set_that_is_not_there_is_named_with_the_remedy(tmp_path):
  folder = tmp_path / 'nowhere'
  message = refusal(tiny_run.config(folder))
  assert str(folder) in message
  assert 'data/prepare.py' in message


def test_more_devices_than_there_are_are_refused(demo_dataset):
  message = refusal(tiny_run.config(demo_dataset, num_devices=9))
  assert 'config.num_devices is 9, but 8 are visible' in message


@pytest.mark.parametrize('field', ['batch_size', 'knn.batch_size'])
def test_a_batch_that_does_not_split_evenly_is_refused(demo_dataset, field):
  config = tiny_run.config(demo_dataset, **{field.replace('.', '__'): 12})
  message = refusal(config)
  assert f'config.{field} is 12' in message
  assert 'multiple of 8' in message
  # What the message advises works.
  config.num_devices = 4
  with experiment.open_experiment(config) as parts:
    assert parts.mesh.size == 4


@pytest.mark.parametrize(
  'devices, size, fitting', [(3, 15, 1), (8, 12, 4), (6, 16, 4), (8, 7, 1)]
)
def test_the_devices_that_a_refusal_names_take_the_batches(
  devices, size, fitting
):
  config = default.get_config()
  config.num_devices, config.batch_size = devices, size
  with pytest.raises(config_check.ConfigError) as error:
    blueprint.make_mesh(config, 'train')
  assert str(error.value).endswith(f'set config.num_devices={fitting}.')
  config.num_devices = fitting
  assert blueprint.make_mesh(config, 'train').size == fitting


@pytest.mark.parametrize('number, fitting', [(3, 2), (5, 4), (6, 4)])
def test_devices_that_the_bank_does_not_split_over_are_refused_first(
  demo_dataset, number, fitting
):
  """No batch size helps, and the first remedy that is named must."""
  config = tiny_run.config(demo_dataset, num_devices=number)
  message = refusal(config)
  assert f'{number} devices' in message
  assert f'set config.num_devices={fitting}.' in message
  assert 'batch_size' not in message
  config.num_devices = fitting
  with experiment.open_experiment(config) as parts:
    assert parts.mesh.size == fitting


def test_a_batch_larger_than_the_data_set_is_refused(demo_dataset):
  message = refusal(tiny_run.config(demo_dataset, batch_size=40))
  assert 'config.batch_size is 40' in message
  assert 'only 36 for training' in message


def test_an_evaluation_needs_no_training_batch(demo_dataset):
  config = tiny_run.config(demo_dataset, batch_size=1000)
  with experiment.open_experiment(config, 'knn_eval') as parts:
    assert parts.train.num_instances == 36


def test_an_unknown_label_column_is_refused_with_those_there_are(demo_dataset):
  config = tiny_run.config(demo_dataset, dataset__label_columns=('colour',))
  message = refusal(config)
  assert "'colour'" in message
  assert 'appearance, motion' in message


@pytest.mark.parametrize(
  'wanted, expected', [((), ['appearance', 'motion']), (('motion',),) * 2]
)
def test_label_columns_are_those_asked_for_or_all(
  demo_dataset, wanted, expected
):
  config = tiny_run.config(demo_dataset, dataset__label_columns=wanted)
  with experiment.open_experiment(config) as parts:
    assert parts.label_columns == list(expected)
    # All of them name no result.
    assert parts.chosen_columns == list(wanted)


def test_the_data_set_is_closed_at_the_end(demo_dataset):
  with experiment.open_experiment(tiny_run.config(demo_dataset)) as parts:
    parts.train.store.read_frames(0, [0])
  with pytest.raises(dataset_folder.DatasetError, match='closed'):
    parts.train.store.read_frames(0, [0])


def test_the_record_is_plain_json_with_every_field(demo_dataset):
  config = tiny_run.config(demo_dataset)
  with experiment.open_experiment(config) as parts:
    record = experiment.record(parts)
    assert record['fingerprint'] == parts.train.fingerprint
    store = parts.train.store
    assert record['dataset'] == {
      'name': 'demo',
      'fingerprint': store.fingerprint,
    }
  assert json.loads(json.dumps(record)) == record
  assert set(record['config']) == set(config)
  assert record['config']['model']['width'] == 4
  assert record['config']['dataset']['dir'] == str(demo_dataset)


@pytest.mark.parametrize('num_devices', [1, 8])
def test_shapes_are_those_of_the_first_state(demo_dataset, num_devices):
  config = tiny_run.config(demo_dataset, num_devices=num_devices)
  rule, _ = blueprint.build_optimizer(config)
  with experiment.open_experiment(config) as parts:
    initialize = experiment.state_initializer(parts, rule)
    shapes = experiment.state_shapes(initialize, parts.mesh)
    state = initialize(jax.random.key(0))
  assert jax.tree.structure(shapes) == jax.tree.structure(state)
  for shape, leaf in zip(
    jax.tree.leaves(shapes), jax.tree.leaves(state), strict=True
  ):
    assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)
    assert shape.sharding.is_equivalent_to(leaf.sharding, leaf.ndim)
  assert (np.asarray(state.bank_step) == train_state.NEVER).all()


@pytest.mark.parametrize('base', tiny_run.BASES)
def test_clips_of_a_batch_have_the_shape_that_the_network_sees(
  demo_dataset, base
):
  config = tiny_run.config(demo_dataset, base)
  with experiment.open_experiment(config) as parts:
    with experiment.train_batches(parts, start_step=0, seed=0) as batches:
      batch = next(batches)
    clips = jax.eval_shape(
      parts.augment, jax.random.key(0), batch['window'], batch['crop']
    )
    assert clips.shape == (16, *parts.clip_shape)
    with experiment.eval_batches(parts, parts.val) as batches:
      all_batches = list(batches)
    assert len(all_batches) == 2  # 12 videos of 5 clips, 32 at a time
    clips = jax.eval_shape(
      parts.center, all_batches[0]['window'], all_batches[0]['crop']
    )
    assert clips.shape == (32, *parts.clip_shape)


def test_training_batches_are_the_same_from_any_start(demo_dataset):
  config = tiny_run.config(demo_dataset)
  with experiment.open_experiment(config) as parts:
    with experiment.train_batches(parts, start_step=0, seed=3) as batches:
      first = [next(batches) for _ in range(4)]
    with experiment.train_batches(parts, start_step=3, seed=3) as batches:
      later = next(batches)
  for name, value in later.items():
    np.testing.assert_array_equal(value, first[3][name])
