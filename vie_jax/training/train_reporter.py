"""What a training tells of itself: figures, evaluations, checkpoints."""

import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from vie_jax import (
  checkpoint,
  evaluate,
  experiment,
  finite,
  guarded_saves,
  skipped_steps,
  train_state,
)
from vie_jax.experiment import Experiment
from vie_jax.machine import environment
from vie_jax.processes import agreement
from vie_jax.telemetry import damage_counts, metric_log, metrics_file

# A figure that every evaluation has.
_EVALUATED = 'eval/seconds'


@jax.jit
def _is_finite(state: train_state.TrainState) -> jax.Array:
  return finite.all_finite(state.params, state.batch_stats, state.bank)


def _is_evaluated(workdir: pathlib.Path, step: int) -> bool:
  """Whether a start before this one has made up for the evaluation of a step.

  The record of the checkpoint does not say so: a step is saved once.
  """
  return agreement.by_first(
    'evaluated',
    lambda: any(
      line['step'] == step and _EVALUATED in line
      for line in metrics_file.read(workdir)
    ),
  )


class Reporter:
  """Writes figures, and stops the run when they are no longer finite.

  Attributes:
    evaluation_is_due: whether the state that the run begins with is to be
      evaluated.
    skipped: steps that changed nothing.
    writer: of figures.
    saves: of states; each is told `evaluation_is_due`, of that state.

  Args:
    parts: of the run.
    workdir: receives TensorBoard files and `metrics.jsonl`.
    checkpoints: of the workdir; the run goes on from the newest.
    record: of that one, None for a run that begins.
    started_from: the trainings behind its weights, see `lineage`.
    check_lock: raises if the workdir is no longer that of this process.
  """

  def __init__(
    self,
    parts: Experiment,
    workdir: pathlib.Path,
    checkpoints: checkpoint.Checkpoints,
    record: dict | None,
    started_from: Sequence[Mapping[str, Any]],
    check_lock: Callable[[], None],
  ):
    self._parts = parts
    self._checkpoints = checkpoints
    self._started_from = list(started_from)
    self._evaluator = evaluate.Evaluator(parts)
    self._environment = environment.describe(parts.mesh)
    # A run that begins is evaluated before its first step.
    self.evaluation_is_due = record is None or (
      record.get('evaluation_is_due', False)
      and not _is_evaluated(workdir, checkpoints.latest_step)
    )
    self.skipped = skipped_steps.SkippedSteps(
      parts.config.fault,
      names=functools.partial(experiment.video_path, parts),
      stop=self._stop,
      count=(record or {}).get('skipped_steps', 0),
    )
    self.writer = metric_log.open_writers(
      workdir,
      from_step=checkpoints.latest_step,
      again=_EVALUATED if self.evaluation_is_due else None,
      is_main=jax.process_index() == 0,
      waits_for_room=parts.config.on_failed_save == 'retry',
    )
    self.saves = guarded_saves.GuardedSaves(
      checkpoints,
      self.writer,
      self.skipped,
      record=self._record,
      check_state=self.check,
      check_lock=check_lock,
    )

  def scalars(
    self, step: int, metrics: dict, *, is_logged: bool = True
  ) -> None:
    """Writes figures of a step, to the log, too, if they are to be there.

    What has become of the last save is noticed here, too.
    """
    self._checkpoints.poll()
    values = {name: float(value) for name, value in metrics.items()}
    if is_logged:
      self.writer.write_scalars(step, values)
    else:
      self.writer.write_to_files(step, values)

  def evaluate(self, state: train_state.TrainState) -> None:
    """Writes kNN accuracy and health; stops if the state is not finite."""
    self.check(state)
    started = time.monotonic()
    figures = evaluate.curves(self._evaluator, state, self._parts)
    figures[_EVALUATED] = time.monotonic() - started
    self.writer.write_scalars(int(state.step), figures)

  def _record(self, *, evaluation_is_due: bool) -> dict:
    """What a checkpoint says: also whether it is still to be evaluated."""
    return {
      **experiment.record(self._parts),
      'started_from': self._started_from,
      'damage': damage_counts.so_far(self._parts.train_damage),
      'skipped_steps': self.skipped.count,
      'evaluation_is_due': evaluation_is_due,
      'environment': self._environment,
    }

  def check(self, state: train_state.TrainState) -> None:
    """Stops if the state is not finite, naming videos of bad bank rows."""
    if _is_finite(state):
      return
    parts = self._parts
    rows = finite.bad_rows(
      state.bank, num_videos=parts.train.num_instances, mesh=parts.mesh
    )
    reason = 'a parameter or a batch statistic is not finite'
    if rows:
      names = ', '.join(
        f'{row} ({experiment.video_path(parts, row)})' for row in rows
      )
      reason = f'rows of the memory bank are not finite: {names}'
    self._stop(int(state.step), reason)

  def _stop(self, step, reason):
    self.saves.end()
    good = self._checkpoints.latest_step
    kept = (
      'there is no checkpoint yet'
      if good is None
      else f'the last good checkpoint, of step {good}, is kept'
    )
    raise finite.DivergedError(
      f'Training stopped at step {step}: {reason}; {kept}. Lower '
      'config.optimizer.learning_rate, or look at the data, and run it '
      'again; or go on without such steps, --config.fault.on_nonfinite=skip.'
    )
