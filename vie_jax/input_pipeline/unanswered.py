"""Whether a file that cannot be read may be sound all the same.

A network file system (NFS, a mount of FUSE) may be gone for a while. The user of
the process may have no access, and the process no memory, thread or number for
one more file. What it asks for is then not damaged, and nothing may stand for
it.
"""

import dataclasses
import errno
import os
import re

import pyarrow

from vie_jax.files import disk
from vie_jax.input_pipeline import remote_errors

# How `array_record` begins to say what the system has said; the rest is about
# the place.
_SYSTEM_CALL = re.compile(r'\w+\(\) failed: ([^;]+)')
_NUMBERS = {os.strerror(number): number for number in disk.NO_DAMAGE}
# How a message without an errno ends, of Arrow or of starting a thread.
_OF_THREADS_AND_MEMORY = (
  os.strerror(errno.EAGAIN),
  os.strerror(errno.ENOMEM),
  "can't start new thread",
)


@dataclasses.dataclass(frozen=True)
class Reason:
  """Why a file cannot be read, which tells nothing of the file.

  Attributes:
    words: str, without a full stop.
    remedy: a sentence, if the same would be refused again; else ''.
  """

  words: str
  remedy: str = ''


def reason(error: BaseException) -> Reason | None:
  """Says why a file cannot be read that may be sound, if an error is of that.

  Args:
    error: of the system, or raised from one that is.
  """
  cause = error
  while cause is not None and not isinstance(cause, FileNotFoundError):
    if _is_short(cause):
      return _shortage(cause)
    if getattr(cause, 'errno', None) in disk.NO_DAMAGE:
      return _refusal(cause.errno, cause.strerror)
    cause = cause.__cause__
  if remote_errors.may_pass(error):
    return Reason(getattr(error, 'strerror', None) or str(error).rstrip('.'))
  return None


def _is_short(error):
  """Whether Arrow, `array_record` or Python has no memory or no thread."""
  is_of_library = isinstance(error, pyarrow.ArrowException | RuntimeError)
  return isinstance(error, MemoryError) or (
    is_of_library and str(error).endswith(_OF_THREADS_AND_MEMORY)
  )


def _shortage(error):
  words = ' '.join(str(error).split()) or os.strerror(errno.ENOMEM)
  return Reason(f'too little memory, or too many threads ({words})')


def _refusal(number, words=None):
  return Reason(words or os.strerror(number), disk.REMEDIES.get(number, ''))


def reason_of_record(
  error: BaseException, path: str | os.PathLike
) -> Reason | None:
  """As `reason`, of an error of reading a shard by `array_record`.

  That has no errno, but names the error of the system in the system's words,
  except where it asks for the size of a file: then the file is asked again.

  Args:
    error: likewise.
    path: of the shard.
  """
  system_call = _SYSTEM_CALL.match(str(error))
  if system_call is None:
    return reason(error) or _reason_to_open(path)
  number = _NUMBERS.get(system_call[1])
  return None if number is None else _refusal(number)


def _reason_to_open(path):
  try:
    with open(path, 'rb', buffering=0) as file:
      os.pread(file.fileno(), 1, 0)
  except OSError as error:
    return reason(error)
  return None


def reason_of_empty(reader, path: str | os.PathLike) -> Reason | None:
  """As `reason_of_record`, of a shard that seems to hold no records.

  Args:
    reader: of `array_record`, which takes one that it cannot read for that.
    path: of the shard.
  """
  try:
    reader.read([0])
  except (RuntimeError, IndexError) as error:
    return reason_of_record(error, path)
  return None
