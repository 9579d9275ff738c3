"""Says of work on many rows how far it is, and how long it still takes."""

import time

from absl import logging

REPORT_EVERY_SECONDS = 10.0


class RowProgress:
  """Logs now and then how many rows are done.

  Args:
    verb: what is done with them, as the first word of a line: 'Embedded'.
    num_rows: of all.
    unit: what a row is, in the plural.
    num_done: of an earlier run that this one resumes.
    tells_end: whether there is a line at the end in any case, not only if the
      work was long.
  """

  def __init__(
    self,
    verb: str,
    num_rows: int,
    unit: str,
    *,
    num_done: int = 0,
    tells_end: bool = False,
  ):
    self._verb, self._num_rows, self._unit = verb, num_rows, unit
    self._first = num_done
    self._tells_end = tells_end
    self._started = self._reported = time.monotonic()

  def report(self, num_done: int) -> None:
    """Takes note of how many rows are done, and tells if it is time to."""
    now = time.monotonic()
    is_end = num_done == self._num_rows and self._tells_end
    if not is_end and now < self._reported + REPORT_EVERY_SECONDS:
      return
    self._reported = now
    self._tells_end = True
    rate = (num_done - self._first) / max(now - self._started, 1e-9)
    left = (self._num_rows - num_done) / max(rate, 1e-9)
    logging.info(
      '%s %d of %d %s (%.1f %%), %.1f a second, %.1f minutes to go.',
      self._verb,
      num_done,
      self._num_rows,
      self._unit,
      100 * num_done / max(self._num_rows, 1),
      rate,
      left / 60,
    )
