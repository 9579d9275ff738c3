"""The figures of a run in files for TensorBoard, which a full disk may delay."""

import collections
import contextlib
import errno
import os
import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping

import tensorflow as tf
from absl import logging
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.scalar import summary_v2 as scalar_summary
from tensorboard.plugins.text import summary_v2 as text_summary

from vie_jax.files import disk
from vie_jax.telemetry import event_files
from vie_jax.telemetry.scalar_writer import ScalarWriter

# TensorBoard's files are not begun anew with less room than this.
_ENOUGH_BYTES = 2**20
# Calls that are kept for TensorBoard.
_MOST_CALLS = 10_000
_FORMAT = 'brain.Event:2'
# That TensorFlow tells of in words only.
_DISK_ERRORS = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EROFS,
  errno.EACCES,
  errno.ESTALE,
)


@contextlib.contextmanager
def _disk_errors(workdir: str | os.PathLike) -> Iterator[None]:
  """Has TensorFlow's errors be OSErrors."""
  try:
    yield
  except tf.errors.OpError as error:
    words = ' '.join(str(error).split())
    for code in _DISK_ERRORS:
      if os.strerror(code) in words:
        raise OSError(code, os.strerror(code), str(workdir)) from None
    raise OSError(errno.EIO, words, str(workdir)) from None


class _EventFile:
  """One of TensorBoard's files.

  Attributes:
    path: of the file.

  Args:
    workdir: receives it.
    first_step: what was read of this step and later ones is void. A
      TensorBoard that is open takes the first such word for none.
  """

  def __init__(self, workdir: pathlib.Path, first_step: int):
    self.path = event_files.next_path(workdir)
    self._records = tf.io.TFRecordWriter(str(self.path))
    self._write(file_version=_FORMAT)
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    for _ in range(2):
      self._write(step=first_step, session_log=start)
    self.flush()

  def write(self, step: int, summary: summary_pb2.Summary) -> None:
    """Writes a figure or a text."""
    self._write(step=step, summary=summary)

  def _write(self, **facts):
    event = event_pb2.Event(wall_time=time.time(), **facts)
    self._records.write(event.SerializeToString())

  def flush(self) -> None:
    """Hands to the system what is written."""
    self._records.flush()

  def close(self) -> None:
    """Closes the file."""
    self._records.close()


class SummaryWriter(ScalarWriter):
  """TensorBoard's files, begun anew after there was no room for a while.

  What a file that met a full disk holds beyond its last whole record is not
  known: so another one begins with the newest step that was surely written, and
  so does the file of a run that goes on. Older files, and a TensorBoard that is
  open, drop what they have of that step and of later ones. Files that somebody
  removes, or that may not be replaced, keep no step from being saved.

  Args:
    workdir: receives them.
    waits: whether figures are kept while there is no room; if not, that is an
      OSError, as everything else is that keeps them from being written.
    from_step: that the run begins with, or goes on from.
    kept: figures that earlier files have of that step, and that still hold.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    waits: bool,
    from_step: int = 0,
    kept: Iterable[Mapping[str, float]] = (),
  ):
    self._workdir = pathlib.Path(workdir)
    self._waits = waits
    self._file: _EventFile | None = None
    # Of files that may not be on the disk yet.
    self._paths: list[pathlib.Path] = []
    # Step and summaries of each call: those that wait, and of those that do
    # not the ones of the newest step.
    self._calls = collections.deque(maxlen=_MOST_CALLS)
    self._newest_step = from_step
    self._newest = [(from_step, _of_scalars(scalars)) for scalars in kept]
    self._workdir.mkdir(parents=True, exist_ok=True)
    self.flush()

  def write_scalars(self, step, scalars):
    """Writes figures at once, or when there is room."""
    self._calls.append((int(step), _of_scalars(scalars)))
    self.flush()

  @property
  def is_behind(self) -> bool:
    """Whether figures wait for room."""
    return bool(self._calls)

  def write_texts(self, step, texts):
    """Writes texts at once, or when there is room."""
    summaries = [text_summary.text_pb(*item) for item in texts.items()]
    self._calls.append((int(step), summaries))
    self.flush()

  def flush(self):
    """Writes what waits, if there is room."""
    try:
      with _disk_errors(self._workdir):
        self._write_calls()
    except OSError as error:
      self._file = None
      if not (self._waits and disk.is_no_room(error)):
        raise

  def sync(self):
    """Brings what is written to the disk; raises OSError if it cannot.

    A file that was removed is begun anew first.
    """
    if self._file is not None and not self._file.path.exists():
      self._file = None
      self.flush()
    for path in self._paths:
      with contextlib.suppress(FileNotFoundError):
        disk.sync(path)
    disk.sync(self._workdir)
    # Nothing more is written to the others.
    del self._paths[:-1]

  def _write_calls(self):
    if self._file is None:
      free = shutil.disk_usage(self._workdir).free
      if self._waits and free < _ENOUGH_BYTES:
        return
      problems = event_files.drop(self._workdir, self._newest_step)
      self._file = _EventFile(self._workdir, self._newest_step)
      self._paths.append(self._file.path)
      self._tell(problems)
      self._write(self._newest)
    self._write(self._calls)
    self._file.flush()
    if self._calls:
      done = [*self._newest, *self._calls]
      self._newest_step = self._calls[-1][0]
      self._newest = [call for call in done if call[0] == self._newest_step]
      self._calls.clear()

  def _tell(self, problems):
    if problems:
      logging.warning(
        'TensorBoard may show steps from %d on twice: %s',
        self._newest_step,
        '; '.join(map(str, problems)),
      )

  def _write(self, calls):
    for step, summaries in calls:
      for summary in summaries:
        self._file.write(step, summary)

  def close(self):
    """Closes the file."""
    self.flush()
    if self._file is not None:
      with _disk_errors(self._workdir):
        self._file.close()


def _of_scalars(scalars):
  return [
    scalar_summary.scalar_pb(name, float(value))
    for name, value in scalars.items()
  ]
