"""What becomes of a run some of whose steps are not finite.

The step itself keeps the state as it was, see `finite`. Here the run learns of
it, and stops or goes on, as `config.fault` says.
"""

import collections
import math
from collections.abc import Callable, Sequence
from typing import NoReturn

import jax
import ml_collections
import numpy as np
from absl import logging

from vie_jax import finite
from vie_jax.wording import counted


class SkippedSteps:
  """Counts steps that changed nothing, and decides what follows.

  Args:
    fault: `config.fault`: `on_nonfinite`, `max_skipped_steps` and
      `max_skipped_in_a_row`.
    names: row -> the video that it stands for.
    stop: (step, reason) -> ends the run.
    count: of the run so far.
  """

  def __init__(
    self,
    fault: ml_collections.ConfigDict,
    *,
    names: Callable[[int], str],
    stop: Callable[[int, str], NoReturn],
    count: int = 0,
  ):
    self._fault = fault
    self._names = names
    self._stop = stop
    self.count = count
    self._in_a_row = 0
    self._waiting: collections.deque = collections.deque()

  def add(
    self, step: int, metrics: dict[str, jax.Array], rows: np.ndarray
  ) -> dict[str, jax.Array]:
    """Takes note of a step that the device has been given.

    Args:
      step: its number, from 1.
      metrics: that it will have, `finite.FLAG` among them.
      rows: `instance_index` of its batch, those of this process.

    Returns:
      The metrics to write.
    """
    self._waiting.append((step, metrics, rows))
    return {
      name: value for name, value in metrics.items() if name != finite.FLAG
    }

  def settle(self, *, all_but: int = 0) -> None:
    """Waits for steps and judges them.

    Args:
      all_but: how many of the last ones may still be running.
    """
    while len(self._waiting) > all_but:
      step, metrics, rows = self._waiting.popleft()
      if bool(metrics[finite.FLAG]):
        self._judge(step, _reason(metrics), rows)
      else:
        self._in_a_row = 0

  def _judge(self, step: int, reason: str, rows: Sequence[int]) -> None:
    self.count += 1
    self._in_a_row += 1
    listing = ', '.join(f'{row} {self._names(int(row))}' for row in rows)
    logging.error(
      'Step %d: %s, and nothing of it was kept. Its videos: %s.',
      step,
      reason,
      listing,
    )
    fault = self._fault
    if fault.on_nonfinite == 'stop':
      self._stop(step, reason)
    if self._in_a_row > fault.max_skipped_in_a_row:
      self._stop(
        step,
        f'{reason}, in the last {counted(self._in_a_row, "step")} '
        '(config.fault.max_skipped_in_a_row)',
      )
    if self.count > fault.max_skipped_steps:
      self._stop(
        step,
        f'{reason}, as in {counted(self.count, "step")} so far '
        '(config.fault.max_skipped_steps)',
      )


def _reason(metrics) -> str:
  """What is not finite, by what a step says of itself."""
  values = {
    name.rpartition('/')[2]: float(value) for name, value in metrics.items()
  }
  if not math.isfinite(values['loss']):
    return f'the loss is {values["loss"]}'
  if not math.isfinite(values.get('gradient_norm', 0.0)):
    return f'the gradient is {values["gradient_norm"]}'
  return 'a new parameter, statistic or bank row is not finite'
