"""Variants that take turns, each in a process of its own.

Libraries that compute bring thread pools and allocators of their own, which
disturb each other in one process. Here each variant has a process; all of them
are prepared first, then they run one after the other, round by round.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from measuring import result_lines, script

HUGE_PAGES = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}
"""Has glibc ask Linux for pages of 2 MiB, where it would get 4 KiB."""

_SHARED_GPU = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
"""Has JAX take of a GPU's memory what it needs, and leave the rest to others."""

_CONTEXT = multiprocessing.get_context('spawn')


@dataclasses.dataclass
class Variant:
  """A variant, ready to run.

  Attributes:
    name: of the variant.
    facts: what its preparation returned beside the function to run.
    first: what the run that does not count returned.
    results: of each run, what it returned.
    wall: seconds of each run.
    cpu: CPU seconds of each run, all threads together.
  """

  name: str
  facts: dict
  first: Any
  results: list
  wall: list[float]
  cpu: list[float]

  @property
  def milliseconds(self) -> float:
    """The median of the runs, by the clock."""
    return 1000 * statistics.median(self.wall)

  @property
  def cpu_milliseconds(self) -> float:
    """The median of the runs, in CPU time."""
    return 1000 * statistics.median(self.cpu)

  def ratio(self, other: 'Variant') -> float:
    """Time by the clock over that of another: the median of the rounds."""
    return result_lines.ratio(self.wall, other.wall)

  def cpu_ratio(self, other: 'Variant') -> float:
    """CPU time over that of another: the median of the rounds."""
    return result_lines.ratio(self.cpu, other.cpu)


def take_turns(
  variants: dict[str, tuple[Callable, dict]],
  *,
  rounds: int,
  environment: dict[str, str] | None = None,
) -> dict[str, Variant]:
  """Prepares all variants, then runs them in turn.

  Args:
    variants: name -> (prepare, arguments); prepare is a function of a module,
      and prepare(**arguments) returns (run, facts): a function without
      arguments, which returns when its work is done, and a dict.
    rounds: how often each runs, after one run that does not count.
    environment: variables that the processes have beside those of this one.

  Returns:
    name -> Variant.

  Raises:
    RuntimeError: with its traceback, if a variant fails.
  """
  with contextlib.ExitStack() as stack:
    pipes, found = {}, {}
    for name, (prepare, arguments) in variants.items():
      with _environment(_SHARED_GPU | (environment or {})):
        pipes[name] = stack.enter_context(_process(prepare, arguments))
      # Not all at once: compilers would fight for the cores.
      found[name] = Variant(name, *_answer(name, pipes[name]), [], [], [])
    for _ in range(rounds):
      for name, pipe in pipes.items():
        pipe.send('run')
        wall, cpu, result = _answer(name, pipe)
        found[name].wall.append(wall)
        found[name].cpu.append(cpu)
        found[name].results.append(result)
  return found


@contextlib.contextmanager
def _process(prepare, arguments) -> Iterator:
  ours, its = _CONTEXT.Pipe()
  process = _CONTEXT.Process(target=_serve, args=(its, prepare, arguments))
  try:
    # It leaves Ctrl-C to this process.
    with script.held_back():
      process.start()
    its.close()
    yield ours
  except BaseException:
    process.terminate()
    raise
  finally:
    ours.close()
    process.join()


@contextlib.contextmanager
def _environment(values):
  before = dict(os.environ)
  os.environ.update(values)
  try:
    yield
  finally:
    os.environ.clear()
    os.environ.update(before)


def _answer(name, pipe):
  try:
    is_fine, answer = pipe.recv()
  except EOFError:
    raise RuntimeError(f'{name}: its process ended.') from None
  if not is_fine:
    raise RuntimeError(f'{name}: {answer}')
  return answer


def _serve(pipe, prepare, arguments):
  """Prepares a variant, then runs it whenever it is asked to."""
  try:
    run, facts = prepare(**arguments)
    pipe.send((True, (facts, run())))
    while pipe.recv():
      cpu, start = time.process_time(), time.perf_counter()
      result = run()
      wall, cpu = time.perf_counter() - start, time.process_time() - cpu
      pipe.send((True, (wall, cpu, result)))
  except EOFError:
    return
  except Exception:
    pipe.send((False, traceback.format_exc()))
