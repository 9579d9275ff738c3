"""What a training starts from: the newest checkpoint, or weights and a bank."""

import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging

from vie_jax import (
  blueprint,
  checkpoint,
  experiment,
  lineage,
  run_record,
  run_weights,
  sharding,
  train_state,
  train_step,
  weights,
)
from vie_jax.config import config_check
from vie_jax.experiment import Experiment
from vie_jax.machine import environment
from vie_jax.processes import watchdog
from vie_jax.telemetry import damage_counts
from vie_jax.training import warm_start

_OBJECTIVES = ('Instance Recognition', 'Local Aggregation')


class Start(NamedTuple):
  """What a run begins with or goes on from.

  Attributes:
    state: the first one.
    record: of the checkpoint that it is of; None for a run that begins.
    started_from: the trainings behind its weights, see `lineage`.
  """

  state: train_state.TrainState
  record: dict | None
  started_from: Sequence[Mapping[str, Any]]


def start(
  parts: Experiment,
  workdir: pathlib.Path,
  checkpoints: checkpoint.Checkpoints,
  initialize: Callable[[jax.Array], train_state.TrainState],
  shapes: train_state.TrainState,
  fill_bank: Callable,
) -> Start:
  """The newest checkpoint's state and record, or a new state and None."""

  def read(step):
    watchdog.expect(f'restoring the checkpoint of step {step}', is_slow=True)
    record = checkpoints.record(step)
    if step == 0 and 'converted_from' in record:
      return Start(None, record, ())
    if not checkpoints.saved_shapes(step, 'memory_bank'):
      raise _of_labels(workdir, checkpoints.saved_shapes(step, 'model'))
    own = experiment.record(parts)
    changed = run_record.check_record(
      record, config=own['config'], fingerprint=own['fingerprint']
    )
    state = checkpoints.restore(step, shapes)
    _warn_of_changes(changed, record['config'], parts.config, step)
    started_from = lineage.gone_on(
      {**record, 'step': step},
      instance_recognition_steps=(
        parts.config.objective.instance_recognition_steps
      ),
      source=str(workdir),
    )
    return Start(state, record, started_from)

  found = checkpoints.read_newest(read) or Start(None, {}, ())
  record = found.record
  if found.state is None:
    state, first = _first_state(
      parts, workdir, initialize, record.get('converted_from')
    )
    state = _first_bank(parts, state, first.source_step, fill_bank)
    return Start(state, None, first.started_from)
  if record['damage']:
    damage_counts.go_on_from(parts.train_damage, record['damage'])
  environment.warn_of_changes(
    record.get('environment'), environment.describe(parts.mesh)
  )
  logging.info(
    'Going on from the checkpoint of step %d.', checkpoints.latest_step
  )
  return found


def _of_labels(workdir, network):
  message = (
    f'{workdir} holds a training on labels, which has no memory bank. Give the '
    'pretraining another --workdir.'
  )
  if network:
    message += (
      f' With --config.init_from={shlex.quote(str(workdir))} it begins with the '
      'weights of this one.'
    )
  return checkpoint.CheckpointError(message)


def _first_state(
  parts: Experiment,
  workdir: pathlib.Path,
  initialize: Callable[[jax.Array], train_state.TrainState],
  converted_from: str | None,
) -> tuple[train_state.TrainState, warm_start.FirstWeights]:
  """The state of a run that begins, with the weights it is to begin with."""
  watchdog.expect('the first weights', is_slow=True)
  state = initialize(jax.random.key(parts.config.seed))
  where = {'clip_shape': parts.clip_shape, 'mesh': parts.mesh}
  if converted_from and parts.config.init_from == 'workdir':
    found = weights.load(parts.config, workdir, parts.model, **where)
    logging.info('Steps, learning rate and memory bank start anew.')
    first = warm_start.FirstWeights(
      found.variables, lineage.behind(found.facts(converted_from))
    )
    return state.replace(**first.variables), first
  drawn = {'params': state.params, 'batch_stats': state.batch_stats}
  first = warm_start.first_weights(
    parts.config, workdir, parts.model, drawn, **where
  )
  return state.replace(**first.variables), first


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
    found = run_weights.load_bank(
      run_weights.place_of(parts.config.init_from)[0],
      fingerprint=parts.train.fingerprint,
      num_videos=parts.train.num_instances,
      embedding_size=parts.config.model.embedding_size,
      mesh=parts.mesh,
      step=source_step,
    )
    return state.replace(bank=found['bank'])
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
      local = next(batches)
      batch = sharding.global_batch(
        {name: local[name] for name in train_step.INPUTS}, parts.mesh
      )
      state = fill(state, batch, jnp.asarray(number, jnp.int32))
      # As in the loop: batches must not pile up in front of the device.
      jax.block_until_ready(state.bank)
      if (number + 1) % parts.config.log_every_steps == 0:
        logging.info('Memory bank: %d of %d batches.', number + 1, num_batches)
  return state


def _warn_of_changes(
  changed: dict, old: dict, new: ml_collections.ConfigDict, step: int
) -> None:
  """Warns where a run goes on, from some step, with another config."""
  for name, (before, now) in changed.items():
    logging.warning('config.%s was %r, is now %r.', name, before, now)
  if not changed:
    return
  if step >= new.num_steps:
    logging.warning(
      'No step is left to train with these values: what is trained, and %s, '
      'stay as they are.',
      run_record.CONFIG_FILE,
    )
  elif step:
    warn_of_another_phase(ml_collections.ConfigDict(old), new, step)


def warn_of_endless_warmup(config: ml_collections.ConfigDict) -> None:
  """Warns where a run ends before its learning rate has risen."""
  steps, rising = config.num_steps, config.optimizer.warmup_steps
  if steps <= rising:
    logging.warning(
      'The learning rate rises for config.optimizer.warmup_steps=%d, and the run '
      'ends after config.num_steps=%d: it never reaches %g.',
      rising,
      steps,
      config.optimizer.learning_rate,
    )


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
    float(blueprint.build_optimizer(config)[1](last)) for config in (old, new)
  )
  if would_be > was:
    logging.warning(
      'The learning rate rises: that of step %d was %.3g, and would be %.3g now.',
      step,
      was,
      would_be,
    )
