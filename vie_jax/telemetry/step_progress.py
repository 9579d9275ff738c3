"""How fast a training goes, and how long it still takes."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from absl import logging

# Waiting for the input for a smaller share of the time is not worth a word.
_MIN_SHARE_TOLD = 0.1

_UNITS = (('d', 86_400), ('h', 3600), ('m', 60), ('s', 1))


class Writer(Protocol):
  """Takes figures."""

  def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
    """Writes figures of a step."""


class StepProgress:
  """Logs and writes speed now and then; to be called after each step.

  What was compiled is left out: the time counts from the end of the last step
  that was the first of its kind. The speed is that since the last report; the
  time that is left is estimated by the last half of these steps, so that
  evaluations, k-means and saves between them count as often as they come.

  Args:
    num_steps: of the whole training.
    every_steps: how often to tell.
    writer: receives `steps_per_sec`, `uptime` in seconds, and
      `input/wait_share`, of the time, in [0, 1]: near 1 where steps are as
      slow as their input, near 0 where the input is ready before them.
    clock: gives seconds that never go back.
  """

  def __init__(
    self,
    *,
    num_steps: int,
    every_steps: int,
    writer: Writer,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._num_steps = num_steps
    self._every_steps = every_steps
    self._writer = writer
    self._clock = clock
    self._begin = clock()
    # Steps of reports, and when they were done, from where the time counts.
    self._reports = collections.deque([(0, self._begin)])
    self._first = 0
    self._waited = 0.0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """What is done in here is waiting for the input."""
    begin = self._clock()
    yield
    self._waited += self._clock() - begin

  def __call__(self, done: int, *, is_new: bool) -> None:
    """Takes note of a step, and tells if it is time to.

    Args:
      done: steps of the training, that one included.
      is_new: whether it was the first of its kind since the start.
    """
    now = self._clock()
    if is_new:
      self._reports = collections.deque([(done, now)])
      self._first, self._waited = done, 0.0
    elif done % self._every_steps == 0 or done == self._num_steps:
      step, then = self._reports[-1]
      seconds = max(now - then, 1e-9)
      rate, share = (done - step) / seconds, self._waited / seconds
      self._reports.append((done, now))
      self._waited = 0.0
      self._writer.write_scalars(
        done,
        {
          'steps_per_sec': rate,
          'uptime': now - self._begin,
          'input/wait_share': share,
        },
      )
      self._tell(done, rate, share)

  def _seconds_left(self) -> float:
    done, now = self._reports[-1]
    while self._reports[1][0] <= (self._first + done) / 2:
      self._reports.popleft()
    step, then = self._reports[0]
    return (self._num_steps - done) * (now - then) / (done - step)

  def _tell(self, done, rate, share):
    waits = ''
    if share >= _MIN_SHARE_TOLD:
      waits = f', waiting for input {share:.0%} of the time'
    logging.info(
      'Progress: %s, %.1f%% (%d/%d), ETA: %s%s',
      f'{rate:.1f} steps/s' if rate >= 1 else f'{1 / rate:.1f} s/step',
      100 * done / self._num_steps,
      done,
      self._num_steps,
      duration(self._seconds_left()),
      waits,
    )


def duration(seconds: float) -> str:
  """A time in its two largest units, such as '2h 5m' or '42s'.

  Args:
    seconds: at least 0.
  """
  left, parts = round(seconds), []
  for unit, size in _UNITS:
    count, left = divmod(left, size)
    if count or (unit == 's' and not parts):
      parts.append(f'{count}{unit}')
  return ' '.join(parts[:2])
