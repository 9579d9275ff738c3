"""Ends a run that hangs, and says where.

A loader that waits for a file system that is gone, or a collective whose other
half never comes, raises nothing. So a thread watches the clock: when nothing
was finished for too long, it prints where every thread is, and ends the process
with the exit code that asks for a restart.

main.py starts one. Whatever does something tells it with the functions below,
which do nothing where nobody watches.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from absl import logging

from vie_jax.processes import exit_codes

# That the log, and then the terminal, have to take a message.
_TELL_SECONDS = 2.0
# Between two looks at the clock; so much of a suspension counts.
_LOOK_SECONDS = 1.0


class Watchdog:
  """Watches this process from here on; a context manager.

  Args:
    seconds: that a batch, a step, or anything else may take at most. 0 has
      nothing watched.
    slow_seconds: likewise, of what compiles first or is known to take long:
      never less than `seconds`.
    leave: ends the process at once, with an exit code.
  """

  def __init__(
    self,
    seconds: float,
    slow_seconds: float = 0,
    *,
    leave: Callable[[int], None] = os._exit,
  ):
    self._seconds = seconds
    self._slow_seconds = max(seconds, slow_seconds)
    self._log_path: str | os.PathLike | None = None
    self._leave = leave
    self._changed = threading.Condition()
    self._is_over, self._is_resting = False, False
    self._what, self._limit = 'the start', self._slow_seconds
    self._since = time.monotonic()

  def __enter__(self):
    global _active
    _active = self
    if self._seconds > 0:
      threading.Thread(target=self._watch, name='watchdog', daemon=True).start()
    return self

  def __exit__(self, *unused_exception):
    global _active
    _active = None
    with self._changed:
      self._is_over = True
      self._changed.notify()

  def expect(self, what: str, *, is_slow: bool = False) -> None:
    """Says what comes next, and has its time begin.

    Args:
      what: for the message, such as 'step 7'.
      is_slow: whether it may take `slow_seconds`.
    """
    with self._changed:
      self._what = what
      self._limit = self._slow_seconds if is_slow else self._seconds
      self._since = time.monotonic()

  def beat(self) -> None:
    """Has the time of what was expected begin anew: part of it is done."""
    with self._changed:
      self._since = time.monotonic()

  @contextlib.contextmanager
  def resting(self) -> Iterator[None]:
    """Watches nothing within a with-statement, as where others are awaited."""
    with self._changed:
      self._is_resting = True
    try:
      yield
    finally:
      with self._changed:
        self._is_resting = False
        self._since = time.monotonic()

  def also_write_to(self, path: str | os.PathLike) -> None:
    """Has the stacks go to a file, too, besides standard error."""
    self._log_path = path

  def _watch(self):
    with self._changed:
      while not self._is_over:
        left = self._since + self._limit - time.monotonic()
        if self._is_resting:
          left = self._seconds
        if left <= 0:
          break
        # Not the whole time: what is expected next may have less of it.
        self._sleep(min(left, self._seconds, _LOOK_SECONDS))
    if not self._is_over:
      self._bark()

  def _sleep(self, seconds):
    """Sleeps, and does not count the time in which the process stood still.

    As when it is stopped and continued by a shell, a container or Slurm.
    """
    started = time.monotonic()
    self._changed.wait(seconds)
    self._since += max(0.0, time.monotonic() - started - seconds)

  def _bark(self):
    message = (
      f'Nothing was heard of {self._what} for {self._limit:.0f} seconds '
      '(config.fault.watchdog_seconds, watchdog_slow_seconds): the run hangs, '
      'and ends. The same command goes on from the last checkpoint. Where every '
      'thread is:'
    )
    # In threads: what hangs may have the lock of the log, or be its disk.
    for tell in (self._tell, _tell_terminal):
      thread = threading.Thread(target=tell, args=(message,), daemon=True)
      thread.start()
      thread.join(_TELL_SECONDS)
      if not thread.is_alive():
        break
    self._leave(exit_codes.RETRY)

  def _tell(self, message):
    logging.error('%s', message)
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    if self._log_path is not None:
      with open(self._log_path, 'a', encoding='utf-8') as file:
        faulthandler.dump_traceback(file, all_threads=True)
    logging.flush()


def _tell_terminal(message):
  """Says it past the log, whose lock somebody has."""
  terminal = sys.stderr.fileno()
  os.write(terminal, f'{message}\n'.encode(errors='backslashreplace'))
  faulthandler.dump_traceback(terminal, all_threads=True)


_active: Watchdog | None = None


def expect(what: str, *, is_slow: bool = False) -> None:
  """See `Watchdog.expect`."""
  if _active is not None:
    _active.expect(what, is_slow=is_slow)


def beat() -> None:
  """See `Watchdog.beat`."""
  if _active is not None:
    _active.beat()


def resting() -> contextlib.AbstractContextManager:
  """See `Watchdog.resting`."""
  return contextlib.nullcontext() if _active is None else _active.resting()


def also_write_to(path: str | os.PathLike) -> None:
  """See `Watchdog.also_write_to`."""
  if _active is not None:
    _active.also_write_to(path)
