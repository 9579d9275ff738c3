"""One writer per folder: `with workdir_lock.hold(folder):`.

The file `.lock` in the folder is locked with flock, and says who has it. The
kernel gives the lock back when its owner ends, however it ends, so that a lock
that is left behind on the same machine never stands in the way.

A file system that machines share may keep flock to each machine. Therefore the
owner writes a new number into the file every two seconds. Who finds the file
left by another machine watches it for a while, by its own clock: if the number
changes, the owner lives. Clocks of different machines are never compared. The
owner looks, too, before it writes: if another name stands in the file, the
folder is no longer its own.

With several processes the first one takes the lock, and all learn the outcome.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from absl import logging

from vie_jax.files import disk
from vie_jax.processes import agreement

FILE = '.lock'
# Twice and a bit in the time of watching; both in seconds.
_BEAT = 2.0
_WATCH = 4.5
_POLL = 0.1
_MOST_BYTES = 4096
# What stands in the way of a folder, or of its lock -> what helps.
_REMEDIES = {
  errno.EEXIST: 'It is no folder: move it away, or use another --workdir.',
  errno.ENOTDIR: 'A file stands where a folder is to be: use another --workdir.',
  errno.EISDIR: 'A file is to be there: move the folder away, and run again.',
  errno.EACCES: 'Give the user of the run access, or use another --workdir.',
  errno.EROFS: 'Have it mounted for writing, or use another --workdir.',
}
_NOBODY = {'host': 'an unknown host', 'pid': '(unknown)'}


class WorkdirLockedError(ValueError):
  """Another process writes to the folder."""


@contextlib.contextmanager
def hold(folder: str | pathlib.Path) -> Iterator[Callable[[], None]]:
  """Keeps others from writing to a folder, which is made if it is missing.

  A folder that was made and in which nothing was left is removed again, and
  those above it likewise.

  Args:
    folder: a workdir, or the folder of an evaluation.

  Yields:
    A function that raises WorkdirLockedError if the folder was taken over
    since: because this process stood still, and another machine took it for
    ended. To be called before something is written that must not be torn.

  Raises:
    WorkdirLockedError: naming the process that writes to it, within five
      seconds; or if the folder cannot be made or written to.
    OSError: if only room is missing there, its file system does not answer,
      or what was a run's workdir, or a folder of an evaluation in it, is
      read-only now.
  """
  folder = pathlib.Path(folder)
  lock, problem, passing = None, '', 0
  new = [path for path in (folder, *folder.parents) if not path.exists()]
  if agreement.is_first():
    try:
      folder.mkdir(parents=True, exist_ok=True)
      lock = Lock(folder)
    except WorkdirLockedError as error:
      problem = str(error)
    except OSError as error:
      problem = _problem(folder, error)
      # A run that is there already could be written to, and may be again.
      is_passing = error.errno in disk.AWAY or (
        error.errno == errno.EROFS and _has_steps(folder)
      )
      if disk.is_no_room(error) or is_passing:
        passing = error.errno
  found = [problem, passing]
  problem, passing = agreement.by_first('lock', lambda: found)
  if passing:
    raise OSError(passing, os.strerror(passing), str(folder))
  if problem:
    raise WorkdirLockedError(problem)
  try:
    yield lock.check if lock is not None else lambda: None
  finally:
    if lock is not None:
      lock.release()
      with contextlib.suppress(OSError):
        for path in new:
          path.rmdir()


def check_is_free(folder: pathlib.Path) -> None:
  """Refuses a folder that another process of this machine writes to, at once.

  Writes nothing and waits for nothing, so that only `hold` knows of owners on
  other machines.

  Args:
    folder: that need not exist.

  Raises:
    WorkdirLockedError: naming the process.
  """
  path = folder / FILE
  owner = _read_path(path)
  # What a killed run left is nobody's, and needs no look at the lock.
  if not owner or owner.get('boot') != _boot_id() or not _lives(owner['pid']):
    return
  if _is_locked(path):
    raise _refusal(folder, owner)


def _lives(process):
  """Whether there is such a process; False for what is no number of one."""
  if type(process) is not int or process <= 0:
    return False
  try:
    os.kill(process, 0)
  except PermissionError:
    return True
  except (OSError, OverflowError):
    return False
  return True


def _is_locked(path):
  """Whether flock has it; shares the lock for a moment where it is free."""
  try:
    descriptor = os.open(path, os.O_RDONLY)
  except OSError:
    return False
  try:
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  except OSError:
    return False
  finally:
    os.close(descriptor)
  return False


def _problem(folder, error):
  remedy = _REMEDIES.get(error.errno, 'Use another --workdir.')
  path = error.filename or folder
  return f'{path} cannot be written to: {error.strerror}. {remedy}'


def _has_steps(folder):
  """Whether it is the workdir of a run, or WORKDIR/MODE/NAME in one."""
  for workdir in (folder, *folder.parents)[:3]:
    with contextlib.suppress(OSError):
      steps = (workdir / 'checkpoints').iterdir()
      if any(step.name.isdigit() for step in steps):
        return True
  return False


class Lock:
  """The lock of a folder, taken; `hold` is the way to get one.

  Args:
    folder: that exists.

  Raises:
    WorkdirLockedError: if another process has it.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._path = folder / FILE
    self._me = {
      'host': socket.gethostname(),
      'boot': _boot_id(),
      'pid': os.getpid(),
      'started': time.time_ns(),
    }
    self._file = self._take()
    self._beats = 0
    try:
      os.ftruncate(self._file, 0)
      self._write()
    except OSError:
      os.close(self._file)
      raise
    self._ends = threading.Event()
    self._thread = threading.Thread(target=self._beat, name='lock', daemon=True)
    self._thread.start()

  def check(self) -> None:
    """Raises WorkdirLockedError if the folder is no longer this process's."""
    if not self._is_mine():
      raise _refusal(self._folder, _read_path(self._path) or _NOBODY)

  def release(self) -> None:
    """Gives the lock back."""
    self._ends.set()
    self._thread.join()
    with contextlib.suppress(OSError):
      if self._is_mine():
        os.unlink(self._path)
    os.close(self._file)

  def _take(self) -> int:
    """Opens and locks the file; returns its descriptor."""
    while True:
      has_flock = True
      descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
      try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        owner = self._owner_or_wait(descriptor)
        os.close(descriptor)
        if owner is not None:
          raise _refusal(self._folder, owner) from None
        continue
      except OSError:
        # Without flock, such as on some network file systems, the beats of
        # the owner are all there is.
        has_flock = False
        logging.info('%s cannot be locked with flock.', self._path)
      # Its owner removes the file when it ends; this may be the removed one.
      if not _is_same(descriptor, self._path):
        os.close(descriptor)
        continue
      owner = _read(descriptor)
      has_ended = has_flock and owner and owner.get('boot') == self._me['boot']
      if owner and not has_ended and self._beats_on(owner):
        os.close(descriptor)
        raise _refusal(self._folder, owner)
      if owner:
        logging.info(
          'Taking over %s from process %s on %s, which has ended.',
          self._path,
          owner.get('pid'),
          owner.get('host'),
        )
      return descriptor

  def _owner_or_wait(self, descriptor: int) -> dict | None:
    """Who has the lock; None if it was given back meanwhile."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
      owner = _read(descriptor)
      if owner:
        return owner
      # It was just taken, or is just given back.
      time.sleep(_POLL)
      if not _is_same(descriptor, self._path):
        return None
    return _NOBODY

  def _beats_on(self, owner: dict) -> bool:
    """Whether the file changes under our eyes."""
    deadline = time.monotonic() + _WATCH
    while time.monotonic() < deadline:
      time.sleep(_POLL)
      # Opened anew: network file systems look at the server then.
      if _read_path(self._path) != owner:
        return True
    return False

  def _beat(self) -> None:
    while not self._ends.wait(_BEAT):
      try:
        if not self._is_mine():
          logging.error(
            '%s is no longer that of this process: another one writes to '
            'this folder.',
            self._path,
          )
          return
        self._write()
      except OSError as error:
        logging.warning('%s: %s.', self._path, error.strerror)

  def _is_mine(self) -> bool:
    owner = _read_path(self._path) or {}
    return all(owner.get(name) == value for name, value in self._me.items())

  def _write(self) -> None:
    """Says who has the lock, in one write of constant length."""
    self._beats += 1
    text = json.dumps({**self._me, 'beats': self._beats}) + '\n'
    os.pwrite(self._file, text.encode().ljust(512), 0)


def _refusal(folder: pathlib.Path, owner: dict) -> WorkdirLockedError:
  return WorkdirLockedError(
    f'{folder} is being written to by process {owner.get("pid")} on '
    f'{owner.get("host")}. Wait for its end, or use another --workdir or '
    'config.result_name.'
  )


def _boot_id() -> str:
  """Tells machines apart that bear the same name."""
  try:
    return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
  except OSError:
    return socket.gethostname()


def _is_same(descriptor: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(descriptor), os.stat(path))
  except FileNotFoundError:
    return False


def _read(descriptor: int) -> dict | None:
  return _parse(os.pread(descriptor, _MOST_BYTES, 0))


def _read_path(path: pathlib.Path) -> dict | None:
  try:
    with path.open('rb') as file:
      return _parse(file.read(_MOST_BYTES))
  except OSError:
    return None


def _parse(content: bytes) -> dict | None:
  """Who has the lock; None if nobody can be made out."""
  try:
    owner = json.loads(content)
  except (ValueError, RecursionError):
    return None
  return owner if isinstance(owner, dict) and 'pid' in owner else None
