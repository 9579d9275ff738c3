"""Whole networks trained on labels: from where, with what, to what end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from vie_jax import checkpoint, evaluate, finetune, linear_eval, train
from vie_jax.config import config_check
from vie_jax.models import network_names, networks
from vie_jax.results import result
from vie_jax.telemetry import metrics_file

# Of the projections to the embedding, which no classifier has a part of.
EMBEDDING_KERNELS = {
  f'params/{stream}projection/kernel' for stream in ('', 'single/', 'motion/')
}
COMMON = {
  'num_devices': 1,
  'dataset__label_columns': ('motion',),
  **{
    f'{group}__{name}': value
    for group in ('finetune', 'supervised')
    for name, value in {
      'batch_size': 8,
      'eval_batch_size': 16,
      'num_steps': 6,
      'eval_every_steps': 3,
      'checkpoint_every_steps': 3,
      'num_eval_clips': 2,
    }.items()
  },
}


def config(dataset, **changes):
  return tiny_run.config(dataset, **{**COMMON, **changes})


def restored(folder):
  """All arrays of the newest checkpoint."""
  whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  with checkpoint.Checkpoints(
    folder, read_only=True, items=finetune.ITEMS
  ) as checkpoints:
    return {
      item: checkpoints.restore_as_saved(
        checkpoints.latest_step, item, dict.fromkeys(fields, whole)
      )
      for item, fields in finetune.ITEMS.items()
    }


def leaves(tree):
  """Path in words -> array."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in jax.tree.leaves_with_path(tree)
  }


@pytest.fixture(scope='module')
def pretrained(demo_dataset, tmp_path_factory):
  """The workdir of a short pretraining."""
  workdir = tmp_path_factory.mktemp('pretrained')
  settings = config(demo_dataset, num_steps=2, checkpoint_every_steps=2)
  train.train_and_evaluate(settings, workdir)
  return workdir


@pytest.fixture(scope='module')
def finetuned(demo_dataset, pretrained):
  before = {p: p.stat().st_mtime_ns for p in pretrained.rglob('*')}
  written = finetune.finetune(config(demo_dataset), pretrained)
  return before, written


@pytest.mark.slow
def test_result_says_what_was_finetuned_on_what(pretrained, finetuned):
  _, written = finetuned
  folder = pretrained / 'finetune' / 'demo_motion'
  assert result.read(folder / result.FILE)['accuracy'] == written['accuracy']
  assert set(written['accuracy']) == {'motion'}
  accuracy = written['accuracy']['motion']['classifier']
  assert 0 <= accuracy['top1'] <= accuracy['top5'] <= 1
  assert written['network']['training'] == 'instance_recognition'
  assert written['network']['step'] == 2
  assert written['views']['clips'] == 2
  assert written['steps'] == 6
  best = written['best']['motion']['classifier']
  assert best >= accuracy['top1']


@pytest.mark.slow
def test_the_pretraining_is_not_touched(pretrained, finetuned):
  before, _ = finetuned
  for path, changed in before.items():
    if path != pretrained:
      assert path.stat().st_mtime_ns == changed


@pytest.mark.slow
def test_all_layers_are_trained_but_the_projection(pretrained, finetuned):
  del finetuned
  after = restored(pretrained / 'finetune' / 'demo_motion')
  with checkpoint.Checkpoints(pretrained, read_only=True) as checkpoints:
    whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    before = checkpoints.restore_as_saved(
      2, 'model', {'params': whole, 'batch_stats': whole}
    )
  old, new = leaves(before), leaves(after['model'])
  assert old.keys() == new.keys()
  for name, value in old.items():
    same = np.array_equal(value, new[name])
    assert same == ('params/projection' in name), name


