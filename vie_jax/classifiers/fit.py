"""Training of classifiers on labels: readouts, and whole networks.

What is trained is a `Task`; how often it is evaluated and saved, when the rate
drops and when it ends is the same for all, and so is going on after a kill.
"""

import contextlib
import dataclasses
import json
import pathlib
import shlex
from collections.abc import Callable

import jax
import ml_collections
from absl import logging

from vie_jax import checkpoint, lineage, run_record
from vie_jax.classifiers.labelled_data import LabelledData
from vie_jax.classifiers.loop import Loop
from vie_jax.classifiers.progress import Progress
from vie_jax.classifiers.task import Intervals, Outcome, Schedule, Task
from vie_jax.config import config_roles
from vie_jax.evaluation import result_words
from vie_jax.files import workdir_lock
from vie_jax.machine import environment
from vie_jax.processes import agreement, preemption, watchdog
from vie_jax.results import result
from vie_jax.telemetry import metric_log, run_log
from vie_jax.weights import Weights

# Of a record, besides what `config_roles` says of config fields: where the
# weights are from, which their digest stands for, and the end of the schedule.
_FREE = (
  'network.source',
  'network.trained_on',
  'network.started_from',
  'network.streams',
  'schedule.num_steps',
)
# What a result of a training has, at least.
_OF_RESULT = {'mode', 'accuracy', 'chance', 'steps', 'network', 'settings'}


def fit_and_write(
  task: Task,
  data: LabelledData,
  found: Weights,
  config: ml_collections.ConfigDict,
  *,
  mode: str,
  folder: pathlib.Path,
  schedule: Schedule,
  **facts,
) -> dict:
  """Trains to the end and writes the result.

  Args:
    task: what is trained.
    data: what it is trained and tested on.
    found: the weights that it starts from.
    config: of the network; `config[mode]` says how it is trained.
    mode: of main.py.
    folder: receives everything.
    schedule: of the learning rate.
    **facts: that go to the record of each checkpoint, too.

  Returns:
    What is written to `result.json`.

  Raises:
    As `fit`.
  """
  settings = config[mode]
  whole = json.loads(config.to_json_best_effort())
  network = result.network(config, found)
  record = {
    'fingerprint': data.facts['fingerprint'],
    'network': {**network, 'weights': found.digest()},
    'settings': whole[mode],
    'schedule': json.loads(json.dumps(dataclasses.asdict(schedule))),
    'input': {
      'label_columns': list(data.classes),
      **{name: whole[name] for name in ('seed', 'clip', 'augmentation')},
      'crop': config_roles.crop_in_effect(
        whole['crop'], whole[mode].get('augmentation')
      ),
    },
    'config': whole,
    **facts,
  }
  with workdir_lock.hold(folder) as check_lock:
    outcome = fit(
      task,
      data,
      folder,
      check_lock=check_lock,
      schedule=schedule,
      intervals=Intervals(
        config.log_every_steps,
        settings.eval_every_steps,
        settings.checkpoint_every_steps,
      ),
      record=record,
      keeping={
        'keep': config.keep_checkpoints,
        'keep_every_steps': config.keep_checkpoint_every_steps,
        'on_failed_save': config.on_failed_save,
      },
      fault=config.fault,
    )
    written = outcome.written or result.write(
      folder,
      {
        'mode': mode,
        'seed': config.seed,
        'accuracy': outcome.accuracy,
        'best': outcome.best,
        'chance': data.chance,
        'classes': {c: len(names) for c, names in data.classes.items()},
        'dataset': data.facts,
        'bad_frames': outcome.bad_frames,
        'left_out': {'val': outcome.left_out},
        'network': network,
        'views': {
          'clips': data.num_clips or 'all, consecutive',
          'crop': data.crop,
          'average': 'softmax',
        },
        'steps': outcome.steps,
        'seconds': outcome.seconds,
        'settings': record['settings'],
        'config': record['config'],
      },
    )
  _log(written, folder)
  return written


def _written(
  folder: pathlib.Path,
  record: dict,
  step: int,
  progress: Progress,
  schedule: Schedule,
) -> dict | None:
  """The result that is there, if nothing is left to do but find it.

  The checkpoint does not say whether a start before this one has made up for
  the evaluation of its step, which is saved once.
  """
  try:
    written = result.read(folder / result.FILE)
  except result.ResultError:
    # None, or a damaged one: it is written anew from the checkpoint.
    return None
  if not written.keys() >= _OF_RESULT or written['steps'] != step:
    return None
  for part in ('network', 'settings'):
    if not isinstance(written[part], dict):
      return None
    differing = run_record.differing_fields(
      written[part], record[part], f'{part}.'
    )
    # A result does not have the digest of the weights.
    if not all(_may_change(n) or n == 'network.weights' for n in differing):
      return None
  is_over = step >= schedule.num_steps or progress.plateau.is_over
  # Where validation saturates at this step, it does so again.
  is_over = is_over or written['settings'] == record['settings']
  return written if is_over else None


def _log(written: dict, folder: pathlib.Path) -> None:
  # Results of before do not say it.
  if num_left_out := written.get('left_out', {}).get('val'):
    logging.warning(
      'Left out of the accuracy, as they cannot be read and decoded: %d of %d '
      'validation %ss.',
      num_left_out,
      written['dataset']['val'],
      written['dataset']['kind'],
    )
  for column, by_name in written['accuracy'].items():
    for name, accuracy in by_name.items():
      logging.info(
        '%s of %s, %s: %s (chance %.1f %%).',
        written['mode'],
        column,
        name,
        _in_words(accuracy, written, column),
        100 * written['chance'][column],
      )
  logging.info('Written: %s', folder / result.FILE)


