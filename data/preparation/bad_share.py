"""Stops a preparation in which too many videos turn out to be unusable."""

from dataset.staging import write_json
from errors import InputError

# Videos that are tried before their share says anything.
FIRST_LOOK = 100


class BadShare:
  """The share of videos that cannot be used, among those tried so far."""

  def __init__(self, records, *, limit_percent, report):
    """Begins a count.

    Args:
      records: dict from path to the record of a video, with a 'reason' if it
        cannot be used; it grows while videos are tried.
      limit_percent: the largest share that is accepted, in [0, 100].
      report: path that receives the list of unusable videos, if they are too
        many.
    """
    self._records = records
    self._limit_percent = limit_percent
    self._report = report
    self._num_bad = sum('reason' in record for record in records.values())

  def add(self, record):
    """Counts one more record, which is already in `records`."""
    self._num_bad += 'reason' in record

  def check(self):
    """Stops the run if too many are unusable.

    Raises:
      InputError: if they are.
    """
    num_tried = len(self._records)
    if num_tried < FIRST_LOOK:
      return
    if 100 * self._num_bad <= self._limit_percent * num_tried:
      return
    bad = [
      {'path': path, 'reason': record['reason']}
      for path, record in sorted(self._records.items())
      if 'reason' in record
    ]
    write_json(self._report, bad, aside=self._report.parent)
    raise InputError(
      f'{self._num_bad} of the {num_tried} videos tried so far cannot be used, '
      f'more than {self._limit_percent} % (--max-bad-percent); the first is '
      f'{bad[0]["path"]!r}: {bad[0]["reason"]}; {self._report} lists them. To go on '
      'nevertheless, give the same command with a larger share'
    )
