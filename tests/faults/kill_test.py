"""kill -9 at random moments: nothing that was saved is lost, no bit differs."""

import collections
import json
import random
import re
import sys
import time

import fault_runs
import pytest
import tiny_run

from vie_jax.results import result

NUM_KILLS, NUM_LABELLED_KILLS = 20, 10
# Of a run of 300 saves that nobody kills.
LONG_SECONDS = 1800
OPTIONS = {'num_devices': 1, 'checkpoint_every_steps': 2, 'eval_every_steps': 6}
# So long that no run comes to its end before the last kill.
LONG = {**OPTIONS, 'num_steps': 600, 'eval_every_steps': 12}
# What is trained on labels: mode -> (folder of its results, fields of its own).
LABELLED = {
  'finetune': ('demo_motion_random', {}),
  'linear_eval': ('demo_random', {'linear_eval__drop_steps': (200,)}),
}


def labelled_options(mode):
  own = {
    'batch_size': 16,
    'eval_batch_size': 16,
    'num_steps': 300,
    'eval_every_steps': 4,
    'checkpoint_every_steps': 2,
  }
  return {
    'mode': mode,
    'num_devices': 1,
    'init_from': 'random',
    'dataset__label_columns': "('motion',)",
    **{f'{mode}__{name}': value for name, value in own.items()},
    **LABELLED[mode][1],
  }


class Kills:
  """A run that is killed again and again, and takes up the work again.

  Attributes:
    hit: what was going on when the run was killed -> how often; 'a save' is
      what is written behind the run's back, also while it does something else.

  Args:
    command: of `tiny_run`.
    folder: of its log and checkpoints.
    announcements: a new file, for what the run does.
    moments: what the run is to be killed in, in turns; None is any moment.
    most_steps: that it takes between two kills, less than these.
  """

  def __init__(self, command, folder, announcements, moments, most_steps):
    self._run = fault_runs.Announced(command, announcements)
    self._folder, self._moments = folder, moments
    self._most_steps = most_steps
    self._newest = -1
    self.hit = collections.Counter()

  def many(self, count):
    """Kills the run so often, and each time sees that no saved step is gone."""
    generator = random.Random(count)
    for number in range(count):
      moment = self._moments[number % len(self._moments)]
      ended = self._once(moment, generator)
      assert ended is None, f'it was done after {number} kills'
      steps = fault_runs.steps_of(self._folder)
      assert max(steps, default=-1) >= self._newest, steps
      self._newest = max(steps, default=-1)

  def _once(self, moment, generator):
    """Kills the run some steps after it goes on, and within a tenth of a second.

    Returns:
      The exit code if it came to its end before, or None.
    """
    self._run.forget()
    process = tiny_run.start(self._run.command)
    to_go, before = generator.randrange(1, self._most_steps), None
    until = time.monotonic() + tiny_run.PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < until:
      step = self._run.step()
      if step is not None and step != before:
        to_go, before = to_go - 1, step
      if to_go <= 0 and (moment is None or moment in self._now()):
        break
      time.sleep(0.001)
    time.sleep(generator.uniform(0, 0.1 if moment else 1))
    if process.poll() is not None:
      assert process.returncode == 0, tiny_run.output_of(process)
      return 0
    tiny_run.kill(process)
    self.hit.update(self._now())
    return None

  def _now(self):
    """What the run does at the moment, or did when it was killed."""
    found = {re.sub(' [0-9]+', '', self._run.last())}
    return found | {'a save'} if fault_runs.is_saving(self._folder) else found

  def report(self):
    """How often what was hit; sees that all moments were."""
    missed = {*self._moments} - {None} - {*self.hit}
    assert not missed, f'never killed in {missed}, but in {self.hit}'
    counts = [f'{what} {count}' for what, count in self.hit.most_common()]
    return f'{", ".join(counts)}; saved by then: step {self._newest}'


def assert_same_tensorboard(one, other):
  """TensorBoard shows the same steps of both, each once."""
  for name in {name for _, name in fault_runs.figures(one)}:
    steps = [fault_runs.tensorboard_steps(path, name) for path in (one, other)]
    assert steps[0] == steps[1], name


@pytest.mark.slow
def test_a_training_that_is_killed_often_ends_bit_equal(demo_dataset, tmp_path):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  command = tiny_run.command(whole, demo_dataset, **LONG)
  tiny_run.run(command, patience_seconds=LONG_SECONDS)
  command = tiny_run.command(killed, demo_dataset, **LONG)
  moments = (None, 'a save', 'k-means', 'the evaluation')
  kills = Kills(command, killed, tmp_path / 'announced', moments, 30)
  kills.many(NUM_KILLS)
  tiny_run.run(command, patience_seconds=LONG_SECONDS)
  config = tiny_run.config(demo_dataset, **LONG)
  fault_runs.assert_same_end(whole, killed, config)
  assert fault_runs.figures(killed) == fault_runs.figures(whole)
  assert_same_tensorboard(killed, whole)
  print(
    f'{NUM_KILLS} kills ({kills.report()}), 0 lost checkpoints, final state '
    'bit-identical'
  )


@pytest.mark.slow
@pytest.mark.parametrize('mode', LABELLED)
def test_a_training_on_labels_that_is_killed_often_ends_bit_equal(
  demo_dataset, tmp_path, mode
):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  options = labelled_options(mode)
  command = tiny_run.command(whole, demo_dataset, **options)
  tiny_run.run(command, patience_seconds=LONG_SECONDS)
  command = tiny_run.command(killed, demo_dataset, **options)
  folders = [path / mode / LABELLED[mode][0] for path in (whole, killed)]
  moments = (None, 'a save', 'the evaluation')
  kills = Kills(command, folders[1], tmp_path / 'announced', moments, 12)
  kills.many(NUM_LABELLED_KILLS)
  tiny_run.run(command, patience_seconds=LONG_SECONDS)
  expected, found = (fault_runs.digests_of(folder) for folder in folders)
  assert found == expected
  figures = [fault_runs.figures(folder) for folder in folders]
  assert figures[0] == figures[1]
  assert_same_tensorboard(*folders)
  results = [
    json.loads((folder / result.FILE).read_text()) for folder in folders
  ]
  for name in ('accuracy', 'best', 'steps', 'network'):
    assert results[0][name] == results[1][name]
  print(
    f'{NUM_LABELLED_KILLS} kills of {mode} ({kills.report()}), the same to the '
    'bit'
  )


@pytest.mark.slow
def test_a_supervised_run_ends_by_itself_under_kills(demo_dataset, tmp_path):
  options = {**OPTIONS, 'num_steps': 200}
  workdir = tmp_path / 'run'
  command = tiny_run.command(workdir, demo_dataset, **options)
  supervise = [
    sys.executable,
    str(tiny_run.REPOSITORY / 'launch' / 'supervise.py'),
    '--first-wait=0.1',
    '--max-restarts=3',
    '--',
    *command,
  ]
  said, generator = tmp_path / 'said', random.Random(0)
  with said.open('w') as output:
    process = tiny_run.start(supervise, output=output)
  num_kills, newest = 0, -1
  while process.poll() is None and num_kills < 5:
    if max(fault_runs.steps_of(workdir), default=-1) > newest:
      time.sleep(generator.uniform(0, 1))
      num_kills += fault_runs.kill_children(process.pid)
      newest = max(fault_runs.steps_of(workdir))
    time.sleep(0.05)
  assert process.wait(LONG_SECONDS) == 0, said.read_text()
  assert fault_runs.steps_of(workdir)[-1] == options['num_steps']
  assert said.read_text().count('supervise: exit code -9') == num_kills >= 2
