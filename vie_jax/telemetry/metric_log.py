"""Where a run's figures go: the log, TensorBoard and `metrics.jsonl`.

The last is one JSON line per step, for reading by programs, and by people
without TensorBoard.

A disk that is full need not end a run: figures are then kept in memory until
there is room.
"""

import json
import math
import pathlib
from collections.abc import Callable, Mapping

from absl import logging
from clu import metric_writers

from vie_jax.files import disk, patient_file
from vie_jax.processes import agreement
from vie_jax.telemetry import metrics_file
from vie_jax.telemetry.scalar_writer import ScalarWriter
from vie_jax.telemetry.tensorboard_log import SummaryWriter
from vie_jax.wording import counted

# Why a step is not saved: who went on from it would lack its figures.
NO_ROOM = 'there is no room for the figures of the steps before it'


def closing(writer: metric_writers.MetricWriter) -> Callable[..., None]:
  """An exit for `contextlib.ExitStack.push`, which closes a writer.

  That there is no room for its last lines matters less than an error that
  ends the run anyway.
  """

  def close(kind, *unused_exception):
    try:
      writer.close()
    except OSError as error:
      if kind is None:
        raise
      logging.error('Figures of the last steps are not written: %s', error)

  return close


class JsonLinesWriter(ScalarWriter):
  """Appends scalars to `metrics.jsonl`.

  Attributes:
    kept: lines of `from_step` that are not dropped.

  Args:
    workdir: the run's folder.
    from_step: of the checkpoint that the run goes on from; lines of later
      steps, left by a run that was killed after it, are dropped. None for a
      run that starts anew: all are.
    again: name of a figure; the line of `from_step` that has it is dropped,
      too, since it will be written again. None drops no such line.
    waits_for_room: whether lines are kept in memory while the disk is full;
      if not, that is an error.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    from_step: int | None,
    again: str | None = None,
    waits_for_room: bool = False,
  ):
    path = pathlib.Path(workdir) / metrics_file.NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    self.kept = []
    fresh = path.with_suffix('.tmp')
    with fresh.open('w', encoding='utf-8') as file:
      for line in _lines_up_to(from_step, workdir, again):
        file.write(json.dumps(line) + '\n')
        if line['step'] == from_step:
          self.kept.append(line)
    disk.sync(fresh)
    fresh.replace(path)
    disk.sync(path.parent)
    self._path = path
    self._file = patient_file.PatientFile(path, waits=waits_for_room)

  @property
  def is_behind(self) -> bool:
    """Whether lines wait for room."""
    return self._file.is_behind

  @property
  def num_dropped(self) -> int:
    """Lines that were given up, as too many waited."""
    return self._file.num_dropped

  def write_scalars(self, step, scalars):
    """Writes one line; a figure that is not finite becomes null."""
    values = {name: float(value) for name, value in scalars.items()}
    finite = {
      name: value if math.isfinite(value) else None
      for name, value in values.items()
    }
    self._file.write(json.dumps({'step': int(step), **finite}) + '\n')

  def flush(self):
    """Writes the lines that waited for room."""
    self._file.flush()

  def sync(self):
    """Brings what is written to the disk; raises OSError if it cannot."""
    disk.sync(self._path)

  def close(self):
    """Closes the file; raises OSError if there is no room for all lines."""
    self._file.close()


def _lines_up_to(step, workdir, again):
  """Lines of a run that goes on from a step: those that still hold."""
  if step is None:
    return
  for line in metrics_file.read(workdir):
    is_again = line['step'] == step and again in line
    if line['step'] <= step and not is_again:
      yield line


class Writers(metric_writers.MultiWriter):
  """All that a run's figures go to; says when figures begin to wait for room.

  Args:
    lines: of `metrics.jsonl`; None if this process writes no files.
    summaries: of TensorBoard, likewise.
  """

  def __init__(
    self,
    lines: JsonLinesWriter | None = None,
    summaries: SummaryWriter | None = None,
  ):
    self._files = [file for file in (summaries, lines) if file is not None]
    super().__init__([_ScalarsToLog(), *self._files])
    self._lines = lines
    self._was_behind = False

  @property
  def is_behind(self) -> bool:
    """Whether figures that this process writes wait for room."""
    return any(file.is_behind for file in self._files)

  def write_scalars(self, step, scalars):
    """Writes figures of a step."""
    super().write_scalars(step, scalars)
    self._tell()

  def write_to_files(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes figures of a step that would drown others in the log."""
    for file in self._files:
      file.write_scalars(step, scalars)
    self._tell()

  def flush(self):
    """Writes what waits, if there is room."""
    super().flush()
    self._tell()

  def make_safe(self) -> bool:
    """Brings all figures to the disk; False if some wait for room.

    Raises:
      OSError: if it is not room that is missing.
    """
    self.flush()
    if self.is_behind:
      return False
    try:
      for file in self._files:
        file.sync()
    except OSError as error:
      if not disk.is_no_room(error):
        raise
      return False
    return True

  def _tell(self):
    if self.is_behind == self._was_behind:
      return
    self._was_behind = self.is_behind
    if self.is_behind:
      logging.error(
        'There is no room for the figures (%s). They are kept in memory until '
        'there is; training goes on.',
        metrics_file.NAME,
      )
    else:
      logging.warning(
        'There is room for the figures again: those that waited are written%s.',
        f', but for {counted(self._lines.num_dropped, "line")}'
        if self._lines.num_dropped
        else '',
      )


def make_safe(writer: Writers) -> bool:
  """Brings figures to the disk; False if some wait. All processes call this.

  A checkpoint outlives a power cut, and who goes on from it writes no figures
  of the steps before: they must outlive it, too.
  """
  return not agreement.anywhere(not writer.make_safe())


class _ScalarsToLog(metric_writers.LoggingWriter):
  """Logs scalars; long texts are for TensorBoard.

  Speed is told of in the line of progress.
  """

  def write_scalars(self, step, scalars):
    """Logs figures of a step."""
    told = {
      name: value
      for name, value in scalars.items()
      if name not in ('steps_per_sec', 'uptime', 'input/wait_share')
    }
    if told:
      super().write_scalars(step, told)

  def write_texts(self, *unused_args):
    """Not kept here."""


def open_writers(
  workdir: str | pathlib.Path,
  *,
  from_step: int | None,
  again: str | None = None,
  is_main: bool,
  waits_for_room: bool = False,
) -> Writers:
  """Opens everything that a run's figures go to.

  Args:
    workdir: receives TensorBoard files and `metrics.jsonl`.
    from_step: see `JsonLinesWriter`; TensorBoard is told to drop what is lost.
    again: likewise.
    is_main: whether this process writes files, or only its log.
    waits_for_room: see `JsonLinesWriter`; of TensorBoard, too.
  """
  if not is_main:
    return Writers()
  lines = JsonLinesWriter(
    workdir, from_step=from_step, again=again, waits_for_room=waits_for_room
  )
  # Not asynchronous: a thread that writes while the process is killed
  # leaves a torn file, and a few scalars cost nothing.
  summaries = SummaryWriter(
    workdir,
    waits=waits_for_room,
    from_step=from_step or 0,
    kept=[_figures(line) for line in lines.kept],
  )
  return Writers(lines, summaries)


def _figures(line):
  """Of a line of `metrics.jsonl`, as they were written."""
  return {
    name: math.nan if value is None else value
    for name, value in line.items()
    if name != 'step' and isinstance(value, int | float | None)
  }
