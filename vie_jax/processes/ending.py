"""A process that ends early takes the others of its run with it.

Computations that are split over processes wait for each other, so a process
that fails alone would leave the others waiting. Hence each process tells the
others of its end, and a thread of each looks for what they have told.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from typing import NoReturn

from absl import logging

from vie_jax.processes import coordinator_loss, exit_codes, peers

# Of messages of computations that wait for a process which is gone.
_LOSS = ('Gloo ', 'Connection closed by peer', 'coordination service')
_ENDED = 'vie_jax/ended/'
_LEFT = 'vie_jax/left/'
# Of a large run each process looks less often: process 0 answers all of them.
_LOOK_EVERY_SECONDS = 0.5
_LOOKS_PER_SECOND = 128
# What a process has left, to find the same error by itself and end in order.
_GRACE_SECONDS = 5.0
_FLUSH_SECONDS = 2.0


# Whether something stays open that an orderly end would wait for.
_stays_open = threading.Event()


def leave_open() -> None:
  """Notes that something hangs: this process ends without closing it."""
  _stays_open.set()


def _pause():
  """Seconds between two looks at what the others have said."""
  return max(_LOOK_EVERY_SECONDS, peers.count() / _LOOKS_PER_SECOND)


class Watch:
  """A thread that ends this process when another has ended early."""

  _thread = None
  _stopped = threading.Event()

  @classmethod
  def start(cls):
    """Starts to look, in a run of several processes."""
    if peers.index():
      coordinator_loss.explain(peers.address(), _leave_without_first)
    cls._thread = threading.Thread(target=cls._watch, daemon=True)
    cls._thread.start()

  @classmethod
  def stop(cls):
    """Looks no more: this process ends by itself."""
    if cls._thread is not None:
      cls._stopped.set()
      cls._thread.join()
      cls._thread = None

  @classmethod
  def _watch(cls):
    while not cls._stopped.wait(_pause()):
      other = _ended_elsewhere()
      if other is None:
        continue
      if not cls._stopped.wait(_GRACE_SECONDS):
        _leave_as(other)


def _ended_elsewhere():
  """What another process said before it left, or None."""
  try:
    found = peers.client().key_value_dir_get(_ENDED)
  except RuntimeError:  # The service is gone, see `coordinator_loss`.
    return None
  for _, text in found:
    other = json.loads(text)
    if other['process'] != peers.index():
      return other
  return None


def _leave_as(other):
  logging.error(
    'Process %d of %d on %s has ended, and so does this one: %s',
    other['process'],
    peers.count(),
    other['host'],
    other['message'],
  )
  _end(other['code'], 2 * (_GRACE_SECONDS + _pause()))


def _leave_without_first():
  logging.error(
    'Process 0 of %d, at %s, is gone, and with it what connects the others: '
    'this process ends. Its own log, or that of its machine, says why. Run the '
    'same command again on all machines: it goes on from the last save.',
    peers.count(),
    peers.address(),
  )
  exit_now(exit_codes.RETRY)


def tells_of_loss(error: Exception) -> bool:
  """Whether an error of a computation says that another process is gone."""
  return peers.is_shared() and any(sign in str(error) for sign in _LOSS)


def leave(code: int, message: str, *, is_loss: bool = False) -> None:
  """Ends this process before its time, and with it all others of the run.

  They end within seconds, with the same code and this message in their logs.
  If another has ended already, its message is the reason that counts.

  Args:
    code: exit code.
    message: one line.
    is_loss: whether another process is gone, so that it is not waited for.
  """
  if not peers.is_shared():
    if _stays_open.is_set():
      exit_now(code)
    sys.exit(code)
  Watch.stop()
  said = {
    'process': peers.index(),
    'host': socket.gethostname(),
    'code': code,
    'message': message,
  }
  try:
    peers.client().key_value_set(f'{_ENDED}{peers.index()}', json.dumps(said))
  except RuntimeError:
    logging.error('The other processes cannot be reached.')
  _end(code, 2 * _pause() if is_loss else 2 * (_GRACE_SECONDS + _pause()))


def leave_if_another_has() -> None:
  """Ends this process if another has ended, for the reason that it gave.

  An error of a computation with others often only says that one of them is
  gone; it knows why.
  """
  until = time.monotonic() + 2 * _pause()
  while peers.is_shared() and time.monotonic() < until:
    other = _ended_elsewhere()
    if other is not None:
      Watch.stop()
      _leave_as(other)
    time.sleep(_pause() / 2)


def _end(code, patience):
  """Leaves when the others do: with process 0 goes what connects them."""
  try:
    peers.client().key_value_set(
      f'{_LEFT}{peers.index()}', '', allow_overwrite=True
    )
    until = time.monotonic() + patience
    while peers.index() == 0 and time.monotonic() < until:
      if len(peers.client().key_value_dir_get(_LEFT)) == peers.count():
        break
      time.sleep(_LOOK_EVERY_SECONDS / 5)
  except RuntimeError:
    pass  # There is nobody left to tell.
  exit_now(code)


def exit_now(code: int) -> NoReturn:
  """Ends the process now: an orderly end would wait for the others.

  Args:
    code: exit code.
  """
  # In a thread: the disk of a log may hang.
  thread = threading.Thread(target=_flush, daemon=True)
  thread.start()
  thread.join(_FLUSH_SECONDS)
  os._exit(code)


def _flush():
  # What fails here has failed before, and there it was told of.
  streams = *logging.get_absl_logger().handlers, sys.stdout, sys.stderr
  # A standard stream that is closed at the start is none.
  for stream in filter(None, streams):
    with contextlib.suppress(OSError):
      stream.flush()
