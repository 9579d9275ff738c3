"""Runs with a NaN in a batch or in a restored state: stop, or skip."""

import fault_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from fault_runs import REFUSED

from vie_jax import blueprint, checkpoint, experiment
from vie_jax.telemetry import metrics_file

OPTIONS = {
  'num_devices': 1,
  'num_steps': 6,
  'eval_every_steps': 100,
  'checkpoint_every_steps': 1,
  'keep_checkpoints': 10,
}


def run(workdir, dataset, *spoiled_steps, **changes):
  command = tiny_run.command(workdir, dataset, **{**OPTIONS, **changes})
  patch = fault_runs.spoiled_batches(*spoiled_steps)
  return fault_runs.finish(fault_runs.patched(command, patch))


def train_figures(workdir, name):
  _, values = metrics_file.curve(workdir, name)
  return values


@pytest.mark.slow
def test_stop_keeps_the_last_good_state(demo_dataset, tmp_path):
  ended = run(tmp_path, demo_dataset, 4)
  assert ended.code == REFUSED, ended.output
  assert 'Traceback' not in ended.output
  assert 'Step 4: the loss is nan' in ended.output
  (line,) = [text for text in ended.output.splitlines() if 'Its videos' in text]
  assert line.count('.mp4') == tiny_run.OVERRIDES['batch_size']
  last = ended.output.strip().splitlines()[-1]
  assert 'Training stopped at step 4: the loss is nan' in last
  assert 'of step 3, is kept' in last
  assert fault_runs.steps_of(tmp_path) == [1, 2, 3]


@pytest.mark.slow
def test_skip_goes_on_without_them_and_counts_over_restarts(
  demo_dataset, tmp_path
):
  options = {'fault__on_nonfinite': 'skip'}
  ended = run(tmp_path, demo_dataset, 3, 4, **options)
  assert ended.code == 0, ended.output
  assert train_figures(tmp_path, 'train/skipped_steps') == [0, 0, 1, 2, 2, 2]
  config = tiny_run.config(demo_dataset, **{**OPTIONS, **options})
  states = [
    fault_runs.leaves_of(tmp_path, config, step) for step in range(1, 7)
  ]
  for state in states:
    for name, value in state.items():
      assert np.isfinite(value).all(), name
  for skipped in (2, 3):
    before, after = states[skipped - 1], states[skipped]
    for name, value in before.items():
      is_counted = name == '.step' or name.endswith('.count')
      assert (after[name] == value + is_counted).all(), name
  ended = run(tmp_path, demo_dataset, 7, num_steps=8, **options)
  assert ended.code == 0, ended.output
  assert train_figures(tmp_path, 'train/skipped_steps')[-2:] == [3, 3]


@pytest.mark.slow
def test_a_bad_bank_row_of_a_restored_state_is_named(demo_dataset, tmp_path):
  config = tiny_run.config(demo_dataset, **OPTIONS)
  rule, _ = blueprint.build_optimizer(config)
  with (
    experiment.open_experiment(config) as parts,
    checkpoint.Checkpoints(tmp_path) as checkpoints,
  ):
    initialize = experiment.state_initializer(parts, rule)
    state = initialize(jax.random.key(config.seed))
    bank = state.bank.at[5, 0].set(jnp.nan)
    checkpoints.save(
      state.replace(step=state.step + 2, bank=bank),
      {**experiment.record(parts), 'damage': None},
    )
    name = parts.train.store.paths[5]
  ended = fault_runs.finish(tiny_run.command(tmp_path, demo_dataset, **OPTIONS))
  assert ended.code == REFUSED, ended.output
  last = ended.output.strip().splitlines()[-1]
  assert f'rows of the memory bank are not finite: 5 ({name})' in last
  assert fault_runs.steps_of(tmp_path) == [2]
  ended = fault_runs.finish(
    tiny_run.command(tmp_path, demo_dataset, mode='knn_eval', **OPTIONS)
  )
  assert ended.code == REFUSED, ended.output
  assert name in ended.output.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['stop', 'skip'])
def test_classifiers_do_the_same(demo_dataset, tmp_path, policy):
  options = {
    'mode': 'finetune',
    'init_from': 'random',
    'dataset__label_columns': "('motion',)",
    'finetune__batch_size': 16,
    'finetune__eval_batch_size': 16,
    'finetune__num_steps': 6,
    'finetune__eval_every_steps': 6,
    'finetune__checkpoint_every_steps': 1,
    'fault__on_nonfinite': policy,
  }
  ended = run(tmp_path, demo_dataset, 3, **options)
  assert 'Step 3: the loss is nan' in ended.output
  folder = tmp_path / 'finetune' / 'demo_motion_random'
  if policy == 'stop':
    assert ended.code == REFUSED, ended.output
    assert fault_runs.steps_of(folder) == [1, 2]
    return
  assert ended.code == 0, ended.output
  values = train_figures(folder, 'train/skipped_steps')
  assert values == [0, 0, 1, 1, 1, 1]
  assert all(np.isfinite(train_figures(folder, 'val/motion_classifier_top1')))
