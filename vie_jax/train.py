"""A training: how it starts, what it writes, what it saves."""

import contextlib
import functools
import json
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging
from clu import parameter_overview

from vie_jax import (
  blueprint,
  checkpoint,
  config_check,
  damage_counts,
  environment,
  evaluate,
  experiment,
  finite,
  metric_log,
  optimizer,
  run_log,
  run_record,
  run_weights,
  sharding,
  skipped_steps,
  step_trace,
  train_loop,
  train_state,
  train_step,
  weights,
  workdir_lock,
)
from vie_jax.experiment import Experiment
from vie_jax.processes import agreement, preemption, watchdog

CONFIG_FILE = 'config.json'
_OBJECTIVES = ('Instance Recognition', 'Local Aggregation')


def build_optimizer(config: ml_collections.ConfigDict):
  """The update rule of the config, and its learning rate by step."""
  settings = config.optimizer
  rate = optimizer.schedule(
    settings.schedule,
    learning_rate=settings.learning_rate,
    num_steps=config.num_steps,
    drop_steps=settings.drop_steps,
    warmup_steps=settings.warmup_steps,
  )
  rule = optimizer.build(
    settings.name,
    rate,
    momentum=settings.momentum,
    weight_decay=settings.weight_decay,
  )
  return rule, rate


def warn_of_another_phase(
  old: ml_collections.ConfigDict, new: ml_collections.ConfigDict, step: int
) -> None:
  """Warns where a run goes on with another objective or at a larger rate.

  Args:
    old: config of the run so far.
    new: config that it goes on with.
    step: updates done, at least one.
  """
  last = step - 1
  before, now = (
    config.objective.instance_recognition_steps for config in (old, new)
  )
  if (last < before) != (last < now):
    logging.warning(
      'Step %d was of %s, and would be of %s now: '
      'config.objective.instance_recognition_steps was %d, is %d.',
      step,
      *_OBJECTIVES[:: 1 if last < before else -1],
      before,
      now,
    )
  was, would_be = (
    float(build_optimizer(config)[1](last)) for config in (old, new)
  )
  if would_be > was:
    logging.warning(
      'The learning rate rises: that of step %d was %.3g, and would be %.3g now.',
      step,
      was,
      would_be,
    )


@jax.jit
def _is_finite(state: train_state.TrainState) -> jax.Array:
  return finite.all_finite(state.params, state.batch_stats, state.bank)


def _start(
  parts: Experiment,
  workdir: pathlib.Path,
  checkpoints: checkpoint.Checkpoints,
  initialize: Callable[[jax.Array], train_state.TrainState],
  shapes: train_state.TrainState,
  fill_bank: Callable,
) -> tuple[train_state.TrainState, dict | None]:
  """The newest checkpoint's state and record, or a new state and None."""

  def read(step):
    watchdog.expect(f'restoring the checkpoint of step {step}', is_slow=True)
    record = checkpoints.record(step)
    if step == 0 and 'converted_from' in record:
      return record, None
    own = experiment.record(parts)
    changed = run_record.check_record(
      record, config=own['config'], fingerprint=own['fingerprint']
    )
    state = checkpoints.restore(step, shapes)
    for name, (old, new) in changed.items():
      logging.warning('config.%s was %r, is now %r.', name, old, new)
    if changed and step:
      warn_of_another_phase(
        ml_collections.ConfigDict(record['config']), parts.config, step
      )
    return record, state

  record, state = checkpoints.read_newest(read) or ({}, None)
  if state is None:
    is_converted = 'converted_from' in record
    state, source_step = _first_state(
      parts, workdir, initialize, is_converted=is_converted
    )
    return _first_bank(parts, state, source_step, fill_bank), None
  if record['damage']:
    damage_counts.go_on_from(parts.train_damage, record['damage'])
  environment.warn_of_changes(
    record.get('environment'), environment.describe(parts.mesh)
  )
  logging.info(
    'Going on from the checkpoint of step %d.', checkpoints.latest_step
  )
  return state, record


def _first_state(
  parts: Experiment,
  workdir: pathlib.Path,
  initialize: Callable[[jax.Array], train_state.TrainState],
  *,
  is_converted: bool,
) -> tuple[train_state.TrainState, int | None]:
  """The state of a run that begins, with the weights it is to begin with.

  And the step of the other run's checkpoint that they are of, if they are.
  """
  watchdog.expect('the first weights', is_slow=True)
  state = initialize(jax.random.key(parts.config.seed))
  where = {'clip_shape': parts.clip_shape, 'mesh': parts.mesh}
  if is_converted and parts.config.init_from == 'workdir':
    found = weights.load(parts.config, workdir, parts.model, **where)
    logging.info('Steps, learning rate and memory bank start anew.')
    return state.replace(**found.variables), None
  drawn = {'params': state.params, 'batch_stats': state.batch_stats}
  variables, source_step = weights.warm_start(
    parts.config, workdir, parts.model, drawn, **where
  )
  return state.replace(**variables), source_step


