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

WITH_KILLS_SECONDS = 20 * 60
KILL_EVERY_SECONDS, SAVE_EVERY_STEPS = 120, 150
LEAST_EFFECTIVE = 0.9
# A start after a kill beside one of a new run, which restores nothing.
MOST_STARTS = 2
OPTIONS = {
  'num_devices': 1,
  'num_steps': 10**7,
  'objective__instance_recognition_steps': 10**7,
  'eval_every_steps': 10**7,
  'log_every_steps': 5,
  'checkpoint_every_steps': SAVE_EVERY_STEPS,
}


def last_step(workdir):
  return max((line['step'] for line in metrics_file.read(workdir)), default=0)


@contextlib.contextmanager
def supervised(workdir, dataset):
  """A run below launch/supervise.py; at the end it saves its last step."""
  with (workdir.with_suffix('.said')).open('w') as output:
    process = subprocess.Popen(
      [
        sys.executable,
        str(tiny_run.REPOSITORY / 'launch' / 'supervise.py'),
        '--',
        *tiny_run.command(workdir, dataset, **OPTIONS),
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


def seconds_of_a_start(dataset, workdir):
  """Of a new run, to its first figures; its programs are compiled already."""
  since = time.monotonic()
  with supervised(workdir, dataset) as process:
    fault_runs.wait_until(fault_runs.has_step(workdir, 5), process)
    return time.monotonic() - since


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
  """Beside its own pace between kills, as others may use the machine, too."""
  seconds_of_a_start(demo_dataset, tmp_path / 'compiles')
  starts = [seconds_of_a_start(demo_dataset, tmp_path / 'before')]
  workdir = tmp_path / 'killed'
  log, restarts, possible = workdir / metrics_file.NAME, [], 0.0
  with supervised(workdir, demo_dataset) as process:
    fault_runs.wait_until(fault_runs.has_step(workdir, 5), process)
    began = since = time.monotonic()
    start = first = last_step(workdir)
    while time.monotonic() - began < WITH_KILLS_SECONDS:
      resumed = time.monotonic()
      time.sleep(KILL_EVERY_SECONDS)
      now = time.monotonic()
      pace = (last_step(workdir) - first) / (now - resumed)
      possible += pace * (now - since)
      since = now
      assert fault_runs.kill_children(process.pid) == 1
      restarts.append(seconds_to_a_step(log, process, since))
      first = last_step(workdir)
  # What is done is what a checkpoint keeps.
  effective = (fault_runs.steps_of(workdir)[-1] - start) / possible
  starts.append(seconds_of_a_start(demo_dataset, tmp_path / 'after'))
  print(
    f'{len(restarts)} kills in {since - began:.0f} s, a save every '
    f'{SAVE_EVERY_STEPS} steps, the last at {pace:.1f} a second: effective time '
    f'{effective:.1%}; seconds to the next step: '
    f'{statistics.median(restarts):.1f}, at most {max(restarts):.1f}; of new '
    f'runs: {starts[0]:.1f} before, {starts[1]:.1f} behind'
  )
  assert effective >= LEAST_EFFECTIVE
  assert statistics.median(restarts) <= MOST_STARTS * statistics.mean(starts)
