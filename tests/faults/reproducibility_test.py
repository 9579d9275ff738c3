"""The same command gives the same bits; the order needs no memory."""

import ast
import dataclasses
import pathlib
import time

import fault_runs
import numpy as np
import pytest
import tiny_run

from vie_jax import experiment

OPTIONS = {'num_devices': 1, 'checkpoint_every_steps': 100, 'num_steps': 200}
NUM_REPEATS = 5
NUM_CUTS = 10
MOST_TRIES = 5


@pytest.fixture(scope='module')
def parts(demo_dataset):
  with experiment.open_experiment(tiny_run.config(demo_dataset)) as opened:
    yield opened


def batches(parts, start_step, count, **changes):
  """Training batches from a step on, with fields of `input` changed."""
  config = parts.config.copy_and_resolve_references()
  config.input.update(changes)
  parts = dataclasses.replace(parts, config=config)
  with experiment.train_batches(
    parts, start_step=start_step, seed=config.seed
  ) as opened:
    return [next(opened) for _ in range(count)]


def assert_same(one, other):
  for left, right in zip(one, other, strict=True):
    assert left.keys() == right.keys()
    for name, value in left.items():
      np.testing.assert_array_equal(right[name], value, err_msg=name)


def test_threads_and_prefetching_change_no_pixel(parts):
  expected = batches(parts, 0, 4, num_threads=1, prefetch_batches=1)
  for threads in (0, 1, 2, 4):
    for prefetched in (0, 1, 4, 8):
      found = batches(
        parts, 0, 4, num_threads=threads, prefetch_batches=prefetched
      )
      assert_same(expected, found)


def test_the_order_is_a_function_of_the_step_alone(parts):
  expected = batches(parts, 0, 9)
  for first in (1, 2, 5, 8):
    assert_same(expected[first:], batches(parts, first, 9 - first))


def test_a_late_step_is_found_at_once(parts):
  assert_same(batches(parts, 999_999, 2)[1:], batches(parts, 1_000_000, 1))

  def first_batch(step):
    times = []
    for _ in range(3):
      started = time.perf_counter()
      batches(parts, step, 1, prefetch_batches=0)
      times.append(time.perf_counter() - started)
    return min(times)

  seek = first_batch(1_000_000) - first_batch(0)
  print(f'step 1,000,000 costs {1000 * seek:.1f} ms more than step 0')
  assert seek < 0.1


def test_each_video_is_taken_once_an_epoch_however_often_it_is_killed(parts):
  parts, size = dataclasses.replace(parts, batch_size=2), 2
  per_epoch = parts.train.num_instances // size
  num_steps, rng = 3 * per_epoch, np.random.default_rng(0)
  kills = sorted(rng.choice(np.arange(1, num_steps), NUM_CUTS, replace=False))
  taken = []
  for first, last in zip([0, *kills], [*kills, num_steps], strict=True):
    # What is decoded ahead and lost in a kill was never taken.
    taken += [
      batch['instance_index']
      for batch in batches(parts, int(first), int(last - first))
    ]
  assert len(taken) == num_steps
  for epoch in range(3):
    seen = np.concatenate(taken[epoch * per_epoch : (epoch + 1) * per_epoch])
    assert len(set(seen)) == per_epoch * size


def test_nothing_is_decided_by_the_clock_on_the_wall():
  """It may jump; `time.monotonic` does not."""
  # A number that is never compared, dates that are written, and a name that is
  # behind those that are there in any case.
  allowed = {
    'event_files.py': {'time'},
    'tensorboard_log.py': {'time'},
    'workdir_lock.py': {'time_ns'},
    'result.py': {'now'},
    'report.py': {'now'},
  }
  for path in pathlib.Path(experiment.__file__).parent.rglob('*.py'):
    used = {
      node.attr
      for node in ast.walk(ast.parse(path.read_text('utf-8')))
      if isinstance(node, ast.Attribute)
      and (
        node.attr in ('time_ns', 'now', 'utcnow', 'today')
        or ast.unparse(node) == 'time.time'
      )
    }
    assert used <= allowed.get(path.name, set()), path.name


# By days, every other second.
JUMPS = """
import random, time
real = time.time
def jumping():
  turn = int(time.monotonic() / 2)
  return real() + random.Random(turn).uniform(-1e6, 1e6)
time.time = jumping
"""


@pytest.mark.slow
@pytest.mark.parametrize('threads', ['1', '2'])
def test_the_same_command_gives_the_same_bits(
  demo_dataset, tmp_path, monkeypatch, threads
):
  monkeypatch.setenv('NPROC', threads)
  config = tiny_run.config(demo_dataset, **OPTIONS)
  one, *others = (tmp_path / str(number) for number in range(NUM_REPEATS))
  for workdir in (one, *others):
    tiny_run.run(tiny_run.command(workdir, demo_dataset, **OPTIONS))
  for other in others:
    fault_runs.assert_same_end(one, other, config)
    assert fault_runs.figures(one) == fault_runs.figures(other)
  jumping = tmp_path / 'jumping'
  command = tiny_run.command(jumping, demo_dataset, **OPTIONS)
  # orbax measures its own limits by that clock: a save may fail by it.
  for _ in range(MOST_TRIES):
    ended = fault_runs.finish(fault_runs.patched(command, JUMPS))
    if ended.code != fault_runs.RETRY:
      break
    assert 'could not be saved' in ended.output
  assert ended.code == 0, ended.output
  fault_runs.assert_same_end(one, jumping, config)
  assert fault_runs.figures(one) == fault_runs.figures(jumping)