def _first_bank(
  parts: Experiment,
  state: train_state.TrainState,
  source_step: int | None,
  fill: Callable,
) -> train_state.TrainState:
  """Gives a new run the memory bank that `memory_bank.init` asks for."""
  kind = parts.config.memory_bank.init
  if kind == 'embeddings':
    return _fill_bank(parts, state, fill)
  if kind == 'init_from':
    if not weights.is_run(parts.config.init_from):
      raise config_check.ConfigError(
        'config.memory_bank.init is init_from, and config.init_from is '
        f'{parts.config.init_from!r}; it must be the workdir of another run.'
      )
    bank = run_weights.load_bank(
      run_weights.place_of(parts.config.init_from)[0],
      fingerprint=parts.train.fingerprint,
      num_videos=parts.train.num_instances,
      embedding_size=parts.config.model.embedding_size,
      mesh=parts.mesh,
      step=source_step,
    )
    return state.replace(bank=bank)
  return state


def _fill_bank(
  parts: Experiment, state: train_state.TrainState, fill: Callable
) -> train_state.TrainState:
  """Gives the bank rows of an epoch the untrained network's embeddings.

  The videos that an epoch leaves out, fewer than a batch, keep their random
  rows until they are first visited.
  """
  num_batches = parts.train.num_instances // parts.config.batch_size
  logging.info('Filling the memory bank with the embeddings of an epoch.')
  # The seed's neighbour, so that training does not repeat these clips.
  seed = parts.config.seed + 1
  opened = experiment.train_batches(parts, start_step=0, seed=seed)
  with experiment.watched(opened) as batches:
    for number in range(num_batches):
      watchdog.expect(
        f'batch {number + 1} of {num_batches} that fill the memory bank',
        is_slow=number == 0,
      )
      batch = sharding.global_batch(next(batches), parts.mesh)
      state = fill(state, batch, jnp.asarray(number, jnp.int32))
      # As in the loop: batches must not pile up in front of the device.
      jax.block_until_ready(state.bank)
      if (number + 1) % parts.config.log_every_steps == 0:
        logging.info('Memory bank: %d of %d batches.', number + 1, num_batches)
  return state


class _Reporter:
  """Writes figures, and stops the run when they are no longer finite.

  Args:
    parts: of the run.
    workdir: receives TensorBoard files and `metrics.jsonl`.
    checkpoints: of the workdir; the run goes on from the newest.
    record: of that one, None for a run that begins.
    check_lock: raises if the workdir is no longer that of this process.
  """

  def __init__(
    self,
    parts: Experiment,
    workdir: pathlib.Path,
    checkpoints: checkpoint.Checkpoints,
    record: dict | None,
    check_lock: Callable[[], None],
  ):
    self._parts = parts
    self._check_lock = check_lock
    self._checkpoints = checkpoints
    self._evaluator = evaluate.Evaluator(parts)
    self._environment = environment.describe(parts.mesh)
    # A run that begins is evaluated before its first step.
    self.evaluation_is_due = record is None or record.get(
      'evaluation_is_due', False
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
      again='eval/seconds' if self.evaluation_is_due else None,
      is_main=jax.process_index() == 0,
      waits_for_room=parts.config.on_failed_save == 'retry',
    )

  def scalars(self, step: int, metrics: dict) -> None:
    """Writes figures of a step.

    What has become of the last save is noticed here, too.
    """
    self._checkpoints.poll()
    values = {name: float(value) for name, value in metrics.items()}
    self.writer.write_scalars(step, values)

  def evaluate(self, state: train_state.TrainState) -> None:
    """Writes kNN accuracy and health; stops if the state is not finite."""
    self.check(state)
    started = time.monotonic()
    figures = evaluate.curves(self._evaluator, state, self._parts)
    figures['eval/seconds'] = time.monotonic() - started
    self.writer.write_scalars(int(state.step), figures)

  def save(
    self, state: train_state.TrainState, *, evaluation_is_due: bool
  ) -> None:
    """Saves a checkpoint; stops if the state is not finite.

    Args:
      state: of a step; does nothing if that one is saved already.
      evaluation_is_due: whether it is still to be evaluated.
    """
    # This step may be on its way.
    self._checkpoints.settle()
    saved = self._checkpoints.latest_step
    if saved is not None and int(state.step) <= saved:
      return
    self.check(state)
    self._check_lock()
    # A run that goes on from here writes no figures of the steps before.
    if not metric_log.make_safe(self.writer):
      self._checkpoints.give_up(int(state.step), metric_log.NO_ROOM)
      return
    self._checkpoints.save(
      state,
      {
        **experiment.record(self._parts),
        'damage': damage_counts.so_far(self._parts.train_damage),
        'skipped_steps': self.skipped.count,
        'evaluation_is_due': evaluation_is_due,
        'environment': self._environment,
      },
    )

  def wait(self) -> None:
    """Returns when all saves are on the disk."""
    self._checkpoints.wait()

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
    with contextlib.suppress(checkpoint.SaveFailedError):
      self._checkpoints.wait()
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


