"""A process that decodes, as the training sees it: started, asked, replaced."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

from absl import logging

from vie_jax.input_pipeline import decode_worker

_COMMAND = (
  'import json, sys; sys.path[:] = json.loads(sys.argv[1]); '
  'from vie_jax.input_pipeline import decode_worker; decode_worker.main()'
)
# A process that ends so often is not replaced.
_MAX_STARTS = 3
# How long they may take together to see that they are not wanted any more, and
# each to start, where many import from a shared file system: seconds.
_PATIENCE, _MAX_START = 2.0, 300.0


class WorkerProcess:
  """A process that decodes, and is replaced when it ends."""

  def __init__(self, file, setup, *, max_silence, is_remote):
    """Starts it; what keeps it from that is said, and not raised.

    Args:
      file: descriptor of the shared memory.
      setup: dict, what else decode_worker is told.
      max_silence: seconds that it may take for its share of a batch.
      is_remote: whether what it decodes is behind a URL.
    """
    self._file = file
    self._max_silence = max_silence
    self._is_remote = is_remote
    self._setup = setup
    self._num_starts = 1
    self._process = self._socket = None
    self._start()

  def make(self, offset, share):
    """Has rows of a batch made; returns when they are, or cannot be.

    Args:
      offset: of the batch in the shared memory.
      share: range of its rows.
    """
    if self._process is None:
      return
    request = decode_worker.REQUEST.pack(offset, share.start, share.stop)
    try:
      self._wait_for_start()
      if self._is_ready:
        self._socket.sendall(request)
        if self._hears():
          return
    except TimeoutError:
      self._end_silent()
      return
    except OSError:
      # It has ended.
      pass
    self._replace()

  def dismiss(self):
    """Says that it is not wanted any more, and does not wait."""
    if self._process is not None:
      with contextlib.suppress(OSError):
        # Unlike closing, this also counts if a child has the socket, too.
        self._socket.shutdown(socket.SHUT_RDWR)

  def close(self, deadline):
    """Ends the process.

    Args:
      deadline: by time.monotonic, at which one that was dismissed is killed.
    """
    if self._process is not None:
      self._end(deadline)

  def _end_silent(self):
    self._process.kill()
    self._end()
    if self._is_ready and self._is_remote:
      # Not the process was silent, but the store.
      logging.warning(
        'A process that decodes clips waited for %g seconds; another one takes '
        'its place.',
        self._max_silence,
      )
      self._start()
      return
    seconds = self._max_silence if self._is_ready else _MAX_START
    self._give_up(f'it is silent for {seconds:g} seconds')

  def _wait_for_start(self):
    if not self._is_ready:
      self._is_ready = self._hears()
      self._socket.settimeout(self._max_silence)

  def _hears(self):
    return self._socket.recv(1) == decode_worker.DONE

  def _start(self):
    self._is_ready = False
    try:
      self._socket, its = socket.socketpair()
      self._socket.settimeout(_MAX_START)
      with its:
        self._process = self._open(its)
    except OSError as error:
      self._give_up(error)
      return
    setup = json.dumps({'file': self._file, **self._setup})
    # If it has ended, the first request finds out.
    with contextlib.suppress(OSError):
      self._socket.sendall(setup.encode() + b'\n')

  def _open(self, its):
    path = [
      entry or os.getcwd() for entry in sys.path if isinstance(entry, str)
    ]
    # Standard input and output of a process come at 0 and 1.
    number = fcntl.fcntl(its, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
      with _blocked_signals():
        return subprocess.Popen(
          # -P: nothing in the current folder is a module.
          [
            *(sys.executable, '-P', '-c', _COMMAND),
            *(json.dumps(path), str(number)),
          ],
          stdin=subprocess.DEVNULL,
          stdout=subprocess.DEVNULL,
          pass_fds=[self._file, number],
          # There is nothing for these threads to do.
          env=os.environ | {'OPENBLAS_NUM_THREADS': '1'},
        )
    finally:
      os.close(number)

  def _replace(self):
    code = self._end()
    reason = _reason(code)
    # What it does not find once, it does not find again.
    may_pass = code < 0 or code == decode_worker.UNREACHABLE
    if not (may_pass or self._is_ready):
      self._give_up(reason)
      return
    is_last = self._num_starts == _MAX_STARTS
    logging.warning(
      'A process that decodes clips ended (%s); %s. If memory is short, '
      '--config.input.num_threads=N makes fewer of them.',
      reason,
      'threads decode in its place, which is slower'
      if is_last
      else 'another one takes its place',
    )
    if not is_last:
      self._num_starts += 1
      self._start()

  def _give_up(self, reason):
    logging.log_first_n(
      logging.WARNING,
      'A process that is to decode clips does not work (%s). Threads of the '
      'training decode, which is slower.',
      1,
      reason,
    )
    if self._socket is not None:
      self._socket.close()

  def _end(self, deadline=None):
    """Ends the process; its exit code, negative for a signal."""
    self.dismiss()
    process, self._process = self._process, None
    self._socket.close()
    if deadline is None:
      deadline = time.monotonic() + _PATIENCE
    try:
      return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      process.kill()
      return process.wait()


def close_all(workers):
  """Ends processes, all at once.

  Args:
    workers: list of WorkerProcess.
  """
  for worker in workers:
    worker.dismiss()
  deadline = time.monotonic() + _PATIENCE
  for worker in workers:
    worker.close(deadline)


def _reason(code):
  if code == decode_worker.NO_DATASET:
    return 'it does not find the data set'
  if code == decode_worker.UNREACHABLE:
    return 'the data set does not answer'
  if code >= 0:
    return f'exit code {code}'
  with contextlib.suppress(ValueError):
    return f'killed by {signal.Signals(-code).name}'
  return f'killed by signal {-code}'


@contextlib.contextmanager
def _blocked_signals():
  """Processes that are started in here see none: what a job is sent is not
  for them, and whoever asks for clips ends them."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
