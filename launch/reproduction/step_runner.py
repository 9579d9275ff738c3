"""Runs the steps of a plan, each after those that it needs."""

import concurrent.futures
import dataclasses
import os
import pathlib
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from job.repository import REPOSITORY

from reproduction import finished_steps
from reproduction.plan import Step

_LAST_LINES = 5


@dataclasses.dataclass
class Progress:
  """How far a plan is, and how long it will take.

  Attributes:
    times: name of a step -> how long it takes compared with the others.
    started: of the first step, by the monotonic clock.
    done: names of the steps that have ended.
  """

  times: Mapping[str, float]
  started: float = dataclasses.field(default_factory=time.monotonic)
  done: set[str] = dataclasses.field(default_factory=set)

  def left(self, now: float) -> float | None:
    """Seconds until the end; None before anything is finished."""
    finished = sum(self.times[name] for name in self.done)
    if not finished:
      return None
    rest = sum(self.times.values()) - finished
    return (now - self.started) / finished * rest


def in_words(seconds: float) -> str:
  """A time as a person says it."""
  if seconds < 90:
    return f'{seconds:.0f} s'
  if seconds < 90 * 60:
    return f'{seconds / 60:.0f} minutes'
  if seconds < 48 * 3600:
    return f'{seconds / 3600:.1f} hours'
  return f'{seconds / 86400:.1f} days'


class Runner:
  """Runs steps, each after those that it needs, and says how it goes.

  Args:
    steps: in order; what they need and is not among them is finished.
    times: name of a step -> how long it takes compared with the others.
    logs: folder for what the commands print.
    jobs: commands at a time.
    is_verbose: whether to show what the commands print, too.
    say: takes a line for the terminal.
  """

  def __init__(
    self,
    steps: Sequence[Step],
    times: Mapping[str, float],
    *,
    logs: pathlib.Path,
    jobs: int,
    is_verbose: bool,
    say: Callable[[str], None],
  ):
    self._steps = steps
    self._logs = logs
    self._jobs = jobs
    self._is_verbose = is_verbose
    self._say = say
    self._progress = Progress(times)
    self._processes: set[subprocess.Popen] = set()
    self._is_stopped = False
    self._lock = threading.Lock()

  def run(self) -> dict[str, str]:
    """Runs all steps.

    Returns:
      name of a step -> why it has no result, for those that have none.

    Raises:
      KeyboardInterrupt: when the user stops it; commands are stopped first.
    """
    self._logs.mkdir(parents=True, exist_ok=True)
    waiting = {step.name: step for step in self._steps}
    running: dict[concurrent.futures.Future, Step] = {}
    failed: dict[str, str] = {}
    with concurrent.futures.ThreadPoolExecutor(self._jobs) as pool:
      try:
        while waiting or running:
          for name, step in list(waiting.items()):
            broken = [need for need in step.needs if need in failed]
            if broken:
              failed[name] = f'{broken[0]} failed'
              del waiting[name]
              self._end(name, f'not run: {failed[name]}')
            elif len(running) < self._jobs and self._is_ready(
              step, waiting, running
            ):
              del waiting[name]
              self._say(f'      {name} ...')
              running[pool.submit(self._command, step)] = step
          ended, _ = concurrent.futures.wait(
            running, return_when=concurrent.futures.FIRST_COMPLETED
          )
          for future in ended:
            step = running.pop(future)
            reason, seconds = future.result()
            if reason:
              failed[step.name] = reason
            outcome = (
              f'FAILED: {reason}' if reason else finished_steps.outcome_of(step)
            )
            self._end(step.name, f'{in_words(seconds)}; {outcome}')
      except KeyboardInterrupt:
        self._stop()
        raise
    return failed

  def _is_ready(self, step, waiting, running):
    busy = {other.name for other in running.values()} | waiting.keys()
    return not busy & set(step.needs)

  def _end(self, name, words):
    self._progress.done.add(name)
    left = self._progress.left(time.monotonic())
    count = f'{len(self._progress.done)} of {len(self._steps)}'
    rest = ''
    if left is not None and len(self._progress.done) < len(self._steps):
      rest = f' (about {in_words(left)} left)'
    self._say(f'[{count}] {name}: {words}{rest}')

  def _command(self, step) -> tuple[str, float]:
    """Runs one command: (why it failed or '', seconds)."""
    started = time.monotonic()
    path = self._logs / f'{step.name.replace("/", "-")}.log'
    environment = os.environ | {
      # Small programs compile in under a second, and there are many of them.
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': os.environ.get(
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2'
      )
    }
    with path.open('w', encoding='utf-8', errors='replace') as log:
      log.write(f'$ python {shlex.join(step.command)}\n')
      log.flush()
      with self._lock:
        if self._is_stopped:
          return 'stopped', 0.0
        process = subprocess.Popen(
          [sys.executable, *step.command],
          cwd=REPOSITORY,
          env=environment,
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
          text=True,
          errors='replace',
        )
        self._processes.add(process)
      last = []
      for line in process.stdout:
        log.write(line)
        log.flush()
        last = [*last, line.strip()][-_LAST_LINES:]
        if self._is_verbose:
          self._say(line.rstrip())
      code = process.wait()
      with self._lock:
        self._processes.discard(process)
    seconds = time.monotonic() - started
    if not code:
      return finished_steps.of_other_settings(step), seconds
    words = next((line for line in reversed(last) if line), 'no output')
    return f'exit code {code}, {words} (all of it: {path})', seconds

  def _stop(self):
    with self._lock:
      self._is_stopped = True
      for process in self._processes:
        process.terminate()
