"""A text file that is appended to, also while its disk is full for a while."""

import collections
import errno
import io
import os
import threading

from vie_jax.files import disk

_MOST_BYTES = 2**24


class PatientFile:
  """Lines that find no room are kept in memory, and written when there is.

  May be used from several threads. Nothing is buffered otherwise.

  Args:
    path: appended to.
    waits: whether it does so; if not, a full disk is an error like others.
    most_bytes: that are kept; more have the oldest lines dropped.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    waits: bool = True,
    most_bytes: int = _MOST_BYTES,
  ):
    self._path = os.fspath(path)
    self._waits = waits
    self._most_bytes = most_bytes
    self._file = io.FileIO(self._path, 'a')
    self._lines: collections.deque[bytes] = collections.deque()
    self._num_bytes = 0
    # Of the oldest line, those that are in the file already.
    self._num_written = 0
    self._lock = threading.RLock()
    self.num_dropped = 0

  @property
  def is_behind(self) -> bool:
    """Whether lines wait for room."""
    return bool(self._lines)

  def write(self, line: str) -> None:
    """Appends a line, which ends with a newline.

    Raises:
      OSError: if it cannot be written, but for want of room.
      ValueError: if the file is closed.
    """
    data = line.encode(errors='backslashreplace')
    with self._lock:
      if self._file.closed:
        raise ValueError(f'{self._path} is closed')
      self._lines.append(data)
      self._num_bytes += len(data)
      try:
        self.flush()
      finally:
        while self._num_bytes > self._most_bytes and len(self._lines) > 1:
          self._drop_oldest()

  def flush(self) -> None:
    """Writes what there is room for; raises an OSError as `write`."""
    with self._lock:
      try:
        while self._lines and not self._file.closed:
          self._num_written += self._file.write(
            self._lines[0][self._num_written :]
          )
          if self._num_written == len(self._lines[0]):
            self._num_bytes -= len(self._lines.popleft())
            self._num_written = 0
      except OSError as error:
        if not (self._waits and disk.is_no_room(error)):
          raise

  def close(self) -> None:
    """Closes the file; again, does nothing.

    Raises:
      OSError: if there is still no room for all lines.
    """
    with self._lock:
      if self._file.closed:
        return
      try:
        self.flush()
      finally:
        self._file.close()
      if self._lines:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)

  def _drop_oldest(self):
    # One of which a part is in the file must be written to its end.
    place = 1 if self._num_written else 0
    self._num_bytes -= len(self._lines[place])
    del self._lines[place]
    self.num_dropped += 1