def test_the_penalty_spares_norms_and_unless_asked_the_network():
  trained = {
    'params': {
      'backbone': {
        'conv': {'kernel': jnp.ones(3)},
        'norm': {'scale': jnp.ones(2)},
      },
      'projection': {'kernel': jnp.ones(2), 'bias': jnp.ones(1)},
    },
    'classifier': {'kernel': jnp.ones(4), 'bias': jnp.ones(2)},
  }
  official = finetune.decayed(trained, decay_all=False)
  assert leaves(official) == {
    'params/backbone/conv/kernel': False,
    'params/backbone/norm/scale': False,
    'params/projection/kernel': False,
    'params/projection/bias': False,
    'classifier/kernel': True,
    'classifier/bias': True,
  }
  paper = leaves(finetune.decayed(trained, decay_all=True))
  assert paper['params/backbone/conv/kernel']
  assert not paper['params/backbone/norm/scale']
  assert not paper['params/projection/kernel']
  assert not paper['params/projection/bias']


@pytest.mark.parametrize('name', network_names.NAMES)
def test_the_penalty_is_of_the_whole_backbone_of_each_network(name):
  network = networks.build(
    name, embedding_size=4, width=2, fast_width=1, alpha=2, dtype='float32'
  )
  clip = jnp.zeros((1, 4, 32, 32, 3))
  variables = jax.eval_shape(
    lambda: network.init(jax.random.key(0), clip, train=False)
  )
  decayed = leaves(
    finetune.decayed(
      {'params': variables['params'], 'classifier': {}}, decay_all=True
    )
  )
  assert sum('block1/projection' in path for path in decayed) >= 4
  assert {path for path, is_decayed in decayed.items() if is_decayed} == {
    path
    for path in decayed
    if path.endswith('kernel') and path not in EMBEDDING_KERNELS
  }


@pytest.mark.slow
def test_scratch_has_rates_of_its_own(demo_dataset, tmp_path):
  scratch = config(
    demo_dataset,
    init_from='random',
    finetune__augmentation='multiscale',
    finetune__eval_clips='consecutive',
  )
  written = finetune.finetune(scratch, tmp_path)
  folder = tmp_path / 'finetune' / 'demo_motion_multiscale_random'
  assert (folder / result.FILE).exists()
  assert written['network']['training'] == 'random'
  assert written['views']['clips'] == 'all, consecutive'
  _, rates = metrics_file.curve(folder, 'train/learning_rate')
  assert rates == pytest.approx([0.01] * 6)


@pytest.mark.slow
def test_saturated_validation_lowers_the_rate_and_ends_the_training(
  demo_dataset, pretrained, tmp_path
):
  saturated = config(
    demo_dataset,
    init_from=str(pretrained),
    # So small a rate that nothing changes any more.
    finetune__learning_rate=1e-12,
    finetune__num_steps=100,
    finetune__eval_every_steps=1,
    finetune__checkpoint_every_steps=2,
    finetune__patience=2,
    finetune__num_drops=1,
    model__batch_norm_decay=0.999999,
  )
  written = finetune.finetune(saturated, tmp_path)
  # Best at 1; saturated at 3, when the rate drops, and at 5, which is the end.
  assert written['steps'] == 5
  folder = tmp_path / 'finetune' / f'demo_motion_{pretrained.name}'
  _, rates = metrics_file.curve(folder, 'train/learning_rate')
  assert rates == pytest.approx([1e-12] * 3 + [1e-13] * 2)
  # And again: it is over, and stays so.
  assert finetune.finetune(saturated, tmp_path)['steps'] == 5


