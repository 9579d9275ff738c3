"""The loop of a training on labels: steps, evaluations, checkpoints."""

import contextlib
import dataclasses
import time
from typing import NoReturn

import jax
import jax.numpy as jnp
from absl import logging

from vie_jax import (
  checkpoint,
  damage_counts,
  environment,
  finite,
  input_wait,
  metric_log,
  sharding,
  skipped_steps,
  step_progress,
)
from vie_jax.classifiers.task import Outcome
from vie_jax.input_pipeline import dataset_folder
from vie_jax.processes import agreement, peers, preemption, watchdog

_is_finite = jax.jit(finite.all_finite)


class Loop:
  """Steps, evaluations and checkpoints of one training."""

  def __init__(
    self,
    task,
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
    self._schedule = schedule
    self._intervals = intervals
    self._writer = writer
    self._checkpoints = checkpoints
    self._record = record
    self._skipped = skipped_steps.SkippedSteps(
      fault, names=task.name_of, stop=self._stop
    )
    self._check_lock = check_lock

  def run(self, state, progress) -> Outcome:
    """Trains to the end."""
    schedule, intervals = self._schedule, self._intervals
    self._started, self._seconds = time.monotonic(), progress.seconds
    self._skipped.count = progress.skipped_steps
    if progress.damage:
      damage_counts.go_on_from(self._task.train_damage, progress.damage)
    first_step = int(state.step)
    is_complete = first_step >= schedule.num_steps or progress.plateau.is_over
    is_missing = is_complete and progress.evaluated_step != first_step
    if progress.evaluation_is_due or is_missing:
      counts = (
        progress.evaluation_is_due and not first_step % intervals.evaluate
      )
      progress = self._evaluate(state, progress, counts=counts)
      is_complete = is_complete or progress.plateau.is_over
    if preemption.SIGNALS.poll():
      self._leave(state, progress)
    if is_complete:
      return self._outcome(state, progress, was_complete=True)
    report = step_progress.StepProgress(
      num_steps=schedule.num_steps,
      every_steps=intervals.log,
      writer=self._writer,
    )
    logging.info('Compiling the step. This can take minutes.')
    opened = self._task.open_batches(first_step)
    with input_wait.InputWait(opened) as waiting:
      for step in range(first_step, schedule.num_steps):
        rate = schedule.rate(step, progress.plateau.drops)
        is_first = step == first_step
        with report.waiting():
          local = self._batch(step, state, progress, waiting, is_first)
        state, metrics = self._step(step, state, local, rate, is_first)
        done = step + 1
        is_last = done == schedule.num_steps
        if done % intervals.log == 0 or is_last:
          self._write(done, {**metrics, 'learning_rate': rate})
        report(done, is_new=is_first)
        progress, is_stopping = self._evaluate_if_due(state, progress, done)
        is_last = is_last or progress.plateau.is_over
        if is_stopping:
          self._leave(state, progress)
        if done % intervals.save == 0 or is_last:
          self._save(state, progress)
        if is_last:
          break
    return self._outcome(state, progress, was_complete=False)

  def _batch(self, step, state, progress, waiting, is_first):
    """Waits for a batch; what there is is saved if none comes."""
    watchdog.expect(f'the batch of step {step + 1}')

    def keep():
      if not is_first:
        self._save_if_new(state, progress)

    return waiting.next_of_training(
      keep=keep, leave=lambda: self._leave(state, progress)
    )

  def _step(self, step, state, local, rate, is_first):
    batch = sharding.global_batch(local, self._task.mesh)
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

  def _leave(self, state, progress) -> NoReturn:
    """Saves, and leaves together with all other processes."""
    self._save_if_new(state, progress)
    agreement.wait_for_all('saved')
    raise preemption.Stopped(
      f'Stopped early, as a signal asked: step {int(state.step)} is saved.'
    )

  def _save_if_new(self, state, progress):
    """Returns when the state is on the disk."""
    self._checkpoints.settle()
    saved = self._checkpoints.latest_step
    if saved is None or saved < int(state.step):
      self._save(state, progress)
    self._checkpoints.wait()

  def _outcome(self, state, progress, *, was_complete):
    step = int(state.step)
    logging.info('This training is complete: step %d.', step)
    seconds = progress.seconds if was_complete else self._elapsed()
    damage = damage_counts.so_far(self._task.train_damage)
    return Outcome(
      step,
      progress.accuracy,
      progress.best,
      seconds,
      was_complete,
      {'train': damage['num_bad'], 'val': progress.bad_val_frames},
      progress.left_out,
    )

  def _elapsed(self):
    """Seconds of the calls before, up to what they saved, and of this one."""
    return round(self._seconds + time.monotonic() - self._started, 1)

  def _evaluate(self, state, progress, *, counts):
    """Progress after an evaluation; it is still due if a signal came."""
    self._skipped.settle()
    watchdog.expect('the evaluation', is_slow=True)
    started = time.monotonic()
    try:
      accuracy = self._task.evaluate(state)
    except preemption.Stopped:
      return dataclasses.replace(progress, evaluation_is_due=True)
    except dataset_folder.UnreachableError:
      if not peers.is_shared():
        due = dataclasses.replace(progress, evaluation_is_due=True)
        self._save_if_new(state, due)
      raise
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
    damage = self._task.eval_damage
    return dataclasses.replace(
      after,
      bad_val_frames=damage_counts.replaced(damage, 'val')['val'],
      left_out=damage_counts.num_left_out(damage, 'val'),
    )

  def _write(self, step, metrics):
    self._skipped.settle()
    self._checkpoints.poll()
    values = {f'train/{name}': float(value) for name, value in metrics.items()}
    damage = damage_counts.so_far(self._task.train_damage)
    values['input/bad_frames'] = damage['num_bad']
    values['train/skipped_steps'] = self._skipped.count
    self._writer.write_scalars(step, values)

  def _stop(self, step, reason):
    with contextlib.suppress(checkpoint.SaveFailedError):
      self._checkpoints.wait()
    raise finite.DivergedError(
      f'The training stopped at step {step}: {reason}. Lower its '
      f'learning_rate, move {self._checkpoints.directory} away and run it '
      'again.'
    )

  def _save(self, state, progress):
    self._skipped.settle()
    watchdog.expect('the checkpoint', is_slow=True)
    if not _is_finite(state):
      self._stop(int(state.step), 'a parameter is not finite')
    self._check_lock()
    # A training that goes on from here writes no figures of the steps before.
    if not metric_log.make_safe(self._writer):
      self._checkpoints.give_up(int(state.step), metric_log.NO_ROOM)
      return
    progress = dataclasses.replace(
      progress,
      seconds=self._elapsed(),
      damage=damage_counts.so_far(self._task.train_damage),
      skipped_steps=self._skipped.count,
    )
    record = {
      **self._record,
      'progress': dataclasses.asdict(progress),
      'environment': environment.describe(self._task.mesh),
    }
    self._checkpoints.save(state, record)
