"""Whether a file cannot be read because its file system does not answer now.

A network file system (NFS, a mount of FUSE) may be gone for a while. What lies
on it is then not damaged, and nothing may stand for it.
"""

import os
import re

from vie_jax.files import disk
from vie_jax.input_pipeline import remote_errors

# How `array_record` begins to say what the system has said; the rest is about
# the place.
_SYSTEM_CALL = re.compile(r'\w+\(\) failed: ([^;]+)')


def reason(error: BaseException) -> str:
  """Says why a file system does not answer, if an error is of that; else ''.

  Args:
    error: of the system, or raised from one that is.
  """
  if not remote_errors.may_pass(error):
    return ''
  return getattr(error, 'strerror', None) or str(error).rstrip('.')


def reason_of_record(error: BaseException, path: str | os.PathLike) -> str:
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
  words = system_call[1]
  return words if words in map(os.strerror, disk.AWAY) else ''


def _reason_to_open(path):
  try:
    with open(path, 'rb', buffering=0) as file:
      os.pread(file.fileno(), 1, 0)
  except OSError as error:
    return reason(error)
  return ''


def reason_of_empty(reader, path: str | os.PathLike) -> str:
  """As `reason_of_record`, of a shard that seems to hold no records.

  Args:
    reader: of `array_record`, which takes one that it cannot read for that.
    path: of the shard.
  """
  try:
    reader.read([0])
  except (RuntimeError, IndexError) as error:
    return reason_of_record(error, path)
  return ''
