"""The saves of a training, and how it is left: nothing that is done is lost."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from vie_jax import checkpoint, skipped_steps
from vie_jax.input_pipeline import dataset_folder
from vie_jax.processes import agreement, peers, preemption, watchdog
from vie_jax.telemetry import input_wait, metric_log, step_trace


def leaving_at_once(is_first: bool) -> contextlib.AbstractContextManager:
  """Has a signal end a training at once, as long as no step would be lost.

  A training starts from what is saved, and the compilation of its first step
  may take long.

  Args:
    is_first: whether no step was done yet.
  """
  return preemption.SIGNALS.leaving() if is_first else contextlib.nullcontext()


class GuardedSaves:
  """Saves states that a training can go on from, and no others.

  Each method that saves is given facts, by name, for the record.

  Args:
    checkpoints: of the training.
    writer: of its figures.
    skipped: judges the steps that are on their way.
    record: (**facts) -> what the checkpoint says besides its state.
    check_state: raises if a state is not finite.
    check_lock: raises if the folder is no longer that of this process.
  """

  def __init__(
    self,
    checkpoints: checkpoint.Checkpoints,
    writer: metric_log.Writers,
    skipped: skipped_steps.SkippedSteps,
    *,
    record: Callable[..., dict],
    check_state: Callable[[Any], None],
    check_lock: Callable[[], None],
  ):
    self._checkpoints = checkpoints
    self._writer = writer
    self._skipped = skipped
    self._record = record
    self._check_state = check_state
    self._check_lock = check_lock

  def save(self, state: Any, **facts) -> None:
    """Saves a state, unless its step is saved already."""
    self._skipped.settle()
    watchdog.expect('the checkpoint', is_slow=True)
    with step_trace.phase('save'):
      # This step may be on its way.
      self._checkpoints.settle()
      saved = self._checkpoints.latest_step
      if saved is None or saved < int(state.step):
        self._save_new(state, facts)

  def _save_new(self, state, facts):
    self._check_state(state)
    self._check_lock()
    # A run that goes on from here writes no figures of the steps before.
    if metric_log.make_safe(self._writer):
      self._checkpoints.save(state, self._record(**facts))
    else:
      self._checkpoints.give_up(int(state.step), metric_log.NO_ROOM)

  def keep(self, state: Any, **facts) -> None:
    """Saves, and returns when that is on the disk."""
    self.save(state, **facts)
    self._checkpoints.wait()

  def leave(self, state: Any, **facts) -> NoReturn:
    """Saves, and leaves together with all other processes."""
    self.keep(state, **facts)
    agreement.wait_for_all('saved')
    raise preemption.Stopped(
      f'Stopped early, as a signal asked: step {int(state.step)} is saved.'
    )

  def next_batch(
    self,
    waiting: input_wait.InputWait,
    step: int,
    state: Any,
    *,
    is_first: bool,
    **facts,
  ) -> dict:
    """Waits for a batch; what there is is saved if none comes.

    Args:
      waiting: for batches.
      step: that it is for, from 0.
      state: before it.
      is_first: whether no step was done yet.
      **facts: for the record.

    Raises:
      dataset_folder.DatasetError: if there is no such batch.
      preemption.Stopped: if a signal asks for it.
    """
    watchdog.expect(f'the batch of step {step + 1}')
    try:
      batch = waiting.next()
    except dataset_folder.DatasetError:
      # Of several processes, the others may be at the next step.
      if not (is_first or peers.is_shared()):
        self.keep(state, **facts)
      raise
    if batch is None:
      self.leave(state, **facts)
    return batch

  @contextlib.contextmanager
  def evaluating(self, state: Any, **facts) -> Iterator[None]:
    """Keeps a state if the data that it is evaluated on cannot be reached."""
    self._skipped.settle()
    watchdog.expect('the evaluation', is_slow=True)
    try:
      with step_trace.phase('evaluation'):
        yield
    except dataset_folder.UnreachableError:
      if not peers.is_shared():
        self.keep(state, **facts)
      raise

  def end(self) -> None:
    """Returns when nothing is being saved any more, even if that fails."""
    self._checkpoints.end()
