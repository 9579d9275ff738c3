"""What a signal finds in the steps of a training on labels."""

import contextlib
import types
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from vie_jax import finite, sharding
from vie_jax.classifiers.loop import Loop
from vie_jax.classifiers.progress import Progress
from vie_jax.classifiers.task import Intervals, Schedule
from vie_jax.input_pipeline import bad_frames
from vie_jax.processes import preemption


@pytest.fixture
def events(monkeypatch):
  """What was done, in order, and where a signal ends the process at once."""
  found = []

  @contextlib.contextmanager
  def leaving():
    found.append('leaving at once')
    yield
    found.append('leaving after the step')

  monkeypatch.setattr(preemption.SIGNALS, 'leaving', leaving)
  return found


class CountingTask:
  """A task whose state is the number of steps done."""

  def __init__(self, events):
    self._events = events

  def step(self, state, unused_batch, unused_rate):
    done = state.step + 1
    self._events.append(f'step {done}')
    metrics = {'loss': jnp.float32(1), finite.FLAG: jnp.bool_(False)}
    return types.SimpleNamespace(step=done), metrics

  def evaluate(self, unused_state):
    return {}


def fake_data():
  batch = {
    'window': np.zeros((8, 1), np.int32),
    'crop': np.zeros((8, 1), np.float32),
    'labels': np.zeros((8, 1), np.int32),
    'instance_index': np.arange(8),
  }
  return types.SimpleNamespace(
    mesh=sharding.make_mesh(1),
    name_of=str,
    open_train=lambda first_step: contextlib.nullcontext(iter([batch] * 9)),
    train_damage=bad_frames.BadFrames(),
    eval_damage=bad_frames.BadFrames(),
  )


def run_to_step_5(events, progress):
  loop = Loop(
    CountingTask(events),
    fake_data(),
    Schedule(learning_rate=0.1, num_steps=5),
    Intervals(log=10, evaluate=10, save=10),
    mock.Mock(),
    mock.Mock(latest_step=5),
    {},
    check_lock=lambda: None,
    fault=default.get_config().fault,
  )
  loop.run(types.SimpleNamespace(step=3), progress)


def test_a_signal_ends_it_at_once_until_its_first_step_is_done(events):
  run_to_step_5(events, Progress(evaluated_step=3))
  assert events == [
    'leaving at once',
    'step 4',
    'leaving after the step',
    'step 5',
  ]


def test_a_signal_waits_where_an_evaluation_would_be_lost(events):
  # It was made up for, and is saved with the next step only.
  run_to_step_5(events, Progress(evaluation_is_due=True))
  assert events == ['step 4', 'step 5']
