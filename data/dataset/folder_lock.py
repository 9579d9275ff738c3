"""Locks on folders; the system frees them at a kill."""

import contextlib
import errno
import fcntl
import os
import pathlib
import secrets
import sys

from errors import InputError

from dataset.staging import output_errors

# In names of files that only this process writes, on whatever machine.
TOKEN = secrets.token_hex(4)


@contextlib.contextmanager
def locked(out):
  """Holds a lock on the output directory.

  Args:
    out: path of the directory, which exists.

  Raises:
    InputError: if another run holds it.
  """
  descriptor = os.open(out, os.O_RDONLY)
  try:
    if _take(descriptor, out) is None:
      raise InputError(
        f'another run is preparing {out}; wait for it or choose another --out'
      )
    yield
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def locked_in_turn(folder):
  """Holds a lock on a folder that runs share; waits while another has it.

  Args:
    folder: pathlib.Path; it is made where it is missing.

  Yields:
    bool, whether no other run writes there: some network file systems cannot
    lock a folder.

  Raises:
    OutputError: if the folder cannot be made.
  """
  descriptor, is_alone = _in_turn(folder)
  try:
    yield is_alone
  finally:
    os.close(descriptor)


def _in_turn(folder):
  """Returns the descriptor of a folder, and whether it is locked."""
  while True:
    with output_errors(folder):
      folder.mkdir(parents=True, exist_ok=True)
      descriptor = os.open(folder, os.O_RDONLY)
    try:
      is_locked = _take(descriptor, folder)
      if is_locked is None:
        print(
          f'Note: another run is writing to {folder}; waiting for it.',
          file=sys.stderr,
          flush=True,
        )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        is_locked = True
      if _is_there(descriptor, folder):
        return descriptor, is_locked
    except BaseException:
      os.close(descriptor)
      raise
    # It was removed meanwhile, with the lock.
    os.close(descriptor)


def _take(descriptor, folder):
  """Locks a folder: True; False where that cannot be, None if it is taken."""
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
      return None
    # Some network file systems cannot lock a directory.
    print(f'Note: {folder} cannot be locked.', file=sys.stderr)
    return False
  return True


def _is_there(descriptor, folder):
  try:
    return os.path.samestat(os.fstat(descriptor), os.stat(folder))
  except FileNotFoundError:
    return False


def remove_leftovers(folder, *patterns):
  """Removes files that a killed run was in the middle of writing.

  Args:
    folder: pathlib.Path, locked.
    *patterns: of their names, as `glob` takes them.
  """
  with output_errors(folder):
    for pattern in patterns:
      for path in pathlib.Path(folder).glob(pattern):
        path.unlink(missing_ok=True)
