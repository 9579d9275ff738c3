"""Signals that ask a run to leave: it saves the step, and nothing is lost."""

import os
import random
import select
import subprocess

import fault_runs
import pytest
import tiny_run
from fault_runs import INT, INTERRUPTED, RETRY, TERM, USR1

OPTIONS = {'checkpoint_every_steps': 100, 'num_devices': 1}
NUM_SIGNALS = 30
# So long that no run comes to its end before the last signal.
LONG = {**OPTIONS, 'num_steps': 200, 'checkpoint_every_steps': 1000}


@pytest.fixture(scope='module')
def whole(demo_dataset, tmp_path_factory):
  """The workdir of the run that nothing happens to."""
  folder = tmp_path_factory.mktemp('whole')
  tiny_run.run(tiny_run.command(folder, demo_dataset, **OPTIONS))
  return folder


def moments(workdir):
  """Name -> function that says whether a run is there."""
  return {
    'start': fault_runs.has_logged(workdir, 'Config:'),
    'compile': fault_runs.has_logged(workdir, 'instance recognition. This can'),
    'step': fault_runs.has_step(workdir, 5),
    'k-means': fault_runs.has_step(workdir, 10),
    'evaluation': fault_runs.has_step(workdir, 12),
    'last': fault_runs.has_step(workdir, 24),
  }


FINETUNING = {
  'mode': 'finetune',
  'init_from': 'random',
  'num_devices': 1,
  'finetune__batch_size': 16,
  'finetune__eval_batch_size': 16,
  'finetune__num_steps': 4,
}


def check_resumed(whole, workdir, dataset):
  """The same command comes to the same end, and tells of it once."""
  output = tiny_run.run(tiny_run.command(workdir, dataset, **OPTIONS))
  config = tiny_run.config(dataset, **OPTIONS)
  fault_runs.assert_same_end(whole, workdir, config)
  assert fault_runs.figures(workdir) == fault_runs.figures(whole)
  return output


@pytest.mark.slow
@pytest.mark.parametrize(
  'moment, number, code',
  [
    ('evaluation', TERM, RETRY),
    ('compile', TERM, RETRY),
    ('start', TERM, RETRY),
    ('step', INT, INTERRUPTED),
    ('step', TERM, RETRY),
    ('k-means', USR1, RETRY),
    ('last', TERM, RETRY),
  ],
)
def test_a_signal_has_the_step_saved(
  whole, demo_dataset, tmp_path, moment, number, code
):
  ended = fault_runs.hit(
    tiny_run.command(tmp_path, demo_dataset, **OPTIONS),
    moments(tmp_path)[moment],
    number,
  )
  assert ended.code == code, ended.output
  assert 'Traceback' not in ended.output
  at_once = moment == 'compile'
  word = 'leaving at once' if at_once else 'stopping'
  assert f'{number.name}: {word}' in ended.output
  if at_once:
    # No step was done, and none is waited for.
    assert not fault_runs.steps_of(tmp_path)
  elif moment != 'start':
    # What was done is what was saved.
    (saved,) = fault_runs.steps_of(tmp_path)
    last = max(step for step, _ in fault_runs.figures(tmp_path))
    assert saved == last
    assert f'step {saved} is saved' in ended.output
  check_resumed(whole, tmp_path, demo_dataset)


@pytest.mark.slow
def test_a_terminal_that_is_closed_has_the_step_saved(
  whole, demo_dataset, tmp_path
):
  terminal, end = os.openpty()
  process = subprocess.Popen(
    tiny_run.command(tmp_path, demo_dataset, **OPTIONS),
    cwd=tiny_run.REPOSITORY,
    env=tiny_run.environment(),
    preexec_fn=lambda: os.login_tty(end),
  )
  os.close(end)
  has_begun = fault_runs.has_step(tmp_path, 5)
  while not has_begun():
    # It would wait for somebody to read.
    if select.select([terminal], [], [], 0.05)[0]:
      os.read(terminal, 2**16)
  os.close(terminal)
  assert process.wait(tiny_run.PATIENCE_SECONDS) == RETRY
  (saved,) = fault_runs.steps_of(tmp_path)
  log = (tmp_path / 'train.log').read_text()
  assert 'SIGHUP: stopping' in log
  assert f'step {saved} is saved' in log
  check_resumed(whole, tmp_path, demo_dataset)


@pytest.mark.slow
def test_many_signals_at_any_step_lose_no_step(demo_dataset, tmp_path):
  whole, told = tmp_path / 'whole', tmp_path / 'told'
  tiny_run.run(tiny_run.command(whole, demo_dataset, **LONG))
  command = tiny_run.command(told, demo_dataset, **LONG)
  generator, step, seconds = random.Random(0), 0, []
  for number in range(NUM_SIGNALS):
    signal, code = ((TERM, RETRY), (INT, INTERRUPTED), (USR1, RETRY))[
      number % 3
    ]
    is_there = fault_runs.has_step(told, step + generator.randint(1, 3))
    ended = fault_runs.hit(command, is_there, signal)
    assert ended.code == code, ended.output
    assert 'Traceback' not in ended.output
    # What was done is what was saved, by the signal alone.
    step = max(step for step, _ in fault_runs.figures(told))
    assert fault_runs.steps_of(told)[-1] == step < LONG['num_steps']
    seconds.append(ended.seconds)
  tiny_run.run(command)
  fault_runs.assert_same_end(whole, told, tiny_run.config(demo_dataset, **LONG))
  assert fault_runs.figures(told) == fault_runs.figures(whole)
  print(
    f'{NUM_SIGNALS} signals, 0 steps lost, final state bit-identical; out '
    f'after {sorted(seconds)[len(seconds) // 2]:.1f} s, at most '
    f'{max(seconds):.1f} s'
  )


@pytest.mark.slow
def test_a_finetuning_that_compiles_is_left_at_once(demo_dataset, tmp_path):
  folder = tmp_path / 'finetune' / 'demo_motion_random'
  command = tiny_run.command(
    tmp_path, demo_dataset, dataset__label_columns="('motion',)", **FINETUNING
  )
  compiles = fault_runs.has_logged(folder, 'Compiling the step')
  ended = fault_runs.hit(command, compiles, TERM)
  assert ended.code == RETRY, ended.output
  assert 'SIGTERM: leaving at once' in ended.output
  assert not fault_runs.steps_of(folder)
  assert 'This training is complete: step 4' in tiny_run.run(command)
