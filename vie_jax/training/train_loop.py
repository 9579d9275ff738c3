"""The loop of a pretraining: batches, k-means, steps, and when to report."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from vie_jax import (
  experiment,
  guarded_saves,
  sharding,
  train_state,
  train_step,
)
from vie_jax.evaluation import monitors
from vie_jax.experiment import Experiment
from vie_jax.processes import preemption, watchdog
from vie_jax.telemetry import (
  damage_counts,
  input_wait,
  step_progress,
  step_trace,
)
from vie_jax.training.train_reporter import Reporter
from vie_jax.wording import counted

# Rows times clusters that are told of only when they are done: on two cores they
# take 20 seconds.
_SHORT_KMEANS = 10**8


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
    if evaluation_is_due and not self._is_evaluated(state):
      self.reporter.saves.leave(state, evaluation_is_due=True)
    if first_step >= config.num_steps:
      logging.info('Training is complete: step %d.', first_step)
      if first_step > config.num_steps:
        logging.warning(
          'More is done than config.num_steps=%d.', config.num_steps
        )
      return state
    if preemption.SIGNALS.poll():
      self.reporter.saves.leave(state, evaluation_is_due=False)
    progress = step_progress.StepProgress(
      num_steps=config.num_steps,
      every_steps=config.log_every_steps,
      writer=self.reporter.writer,
    )
    course = _Course(first_step, self._first_clustering(state), progress)
    opened = experiment.train_batches(
      self.parts, start_step=first_step, seed=config.seed
    )
    with input_wait.InputWait(opened) as waiting, self.trace:
      for step in range(first_step, config.num_steps):
        state = self._one_step(step, state, course, waiting)
    logging.info('Training is complete: step %d.', config.num_steps)
    return state

  @property
  def _first_local_aggregation_step(self) -> int:
    return self.parts.config.objective.instance_recognition_steps

  def _first_clustering(self, state):
    """The step before which k-means runs first.

    Where a run goes on with fewer steps of Instance Recognition than it had, it
    is this one.
    """
    step, planned = int(state.step), self._first_local_aggregation_step
    if step <= planned or train_state.is_clustered(state, self.parts.mesh):
      return planned
    return step

  def _one_step(self, step, state, course, waiting):
    """Takes a step, and does what is due after it."""
    is_first = step == course.first_step
    is_new = is_first or step == self._first_local_aggregation_step
    self.trace.begin(step + 1, state=state, is_new=is_new)
    with step_trace.step(step + 1):
      with guarded_saves.leaving_at_once(is_first):
        with step_trace.phase('input wait'), course.progress.waiting():
          local = self.reporter.saves.next_batch(
            waiting, step, state, is_first=is_first, evaluation_is_due=False
          )
        state, metrics = self._update(
          step, state, local, course.first_clustering, is_new=is_new
        )
      self._report(step, metrics)
      course.progress(step + 1, is_new=is_new)
      self._evaluate_and_save(step + 1, state)
    if self.trace.is_last(step + 1):
      watchdog.expect('the trace', is_slow=True)
      self.trace.end(state=state)
    return state

  def _update(self, step, state, local, first_clustering, *, is_new):
    """Gives the device a batch, with the k-means before it if that is due."""
    with step_trace.phase('batch to device'):
      batch = sharding.global_batch(
        {name: local[name] for name in train_step.INPUTS}, self.parts.mesh
      )
    objective = 'instance_recognition'
    if step >= self._first_local_aggregation_step:
      objective = 'local_aggregation'
      state = self._clustered(step, state, first_clustering)
    if is_new:
      logging.info(
        'Compiling the step of %s. This can take minutes.',
        objective.replace('_', ' '),
      )
    watchdog.expect(f'step {step + 1}', is_slow=is_new)
    with step_trace.phase('step'):
      state, metrics = self.steps[objective](state, batch)
    skipped = self.reporter.skipped
    metrics = skipped.add(step + 1, metrics, local['instance_index'])
    # Never more than one step ahead of the device: batches take memory.
    with step_trace.phase('wait for step before'):
      skipped.settle(all_but=1)
    return state, metrics

  def _clustered(self, step, state, first_clustering):
    """Runs k-means if it is due before a step."""
    config = self.parts.config
    epoch = self.parts.train.num_instances // config.batch_size
    every_steps = config.local_aggregation.recluster_every_steps or epoch
    if not clusters_are_due(
      step, first_step=first_clustering, every_steps=every_steps
    ):
      return state
    is_first = step == first_clustering
    # Of a small data set clusters are made every few steps; the log has the
    # first ones of as many as it has lines.
    is_logged = is_first or step % config.log_every_steps < every_steps
    with step_trace.phase('k-means'):
      return self._recluster(state, is_first=is_first, is_logged=is_logged)

  @property
  def _kmeans_is_long(self) -> bool:
    return self.method.num_videos * self.method.num_clusters > _SHORT_KMEANS

  def _recluster(self, state, *, is_first, is_logged):
    """Runs k-means and writes what became of the clusters."""
    self.reporter.skipped.settle()
    if is_first or self._kmeans_is_long:
      logging.info(
        'k-means: %s, %s.',
        counted(self.method.num_videos, 'instance'),
        counted(self.method.num_clusters, 'cluster'),
      )
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
    self.reporter.scalars(
      step,
      {**metrics, 'health/cluster_change': change},
      is_logged=is_logged,
    )
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
    config, saves = self.parts.config, self.reporter.saves
    is_last = done == config.num_steps
    evaluation_is_due = done % config.eval_every_steps == 0 or is_last
    if preemption.SIGNALS.poll():
      saves.leave(state, evaluation_is_due=evaluation_is_due)
    if evaluation_is_due and not self._is_evaluated(state):
      saves.leave(state, evaluation_is_due=True)
    if done % config.checkpoint_every_steps == 0 or is_last:
      saves.save(state, evaluation_is_due=False)

  def _is_evaluated(self, state) -> bool:
    """Evaluates; False if a signal came in between."""
    try:
      with self.reporter.saves.evaluating(state, evaluation_is_due=True):
        self.reporter.evaluate(state)
    except preemption.Stopped:
      return False
    return True


@dataclasses.dataclass(frozen=True)
class _Course:
  """What stays the same from a run's first step to its last.

  Attributes:
    first_step: from 0.
    first_clustering: the step before which k-means runs first.
    progress: tells of it.
  """

  first_step: int
  first_clustering: int
  progress: step_progress.StepProgress
