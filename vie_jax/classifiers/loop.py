"""The loop of a training on labels: steps, evaluations, checkpoints."""

import dataclasses
import time

import jax
import jax.numpy as jnp
from absl import logging

from vie_jax import finite, guarded_saves, sharding, skipped_steps
from vie_jax.classifiers.task import INPUTS, Outcome
from vie_jax.machine import environment
from vie_jax.processes import preemption, watchdog
from vie_jax.telemetry import damage_counts, input_wait, step_progress

_is_finite = jax.jit(finite.all_finite)


class Loop:
  """Steps, evaluations and checkpoints of one training."""

  def __init__(
    self,
    task,
    data,
    schedule,
    intervals,
    writer,
    checkpoints,
    record,
    *,
    check_lock,
    fault,
  ):
    self._task = task
    self._data = data
    self._schedule = schedule
    self._intervals = intervals
    self._writer = writer
    self._checkpoints = checkpoints
    self._record = record
    self._skipped = skipped_steps.SkippedSteps(
      fault, names=data.name_of, stop=self._stop
    )
    self._saves = guarded_saves.GuardedSaves(
      checkpoints,
      writer,
      self._skipped,
      record=self._record_of,
      check_state=self._check,
      check_lock=check_lock,
    )

  def run(self, state, progress, written=None) -> Outcome:
    """Trains to the end; not if the result of this end is written already."""
    schedule, intervals = self._schedule, self._intervals
    self._started, self._seconds = time.monotonic(), progress.seconds
    self._skipped.count = progress.skipped_steps
    if progress.damage:
      damage_counts.go_on_from(self._data.train_damage, progress.damage)
    if written:
      return self._outcome(state, progress, progress.seconds, written)
    first_step = int(state.step)
    is_complete = first_step >= schedule.num_steps or progress.plateau.is_over
    is_missing = is_complete and progress.evaluated_step != first_step
    evaluates_first = progress.evaluation_is_due or is_missing
    if evaluates_first:
      counts = (
        progress.evaluation_is_due and not first_step % intervals.evaluate
      )
      progress = self._evaluate(state, progress, counts=counts)
      is_complete = is_complete or progress.plateau.is_over
    if preemption.SIGNALS.poll():
      self._saves.leave(state, progress=progress)
    if is_complete:
      return self._outcome(state, progress, progress.seconds)
    report = step_progress.StepProgress(
      num_steps=schedule.num_steps,
      every_steps=intervals.log,
      writer=self._writer,
    )
    logging.info('Compiling the step. This can take minutes.')
    opened = self._data.open_train(first_step)
    with input_wait.InputWait(opened) as waiting:
      for step in range(first_step, schedule.num_steps):
        rate = schedule.rate(step, progress.plateau.drops)
        is_first = step == first_step
        # What an evaluation before the first step finds is saved after it.
        with guarded_saves.leaving_at_once(is_first and not evaluates_first):
          with report.waiting():
            local = self._saves.next_batch(
              waiting, step, state, is_first=is_first, progress=progress
            )
          state, metrics = self._step(step, state, local, rate, is_first)
        done = step + 1
        is_last = done == schedule.num_steps
        if done % intervals.log == 0 or is_last:
          self._write(done, {**metrics, 'learning_rate': rate})
        report(done, is_new=is_first)
        progress, is_stopping = self._evaluate_if_due(state, progress, done)
        is_last = is_last or progress.plateau.is_over
        if is_stopping:
          self._saves.leave(state, progress=progress)
        if done % intervals.save == 0 or is_last:
          self._saves.save(state, progress=progress)
        if is_last:
          break
    return self._outcome(state, progress, self._elapsed())

  def _step(self, step, state, local, rate, is_first):
    batch = sharding.global_batch(
      {name: local[name] for name in INPUTS}, self._data.mesh
    )
    watchdog.expect(f'step {step + 1}', is_slow=is_first)
    state, metrics = self._task.step(state, batch, jnp.float32(rate))
    metrics = self._skipped.add(step + 1, metrics, local['instance_index'])
    # Never more than one step ahead of the device: batches take memory.
    self._skipped.settle(all_but=1)
    return state, metrics

  def _evaluate_if_due(self, state, progress, done):
    """Returns (progress, whether a signal asks to leave)."""
    is_stopping = preemption.SIGNALS.poll()
    counts = done % self._intervals.evaluate == 0
    if not counts and done != self._schedule.num_steps:
      return progress, is_stopping
    if is_stopping:
      return dataclasses.replace(progress, evaluation_is_due=True), True
    progress = self._evaluate(state, progress, counts=counts)
    return progress, progress.evaluation_is_due

  def _outcome(self, state, progress, seconds, written=None):
    step = int(state.step)
    logging.info('This training is complete: step %d.', step)
    damage = damage_counts.so_far(self._data.train_damage)
    return Outcome(
      step,
      progress.accuracy,
      progress.best,
      seconds,
      {'train': damage['num_bad'], 'val': progress.bad_val_frames},
      progress.left_out,
      written,
    )

  def _elapsed(self):
    """Seconds of the calls before, up to what they saved, and of this one."""
    return round(self._seconds + time.monotonic() - self._started, 1)

  def _evaluate(self, state, progress, *, counts):
    """Progress after an evaluation; it is still due if a signal came."""
    due = dataclasses.replace(progress, evaluation_is_due=True)
    try:
      with self._saves.evaluating(state, progress=due):
        started = time.monotonic()
        accuracy = self._task.evaluate(state)
    except preemption.Stopped:
      return due
    figures = {
      f'val/{column}_{name}_{figure}': value
      for column, by_name in accuracy.items()
      for name, values in by_name.items()
      for figure, value in values.items()
      if figure != 'judged'
    }
    figures['val/seconds'] = time.monotonic() - started
    self._writer.write_scalars(int(state.step), figures)
    after = progress.after(
      int(state.step),
      accuracy,
      patience=self._schedule.patience,
      num_drops=self._schedule.num_drops,
      counts=counts,
    )
    if after.plateau.drops > progress.plateau.drops:
      logging.info('Validation saturates: the learning rate drops to a tenth.')
    damage = self._data.eval_damage
    return dataclasses.replace(
      after,
      bad_val_frames=damage_counts.replaced(damage, 'val')['val'],
      left_out=damage_counts.num_left_out(damage, 'val'),
    )

  def _write(self, step, metrics):
    self._skipped.settle()
    self._checkpoints.poll()
    values = {f'train/{name}': float(value) for name, value in metrics.items()}
    damage = damage_counts.so_far(self._data.train_damage)
    values['input/bad_frames'] = damage['num_bad']
    values['train/skipped_steps'] = self._skipped.count
    self._writer.write_scalars(step, values)

  def _stop(self, step, reason):
    self._saves.end()
    raise finite.DivergedError(
      f'The training stopped at step {step}: {reason}. Lower its '
      f'learning_rate, move {self._checkpoints.directory} away and run it '
      'again.'
    )

  def _check(self, state):
    """Stops if the state is not finite."""
    if not _is_finite(state):
      self._stop(int(state.step), 'a parameter is not finite')

  def _record_of(self, *, progress):
    """What a checkpoint says: also how far the training is by then."""
    progress = dataclasses.replace(
      progress,
      seconds=self._elapsed(),
      damage=damage_counts.so_far(self._data.train_damage),
      skipped_steps=self._skipped.count,
    )
    return {
      **self._record,
      'progress': dataclasses.asdict(progress),
      'environment': environment.describe(self._data.mesh),
    }
