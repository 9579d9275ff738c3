"""The figures of a run in files for TensorBoard, which a full disk may delay."""

import collections
import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

import tensorflow as tf
from clu import metric_writers

from vie_jax.files import disk
from vie_jax.telemetry.scalar_writer import ScalarWriter

# TensorBoard's files are not begun anew with less room than this.
_ENOUGH_BYTES = 2**20
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


class SummaryWriter(ScalarWriter):
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
