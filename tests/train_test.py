import collections
import json
import re
import types

import fault_runs
import jax
import numpy as np
import pytest
import tiny_run

from configs import default
from vie_jax import (
  blueprint,
  checkpoint,
  evaluate,
  finetune,
  finite,
  linear_eval,
  train,
)
from vie_jax.files import config_origin
from vie_jax.processes import preemption
from vie_jax.telemetry import metrics_file
from vie_jax.training import train_loop, train_start


@pytest.mark.parametrize(
  'num_videos, num_neighbors, num_clusters',
  [
    (10, 10, 1),  # fewer videos than a cluster should have
    (300, 300, 15),
    (512, 512, 25),
    (100_000, 512, 5000),
    (240_000, 512, 8000),  # Kinetics
  ],
)
def test_the_method_fits_the_size_of_the_data_set(
  num_videos, num_neighbors, num_clusters, caplog
):
  with caplog.at_level('INFO'):
    method = blueprint.method_of(default.get_config(), num_videos)
  assert method.num_videos == num_videos
  assert method.num_neighbors == num_neighbors
  assert method.num_clusters == num_clusters
  # What differs from the config is said.
  for name, value, wanted in (
    ('num_neighbors', num_neighbors, 512),
    ('num_clusters', num_clusters, 8000),
  ):
    sentence = f'local_aggregation.{name} is {value} instead of {wanted}'
    assert (sentence in caplog.text) == (value < wanted)


@pytest.mark.parametrize(
  ('num_videos', 'is_said'), [(1, False), (2, True), (39, True), (40, False)]
)
def test_a_single_cluster_is_warned_of(num_videos, is_said, caplog):
  config = default.get_config()
  assert config.local_aggregation.min_videos_per_cluster == 20
  blueprint.method_of(config, num_videos)
  assert ('it learns nothing' in caplog.text) == is_said


def test_a_run_of_instance_recognition_alone_needs_no_clusters(caplog):
  config = default.get_config()
  config.objective.instance_recognition_steps = config.num_steps
  blueprint.method_of(config, 30)
  assert 'it learns nothing' not in caplog.text


@pytest.mark.parametrize('loss', ['nce', 'softmax'])
def test_more_noise_than_videos_is_warned_of(loss, caplog):
  config = default.get_config()
  config.instance_recognition.loss = loss
  blueprint.method_of(config, 4096)
  assert 'num_noise' not in caplog.text
  blueprint.method_of(config, 4095)
  assert ('num_noise is 4096' in caplog.text) == (loss == 'nce')


def test_the_method_has_the_numbers_of_the_config():
  config = default.get_config()
  config.objective.temperature = 0.2
  config.memory_bank.momentum = 0.25
  config.instance_recognition.loss = 'softmax'
  config.instance_recognition.num_noise = 77
  config.local_aggregation.kmeans_iterations = 3
  config.local_aggregation.kmeans_warm_iterations = 2
  method = blueprint.method_of(config, 1000)
  assert method.temperature == 0.2
  assert method.bank_momentum == 0.25
  assert method.instance_loss == 'softmax'
  assert method.num_noise == 77
  assert method.kmeans_iterations == 3
  assert method.kmeans_warm_iterations == 2


@pytest.mark.parametrize(
  'first_step, every_steps, expected',
  [
    (0, 5, [0, 5, 10, 15]),
    (10, 5, [10, 15]),
    (7, 5, [7, 10, 15]),
    (7, 100, [7]),
    (100, 5, []),
  ],
)
def test_clusters_are_made_at_the_start_and_every_epoch(
  first_step, every_steps, expected
):
  due = [
    step
    for step in range(20)
    if train_loop.clusters_are_due(
      step, first_step=first_step, every_steps=every_steps
    )
  ]
  assert due == expected


def test_the_rate_follows_the_schedule_of_the_config():
  config = default.get_config()
  config.optimizer.learning_rate = 0.5
  config.optimizer.drop_steps = (3, 6)
  _, rate = blueprint.build_optimizer(config)
  rates = [float(rate(step)) for step in range(9)]
  np.testing.assert_allclose(
    rates, [0.5] * 4 + [0.05] * 3 + [0.005] * 2, rtol=1e-6
  )
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 2
  config.num_steps = 8
  _, rate = blueprint.build_optimizer(config)
  expected = [
    min(step / 2, 1) * 0.25 * (1 + np.cos(np.pi * step / 8))
    for step in range(9)
  ]
  np.testing.assert_allclose(
    [float(rate(step)) for step in range(9)], expected, atol=1e-6
  )


