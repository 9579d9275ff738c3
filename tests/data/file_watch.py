"""Sees which files anybody opens."""

import contextlib
import ctypes
import os
import struct

import pytest

_IN_OPEN = 0x20


class Watch:
  """Sees which files of a folder anybody opens (inotify)."""

  def __init__(self, folder):
    libc = ctypes.CDLL(None, use_errno=True)
    self._descriptor = libc.inotify_init1(os.O_NONBLOCK)
    watch = libc.inotify_add_watch(
      self._descriptor, os.fsencode(folder), _IN_OPEN
    )
    if self._descriptor < 0 or watch < 0:
      pytest.skip('files cannot be watched here')

  def opened(self):
    """Number of times that files were opened since the last call."""
    count = 0
    with contextlib.suppress(BlockingIOError):
      while data := os.read(self._descriptor, 4096):
        while data:
          (length,) = struct.unpack_from('12xI', data)
          data = data[16 + length :]
          count += 1
    return count