def _describe(
  parts: Experiment, state, reporter: _Reporter, workdir: pathlib.Path
) -> None:
  """Writes the resolved config and the list of parameters."""
  config = json.dumps(experiment.record(parts)['config'], indent=2)
  overview = parameter_overview.get_parameter_overview(
    state.params, include_stats=False
  )
  run_log.to_file_alone(f'Config:\n{config}')
  run_log.to_file_alone(f'Parameters:\n{overview}')
  logging.info(
    '%s: %s parameters, listed with the config in %s.',
    parts.config.model.name,
    f'{parameter_overview.count_parameters(state.params):,}',
    run_log.path(workdir, jax.process_index()),
  )
  reporter.writer.write_texts(
    int(state.step), {'config': f'```\n{config}\n```'}
  )
  if jax.process_index() == 0:
    (workdir / CONFIG_FILE).write_text(config + '\n')


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: str
) -> train_state.TrainState:
  """Trains to `config.num_steps`, from the newest checkpoint if there is one.

  Args:
    config: see configs/default.py.
    workdir: receives checkpoints, TensorBoard files, `metrics.jsonl`,
      `config.json`, the log and, with `config.profile`, a trace.

  Returns:
    The last state.

  Raises:
    config_check.ConfigError, dataset_folder.DatasetError: with the remedy,
      before anything is written.
    checkpoint.CheckpointError: if the checkpoints are of another run, or all
      of them are damaged; they are left as they are.
    workdir_lock.WorkdirLockedError: if another process writes to the workdir.
    checkpoint.SaveFailedError: if the last state could not be saved, or
      `config.on_failed_save` is 'stop' and a state before could not be.
    finite.DivergedError: if a figure is no longer finite, and the config
      does not have such steps skipped, or there are too many.
    preemption.Stopped: if a signal asks for it.
    dataset_folder.DatasetError: later on, if too many frames are damaged.
  """
  folder = pathlib.Path(workdir)
  with contextlib.ExitStack() as stack:
    parts = stack.enter_context(experiment.open_experiment(config))
    check_lock = stack.enter_context(workdir_lock.hold(folder))
    agreement.share_folder(folder)
    run_log.to_file(folder, jax.process_index())
    logging.info('Workdir: %s', folder)
    checkpoints = stack.enter_context(
      checkpoint.Checkpoints(
        folder,
        keep=config.keep_checkpoints,
        keep_every_steps=config.keep_checkpoint_every_steps,
        on_failed_save=config.on_failed_save,
      )
    )
    method = blueprint.method_of(config, parts.train.num_instances)
    rule, rate = build_optimizer(config)
    initialize = experiment.state_initializer(parts, rule)
    shapes = experiment.state_shapes(initialize, parts.mesh)
    steps = train_step.compile_steps(
      shapes,
      model=parts.model,
      optimizer=rule,
      augment=parts.augment,
      method=method,
      mesh=parts.mesh,
    )
    state, record = _start(
      parts, folder, checkpoints, initialize, shapes, steps['fill_bank']
    )
    watchdog.expect('the state before the first step', is_slow=True)
    reporter = _Reporter(parts, folder, checkpoints, record, check_lock)
    stack.push(metric_log.closing(reporter.writer))
    reporter.check(state)
    _describe(parts, state, reporter, folder)
    stack.enter_context(preemption.SIGNALS.deferring())
    trace = step_trace.StepTrace(
      folder,
      is_wanted=config.profile,
      first_step=config.profile_first_step,
      num_steps=config.profile_steps,
    )
    loop = train_loop.Loop(parts, steps, method, rate, reporter, trace)
    return loop.run(state, evaluation_is_due=reporter.evaluation_is_due)