@pytest.mark.slow
@pytest.mark.parametrize('looks', ['log', 'eval', 'checkpoint'])
def test_divergence_is_noticed_by_whatever_looks_first(
  demo_dataset, tmp_path, looks
):
  every = {f'{name}_every_steps': 50 for name in ('log', 'eval', 'checkpoint')}
  config = tiny_run.config(
    demo_dataset,
    optimizer__learning_rate=1e30,
    num_devices=1,
    **(every | {f'{looks}_every_steps': 2}),
  )
  with pytest.raises(finite.DivergedError) as error:
    train.train_and_evaluate(config, tmp_path)
  message = str(error.value)
  assert message.startswith('Training stopped at step 2: ')
  assert 'not finite' in message or 'the loss is nan' in message
  assert 'there is no checkpoint yet' in message
  with checkpoint.Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert checkpoints.latest_step is None
  # No figure of the step but the loss itself.
  later = [line for line in metrics_file.read(tmp_path) if line['step'] > 0]
  assert all('same_video/top1' not in line for line in later)


PHASES = {  # steps before, steps now -> what is said
  'longer': ((100, 60, 'drops'), (200, 60, 'drops'), []),
  'recognition to the end': ((100, 100, 'drops'), (200, 200, 'drops'), []),
  'recognition again': (
    (100, 60, 'drops'),
    (200, 120, 'drops'),
    ['Step 100 was of Local Aggregation, and would be of Instance Recogn'],
  ),
  'aggregation at once': (
    (100, 100, 'drops'),
    (200, 60, 'drops'),
    ['Step 100 was of Instance Recognition, and would be of Local Aggreg'],
  ),
  'cosine': (
    (100, 60, 'cosine'),
    (200, 60, 'cosine'),
    ['that of step 100 was 2.47e-05, and would be 0.0508 now.'],
  ),
}


@pytest.mark.parametrize('name', PHASES)
def test_another_objective_or_a_larger_rate_is_warned_of(name, caplog):
  before, now, expected = PHASES[name]
  configs = []
  for num_steps, instance_recognition_steps, schedule in (before, now):
    config = default.get_config()
    config.num_steps = num_steps
    config.objective.instance_recognition_steps = instance_recognition_steps
    config.optimizer.schedule = schedule
    config.optimizer.learning_rate = 0.1
    config.optimizer.drop_steps = ()
    configs.append(config)
  train_start.warn_of_another_phase(*configs, 100)
  assert len(caplog.messages) == len(expected)
  for message, words in zip(caplog.messages, expected, strict=True):
    assert words in message


@pytest.mark.parametrize('steps, is_warned_of', [(40, True), (41, False)])
def test_a_rate_that_never_rises_to_its_value_is_warned_of(
  steps, is_warned_of, caplog
):
  config = default.get_config()
  config.num_steps, config.optimizer.warmup_steps = steps, 40
  train_start.warn_of_endless_warmup(config)
  assert (
    'config.num_steps=40: it never reaches' in caplog.text
  ) == is_warned_of


def test_a_warm_start_that_is_cut_short_begins_with_clusters(
  demo_dataset, tmp_path
):
  def go_on(num_steps, instance_recognition_steps):
    config = tiny_run.config(
      demo_dataset,
      num_steps=num_steps,
      objective__instance_recognition_steps=instance_recognition_steps,
      local_aggregation__recluster_every_steps=100,
      eval_every_steps=50,
      checkpoint_every_steps=2,
    )
    train.train_and_evaluate(config, tmp_path)
    return metrics_file.curve(tmp_path, 'health/kmeans_objective')[0]

  assert go_on(4, 10) == []
  assert go_on(6, 2) == [5]
  # They are part of the checkpoint.
  assert go_on(8, 2) == [5]


@pytest.mark.slow
def test_each_program_is_compiled_once_from_the_first_step_to_the_last(
  demo_dataset, tmp_path, caplog
):
  config = tiny_run.config(
    demo_dataset,
    num_devices=1,
    num_steps=12,
    objective__instance_recognition_steps=4,
    local_aggregation__recluster_every_steps=3,
    local_aggregation__kmeans_warm_iterations=2,
    eval_every_steps=50,
    checkpoint_every_steps=50,
    log_every_steps=10,
  )
  with jax.log_compiles(), caplog.at_level('INFO'):
    train.train_and_evaluate(config, tmp_path)
  compiled = collections.Counter(
    re.findall(r'Compiling jit\((\w+)\)', caplog.text)
  )
  # One step for each objective; of the clusterings at steps 4, 6 and 9 the
  # later ones start from the last.
  assert compiled['train_step'] == 2
  assert compiled['recluster'] == 2
  changes = [
    line['health/cluster_change']
    for line in metrics_file.read(tmp_path)
    if 'health/cluster_change' in line
  ]
  assert len(changes) == 3
  # The log has the first one, and those that come as seldom as its lines.
  said = [line for line in caplog.messages if 'health/cluster_change' in line]
  assert len(said) == 1
  assert said[0].startswith('[5]')


