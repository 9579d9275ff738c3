"""Where a run's figures go: the log, TensorBoard and `metrics.jsonl`.

The last is one JSON line per step, for reading by programs, and by people
without TensorBoard.
"""

import json
import math
import pathlib
from collections.abc import Iterator

from clu import metric_writers

from vie_jax.untrusted import json_text

FILE_NAME = 'metrics.jsonl'


class DivergedError(RuntimeError):
  """The loss, a parameter or the memory bank is no longer finite."""


def read(workdir: str | pathlib.Path) -> Iterator[dict]:
  """Yields {'step': int, name: float, ...} for each line of a run's log.

  A last line that a kill cut short is left out.
  """
  path = pathlib.Path(workdir) / FILE_NAME
  if not path.exists():
    return
  with path.open(encoding='utf-8', errors='replace') as lines:
    for line in lines:
      try:
        record = json_text.loads(line)
      except ValueError:
        continue
      if isinstance(record, dict) and 'step' in record:
        yield record


def curve(
  workdir: str | pathlib.Path, name: str
) -> tuple[list[int], list[float]]:
  """One figure over time: (steps, values); empty lists if never written."""
  points = [
    (record['step'], record[name]) for record in read(workdir) if name in record
  ]
  return [step for step, _ in points], [value for _, value in points]


class JsonLinesWriter(metric_writers.MetricWriter):
  """Appends scalars to `metrics.jsonl`; the other kinds go to TensorBoard.

  Args:
    workdir: the run's folder.
    from_step: of the checkpoint that the run goes on from; lines of later
      steps, left by a run that was killed after it, are dropped. None for a
      run that starts anew: all are.
    again: name of a figure; the line of `from_step` that has it is dropped,
      too, since it will be written again. None drops no such line.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    from_step: int | None,
    again: str | None = None,
  ):
    kept = [
      line
      for line in read(workdir)
      if from_step is not None
      and line['step'] <= from_step
      and not (line['step'] == from_step and again in line)
    ]
    path = pathlib.Path(workdir) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix('.tmp')
    fresh.write_text(''.join(json.dumps(line) + '\n' for line in kept))
    fresh.replace(path)
    self._file = path.open('a', encoding='utf-8')

  def write_scalars(self, step, scalars):
    """Writes one line; a figure that is not finite becomes null."""
    values = {name: float(value) for name, value in scalars.items()}
    finite = {
      name: value if math.isfinite(value) else None
      for name, value in values.items()
    }
    self._file.write(json.dumps({'step': int(step), **finite}) + '\n')
    self._file.flush()

  def write_summaries(self, *unused_args, **unused_kwargs):
    """Not kept here."""

  def write_images(self, *unused_args):
    """Not kept here."""

  def write_videos(self, *unused_args):
    """Not kept here."""

  def write_audios(self, *unused_args, **unused_kwargs):
    """Not kept here."""

  def write_texts(self, *unused_args):
    """Not kept here."""

  def write_histograms(self, *unused_args):
    """Not kept here."""

  def write_pointcloud(self, *unused_args, **unused_kwargs):
    """Not kept here."""

  def write_hparams(self, *unused_args):
    """Not kept here."""

  def flush(self):
    """Brings all lines to the disk."""
    self._file.flush()

  def close(self):
    """Closes the file."""
    self._file.close()


class _ScalarsToLog(metric_writers.LoggingWriter):
  """Logs scalars; long texts are for TensorBoard."""

  def write_texts(self, *unused_args):
    """Not kept here."""


def open_writers(
  workdir: str | pathlib.Path,
  *,
  from_step: int | None,
  again: str | None = None,
  is_main: bool,
) -> metric_writers.MultiWriter:
  """Opens everything that a run's figures go to.

  Args:
    workdir: receives TensorBoard files and `metrics.jsonl`.
    from_step: see `JsonLinesWriter`.
    again: likewise.
    is_main: whether this process writes files, or only its log.
  """
  writers = [_ScalarsToLog()]
  if is_main:
    # Not asynchronous: a thread that writes while the process is killed
    # leaves a torn file, and a few scalars cost nothing.
    writers += [
      metric_writers.SummaryWriter(str(workdir)),
      JsonLinesWriter(workdir, from_step=from_step, again=again),
    ]
  return metric_writers.MultiWriter(writers)
