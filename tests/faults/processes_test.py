"""One of several processes is asked to leave, or dies: all end, none hangs."""

import collections
import os
import random
import statistics
import time

import fault_runs
import processes
import pytest
import tiny_run
from fault_runs import KILL, RETRY, TERM

OPTIONS = {
  'objective__instance_recognition_steps': 400,
  'eval_every_steps': 400,
  'num_devices': 0,
}
# Seconds that a process may be silent, and what else may pass until the last
# one is down: the detection of JAX itself, and other work on this machine.
HEARTBEAT, ALL_DOWN = 10, 20
NUM_TURNS = 10
ABORTED = -6


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


class Ends:
  """A run of two processes that is started and ended again and again.

  Attributes:
    workdir: of the run.
    seconds: from each signal until both processes were down.
  """

  def __init__(self, dataset, folder, **changes):
    self._dataset, self._folder, self._changes = dataset, folder, changes
    self.workdir, self.seconds = folder / 'run', []

  def many(self, count, number, check):
    """Sends the signal to one process, in turns, some steps after each start."""
    generator, step = random.Random(count), 0
    for turn in range(count):
      index = turn % 2
      logs = self._folder / f'logs-{turn}'
      run = start(self.workdir, self._dataset, logs, **self._changes)
      to_step = step + generator.randint(1, 6)
      ended, seconds = hit(run, self.workdir, to_step, index, number)
      self.seconds.append(seconds)
      check(ended, index)
      assert seconds <= ALL_DOWN
      step = max(step for step, _ in fault_runs.figures(self.workdir))

  def go_on(self):
    """The same command comes to the end of a run that nothing happens to."""
    whole = self._folder / 'whole'
    for workdir in (self.workdir, whole):
      logs = self._folder / f'logs-{workdir.name}'
      for process in start(
        workdir, self._dataset, logs, **self._changes
      ).wait():
        assert process.code == 0, process.log
    config = tiny_run.config(self._dataset, **{**OPTIONS, **self._changes})
    config.num_devices = 4
    fault_runs.assert_same_end(whole, self.workdir, config)

  def report(self):
    """How long it took."""
    median = statistics.median(self.seconds)
    return f'out after {median:.1f} s, at most {max(self.seconds):.1f} s'


@pytest.mark.slow
def test_a_signal_to_one_process_has_all_save_the_same_step(
  demo_dataset, tmp_path
):
  # No step is saved but for a signal.
  run = Ends(demo_dataset, tmp_path, num_steps=150, checkpoint_every_steps=1000)

  def check(ended, unused_index):
    saved = fault_runs.steps_of(run.workdir)[-1]
    assert saved == max(step for step, _ in fault_runs.figures(run.workdir))
    for process in ended:
      assert process.code == RETRY, process.log
      assert f'step {saved} is saved' in process.log
      assert 'Traceback' not in process.log

  run.many(NUM_TURNS, TERM, check)
  run.go_on()
  print(f'{NUM_TURNS} times SIGTERM, 0 steps lost: {run.report()}')


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other(demo_dataset, tmp_path):
  run = Ends(demo_dataset, tmp_path, num_steps=150, checkpoint_every_steps=4)
  codes = collections.Counter()

  def check(ended, index):
    other = ended[1 - index]
    codes[other.code] += 1
    # JAX may find out first, and aborts.
    assert other.code in (RETRY, ABORTED), other.log
    if index == 0 and other.code == RETRY:
      assert 'Process 0 of 2, at localhost:' in other.log.splitlines()[-1]

  run.many(NUM_TURNS, KILL, check)
  run.go_on()
  print(f'{NUM_TURNS} times SIGKILL, final state bit-identical: {run.report()}')
  print(f'exit codes of the other: {dict(codes)}')
