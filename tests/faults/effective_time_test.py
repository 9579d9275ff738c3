"""R14: what kills cost a run that is started again each time."""

import contextlib
import signal
import statistics
import subprocess
import sys
import time

import fault_runs
import pytest
import tiny_run

from vie_jax.telemetry import metrics_file

WITHOUT_KILLS_SECONDS = 120
WITH_KILLS_SECONDS = 20 * 60
KILL_EVERY_SECONDS, SAVE_EVERY_SECONDS = 120, 5
LEAST_EFFECTIVE, LONGEST_RESTART_SECONDS = 0.9, 10
OPTIONS = {
  'num_devices': 1,
  'num_steps': 10**7,
  'objective__instance_recognition_steps': 10**7,
  'eval_every_steps': 10**7,
  'log_every_steps': 5,
}


def last_step(workdir):
  return max((line['step'] for line in metrics_file.read(workdir)), default=0)


@contextlib.contextmanager
def supervised(workdir, dataset, save_every_steps):
  """A run below launch/supervise.py; at the end it saves its last step."""
  options = {**OPTIONS, 'checkpoint_every_steps': save_every_steps}
  with (workdir.with_suffix('.said')).open('w') as output:
    process = subprocess.Popen(
      [
        sys.executable,
        str(tiny_run.REPOSITORY / 'launch' / 'supervise.py'),
        '--',
        *tiny_run.command(workdir, dataset, **options),
      ],
      env=tiny_run.environment(),
      stdout=output,
      stderr=subprocess.STDOUT,
    )
  try:
    yield process
  finally:
    process.send_signal(signal.SIGTERM)
    code = process.wait(tiny_run.PATIENCE_SECONDS)
  assert code == fault_runs.RETRY


def steps_per_second(dataset, workdir):
  """Of a run that nothing happens to, behind its first step."""
  with supervised(workdir, dataset, 200) as process:
    fault_runs.wait_until(fault_runs.has_step(workdir, 100), process)
    started, first = time.monotonic(), last_step(workdir)
    time.sleep(WITHOUT_KILLS_SECONDS)
    return (last_step(workdir) - first) / (time.monotonic() - started)


def seconds_to_a_step(log, process, since):
  """Until figures are written by the process that was started again."""
  killed, grown = log.stat().st_ino, None

  def has_stepped():
    nonlocal grown
    found = log.stat()
    if found.st_ino == killed:
      return False
    # Begun anew with the lines up to the checkpoint, then appended to.
    grown = found.st_size if grown is None else grown
    return found.st_size > grown

  fault_runs.wait_until(has_stepped, process)
  return time.monotonic() - since


@pytest.mark.slow
def test_a_run_that_is_killed_every_two_minutes_loses_a_tenth_at_most(
  demo_dataset, tmp_path
):
  pace = steps_per_second(demo_dataset, tmp_path / 'whole')
  workdir = tmp_path / 'killed'
  save_every_steps = max(1, round(SAVE_EVERY_SECONDS * pace))
  log, restarts = workdir / metrics_file.NAME, []
  with supervised(workdir, demo_dataset, save_every_steps) as process:
    fault_runs.wait_until(fault_runs.has_step(workdir, 5), process)
    started, first = time.monotonic(), last_step(workdir)
    while time.monotonic() - started < WITH_KILLS_SECONDS:
      time.sleep(KILL_EVERY_SECONDS)
      since = time.monotonic()
      assert fault_runs.kill_children(process.pid) == 1
      restarts.append(seconds_to_a_step(log, process, since))
    seconds = time.monotonic() - started
  # What is done is what a checkpoint keeps.
  effective = (fault_runs.steps_of(workdir)[-1] - first) / (pace * seconds)
  print(
    f'{len(restarts)} kills in {seconds:.0f} s at {pace:.1f} steps/s, a save '
    f'every {save_every_steps} steps: effective time {effective:.1%}; seconds '
    f'to the next step: {statistics.median(restarts):.1f}, at most '
    f'{max(restarts):.1f}'
  )
  assert effective >= LEAST_EFFECTIVE
  assert max(restarts) <= LONGEST_RESTART_SECONDS