@pytest.mark.slow
def test_the_plateau_survives_a_restart(demo_dataset, pretrained, tmp_path):
  def run(name, num_steps):
    return finetune.finetune(
      config(
        demo_dataset,
        init_from=str(pretrained),
        result_name=name,
        finetune__learning_rate=1e-12,
        finetune__num_steps=num_steps,
        finetune__eval_every_steps=2,
        finetune__checkpoint_every_steps=1,
        finetune__patience=1,
        finetune__num_drops=1,
        model__batch_norm_decay=0.999999,
      ),
      tmp_path,
    )

  # Best at 2, the rate drops at 4, and 6 is the end.
  assert run('whole', 100)['steps'] == 6
  # The evaluation at 3 is none of those, and the drop is before the second end.
  run('parts', 3)
  run('parts', 5)
  assert run('parts', 100)['steps'] == 6
  rates = [
    metrics_file.curve(tmp_path / 'finetune' / name, 'train/learning_rate')
    for name in ('whole', 'parts')
  ]
  assert rates[0] == rates[1]
  assert rates[0][1] == pytest.approx([1e-12] * 4 + [1e-13] * 2)


@pytest.mark.slow
def test_going_on_gives_the_same_bits(demo_dataset, pretrained, tmp_path):
  def run(name, num_steps):
    finetune.finetune(
      config(
        demo_dataset,
        init_from=str(pretrained),
        result_name=name,
        finetune__num_steps=num_steps,
      ),
      tmp_path,
    )

  run('whole', 6)
  run('parts', 3)
  run('parts', 6)
  whole, parts = (
    leaves(restored(tmp_path / 'finetune' / name))
    for name in ('whole', 'parts')
  )
  for name, value in whole.items():
    np.testing.assert_array_equal(value, parts[name], err_msg=name)


@pytest.mark.slow
def test_a_supervised_network_is_a_start_for_everything_else(
  demo_dataset, tmp_path, caplog
):
  written = finetune.supervised(config(demo_dataset), tmp_path / 'w')
  folder = tmp_path / 'w' / 'supervised' / 'demo_motion'
  assert written['network']['training'] == 'random'
  _, rates = metrics_file.curve(folder, 'train/learning_rate')
  assert rates == pytest.approx([0.03] * 6)
  readout = config(
    demo_dataset,
    init_from=str(folder),
    linear_eval__batch_size=8,
    linear_eval__eval_batch_size=16,
    linear_eval__num_steps=1,
    linear_eval__layers=('conv5',),
  )
  read = linear_eval.linear_eval(readout, tmp_path / 'w')
  assert read['network']['training'] == 'supervised'
  assert read['network']['source'] == str(folder)
  trained_on = read['network']['trained_on']
  assert trained_on['share'] == 1.0
  assert trained_on['name'] == read['dataset']['name']
  assert trained_on['dataset_fingerprint'] == read['dataset']['fingerprint']
  assert (folder / 'config.json').exists()
  evaluate.knn_eval(config(demo_dataset, init_from=str(folder)), tmp_path)
  assert 'the projection to the embedding was not trained' in caplog.text
  for selection in ({'share': 0.5}, {'with_replacement': True}):
    changes = {f'dataset__{name}': value for name, value in selection.items()}
    with pytest.raises(config_check.ConfigError, match=r'dataset\.share'):
      finetune.supervised(config(demo_dataset, **changes), tmp_path / 'w')
  again = finetune.finetune(
    config(demo_dataset, init_from=str(folder)), tmp_path
  )
  assert again['network']['training'] == 'supervised'
  with pytest.raises(config_check.ConfigError, match='starts from scratch'):
    finetune.supervised(
      config(demo_dataset, init_from=str(folder)), tmp_path / 'w'
    )


def test_one_of_several_label_columns_must_be_named(demo_dataset, tmp_path):
  with pytest.raises(config_check.ConfigError, match='appearance, motion'):
    finetune.finetune(config(demo_dataset, dataset__label_columns=()), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('base', ['vie_slowfast'])
def test_networks_of_clips_are_finetuned_too(base, demo_dataset, tmp_path):
  settings = tiny_run.config(
    demo_dataset,
    base,
    **{**COMMON, 'init_from': 'random', 'finetune__num_steps': 2},
  )
  written = finetune.finetune(settings, tmp_path)
  assert written['network']['name'] == base
  assert np.isfinite(written['accuracy']['motion']['classifier']['clip_top1'])
