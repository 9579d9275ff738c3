"""R1-R3: kill -9 at random moments, while saving and deleting, too."""

import random
import sys
import time

import jax
import numpy as np
import pytest
import tiny_run
from faults import checkpoint_program

from vie_jax import checkpoint, sharding

SAVE_EVERY = 10


def command(workdir, num_steps, keep, seconds_per_step):
  program = 'tests.faults.checkpoint_program'
  arguments = [sys.executable, '-m', program, str(workdir)]
  arguments += [f'--num-steps={num_steps}', f'--save-every={SAVE_EVERY}']
  arguments.append(f'--seconds-per-step={seconds_per_step}')
  return arguments + ([f'--keep={keep}'] if keep else [])


def on_host(state):
  leaves = jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))
  return [np.asarray(leaf) for leaf in leaves]


class Kills:
  """One run that is killed again and again, against one that is not."""

  def __init__(self, folder, num_steps, seconds_per_step):
    self.whole, self.killed = folder / 'whole', folder / 'killed'
    self.shapes = checkpoint_program.shapes(sharding.make_mesh(1))
    self.command = command(self.killed, num_steps, 2, seconds_per_step)
    self.lost_steps, self.listed = [], 0
    tiny_run.run(command(self.whole, num_steps, None, 0))

  def once(self, seconds_after_save, saves_until_kill):
    """Starts the run and kills it; returns whether it was over before."""
    process = tiny_run.start(self.command)
    done, step = [], -1
    for line in process.stdout:
      word, *numbers = line.split()
      if word == 'resumed':
        self.resumed(int(numbers[0]))
      elif word == 'step':
        step = int(numbers[0])
      elif word == 'saving':
        done.append(numbers[0])
      elif word == 'done':
        assert process.wait() == 0
        process.stdout.close()
        return True
      if len(done) == saves_until_kill:
        break
    time.sleep(seconds_after_save)
    process.send_signal(9)
    rest = process.stdout.read().split('\n')
    process.wait()
    steps = [int(line.split()[1]) for line in rest if line[:5] == 'step ']
    self.step_at_kill = max([step, *steps])
    self.check_every_step()
    return any(line == 'done' for line in rest)

  def resumed(self, step):
    """Takes note of what the kill before has cost."""
    if self.lost_steps or step >= 0:
      self.lost_steps.append(self.step_at_kill - max(step, 0))

  def check_every_step(self):
    """Each step that is listed is restored, as the other run saved it."""
    with (
      checkpoint.Checkpoints(self.whole, read_only=True) as whole,
      checkpoint.Checkpoints(self.killed, read_only=True) as killed,
    ):
      for step in killed._steps:
        expected = on_host(whole.restore(step, self.shapes))
        found = on_host(killed.restore(step, self.shapes))
        for one, other in zip(found, expected, strict=True):
          np.testing.assert_array_equal(one, other)
        self.listed += 1

  def finish(self):
    """Lets the run come to its end, and compares the last state."""
    output = tiny_run.run(self.command)
    self.resumed(int(output.split()[1]))
    self.check_every_step()
    folder = self.killed / 'checkpoints'
    assert all(path.name.isdigit() for path in folder.iterdir())


def kill_many_times(folder, number, *, seconds_per_step, latest):
  """Kills a run so many times, up to `latest` seconds after a save begins.

  Returns:
    Share of the kills that cost no more than the steps between two saves.
  """
  moments = random.Random(6)
  kills = Kills(folder, number * 3 * SAVE_EVERY, seconds_per_step)
  for _ in range(number):
    is_over = kills.once(moments.uniform(0, latest), moments.randint(1, 2))
    assert not is_over, 'the run ended before it was killed often enough'
  kills.finish()
  lost = np.array(kills.lost_steps)
  assert len(lost) >= number - 2
  assert lost.max() <= 2 * SAVE_EVERY
  within_one = np.mean(lost <= SAVE_EVERY)
  print(
    f'\n{number} kills, {kills.listed} listed steps restored, 0 lost, at most '
    f'{lost.max()} steps done again ({SAVE_EVERY} between saves; no more than '
    f'these in {100 * within_one:.0f} %), final state bit-identical'
  )
  return within_one


def test_some_kills_lose_nothing(tmp_path):
  kill_many_times(tmp_path, 4, seconds_per_step=0.03, latest=0.35)


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(tmp_path):
  """While arrays are written, records, names, and while steps are removed."""
  kill_many_times(tmp_path, 100, seconds_per_step=0.03, latest=0.35)


@pytest.mark.slow
def test_kills_at_any_time_cost_one_interval_as_a_rule(tmp_path):
  """Where saving takes a small part of the time between saves."""
  share = kill_many_times(tmp_path, 30, seconds_per_step=0.5, latest=5)
  assert share >= 0.9