def _in_words(accuracy, written, column):
  """The figures of a readout that mean something of its data set."""
  is_image = written['dataset']['kind'] == 'image'
  figures = {'top-1' if is_image else 'video top-1': 'top1', 'top-5': 'top5'}
  if not result_words.has_top5(written, column):
    del figures['top-5']
  if not is_image:
    figures['clip top-1'] = 'clip_top1'
  return ', '.join(
    f'{words} {100 * accuracy[name]:.1f} %' for words, name in figures.items()
  )


def fit(
  task: Task,
  data: LabelledData,
  folder: pathlib.Path,
  *,
  check_lock: Callable[[], None],
  schedule: Schedule,
  intervals: Intervals,
  record: dict,
  keeping: dict,
  fault: ml_collections.ConfigDict,
) -> Outcome:
  """Trains to the end, from the newest checkpoint in the folder.

  Args:
    task: what is trained.
    data: what it is trained and tested on.
    folder: receives checkpoints, curves and the log.
    check_lock: raises if the folder is no longer that of this process.
    schedule: of the learning rate.
    intervals: of everything else.
    record: JSON-compatible facts that a checkpoint must share for the
      training to go on from it, `fingerprint`, `network`, `settings`,
      `schedule`, `input`, and `model` of `config`; and others that are kept
      with it.
    keeping: which checkpoints are kept, and what is done if one cannot be
      saved: arguments of `checkpoint.Checkpoints`.
    fault: what becomes of a training that hangs, or diverges.

  Raises:
    result.ResultError: if the folder holds a training of other settings.
    checkpoint.CheckpointError: if all of its checkpoints are damaged.
    checkpoint.SaveFailedError: as in a pretraining.
    finite.DivergedError: if the numbers are no longer finite.
    dataset_folder.DatasetError: if too many frames are damaged.
    preemption.Stopped: if a signal asks for it.
  """
  agreement.share_folder(folder)
  run_log.to_file(folder, jax.process_index())
  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(
      checkpoint.Checkpoints(folder, items=task.items, **keeping)
    )
    state, progress = _start(task, data.mesh, checkpoints, record, folder)
    step = int(state.step)
    written = _written(folder, record, step, progress, schedule)
    is_finished = agreement.everywhere(written is not None)
    is_again = progress.evaluation_is_due and not is_finished
    writer = metric_log.open_writers(
      folder,
      from_step=checkpoints.latest_step,
      again='val/seconds' if is_again else None,
      is_main=jax.process_index() == 0,
      waits_for_room=keeping['on_failed_save'] == 'retry',
    )
    stack.push(metric_log.closing(writer))
    run_record.write_config(folder, writer, step, record['config'])
    stack.enter_context(preemption.SIGNALS.deferring())
    loop = Loop(
      task,
      data,
      schedule,
      intervals,
      writer,
      checkpoints,
      record,
      check_lock=check_lock,
      fault=fault,
    )
    return loop.run(state, progress, written if is_finished else None)


def _start(task, mesh, checkpoints, record, folder):
  """The newest checkpoint's state and progress, or new ones."""
  watchdog.expect('the first state', is_slow=True)
  state = task.initialize()
  shapes = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding
    ),
    state,
  )

  def read(step):
    watchdog.expect(f'restoring the checkpoint of step {step}', is_slow=True)
    saved = checkpoints.record(step)
    _check(saved, record, folder)
    return checkpoints.restore(step, shapes), Progress.from_record(saved)

  found = checkpoints.read_newest(read)
  if found is None:
    return state, Progress()
  environment.warn_of_changes(
    checkpoints.record(checkpoints.latest_step).get('environment'),
    environment.describe(mesh),
  )
  logging.info('Going on from step %d of %s.', checkpoints.latest_step, folder)
  return found


def _may_change(name: str) -> bool:
  """Whether a training may go on with another value of a field of its record."""
  if name.startswith(('settings.', 'model.')):
    role = config_roles.role_of(name)
    return role not in (config_roles.Role.STATE, config_roles.Role.RESULT)
  return name.startswith(_FREE)


def _check(saved: dict, record: dict, folder: pathlib.Path) -> None:
  """Refuses to go on with what was begun in another way."""
  differing, parts = {}, ('network', 'settings', 'schedule', 'input')
  if not saved.keys() >= {*parts, 'config'}:
    raise result.ResultError(
      f'{folder} holds checkpoints of something else; choose another '
      'config.result_name.'
    )
  saved, record = (
    {**facts, 'model': facts['config']['model']} for facts in (saved, record)
  )
  for part in (*parts, 'model'):
    for name, values in run_record.differing_fields(
      saved[part], record[part], f'{part}.'
    ).items():
      if not _may_change(name):
        differing[name] = values
  if saved['fingerprint'] != record['fingerprint']:
    differing['fingerprint of the data set'] = (
      saved['fingerprint'][:16],
      record['fingerprint'][:16],
    )
  if differing:
    listing = '; '.join(
      f'{name} was {old!r}, is {new!r}'
      for name, (old, new) in differing.items()
    )
    raise result.ResultError(
      f'{folder} holds a training begun in another way: {listing}. Move it '
      'away to start anew, or give this one a name of its own '
      f'(config.result_name).{_older_network(saved, differing, folder)}'
    )


def _older_network(saved, differing, folder):
  """How to go on with the network of then, if it is a step of a run."""
  network = saved['network']
  # Whose `network.source` is the workdir that they are of, see `result.network`.
  has_workdir = network.get('training') in lineage.OBJECTIVES
  if 'network.step' not in differing or not has_workdir:
    return ''
  place = shlex.quote(f'{network["source"]}/checkpoints/{network["step"]}')
  return (
    f' While the step is kept, --config.init_from={place} '
    f'--config.result_name={folder.name} goes on with it.'
  )
