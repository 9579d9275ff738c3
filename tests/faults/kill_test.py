"""kill -9 at random moments: nothing that was saved is lost, no bit differs."""

import random
import sys
import time

import fault_runs
import pytest
import tiny_run

NUM_KILLS = 30
OPTIONS = {'num_devices': 1, 'checkpoint_every_steps': 2, 'eval_every_steps': 6}
FINETUNE = {
  'mode': 'finetune',
  'num_devices': 1,
  'init_from': 'random',
  'dataset__label_columns': "('motion',)",
  'finetune__batch_size': 16,
  'finetune__eval_batch_size': 16,
  'finetune__num_steps': 12,
  'finetune__eval_every_steps': 4,
  'finetune__checkpoint_every_steps': 2,
}


def progress(log):
  """A number that grows while a run writes to its log."""
  return log.stat().st_size if log.exists() else 0


def kill_at_a_moment(command, folder, generator):
  """Kills a run some time after it has begun to do something new.

  The moments lie within two seconds behind a line of its log, so that they
  fall into steps, saves, clusterings and evaluations alike.

  Returns:
    The exit code if it came to its end before, or None.
  """
  process = tiny_run.start(command)
  log = folder / 'train.log'
  before, until = progress(log), time.monotonic() + tiny_run.PATIENCE_SECONDS
  lines = generator.randrange(8, 60)
  while process.poll() is None and time.monotonic() < until:
    if progress(log) - before > 80 * lines:
      time.sleep(generator.uniform(0, 2))
      break
    time.sleep(0.01)
  if process.poll() is not None:
    assert process.returncode == 0, tiny_run.output_of(process)
    return 0
  tiny_run.kill(process)
  return None


def kill_often(command, folder, count):
  """Kills a run so often, and each time sees that no saved step is gone."""
  generator, newest, num_kills = random.Random(count), -1, 0
  while num_kills < count:
    if kill_at_a_moment(command, folder, generator) == 0:
      break
    num_kills += 1
    steps = fault_runs.steps_of(folder)
    assert max(steps, default=-1) >= newest, steps
    newest = max(steps, default=-1)
  return num_kills


@pytest.mark.slow
def test_a_training_that_is_killed_often_ends_bit_equal(demo_dataset, tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  tiny_run.run(tiny_run.command(whole, demo_dataset, **OPTIONS))
  command = tiny_run.command(killed, demo_dataset, **OPTIONS)
  num_kills = kill_often(command, killed, NUM_KILLS - 10)
  tiny_run.run(command)
  print(f'{num_kills} kills, 0 lost checkpoints, final state bit-identical')
  config = tiny_run.config(demo_dataset, **OPTIONS)
  fault_runs.assert_same_end(whole, killed, config)
  assert fault_runs.figures(killed) == fault_runs.figures(whole)
  assert num_kills >= 5


@pytest.mark.slow
def test_a_finetuning_that_is_killed_often_ends_bit_equal(
  demo_dataset, tmp_path
):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  command = tiny_run.command(whole, demo_dataset, **FINETUNE)
  tiny_run.run(command)
  command = tiny_run.command(killed, demo_dataset, **FINETUNE)
  folders = [path / 'finetune' / 'demo-motion' for path in (whole, killed)]
  num_kills = kill_often(command, folders[1], 10)
  tiny_run.run(command)
  print(f'{num_kills} kills of a finetuning')
  expected, found = (fault_runs.digests_of(folder) for folder in folders)
  assert found == expected
  figures = [fault_runs.figures(folder) for folder in folders]
  assert figures[0] == figures[1]
  assert num_kills >= 2


@pytest.mark.slow
def test_a_supervised_run_ends_by_itself_under_kills(demo_dataset, tmp_path):
  """Effective time under kills, and the time from a restart to a step."""
  command = tiny_run.command(tmp_path, demo_dataset, **OPTIONS)
  supervise = [
    sys.executable,
    str(tiny_run.REPOSITORY / 'launch' / 'supervise.py'),
    '--first-wait=0.1',
    '--max-restarts=3',
    '--',
    *command,
  ]
  process, generator = tiny_run.start(supervise), random.Random(0)
  num_kills, log = 0, tmp_path / 'train.log'
  while process.poll() is None and num_kills < 5:
    before = progress(log)
    while process.poll() is None and progress(log) < before + 4000:
      time.sleep(0.05)
    time.sleep(generator.uniform(0, 3))
    num_kills += fault_runs.kill_children(process.pid)
  output = tiny_run.output_of(process)
  assert process.returncode == 0, output
  assert fault_runs.steps_of(tmp_path)[-1] == tiny_run.NUM_STEPS
  assert output.count('supervise: exit code -9') == num_kills >= 2
