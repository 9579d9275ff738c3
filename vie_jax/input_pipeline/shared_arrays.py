"""Arrays in memory that several processes share."""

import errno
import fcntl
import math
import mmap
import os
import weakref

import numpy as np

# Arrays begin where TensorFlow and vector instructions want them, in bytes.
_ALIGNMENT = 64


class Layout:
  """Where arrays lie in a piece of memory, one behind the other.

  Attributes:
    num_bytes: of the piece, whole pages.
  """

  def __init__(self, fields):
    """Places the arrays.

    Args:
      fields: dict of name to (dtype, shape).
    """
    self._fields, end = {}, 0
    for name, (dtype, shape) in fields.items():
      dtype = np.dtype(dtype)
      start = -(-end // _ALIGNMENT) * _ALIGNMENT
      self._fields[name] = start, dtype, tuple(shape)
      end = start + math.prod(shape) * dtype.itemsize
    page = mmap.ALLOCATIONGRANULARITY
    self.num_bytes = max(1, -(-end // page)) * page

  def arrays(self, memory):
    """Gives the arrays, which keep the memory.

    Args:
      memory: uint8 [num_bytes].

    Returns:
      dict of name to array.
    """
    return {
      name: memory[start : start + math.prod(shape) * dtype.itemsize]
      .view(dtype)
      .reshape(shape)
      for name, (start, dtype, shape) in self._fields.items()
    }


class SharedMemory:
  """A file in memory that other processes can map, in pieces.

  It has no name, so that nothing is left of it when all are gone, and does not
  take of the room of /dev/shm, which is 64 MiB in many containers.

  Attributes:
    file: its descriptor, for processes that inherit it.
  """

  def __init__(self):
    """Makes an empty file.

    Raises:
      OSError: if the system gives none.
    """
    first = os.memfd_create('vie_jax_clips')
    try:
      # Standard input and output of a process come at 0 and 1.
      self.file = fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
      os.close(first)
    self._end = 0
    self.close = weakref.finalize(self, os.close, self.file)

  def add(self, num_bytes):
    """Makes the file longer by a piece.

    Args:
      num_bytes: whole pages.

    Returns:
      (offset, mmap): where the piece begins, and its memory.

    Raises:
      OSError: if there is no room, or the file is closed.
    """
    if not self.close.alive:
      raise OSError(errno.EBADF, 'the shared memory is closed')
    offset = self._end
    os.ftruncate(self.file, offset + num_bytes)
    self._end = offset + num_bytes
    return offset, mmap.mmap(self.file, num_bytes, offset=offset)


def is_supported():
  """Whether this system gives such files."""
  if not hasattr(os, 'memfd_create'):
    return False
  try:
    memory = SharedMemory()
    memory.add(mmap.ALLOCATIONGRANULARITY)
  except OSError:
    return False
  memory.close()
  return True
