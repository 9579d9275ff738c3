"""Traces of a few steps of a training, for XProf, TensorBoard and Perfetto.

Steps and their phases have names whether a trace is taken or not: a name that
nobody records costs some nanoseconds.
"""

import contextlib
import os
import pathlib
import shlex
import shutil

import jax
from absl import logging

FOLDER = 'profile'
STEP = 'train'
WARM_UP_STEPS = 10
PERFETTO_FILE = 'perfetto_trace.json.gz'


def phase(name: str) -> contextlib.AbstractContextManager:
  """Names what this thread does within a with-statement, in a trace.

  Args:
    name: such as 'input wait'.
  """
  return jax.profiler.TraceAnnotation(name)


def step(number: int) -> contextlib.AbstractContextManager:
  """Marks all of a step within a with-statement, in a trace.

  Args:
    number: from 1, as in the log. Viewers group by it what the device did.
  """
  return jax.profiler.StepTraceAnnotation(STEP, step_num=number)


class StepTrace:
  """Takes one trace, of so many steps in a row, and puts it into a workdir.

  A context manager: a trace that is being taken at its end is written then.
  A trace that cannot be written is one line in the log, and no reason to end a
  training.

  Args:
    workdir: receives `profile/`, once it is complete.
    is_wanted: whether to take one at all; the first process of several does.
    first_step: the first step of it, from 1; 0 takes the first one after
      `WARM_UP_STEPS` without a compilation.
    num_steps: that it is to have.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    is_wanted: bool,
    first_step: int,
    num_steps: int,
  ):
    self._folder = pathlib.Path(workdir) / FOLDER
    self._unfinished = self._folder.with_suffix('.tmp')
    self._first_step = first_step
    self._num_steps = num_steps
    self._num_warm = 0
    self._range: range | None = None
    self._is_wanted = is_wanted and jax.process_index() == 0
    if self._is_wanted and self._folder.exists():
      self._is_wanted = False
      logging.info(
        'config.profile: %s is there from before, and no other trace is taken. '
        'Remove it to have one.',
        self._folder,
      )

  def __enter__(self) -> 'StepTrace':
    return self

  def __exit__(self, *unused_error) -> None:
    if self._range is not None:
      self._write()
    elif self._is_wanted:
      logging.warning(
        'config.profile: the training has ended before there was a step to '
        'trace, see config.profile_first_step.'
      )

  def begin(self, number: int, *, state, is_new: bool) -> None:
    """To be called before each step.

    Args:
      number: of the step, from 1.
      state: that it starts from. The device is done with what came before when
        a trace begins.
      is_new: whether its program is to be compiled.
    """
    self._num_warm = 0 if is_new else self._num_warm + 1
    is_due = (
      number >= self._first_step
      if self._first_step
      else self._num_warm > WARM_UP_STEPS
    )
    if not self._is_wanted or self._range is not None or not is_due:
      return
    jax.block_until_ready(state)
    try:
      # What a run that was killed has left.
      shutil.rmtree(self._unfinished, ignore_errors=True)
      self._unfinished.mkdir(parents=True)
      jax.profiler.start_trace(
        self._unfinished,
        create_perfetto_trace=True,
        profiler_options=_options(),
      )
    except (OSError, RuntimeError) as error:
      self._give_up(error)
      return
    self._range = range(number, number + self._num_steps)

  def is_last(self, number: int) -> bool:
    """Whether a trace is being taken and a step is its last one."""
    return self._range is not None and number >= self._range[-1]

  def end(self, *, state) -> None:
    """To be called after the last step of a trace.

    Args:
      state: after it. The device is done with it when the trace ends.
    """
    jax.block_until_ready(state)
    self._write()

  def _write(self):
    steps, self._range, self._is_wanted = self._range, None, False
    try:
      jax.profiler.stop_trace()
      # In one go: whatever is called `profile` is complete.
      self._unfinished.replace(self._folder)
      (perfetto,) = self._folder.rglob(PERFETTO_FILE)
    # What JAX raises where a file cannot be written depends on the file.
    except (OSError, RuntimeError, ValueError) as error:
      self._give_up(error)
      return
    logging.info(
      'A trace from step %d on, %d steps at most, is in %s. XProf opens it by '
      '"xprof %s" (pip install xprof), and https://ui.perfetto.dev '
      'opens %s. See docs/performance.md.',
      steps[0],
      len(steps),
      self._folder,
      shlex.quote(f'--logdir={self._folder}'),
      perfetto,
    )

  def _give_up(self, error):
    self._is_wanted = False
    logging.warning(
      'config.profile: no trace is written to %s: %s', self._folder, error
    )


def _options():
  options = jax.profiler.ProfileOptions()
  # Calls of Python fill a trace, and slow down what it is to show.
  options.python_tracer_level = 0
  return options
