"""The training loop: batches, steps, curves, checkpoints."""

import contextlib
import functools
import json
import math
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import optax
from absl import logging
from clu import parameter_overview, periodic_actions
from jax.sharding import Mesh

from vie_jax import (
  checkpoint,
  config_check,
  distributed,
  evaluate,
  experiment,
  metric_log,
  optimizer,
  run_log,
  run_record,
  sharding,
  train_state,
  train_step,
  weights,
  workdir_lock,
)
from vie_jax.evaluation import monitors
from vie_jax.experiment import Experiment

CONFIG_FILE = 'config.json'


def method_of(
  config: ml_collections.ConfigDict, num_videos: int
) -> train_step.Method:
  """The numbers of the method, fitted to the size of the data set.

  Args:
    config: of the run.
    num_videos: N. Background neighbours are at most N; clusters are fewer
      where `min_videos_per_cluster` asks for it. Both are logged.
  """
  settings = config.local_aggregation
  num_neighbors = min(settings.num_neighbors, num_videos)
  most_clusters = max(1, num_videos // settings.min_videos_per_cluster)
  num_clusters = min(settings.num_clusters, most_clusters)
  for name, wanted, got in (
    ('num_neighbors', settings.num_neighbors, num_neighbors),
    ('num_clusters', settings.num_clusters, num_clusters),
  ):
    if got < wanted:
      logging.info(
        'local_aggregation.%s is %d instead of %d: there are only %d '
        'training videos.',
        name,
        got,
        wanted,
        num_videos,
      )
  noise = config.instance_recognition
  if noise.loss == 'nce' and noise.num_noise > num_videos:
    logging.warning(
      'instance_recognition.num_noise is %d, with only %d videos: NCE tends to '
      'diverge then. The loss softmax is exact; see configs/demo.py.',
      noise.num_noise,
      num_videos,
    )
  return train_step.Method(
    num_videos=num_videos,
    temperature=config.objective.temperature,
    bank_momentum=config.memory_bank.momentum,
    instance_loss=config.instance_recognition.loss,
    num_noise=config.instance_recognition.num_noise,
    num_neighbors=num_neighbors,
    num_clusters=num_clusters,
    kmeans_iterations=settings.kmeans_iterations,
    product_bytes=config.objective.product_bytes,
  )


def clusters_are_due(step: int, *, first_step: int, every_steps: int) -> bool:
  """Whether k-means runs before step `step`.

  Args:
    step: from 0.
    first_step: the first step of Local Aggregation.
    every_steps: steps between clusterings, an epoch in the official code.

  Returns:
    True at `first_step`, and at later multiples of `every_steps` (official).
    The official code clusters after a restart, too; here the clusters are
    part of the checkpoint, so that a restart changes nothing.
  """
  return step == first_step or (step > first_step and step % every_steps == 0)


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


@jax.jit
def _is_finite(state: train_state.TrainState) -> jax.Array:
  leaves = jax.tree.leaves((state.params, state.batch_stats, state.bank))
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _start(
  parts: Experiment,
  workdir: pathlib.Path,
  checkpoints: checkpoint.Checkpoints,
  rule: optax.GradientTransformation,
  steps: dict[str, Callable],
) -> train_state.TrainState:
  """The newest checkpoint's state, or a new one."""

  def read(step):
    record = checkpoints.record(step)
    if step == 0 and 'converted_from' in record:
      return record, None
    changed = run_record.check_record(record, **experiment.record(parts))
    state = checkpoints.restore(step, experiment.state_shapes(parts, rule))
    for name, (old, new) in changed.items():
      logging.warning('config.%s was %r, is now %r.', name, old, new)
    return record, state

  record, state = checkpoints.read_newest(read) or ({}, None)
  if state is None:
    is_converted = 'converted_from' in record
    state = _first_state(parts, workdir, rule, is_converted=is_converted)
    return _first_bank(parts, state, steps['fill_bank'])
  if record['damage']:
    experiment.go_on_counting(parts.train_damage, record['damage'])
  logging.info(
    'Going on from the checkpoint of step %d.', checkpoints.latest_step
  )
  return state


def _first_state(
  parts: Experiment,
  workdir: pathlib.Path,
  rule: optax.GradientTransformation,
  *,
  is_converted: bool,
) -> train_state.TrainState:
  """The state of a run that begins, with the weights it is to begin with."""
  initialize = experiment.state_initializer(parts, rule)
  state = initialize(jax.random.key(parts.config.seed))
  where = {'clip_shape': parts.clip_shape, 'mesh': parts.mesh}
  if is_converted and parts.config.init_from == 'workdir':
    found = weights.load(parts.config, workdir, parts.model, **where)
    logging.info('Steps, learning rate and memory bank start anew.')
    return state.replace(**found.variables)
  drawn = {'params': state.params, 'batch_stats': state.batch_stats}
  return state.replace(
    **weights.warm_start(parts.config, workdir, parts.model, drawn, **where)
  )


def _first_bank(
  parts: Experiment, state: train_state.TrainState, fill: Callable
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
    bank = weights.load_bank(
      parts.config.init_from,
      fingerprint=parts.train.fingerprint,
      num_videos=parts.train.num_instances,
      embedding_size=parts.config.model.embedding_size,
      mesh=parts.mesh,
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
  with experiment.train_batches(parts, start_step=0, seed=seed) as batches:
    for number, batch in zip(range(num_batches), batches, strict=False):
      batch = sharding.global_batch(batch, parts.mesh)
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
    check_lock: raises if the workdir is no longer that of this process.
  """

  def __init__(
    self,
    parts: Experiment,
    workdir: pathlib.Path,
    checkpoints: checkpoint.Checkpoints,
    check_lock: Callable[[], None],
  ):
    self._parts = parts
    self._check_lock = check_lock
    self._checkpoints = checkpoints
    self._evaluator = evaluate.Evaluator(parts)
    self.writer = metric_log.open_writers(
      workdir,
      from_step=checkpoints.latest_step,
      is_main=jax.process_index() == 0,
    )

  def scalars(self, step: int, metrics: dict) -> None:
    """Writes figures of a step; stops if the loss is not finite.

    What has become of the last save is noticed here, too.
    """
    self._checkpoints.poll()
    values = {name: float(value) for name, value in metrics.items()}
    self.writer.write_scalars(step, values)
    loss = values.get('train/loss', 0.0)
    if not math.isfinite(loss):
      self._stop(step, f'the loss is {loss}')

  def evaluate(self, state: train_state.TrainState) -> None:
    """Writes kNN accuracy and health; stops if the state is not finite."""
    self._check(state)
    started = time.monotonic()
    figures = evaluate.curves(self._evaluator, state, self._parts)
    figures['eval/seconds'] = time.monotonic() - started
    self.writer.write_scalars(int(state.step), figures)

  def save(self, state: train_state.TrainState) -> None:
    """Saves a checkpoint; stops if the state is not finite."""
    self._check(state)
    self._check_lock()
    # A run that goes on from here writes no figures of the steps before.
    self.writer.flush()
    damage = experiment.damage_so_far(self._parts.train_damage)
    self._checkpoints.save(
      state, {**experiment.record(self._parts), 'damage': damage}
    )

  def _check(self, state):
    if not _is_finite(state):
      self._stop(
        int(state.step), 'a parameter or a row of the memory bank is not finite'
      )

  def _stop(self, step, reason):
    with contextlib.suppress(checkpoint.SaveFailedError):
      self._checkpoints.wait()
    good = self._checkpoints.latest_step
    kept = (
      'there is no checkpoint yet'
      if good is None
      else f'the last good checkpoint, of step {good}, is kept'
    )
    raise metric_log.DivergedError(
      f'Training stopped at step {step}: {reason}; {kept}. Lower '
      'config.optimizer.learning_rate, or look at the data, and run it '
      'again.'
    )


def _describe(
  parts: Experiment, state, reporter: _Reporter, workdir: pathlib.Path
) -> None:
  """Writes the resolved config and the list of parameters."""
  config = json.dumps(experiment.record(parts)['config'], indent=2)
  logging.info('Config:\n%s', config)
  logging.info(
    'Parameters:\n%s',
    parameter_overview.get_parameter_overview(
      state.params, include_stats=False
    ),
  )
  reporter.writer.write_texts(
    int(state.step), {'config': f'```\n{config}\n```'}
  )
  if jax.process_index() == 0:
    (workdir / CONFIG_FILE).write_text(config + '\n')


def _recluster(
  state: train_state.TrainState,
  recluster: Callable,
  reporter: _Reporter,
  *,
  num_videos: int,
  mesh: Mesh,
) -> train_state.TrainState:
  """Runs k-means and writes what became of the clusters."""
  # The first step that has the new clusters. Were it the step that is done,
  # going on from its checkpoint would write these figures twice.
  step = int(state.step) + 1
  sample = functools.partial(
    monitors.sampled_clusters, num_videos=num_videos, mesh=mesh
  )
  before = sample(state.cluster_labels)
  state, metrics = recluster(state)
  change = monitors.cluster_change(before, sample(state.cluster_labels))
  reporter.scalars(step, {**metrics, 'health/cluster_change': change})
  return state


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: str
) -> train_state.TrainState:
  """Trains to `config.num_steps`, from the newest checkpoint if there is one.

  Args:
    config: see configs/default.py.
    workdir: receives checkpoints, TensorBoard files, `metrics.jsonl`,
      `config.json` and the log.

  Returns:
    The last state.

  Raises:
    config_check.ConfigError, frame_store.DatasetError: with the remedy, before
      anything is written.
    checkpoint.CheckpointError: if the checkpoints are of another run, or all
      of them are damaged; they are left as they are.
    workdir_lock.WorkdirLockedError: if another process writes to the workdir.
    checkpoint.SaveFailedError: if the last state could not be saved, or
      `config.on_failed_save` is 'stop' and a state before could not be.
    metric_log.DivergedError: if a figure is no longer finite.
    frame_store.DatasetError: later on, if too many frames are damaged.
  """
  folder = pathlib.Path(workdir)
  with contextlib.ExitStack() as stack:
    parts = stack.enter_context(experiment.open_experiment(config))
    check_lock = stack.enter_context(workdir_lock.hold(folder))
    distributed.share_folder(folder)
    run_log.to_file(folder, jax.process_index())
    checkpoints = stack.enter_context(
      checkpoint.Checkpoints(
        folder,
        keep=config.keep_checkpoints,
        keep_every_steps=config.keep_checkpoint_every_steps,
        on_failed_save=config.on_failed_save,
      )
    )
    method = method_of(config, parts.train.num_instances)
    rule, rate = build_optimizer(config)
    steps = train_step.compile_steps(
      experiment.state_shapes(parts, rule),
      model=parts.model,
      optimizer=rule,
      augment=parts.augment,
      method=method,
      mesh=parts.mesh,
    )
    state = _start(parts, folder, checkpoints, rule, steps)
    reporter = _Reporter(parts, folder, checkpoints, check_lock)
    stack.callback(reporter.writer.close)
    _describe(parts, state, reporter, folder)
    return _loop(parts, state, steps, method, rate, reporter)


def _loop(parts, state, steps, method, rate, reporter):
  """Steps from `state.step` to `config.num_steps`."""
  config = parts.config
  first_step = int(state.step)
  if first_step >= config.num_steps:
    logging.info('Training is complete: step %d.', first_step)
    return state
  warm_start = config.objective.instance_recognition_steps
  epoch = parts.train.num_instances // config.batch_size
  every_steps = config.local_aggregation.recluster_every_steps or epoch
  progress = periodic_actions.ReportProgress(
    num_train_steps=config.num_steps,
    writer=reporter.writer,
    every_steps=config.log_every_steps,
    every_secs=None,
  )
  if not first_step:
    reporter.evaluate(state)
  with experiment.train_batches(
    parts, start_step=first_step, seed=config.seed
  ) as batches:
    previous = None
    for step in range(first_step, config.num_steps):
      batch = sharding.global_batch(next(batches), parts.mesh)
      objective = 'instance_recognition'
      if step >= warm_start:
        objective = 'local_aggregation'
        if clusters_are_due(
          step, first_step=warm_start, every_steps=every_steps
        ):
          state = _recluster(
            state,
            steps['recluster'],
            reporter,
            num_videos=method.num_videos,
            mesh=parts.mesh,
          )
      if step in (first_step, warm_start):
        logging.info(
          'Compiling the step of %s. This can take minutes.',
          objective.replace('_', ' '),
        )
      state, metrics = steps[objective](state, batch)
      # Never more than one step ahead of the device: batches take memory.
      jax.block_until_ready(previous)
      previous = metrics
      done = step + 1
      is_last = done == config.num_steps
      if done % config.log_every_steps == 0 or is_last:
        damage = experiment.damage_so_far(parts.train_damage)
        reporter.scalars(
          done,
          {
            **metrics,
            'train/learning_rate': rate(step),
            'input/bad_frames': damage['num_bad'],
          },
        )
      progress(done)
      if done % config.eval_every_steps == 0 or is_last:
        reporter.evaluate(state)
      if done % config.checkpoint_every_steps == 0 or is_last:
        reporter.save(state)
  logging.info('Training is complete: step %d.', config.num_steps)
  return state
