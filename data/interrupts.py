"""Ctrl-C, while processes start."""

import contextlib
import signal
import threading
from multiprocessing import resource_tracker


@contextlib.contextmanager
def held_back():
  """Has ctrl-C wait until the end of a block in which processes are started.

  They inherit that they do not hear of it, from their first instruction on, and
  leave it to the parent to end them: one that hears of it while it imports
  prints its traceback. And the parent has all of them on its list when it does.

  Raises:
    KeyboardInterrupt: at the end, or whatever the handler of the signal does.
  """
  # It starts with the first process, and lets ctrl-C through again.
  resource_tracker.ensure_running()
  with _remembered(), _blocked():
    yield


@contextlib.contextmanager
def _blocked():
  """Blocks the signal in this thread, and in the processes that it starts."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _remembered():
  """Has a signal that another thread hears wait for the end.

  Only the main thread runs handlers, and only it can set them.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  heard = []
  before = signal.signal(
    signal.SIGINT, lambda number, unused_frame: heard.append(number)
  )
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
    if heard:
      signal.raise_signal(signal.SIGINT)
