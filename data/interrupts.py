"""How processes start, and signals where nothing is lost by them."""

import contextlib
import os
import signal
import threading
from multiprocessing import resource_tracker

_SAFE_PATH = 'PYTHONSAFEPATH'


@contextlib.contextmanager
def held_back():
  """Has ctrl-C wait until the end of a block in which processes are started.

  They inherit that they do not hear of it, from their first instruction on, and
  leave it to the parent to end them: one that hears of it while it imports
  prints its traceback. And the parent has all of them on its list when it does.

  Nor do they take a file of the current folder, which may be anybody's, for a
  module of Python, as what begins with `python -c` does.

  Raises:
    KeyboardInterrupt: at the end, or whatever the handler of the signal does.
  """
  with _safe_path():
    # It starts with the first process, and lets ctrl-C through again.
    resource_tracker.ensure_running()
    with _remembered(), _blocked():
      yield


class _SafePath:
  """Keeps the current folder out of the paths of processes that are started.

  What this process imports from, `multiprocessing` has them import from, too.
  Threads may start processes at a time: the last one to leave tidies up.
  """

  def __init__(self):
    self._lock = threading.Lock()
    self._num_inside = 0
    self._before = None

  @contextlib.contextmanager
  def __call__(self):
    with self._lock:
      if not self._num_inside:
        self._before = os.environ.get(_SAFE_PATH)
        os.environ[_SAFE_PATH] = '1'
      self._num_inside += 1
    try:
      yield
    finally:
      with self._lock:
        self._num_inside -= 1
        if not self._num_inside:
          self._put_back()

  def _put_back(self):
    del os.environ[_SAFE_PATH]
    if self._before is not None:
      os.environ[_SAFE_PATH] = self._before


_safe_path = _SafePath()


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


@contextlib.contextmanager
def left_to_the_system():
  """Has signals end this process at once, by the system's own action.

  Handlers of Python run in the main thread alone: never, where a library has it
  wait for ever, as `array_record` does for a thread that it cannot start.
  """
  # Ignored, as in the background of a shell, it stays so; None is not of Python.
  heard = {
    number: handler
    for number in (signal.SIGINT, signal.SIGTERM)
    if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
  }
  try:
    for number in heard:
      signal.signal(number, signal.SIG_DFL)
    yield
  finally:
    for number, handler in heard.items():
      signal.signal(number, handler)
