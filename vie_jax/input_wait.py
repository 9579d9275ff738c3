"""Waits for batches without being deaf meanwhile."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

# Between two looks at what else there is to do, in seconds.
_LOOK_EVERY_SECONDS = 0.5


class InputWait:
  """Takes batches of an iterator in a thread of its own.

  An object store or a disk may hang, and whoever waits for it in TensorFlow
  hears no signal. To be used in a with-statement, in which nobody else takes
  batches.

  Args:
    batches: the iterator.
  """

  def __init__(self, batches: Iterator[Any]):
    self._batches = batches
    self._wanted = queue.SimpleQueue()
    self._found = queue.SimpleQueue()
    self._thread = threading.Thread(
      target=self._take, name='input wait', daemon=True
    )

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *unused_exception):
    # Not waited for: it may be in the middle of what hangs.
    self._wanted.put(False)

  def next(self, is_over: Callable[[], bool]) -> Any:
    """Gives the next batch.

    Args:
      is_over: asked again and again while there is none.

    Returns:
      The batch; None if it is over.

    Raises:
      Exception: what the iterator raises.
    """
    self._wanted.put(True)
    while True:
      try:
        batch, error = self._found.get(timeout=_LOOK_EVERY_SECONDS)
      except queue.Empty:
        if is_over():
          return None
        continue
      if error is not None:
        raise error
      return batch

  def _take(self):
    while self._wanted.get():
      try:
        self._found.put((next(self._batches), None))
      # Raised by whoever waits.
      except Exception as error:
        self._found.put((None, error))
