"""Worker processes that may crash, hang or take too much memory.

None of that stops the run, or harms another process.
"""

import collections
import contextlib
import dataclasses
import errno
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import time

import interrupts
from wording import chosen

_READY = 'ready'
_PROGRESS = 'progress'
# How often a task that goes on says so, at most.
_REPORT_SECONDS = 0.1

_FEWER = 'give fewer with --processes'
_REMEDIES = {
  errno.EMFILE: f'{_FEWER}, or raise the limit of open files (ulimit -n)',
  errno.EAGAIN: f'{_FEWER}, or raise the limit of processes (ulimit -u)',
}


class WorkerStartError(Exception):
  """A worker process cannot be started, or ended before it took a task."""


@dataclasses.dataclass(frozen=True)
class Failure:
  """A task whose worker crashed, took too long or ran out of memory.

  Attributes:
    reason: str, one line.
  """

  reason: str


class WorkerPool:
  """Runs a function in killable processes; a context manager.

  Leaving the context ends all workers at once, at work or not.
  """

  def __init__(
    self,
    function,
    *,
    num_processes,
    timeout_seconds,
    max_stall_seconds,
    max_memory_bytes,
  ):
    """Makes a pool; processes are started when there is work.

    Args:
      function: module-level function of a task and of a function, which it
        calls as often as it likes to say that the task goes on. Whatever it
        raises counts as a crash.
      num_processes: at least 1.
      timeout_seconds: after which a task is given up.
      max_stall_seconds: likewise, after it last said that it goes on. A task
        that never does is given up after timeout_seconds only.
      max_memory_bytes: that the tasks of a process may take, beside what the
        process itself needs. Without effect outside Linux.
    """
    # Not fork: the parent has threads (the progress bar, Arrow), and a
    # forked child may then hang on a lock nobody will release.
    self._context = multiprocessing.get_context('spawn')
    self._function = function
    self._num_processes = num_processes
    self._limits = timeout_seconds, max_stall_seconds
    self._max_memory_bytes = max_memory_bytes
    self._workers = []

  def __enter__(self):
    return self

  def __exit__(self, *unused_exception):
    for worker in self._workers:
      worker.kill()
    self._workers = []

  def run(self, tasks):
    """Yields (task, result or Failure), in the order of completion.

    May be called again; processes that are still there serve again.
    """
    waiting = collections.deque(tasks)
    wanted = min(self._num_processes, len(waiting))
    self._start_workers(max(wanted - len(self._workers), 0))
    for worker in self._workers[:wanted]:
      worker.give(waiting.popleft())
    while busy := [w for w in self._workers if w.task is not None]:
      for worker in _wait(busy):
        task, result = worker.task, worker.outcome()
        if result == _PROGRESS:
          continue
        if isinstance(result, Failure):
          self._workers.remove(worker)
          self._start_workers(1 if waiting else 0)
          worker = self._workers[-1] if waiting else None
        if worker is not None:
          worker.give(waiting.popleft() if waiting else None)
        yield task, result

  def _start_workers(self, count):
    new = []
    try:
      with interrupts.held_back():
        for _ in range(count):
          work = self._function, self._max_memory_bytes
          new.append(_Worker(self._context, work, self._limits))
          # At once: whatever happens next, it is ended with the others.
          self._workers.append(new[-1])
    except OSError as error:
      remedy = _REMEDIES.get(error.errno, _FEWER)
      raise WorkerStartError(
        f'cannot start {self._num_processes} worker '
        f'{chosen(self._num_processes, "process", "processes")}: '
        f'{error.strerror or error}; {remedy}'
      ) from error
    for worker in new:
      worker.wait_until_started()


def _wait(workers):
  """Returns the workers that have said something, died or run out of time."""
  deadline = min(worker.deadline for worker in workers)
  ready = multiprocessing.connection.wait(
    [worker.connection for worker in workers],
    max(deadline - time.monotonic(), 0),
  )
  now = time.monotonic()
  return [
    worker
    for worker in workers
    if worker.connection in ready or worker.deadline <= now
  ]


class _Worker:
  """One process and the pipe to it.

  Attributes:
    connection: the parent's end of the pipe.
    task: what the process is at work on, or None.
    deadline: time.monotonic() at which the task is given up.
  """

  def __init__(self, context, work, limits):
    self._timeout_seconds, self._max_stall_seconds = limits
    self.connection, child_end = context.Pipe()
    self._process = context.Process(
      target=_serve, args=(child_end, *work), daemon=True
    )
    self._process.start()
    # Only the child may hold its end, or its death would go unnoticed.
    child_end.close()
    self.task = None
    self.deadline = None
    self._last_deadline = None

  def wait_until_started(self):
    try:
      self.connection.recv()
    except (EOFError, OSError):
      reason = self._crash().reason
      raise WorkerStartError(
        f'cannot start worker processes: {reason}'
      ) from None

  def give(self, task):
    """Hands over the next task; None leaves the process idle."""
    self.task = task
    self._last_deadline = time.monotonic() + self._timeout_seconds
    self.deadline = self._last_deadline
    if task is not None:
      # A process that died meanwhile is noticed by `outcome`.
      with contextlib.suppress(OSError):
        self.connection.send(task)

  def outcome(self):
    """Takes the result of the task, or the news that it goes on.

    After a Failure the process is gone.
    """
    try:
      if self.connection.poll():
        result = self.connection.recv()
        if result == _PROGRESS:
          stalled = time.monotonic() + self._max_stall_seconds
          self.deadline = min(stalled, self._last_deadline)
        if isinstance(result, Failure):
          self.kill()
        return result
    except (EOFError, OSError):
      return self._crash()
    self.kill()
    if self.deadline < self._last_deadline:
      return Failure(
        f'no new picture for {self._max_stall_seconds} s (--max-stall)'
      )
    return Failure(f'took longer than {self._timeout_seconds} s (--timeout)')

  def kill(self):
    self._process.kill()
    self._process.join()
    self.connection.close()

  def _crash(self):
    self._process.join(10)
    code = self._process.exitcode
    self.kill()
    if code is not None and code < 0:
      name = signal.Signals(-code).name
      return Failure(f'the decoding process crashed ({name})')
    return Failure(f'the decoding process ended with exit code {code}')


class _Reporter:
  """Tells the parent that a task goes on: the first time, then now and then."""

  def __init__(self, connection):
    self._connection = connection
    self._next = 0.0

  def __call__(self):
    now = time.monotonic()
    if now >= self._next:
      self._next = now + _REPORT_SECONDS
      self._connection.send(_PROGRESS)


def _serve(connection, function, max_memory_bytes):
  """The worker's loop; ends when the parent is gone or kills it."""
  _limit_memory(max_memory_bytes)
  with contextlib.suppress(EOFError, BrokenPipeError):
    connection.send(_READY)
    while True:
      task = connection.recv()
      try:
        result = function(task, _Reporter(connection))
      except MemoryError:
        result = Failure('not enough memory (--max-memory)')
      connection.send(result)


def _limit_memory(max_bytes):
  """Limits this process to so much more memory than it has now."""
  status = '/proc/self/statm'
  if not os.path.exists(status):
    return
  with open(status, encoding='ascii') as file:
    present_bytes = int(file.read().split()[0]) * os.sysconf('SC_PAGE_SIZE')
  limit = present_bytes + max_bytes
  _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
  if hard_limit == resource.RLIM_INFINITY or limit < hard_limit:
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard_limit))
