"""A training: what it is made of, and what it leaves behind."""

import contextlib
import pathlib

import jax
import ml_collections
from absl import logging
from clu import parameter_overview

from vie_jax import (
  blueprint,
  checkpoint,
  experiment,
  run_record,
  train_state,
  train_step,
)
from vie_jax.experiment import Experiment
from vie_jax.files import config_origin, workdir_lock
from vie_jax.processes import agreement, preemption, watchdog
from vie_jax.telemetry import metric_log, run_log, step_trace
from vie_jax.training import train_loop, train_start
from vie_jax.training.train_reporter import Reporter


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: str, *, origin: str = ''
) -> train_state.TrainState:
  """Trains to `config.num_steps`, from the newest checkpoint if there is one.

  Args:
    config: see configs/default.py.
    workdir: receives checkpoints, TensorBoard files, `metrics.jsonl`,
      `config.json`, the log and, with `config.profile`, a trace.
    origin: which file the config is from, see `config_origin`; '' for none.

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
    train_start.warn_of_endless_warmup(config)
    method = blueprint.method_of(config, parts.train.num_instances)
    rule, rate = blueprint.build_optimizer(config)
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
    state, record, started_from = train_start.start(
      parts, folder, checkpoints, initialize, shapes, steps['fill_bank']
    )
    watchdog.expect('the state before the first step', is_slow=True)
    reporter = Reporter(
      parts, folder, checkpoints, record, started_from, check_lock
    )
    stack.push(metric_log.closing(reporter.writer))
    reporter.check(state)
    is_complete = int(state.step) >= config.num_steps
    # What is there was trained with the config of the checkpoint.
    own = record if is_complete else experiment.record(parts)
    _describe(parts, state, reporter, folder, own['config'])
    if origin and not is_complete and agreement.is_first():
      config_origin.write(folder, origin)
    stack.enter_context(preemption.SIGNALS.deferring())
    trace = step_trace.StepTrace(
      folder,
      is_wanted=config.profile,
      first_step=config.profile_first_step,
      num_steps=config.profile_steps,
    )
    loop = train_loop.Loop(parts, steps, method, rate, reporter, trace)
    return loop.run(state, evaluation_is_due=reporter.evaluation_is_due)


def _describe(
  parts: Experiment,
  state,
  reporter: Reporter,
  workdir: pathlib.Path,
  config: dict,
) -> None:
  """Writes the resolved config and the list of parameters."""
  text = run_record.write_config(
    workdir, reporter.writer, int(state.step), config
  )
  overview = parameter_overview.get_parameter_overview(
    state.params, include_stats=False
  )
  run_log.to_file_alone(f'Config:\n{text}')
  run_log.to_file_alone(f'Parameters:\n{overview}')
  logging.info(
    '%s: %s parameters, listed with the config in %s.',
    parts.config.model.name,
    f'{parameter_overview.count_parameters(state.params):,}',
    run_log.path(workdir, jax.process_index()),
  )