def test_a_signal_at_the_last_step_leaves_one_evaluation_to_make_up_for(
  demo_dataset, tmp_path, monkeypatch
):
  config = tiny_run.config(
    demo_dataset, num_devices=1, num_steps=2, eval_every_steps=50
  )
  with monkeypatch.context() as patch:
    is_last = fault_runs.has_step(tmp_path, 2)
    patch.setattr(preemption.SIGNALS, 'poll', is_last)
    with pytest.raises(preemption.Stopped):
      train.train_and_evaluate(config, tmp_path)
  assert evaluated_steps(tmp_path) == [0]
  evaluations = []
  evaluate_now = evaluate.curves

  def curves(evaluator, state, parts):
    evaluations.append(int(state.step))
    return evaluate_now(evaluator, state, parts)

  monkeypatch.setattr(evaluate, 'curves', curves)
  for _ in range(3):
    train.train_and_evaluate(config, tmp_path)
    assert evaluated_steps(tmp_path) == [0, 2]
  assert evaluations == [2]


def evaluated_steps(workdir):
  return metrics_file.curve(workdir, 'eval/seconds')[0]


def test_a_finished_run_keeps_the_config_that_it_was_trained_with(
  demo_dataset, tmp_path, caplog
):
  def start(num_steps, rate, origin='/a/mine.py'):
    caplog.clear()
    config = tiny_run.config(
      demo_dataset,
      num_devices=1,
      num_steps=num_steps,
      optimizer__learning_rate=rate,
    )
    train.train_and_evaluate(config, tmp_path, origin=origin)
    return (tmp_path / 'config.json').read_text()

  trained = start(2, 0.003)
  assert start(2, 0.001, '/b/mine.py') == trained
  assert (tmp_path / config_origin.FILE).read_text() == '/a/mine.py\n'
  assert (
    'config.optimizer.learning_rate was 0.003, is now 0.001.' in caplog.text
  )
  assert 'No step is left to train with these values' in caplog.text
  (tmp_path / 'config.json').unlink()
  assert start(1, 0.003) == trained
  assert json.loads(start(3, 0.001))['optimizer']['learning_rate'] == 0.001
  assert 'No step is left' not in caplog.text


def test_a_training_on_labels_is_no_pretraining_to_go_on_with(
  demo_dataset, tmp_path
):
  array = jax.numpy.zeros(2)
  state = types.SimpleNamespace(
    params={'kernel': array},
    batch_stats={'mean': array},
    step=jax.numpy.int32(4),
    opt_state={'trace': array},
    classifier={'kernel': array},
  )
  with checkpoint.Checkpoints(tmp_path, items=finetune.ITEMS) as checkpoints:
    checkpoints.save(state, {})
  with pytest.raises(checkpoint.CheckpointError) as caught:
    train.train_and_evaluate(tiny_run.config(demo_dataset), tmp_path)
  assert f'{tmp_path} holds a training on labels' in str(caught.value)
  assert f'--config.init_from={tmp_path} it begins' in str(caught.value)
  # Readouts have no weights to begin with.
  readouts = tmp_path / 'readouts'
  with checkpoint.Checkpoints(readouts, items=linear_eval.ITEMS) as checkpoints:
    checkpoints.save(state, {})
  with pytest.raises(checkpoint.CheckpointError) as caught:
    train.train_and_evaluate(tiny_run.config(demo_dataset), readouts)
  assert f'{readouts} holds a training on labels' in str(caught.value)
  assert 'init_from' not in str(caught.value)


def test_what_a_run_started_from_stays_with_it(demo_dataset, tmp_path):
  def go_on(num_steps, until=0, **changes):
    config = tiny_run.config(
      demo_dataset,
      num_steps=num_steps,
      objective__instance_recognition_steps=until,
      eval_every_steps=50,
      checkpoint_every_steps=1,
      **changes,
    )
    train.train_and_evaluate(config, tmp_path / 'own')
    with checkpoint.Checkpoints(tmp_path / 'own', read_only=True) as saved:
      return saved.record(num_steps)['started_from']

  start_from = {'training': 'finetuned', 'network': {'training': 'random'}}
  before = other_run(tmp_path / 'other', demo_dataset, start_from)
  (nearest,) = go_on(1, init_from=str(tmp_path / 'other'))
  assert (nearest['training'], nearest['step']) == ('finetuned', before)
  assert nearest['source'] == str(tmp_path / 'other')
  # The same command, and one that does not repeat it.
  assert go_on(2, init_from=str(tmp_path / 'other')) == [nearest]
  assert go_on(3) == [nearest]
  # What was of Local Aggregation is behind a run that leaves it.
  last, first = go_on(4, until=100)
  assert first == nearest
  assert (last['training'], last['step']) == ('local_aggregation', 3)
  assert last['source'] == str(tmp_path / 'own')
  assert go_on(5, until=100) == [last, first]


def other_run(workdir, dataset, facts):
  """Makes a workdir with one step, of another record; returns the step."""
  config = tiny_run.config(
    dataset, num_steps=1, eval_every_steps=50, checkpoint_every_steps=1
  )
  state = train.train_and_evaluate(config, workdir)
  with checkpoint.Checkpoints(workdir) as checkpoints:
    record = {**checkpoints.record(1), **facts}
    checkpoints.save(state.replace(step=state.step + 1), record)
  return 2
