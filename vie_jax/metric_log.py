"""Where a run's figures go: the log, TensorBoard and `metrics.jsonl`.

The last is one JSON line per step, for reading by programs, and by people
without TensorBoard.

A disk that is full need not end a run: figures are then kept in memory until
there is room.
"""

import collections
import contextlib
import errno
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging
from clu import metric_writers

from vie_jax import disk, patient_file
from vie_jax.processes import agreement
from vie_jax.untrusted import json_text

FILE_NAME = 'metrics.jsonl'
# Why a step is not saved: who went on from it would lack its figures.
NO_ROOM = 'there is no room for the figures of the steps before it'
# TensorBoard's files are not begun anew with less room than this.
_ENOUGH_BYTES = 2**20
# Steps are counted in int32 and are below this, see `train_state`.
_MOST_STEPS = 2**31
# Calls of `write_scalars` that are kept for TensorBoard.
_MOST_CALLS = 10_000
# That TensorFlow tells of in words only.
_DISK_ERRORS = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EROFS,
  errno.EACCES,
  errno.ESTALE,
)


def read(workdir: str | pathlib.Path) -> Iterator[dict]:
  """Yields {'step': int, name: float, ...} for each line of a run's log.

  Left out is a last line that a kill cut short, and every other one that is
  no record of a step.
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
      if isinstance(record, dict) and _is_step(record.get('step')):
        yield record


def _is_step(value):
  return type(value) is int and 0 <= value < _MOST_STEPS


def curve(
  workdir: str | pathlib.Path, name: str
) -> tuple[list[int], list[float]]:
  """One figure over time: (steps, values); empty lists if never written."""
  points = [
    (record['step'], record[name]) for record in read(workdir) if name in record
  ]
  return [step for step, _ in points], [value for _, value in points]


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


class JsonLinesWriter(metric_writers.MetricWriter):
  """Appends scalars to `metrics.jsonl`; the other kinds go to TensorBoard.

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
    """Writes the lines that waited for room."""
    self._file.flush()

  def sync(self):
    """Brings what is written to the disk; raises OSError if it cannot."""
    disk.sync(self._path)

  def close(self):
    """Closes the file; raises OSError if there is no room for all lines."""
    self._file.close()


@contextlib.contextmanager
def _disk_errors(workdir: str) -> Iterator[None]:
  """Has TensorFlow's errors be OSErrors."""
  try:
    yield
  except tf.errors.OpError as error:
    words = ' '.join(str(error).split())
    for code in _DISK_ERRORS:
      if os.strerror(code) in words:
        raise OSError(code, os.strerror(code), workdir) from None
    raise OSError(errno.EIO, words, workdir) from None


class _SummaryWriter(metric_writers.MetricWriter):
  """TensorBoard's files, begun anew after there was no room for a while.

  What a file that met a full disk holds beyond its last whole record is not
  known: so it is left, and what was not surely written goes to another one.

  Args:
    workdir: receives them.
    waits: whether figures are kept while there is no room; if not, that is an
      OSError, as everything else is that keeps them from being written.
  """

  def __init__(self, workdir: str, *, waits: bool):
    self._workdir = workdir
    self._waits = waits
    with _disk_errors(workdir):
      self._writer = metric_writers.SummaryWriter(workdir)
    self._calls = collections.deque(maxlen=_MOST_CALLS)

  def write_scalars(self, step, scalars):
    """Writes figures at once, or when there is room."""
    self._calls.append((step, dict(scalars)))
    self.flush()

  @property
  def is_behind(self) -> bool:
    """Whether figures wait for room."""
    return bool(self._calls)

  def write_texts(self, step, texts):
    """Writes texts, or not at all while there is no room."""
    if self._writer is not None:
      with _disk_errors(self._workdir):
        self._writer.write_texts(step, texts)

  def flush(self):
    """Writes what waits, if there is room."""
    try:
      with _disk_errors(self._workdir):
        self._write_calls()
    except OSError as error:
      self._writer = None
      if not (self._waits and disk.is_no_room(error)):
        raise

  def sync(self):
    """Brings the newest file to the disk; raises OSError if it cannot."""
    files = pathlib.Path(self._workdir).glob('events.out.tfevents.*')
    newest = max(files, key=lambda path: path.stat().st_mtime_ns, default=None)
    if newest is not None:
      disk.sync(newest)
      disk.sync(self._workdir)

  def _write_calls(self):
    if self._writer is None:
      if shutil.disk_usage(self._workdir).free < _ENOUGH_BYTES:
        return
      self._writer = metric_writers.SummaryWriter(self._workdir)
    for step, scalars in self._calls:
      self._writer.write_scalars(step, scalars)
    self._writer.flush()
    self._calls.clear()

  def close(self):
    """Closes the file."""
    self.flush()
    if self._writer is not None:
      with _disk_errors(self._workdir):
        self._writer.close()

  def write_summaries(self, *unused_args, **unused_kwargs):
    """Not kept here."""

  def write_images(self, *unused_args):
    """Not kept here."""

  def write_videos(self, *unused_args):
    """Not kept here."""

  def write_audios(self, *unused_args, **unused_kwargs):
    """Not kept here."""

  def write_histograms(self, *unused_args, **unused_kwargs):
    """Not kept here."""

  def write_pointcloud(self, *unused_args, **unused_kwargs):
    """Not kept here."""

  def write_hparams(self, *unused_args):
    """Not kept here."""


class Writers(metric_writers.MultiWriter):
  """All that a run's figures go to; says when figures begin to wait for room.

  Args:
    lines: of `metrics.jsonl`; None if this process writes no files.
    summaries: of TensorBoard, likewise.
  """

  def __init__(
    self,
    lines: JsonLinesWriter | None = None,
    summaries: _SummaryWriter | None = None,
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
        FILE_NAME,
      )
    else:
      logging.warning(
        'There is room for the figures again: those that waited are written%s.',
        f', but for {self._lines.num_dropped} lines'
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
    from_step: see `JsonLinesWriter`.
    again: likewise.
    is_main: whether this process writes files, or only its log.
    waits_for_room: see `JsonLinesWriter`; of TensorBoard, too.
  """
  if not is_main:
    return Writers()
  # Not asynchronous: a thread that writes while the process is killed
  # leaves a torn file, and a few scalars cost nothing.
  summaries = _SummaryWriter(str(workdir), waits=waits_for_room)
  lines = JsonLinesWriter(
    workdir, from_step=from_step, again=again, waits_for_room=waits_for_room
  )
  return Writers(lines, summaries)
