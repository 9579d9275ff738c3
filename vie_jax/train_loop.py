"""The loop of a pretraining: batches, k-means, steps, and when to report."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from absl import logging

from vie_jax import (
  damage_counts,
  experiment,
  input_wait,
  sharding,
  step_progress,
  step_trace,
  train_state,
  train_step,
)
from vie_jax.evaluation import monitors
from vie_jax.experiment import Experiment
from vie_jax.input_pipeline import dataset_folder
from vie_jax.processes import agreement, peers, preemption, watchdog
from vie_jax.train_reporter import Reporter


def clusters_are_due(step: int, *, first_step: int, every_steps: int) -> bool:
  """Whether k-means runs before step `step`.

  Args:
    step: from 0.
    first_step: the first step that needs clusters.
    every_steps: steps between clusterings, an epoch in the official code.

  Returns:
    True at `first_step`, and at later multiples of `every_steps` (official).
    The official code clusters after a restart, too; here the clusters are
    part of the checkpoint, so that a restart changes nothing.
  """
  return step == first_step or (step > first_step and step % every_steps == 0)


@dataclasses.dataclass(frozen=True)
class Loop:
  """One training from some state to its end.

  Attributes:
    parts: of the run.
    steps: see `train_step.compile_steps`.
    method: the numbers of the method.
    rate: step -> learning rate.
    reporter: writes and saves.
    trace: of some steps, if one is wanted.
  """

  parts: Experiment
  steps: Mapping[str, Callable]
  method: train_step.Method
  rate: Callable[[int], Any]
  reporter: Reporter
  trace: step_trace.StepTrace

  def run(
    self, state: train_state.TrainState, *, evaluation_is_due: bool
  ) -> train_state.TrainState:
    """Steps from `state.step` to `config.num_steps`.

    Args:
      state: the first one.
      evaluation_is_due: whether it was not evaluated, and is to be.

    Returns:
      The last one.

    Raises:
      preemption.Stopped: if a signal asks for it, after the step that runs was
        done and saved.
      finite.DivergedError: if the numbers are no longer finite.
    """
    config, first_step = self.parts.config, int(state.step)
    if evaluation_is_due:
      evaluation_is_due = not self._is_evaluated(state)
    if first_step >= config.num_steps and not evaluation_is_due:
      logging.info('Training is complete: step %d.', first_step)
      if first_step > config.num_steps:
        logging.warning(
          'More is done than config.num_steps=%d.', config.num_steps
        )
      return state
    if preemption.SIGNALS.poll():
      self._leave(state, evaluation_is_due)
    progress = step_progress.StepProgress(
      num_steps=config.num_steps,
      every_steps=config.log_every_steps,
      writer=self.reporter.writer,
    )
    warm_start = config.objective.instance_recognition_steps
    first_clustering = self._first_clustering(state)
    with (
      input_wait.InputWait(
        experiment.train_batches(
          self.parts, start_step=first_step, seed=config.seed
        )
      ) as waiting,
      self.trace,
    ):
      for step in range(first_step, config.num_steps):
        is_new = step in (first_step, warm_start)
        self.trace.begin(step + 1, state=state, is_new=is_new)
        with step_trace.step(step + 1):
          # A run starts from what is saved: until its first step is done, no
          # step would be lost, and its compilation may take long.
          is_first = step == first_step
          leaving = preemption.SIGNALS.leaving
          with leaving() if is_first else contextlib.nullcontext():
            with step_trace.phase('input wait'), progress.waiting():
              local = self._batch(step, state, waiting, is_first=is_first)
            state, metrics = self._step(
              step, state, local, first_clustering, is_new=is_new
            )
          self._report(step, metrics)
          progress(step + 1, is_new=is_new)
          self._evaluate_and_save(step + 1, state)
        if self.trace.is_last(step + 1):
          watchdog.expect('the trace', is_slow=True)
          self.trace.end(state=state)
    logging.info('Training is complete: step %d.', config.num_steps)
    return state

  def _batch(self, step, state, waiting, *, is_first):
    """Waits for a batch; what there is is saved if none comes."""
    watchdog.expect(f'the batch of step {step + 1}')

    def keep():
      if not is_first:
        self._keep(state, evaluation_is_due=False)

    return waiting.next_of_training(
      keep=keep, leave=lambda: self._leave(state, evaluation_is_due=False)
    )

  def _first_clustering(self, state):
    """The step before which k-means runs first.

    Where a run goes on with a shorter warm start than it had, it is this one.
    """
    step = int(state.step)
    warm_start = self.parts.config.objective.instance_recognition_steps
    if step <= warm_start or train_state.is_clustered(state, self.parts.mesh):
      return warm_start
    return step

  def _step(self, step, state, local, first_clustering, *, is_new):
    """Takes one step, with the k-means before it if that is due."""
    config, reporter = self.parts.config, self.reporter
    with step_trace.phase('batch to device'):
      batch = sharding.global_batch(local, self.parts.mesh)
    objective = 'instance_recognition'
    if step >= config.objective.instance_recognition_steps:
      objective = 'local_aggregation'
      epoch = self.parts.train.num_instances // config.batch_size
      every_steps = config.local_aggregation.recluster_every_steps or epoch
      if clusters_are_due(
        step, first_step=first_clustering, every_steps=every_steps
      ):
        with step_trace.phase('k-means'):
          state = self._recluster(state, is_first=step == first_clustering)
    if is_new:
      logging.info(
        'Compiling the step of %s. This can take minutes.',
        objective.replace('_', ' '),
      )
    watchdog.expect(f'step {step + 1}', is_slow=is_new)
    with step_trace.phase('step'):
      state, metrics = self.steps[objective](state, batch)
    metrics = reporter.skipped.add(step + 1, metrics, local['instance_index'])
    # Never more than one step ahead of the device: batches take memory.
    with step_trace.phase('wait for step before'):
      reporter.skipped.settle(all_but=1)
    return state, metrics

  def _recluster(self, state, *, is_first):
    """Runs k-means and writes what became of the clusters."""
    self.reporter.skipped.settle()
    watchdog.expect('k-means', is_slow=True)
    # The first step that has the new clusters. Were it the step that is done,
    # going on from its checkpoint would write these figures twice.
    step = int(state.step) + 1
    sample = functools.partial(
      monitors.sampled_clusters,
      num_videos=self.method.num_videos,
      mesh=self.parts.mesh,
    )
    before = sample(state.cluster_labels)
    state, metrics = self.steps['recluster' if is_first else 'recluster_again'](
      state
    )
    change = monitors.cluster_change(before, sample(state.cluster_labels))
    self.reporter.scalars(step, {**metrics, 'health/cluster_change': change})
    return state

  def _report(self, step, metrics):
    """Writes the figures of a step, now and then."""
    config, done = self.parts.config, step + 1
    if done % config.log_every_steps == 0 or done == config.num_steps:
      with step_trace.phase('figures'):
        self._write_figures(step, metrics)

  def _write_figures(self, step, metrics):
    self.reporter.skipped.settle()
    damage = damage_counts.so_far(self.parts.train_damage)
    self.reporter.scalars(
      step + 1,
      {
        **metrics,
        'train/learning_rate': self.rate(step),
        'train/skipped_steps': self.reporter.skipped.count,
        'input/bad_frames': damage['num_bad'],
      },
    )

  def _evaluate_and_save(self, done, state):
    """Does so when it is time to, and leaves if a signal asks for it."""
    config = self.parts.config
    is_last = done == config.num_steps
    evaluation_is_due = done % config.eval_every_steps == 0 or is_last
    is_stopping = preemption.SIGNALS.poll()
    if evaluation_is_due and not is_stopping:
      evaluation_is_due = is_stopping = not self._is_evaluated(state)
    if is_stopping:
      self._leave(state, evaluation_is_due)
    if done % config.checkpoint_every_steps == 0 or is_last:
      self._save(state, evaluation_is_due=False)

  def _is_evaluated(self, state) -> bool:
    """Evaluates; False if a signal came in between."""
    self.reporter.skipped.settle()
    watchdog.expect('the evaluation', is_slow=True)
    try:
      with step_trace.phase('evaluation'):
        self.reporter.evaluate(state)
    except preemption.Stopped:
      return False
    except dataset_folder.UnreachableError:
      if not peers.is_shared():
        self._keep(state, evaluation_is_due=True)
      raise
    return True

  def _save(self, state, *, evaluation_is_due):
    self.reporter.skipped.settle()
    watchdog.expect('the checkpoint', is_slow=True)
    with step_trace.phase('save'):
      self.reporter.save(state, evaluation_is_due=evaluation_is_due)

  def _keep(self, state, *, evaluation_is_due):
    """Saves, and returns when that is on the disk."""
    self._save(state, evaluation_is_due=evaluation_is_due)
    self.reporter.wait()

  def _leave(self, state, evaluation_is_due) -> NoReturn:
    """Saves, and leaves together with all other processes."""
    self._keep(state, evaluation_is_due=evaluation_is_due)
    agreement.wait_for_all('saved')
    raise preemption.Stopped(
      f'Stopped early, as a signal asked: step {int(state.step)} is saved.'
    )
