"""Whatever goes wrong with a video file, as one exception."""

import contextlib
import os
import stat

import av
from errors import words_of


class VideoError(Exception):
  """A video file could not be used.

  Attributes:
    path: str, the file.
    reason: str, one line.
  """

  def __init__(self, path, reason):
    self.path = os.fspath(path)
    self.reason = ' '.join(str(reason).split())
    super().__init__(f'{self.path}: {self.reason}')


def require_regular_file(path):
  """Refuses what is no file with an end, such as a pipe or a device.

  Args:
    path: str or path.

  Raises:
    VideoError: if it is none, or is not there.
  """
  with video_errors(path):
    mode = os.stat(path).st_mode
  if stat.S_ISDIR(mode):
    raise VideoError(path, 'a directory')
  if not stat.S_ISREG(mode):
    raise VideoError(path, 'not a regular file')


@contextlib.contextmanager
def video_errors(path):
  """Turns whatever goes wrong inside into VideoError.

  FFmpegError alone would let through UnicodeDecodeError from broken
  metadata, MemoryError from broken sizes, IndexError and others.

  Args:
    path: str or path of the video file.
  """
  try:
    yield
  except VideoError:
    raise
  except Exception as error:
    raise VideoError(path, reason_of(error)) from error


def reason_of(error):
  """Says in a few words what an exception of whatever kind means."""
  if isinstance(error, MemoryError):
    return 'not enough memory (--max-memory)'
  if isinstance(error, (OSError, av.error.FFmpegError)):
    return error.strerror or type(error).__name__
  return words_of(error)
