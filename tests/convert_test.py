"""Official weights written into a workdir, and every mode run on them."""

import json

import numpy as np
import pytest
import tiny_run
from oracle import official, reference_network

from vie_jax import checkpoint, convert, embed, evaluate, train
from vie_jax.config import config_check

BANK = np.random.default_rng(1).standard_normal((7, 128)).astype(np.float32)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """An official VIE-Single, narrow, with its memory."""
  listing = reference_network.variable_shapes('single', width=4)
  arrays = {name: official.weights(name, shape) for name, shape in listing}
  path = tmp_path_factory.mktemp('official') / 'official.npz'
  np.savez(
    path,
    **arrays,
    **{
      'global_step': np.int64(1_450_000),
      'instance/memory_bank': BANK,
      'instance/all_labels': np.arange(7),
    },
  )
  return path


@pytest.fixture(scope='module')
def workdir(source, tmp_path_factory):
  folder = tmp_path_factory.mktemp('converted') / 'W'
  convert.convert(
    tiny_run.config('nowhere', init_from=f'official:{source}'), str(folder)
  )
  return folder


def test_embeddings_are_those_of_the_official_weights(
  source, workdir, tmp_path
):
  clips = np.random.default_rng(0).integers(0, 256, (3, 1, 24, 24, 3))
  np.savez(tmp_path / 'clips.npz', clips=clips.astype(np.uint8))
  settings = {'embed__clips': str(tmp_path / 'clips.npz')}
  converted = embed.embed(tiny_run.config('nowhere', **settings), str(workdir))
  direct = embed.embed(
    tiny_run.config('nowhere', init_from=f'official:{source}', **settings),
    str(tmp_path / 'W'),
  )
  np.testing.assert_array_equal(converted, direct)
  result = json.loads((workdir / 'embed/clips/result.json').read_text())
  assert result['network']['step'] == 1_450_000
  assert result['network']['training'] == 'official'


def test_the_memory_is_kept_beside(workdir):
  memory = np.load(workdir / convert.MEMORY_FILE)
  np.testing.assert_array_equal(memory['bank'], BANK)
  np.testing.assert_array_equal(memory['labels'], np.arange(7))
  assert set(memory) == {'bank', 'labels'}


def test_knn_compares_with_clips(demo_dataset, workdir):
  evaluate.knn_eval(tiny_run.config(demo_dataset), str(workdir))
  result = json.loads((workdir / 'knn_eval/demo/result.json').read_text())
  assert result['reference'] == 'clips'
  assert result['network']['step'] == 1_450_000


@pytest.mark.slow
def test_training_starts_from_it_and_goes_on(demo_dataset, source, tmp_path):
  folder = str(tmp_path)
  convert.convert(
    tiny_run.config('nowhere', init_from=f'official:{source}'), folder
  )
  settings = {
    'num_steps': 2,
    'checkpoint_every_steps': 1,
    'optimizer__learning_rate': 0.0,
  }
  config = tiny_run.config(demo_dataset, **settings)
  state = train.train_and_evaluate(config, folder)
  expected = official.weights('resnet_model/dense/kernel', (32, 128))
  found = state.params['projection']['kernel']
  np.testing.assert_array_equal(found, expected)
  config.num_steps = 3
  state = train.train_and_evaluate(config, folder)
  assert int(state.step) == 3


def test_only_official_weights_are_converted(tmp_path):
  config = tiny_run.config('nowhere')
  with pytest.raises(config_check.ConfigError, match='official:PATH'):
    convert.convert(config, str(tmp_path / 'W'))
  assert not (tmp_path / 'W').exists()


def test_a_workdir_with_checkpoints_is_left_alone(source, workdir):
  config = tiny_run.config('nowhere', init_from=f'official:{source}')
  with pytest.raises(checkpoint.CheckpointError, match='new --workdir'):
    convert.convert(config, str(workdir))


def test_it_is_no_source_of_a_memory_bank(demo_dataset, workdir, tmp_path):
  config = tiny_run.config(
    demo_dataset, init_from=str(workdir), memory_bank__init='init_from'
  )
  with pytest.raises(checkpoint.CheckpointError, match='no memory bank'):
    train.train_and_evaluate(config, str(tmp_path))
