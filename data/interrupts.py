"""Ctrl-C, while processes start."""

import contextlib
import signal
from multiprocessing import resource_tracker


@contextlib.contextmanager
def held_back():
  """Has ctrl-C wait until the end of a block in which processes are started.

  They inherit that they do not hear of it, from their first instruction on, and
  leave it to the parent to end them: one that hears of it while it imports
  prints its traceback. And the parent has all of them on its list when it does.
  """
  # It starts with the first process, and lets ctrl-C through again.
  resource_tracker.ensure_running()
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
