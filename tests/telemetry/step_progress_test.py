import logging

import pytest

from vie_jax.telemetry import step_progress


class Figures:
  """Keeps what is written: (step, name) -> value."""

  def __init__(self):
    self.found = {}

  def write_scalars(self, step, scalars):
    self.found |= {(step, name): value for name, value in scalars.items()}


def train(
  caplog, seconds_of_step, *, new=(1,), every_steps=2, first_step=0, waits=0
):
  """Runs steps that take so many seconds each; returns figures and lines."""
  caplog.set_level(logging.INFO)
  now, figures = 100.0, Figures()
  progress = step_progress.StepProgress(
    num_steps=first_step + len(seconds_of_step),
    every_steps=every_steps,
    writer=figures,
    clock=lambda: now,
  )
  for done, seconds in enumerate(seconds_of_step, first_step + 1):
    with progress.waiting():
      now += waits
    now += seconds - waits
    progress(done, is_new=done in new)
  return figures.found, caplog.messages


def test_what_the_first_step_compiled_is_no_part_of_the_speed(caplog):
  figures, lines = train(caplog, [60, 0.5, 0.5, 0.5])
  assert lines == [
    'Progress: 2.0 steps/s, 50.0% (2/4), ETA: 1s',
    'Progress: 2.0 steps/s, 100.0% (4/4), ETA: 0s',
  ]
  assert figures[4, 'steps_per_sec'] == 2.0
  assert figures[4, 'uptime'] == 61.5


def test_what_a_later_objective_compiles_is_no_part_of_it_either(caplog):
  figures, _ = train(caplog, [60, 1, 1, 99, 2, 2], new=(1, 4), every_steps=3)
  speeds = {
    step: value
    for (step, name), value in figures.items()
    if name == 'steps_per_sec'
  }
  assert speeds == {3: 1.0, 6: 0.5}


def test_slow_steps_are_told_by_their_seconds(caplog):
  _, lines = train(caplog, [60, 30, 30, 30], first_step=6, new=(7,))
  assert lines[0] == 'Progress: 30.0 s/step, 80.0% (8/10), ETA: 1m'


def test_pauses_count_for_the_time_that_is_left(caplog):
  # Every fourth step is followed by an evaluation.
  seconds = [1, 1, 1, 1, 1, 1, 1, 9, 1, 1, 1, 9, 1, 1, 1, 9, *[1] * 84]
  train(caplog, seconds)
  by_step = {
    line.partition('(')[2].partition('/')[0]: line for line in caplog.messages
  }
  # By the eight steps before; of the last two, one in two is a pause.
  assert by_step['16'].endswith('5.0 s/step, 16.0% (16/100), ETA: 4m 12s')
  assert by_step['14'].startswith('Progress: 1.0 steps/s')
  assert by_step['14'].endswith('ETA: 4m 18s')


def test_a_new_speed_is_known_after_as_many_steps_again(caplog):
  _, lines = train(caplog, [*[1] * 21, *[3] * 79])
  assert 'Progress: 3.0 s/step, 44.0% (44/100), ETA: 2m 48s' in lines


def test_a_last_step_is_told_of_whatever_its_number(caplog):
  _, lines = train(caplog, [1, 1, 1], every_steps=100)
  assert lines == ['Progress: 1.0 steps/s, 100.0% (3/3), ETA: 0s']


def test_steps_that_take_no_time_by_the_clock_are_fast(caplog):
  _, (line,) = train(caplog, [0, 0])
  assert line.endswith('ETA: 0s')


def test_waiting_for_input_is_told_if_it_is_much(caplog):
  figures, lines = train(caplog, [60, 4, 4, 4, 4], waits=3, new=(1, 4))
  # Steps 2, and 5 alone: the fourth was new.
  assert figures[2, 'input/wait_share'] == 0.75
  assert figures[5, 'input/wait_share'] == 0.75
  assert all(
    line.endswith(', waiting for input 75% of the time') for line in lines
  )
  caplog.clear()
  figures, lines = train(caplog, [60, 4], waits=0.25)
  assert figures[2, 'input/wait_share'] == 0.0625
  assert lines == ['Progress: 4.0 s/step, 100.0% (2/2), ETA: 0s']


@pytest.mark.parametrize(
  ('seconds', 'words'),
  [
    (0, '0s'),
    (42.4, '42s'),
    (59.6, '1m'),
    (125, '2m 5s'),
    (3600, '1h'),
    (7505, '2h 5m'),
    (200_000, '2d 7h'),
  ],
)
def test_a_duration_has_two_units_at_most(seconds, words):
  assert step_progress.duration(seconds) == words
