"""One of several processes is asked to leave, or dies: all end, none hangs."""

import os
import time

import fault_runs
import processes
import pytest
import tiny_run
from fault_runs import KILL, RETRY, TERM

OPTIONS = {
  'num_steps': 400,
  'objective__instance_recognition_steps': 400,
  'eval_every_steps': 400,
  'checkpoint_every_steps': 50,
  'num_devices': 0,
}
# Seconds that a process may be silent, and what else may pass until the last
# one is down: the detection of JAX itself, and other work on this machine.
HEARTBEAT, ALL_DOWN = 10, 20


def start(workdir, dataset, folder, **changes):
  command = tiny_run.command(workdir, dataset, **{**OPTIONS, **changes})
  command = [*command, f'--heartbeat_seconds={HEARTBEAT}']
  return processes.Processes([command] * 2, folder, num_devices=2)


def hit(run, workdir, step, index, number):
  """Sends a signal to one process at a step; the seconds until all are down."""
  at_step = fault_runs.has_step(workdir, step)
  deadline = time.monotonic() + tiny_run.PATIENCE_SECONDS
  while not at_step():
    assert all(process.poll() is None for process in run.processes), (
      run.said(0)[-3000:] + run.said(1)[-3000:]
    )
    assert time.monotonic() < deadline
    time.sleep(0.02)
  since = time.monotonic()
  os.kill(run.processes[index].pid, number)
  ended = run.wait()
  return ended, time.monotonic() - since


@pytest.mark.slow
@pytest.mark.parametrize('index', [0, 1])
def test_a_signal_to_one_process_has_all_save_the_same_step(
  demo_dataset, tmp_path, index
):
  workdir = tmp_path / 'run'
  run = start(workdir, demo_dataset, tmp_path / 'logs')
  ended, seconds = hit(run, workdir, 5, index, TERM)
  (saved,) = fault_runs.steps_of(workdir)
  for process in ended:
    assert process.code == RETRY, process.log
    assert f'step {saved} is saved' in process.log
    assert 'Traceback' not in process.log
  print(f'SIGTERM to process {index}: all out after {seconds:.1f} s')
  assert seconds <= ALL_DOWN


@pytest.mark.slow
@pytest.mark.parametrize('index', [0, 1])
def test_a_process_that_is_killed_ends_the_other(demo_dataset, tmp_path, index):
  workdir, options = tmp_path / 'run', {'checkpoint_every_steps': 4}
  run = start(workdir, demo_dataset, tmp_path / 'logs', **options)
  ended, seconds = hit(run, workdir, 9, index, KILL)
  other = ended[1 - index]
  print(f'SIGKILL of process {index}: the other ended with {other.code} ')
  print(f'after {seconds:.1f} s: {other.log.strip().splitlines()[-1][:300]}')
  assert other.code == RETRY, other.log
  if index == 0:
    assert 'Process 0 of 2, at localhost:' in other.log.splitlines()[-1]
  assert seconds <= ALL_DOWN
  saved = fault_runs.steps_of(workdir)
  assert saved
  # The same command goes on, to the state of a run that nothing happened to.
  options['num_steps'] = 16
  whole = tmp_path / 'whole'
  for folder in (workdir, whole):
    for process in start(
      folder, demo_dataset, tmp_path / f'logs-{folder.name}', **options
    ).wait():
      assert process.code == 0, process.log
  config = tiny_run.config(demo_dataset, **{**OPTIONS, **options})
  config.num_devices = 4
  fault_runs.assert_same_end(whole, workdir, config)
