"""Waits for batches without being deaf meanwhile."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

from vie_jax.processes import ending, peers, preemption

# Between two looks at what else there is to do, in seconds.
_LOOK_EVERY_SECONDS = 0.5
# That batches have to close after a signal.
_CLOSING_SECONDS = 2.0


class InputWait:
  """Takes batches in a thread of its own, and closes them there.

  An object store or a disk may hang, and whoever waits for it in TensorFlow
  hears no signal. A process that is alone looks for signals meanwhile; several
  have to leave together, which they can only between two batches. To be used in
  a with-statement, in which nobody else takes batches.

  Args:
    opened: context manager over an iterator over batches.
  """

  def __init__(self, opened: contextlib.AbstractContextManager[Iterator[Any]]):
    self._opened = opened
    self._wanted = queue.SimpleQueue()
    self._found = queue.SimpleQueue()
    self._thread = threading.Thread(
      target=self._take, name='input wait', daemon=True
    )

  def __enter__(self):
    self._batches = self._opened.__enter__()
    self._thread.start()
    return self

  def __exit__(self, *unused_exception):
    self._wanted.put(False)
    try:
      self._wait_for_close()
    except preemption.Stopped:
      self._wait_for_close()
      raise

  def next(self) -> Any:
    """Gives the next batch; None if a signal asks to leave, and none comes.

    Raises:
      Exception: what the iterator raises.
    """
    self._wanted.put(True)
    while True:
      try:
        batch, error = self._found.get(timeout=_LOOK_EVERY_SECONDS)
      except queue.Empty:
        if _is_leaving():
          return None
        continue
      try:
        if error is not None:
          raise error
      finally:
        # Else the error and this frame hold each other, and the batches.
        del error
      return batch

  def _wait_for_close(self):
    self._thread.join(_LOOK_EVERY_SECONDS)
    while self._thread.is_alive() and not _is_leaving():
      self._thread.join(_LOOK_EVERY_SECONDS)
    self._thread.join(_CLOSING_SECONDS)
    if self._thread.is_alive():
      ending.leave_open()

  def _take(self):
    while self._wanted.get():
      try:
        self._found.put((next(self._batches), None))
      # Raised by whoever waits.
      except Exception as error:
        self._found.put((None, error))
    self._opened.__exit__(None, None, None)


def _is_leaving():
  return not peers.is_shared() and preemption.SIGNALS.poll()
