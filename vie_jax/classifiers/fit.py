"""The loop that trains classifiers on labels: readouts, and whole networks.

What is trained is a `Task`; how often it is evaluated and saved, when the rate
drops and when it ends is the same for all, and so is going on after a kill.
"""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging
from clu import periodic_actions
from jax.sharding import Mesh

from vie_jax import (
  checkpoint,
  distributed,
  environment,
  experiment,
  finite,
  metric_log,
  preemption,
  result,
  run_log,
  run_record,
  sharding,
  skipped_steps,
  watchdog,
  workdir_lock,
)
from vie_jax.classifiers.labelled_data import LabelledData
from vie_jax.classifiers.progress import Accuracy, Progress
from vie_jax.input_pipeline import bad_frames
from vie_jax.weights import Weights

CONFIG_FILE = 'config.json'
# Fields that may change when a training goes on: where the data lies, which the
# fingerprint stands for, when it is tested, and its end. The schedule is
# compared apart, as it is resolved.
_FREE = frozenset(
  {
    'settings.dataset',
    'settings.tfds_data_dir',
    'settings.eval_batch_size',
    'settings.num_steps',
    'settings.static_num_steps',
    'settings.drop_steps',
    'settings.static_drop_steps',
    'settings.eval_every_steps',
    'settings.checkpoint_every_steps',
    'network.source',
    'schedule.num_steps',
  }
)


@dataclasses.dataclass(frozen=True)
class Task:
  """What is trained, and on what.

  Attributes:
    items: of its checkpoints, see `checkpoint.Checkpoints`.
    initialize: () -> the first state, which has a field `step`.
    step: (state, batch, learning rate) -> (state, metrics); the state is
      donated.
    open_batches: first step -> context manager over batches, dicts of this
      host's NumPy arrays.
    evaluate: state -> label column -> name -> accuracies of validation.
    mesh: that it runs on.
    train_damage: damaged frames of its batches.
    eval_damage: damaged frames of the validation clips.
    name_of: `instance_index` of a batch -> the file that it is of.
  """

  items: Mapping[str, Sequence[str]]
  initialize: Callable[[], Any]
  step: Callable[..., tuple[Any, dict]]
  open_batches: Callable[[int], Any]
  evaluate: Callable[[Any], Accuracy]
  mesh: Mesh
  train_damage: bad_frames.BadFrames
  eval_damage: bad_frames.BadFrames
  name_of: Callable[[int], str]


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The learning rate and the end of a training.

  Attributes:
    learning_rate: at first.
    num_steps: at most.
    drop_steps: the last steps before the rate drops to a tenth, counted from
      0.
    patience: evaluations until validation counts as saturated, at which the
      rate drops, too; 0 for never.
    num_drops: how often it may; the training ends when validation saturates
      once more.
  """

  learning_rate: float
  num_steps: int
  drop_steps: Sequence[int] = ()
  patience: int = 0
  num_drops: int = 0

  def rate(self, step: int, drops: int) -> float:
    """The rate of a step, after so many drops at plateaus."""
    drops += sum(step > drop for drop in self.drop_steps)
    return self.learning_rate * 0.1**drops


@dataclasses.dataclass(frozen=True)
class Intervals:
  """Steps between log lines, evaluations and checkpoints."""

  log: int
  evaluate: int
  save: int


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a training ended.

  Attributes:
    steps: done.
    accuracy: of the last state, as `Task.evaluate` gives it.
    best: the highest accuracy by column and name that any evaluation of it
      found, top-1 of videos.
    seconds: of all calls up to what they saved, and of this one.
    was_complete: whether this call had nothing left to train.
    bad_frames: split -> frames that stood for damaged ones: 'train' in all
      steps, 'val' in one evaluation.
  """

  steps: int
  accuracy: Accuracy
  best: dict[str, dict[str, float]]
  seconds: float
  was_complete: bool
  bad_frames: dict[str, int]


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
      **{
        name: whole[name] for name in ('seed', 'clip', 'crop', 'augmentation')
      },
    },
    'config': whole,
    **facts,
  }
  with workdir_lock.hold(folder) as check_lock:
    outcome = fit(
      task,
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
    written = _written(folder, outcome) or result.write(
      folder,
      {
        'mode': mode,
        'seed': config.seed,
        'accuracy': outcome.accuracy,
        'best': outcome.best,
        'chance': data.chance,
        'dataset': data.facts,
        'bad_frames': outcome.bad_frames,
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


def _written(folder: pathlib.Path, outcome: Outcome) -> dict | None:
  """The result that is there, if this call had nothing to do but find it."""
  path = folder / result.FILE
  if not outcome.was_complete or not path.exists():
    return None
  written = result.read(path)
  return written if written['steps'] == outcome.steps else None


def _log(written: dict, folder: pathlib.Path) -> None:
  for column, by_name in written['accuracy'].items():
    for name, accuracy in by_name.items():
      logging.info(
        '%s of %s, %s: video top-1 %.1f %%, top-5 %.1f %%, clip top-1 %.1f %% '
        '(chance %.1f %%).',
        written['mode'],
        column,
        name,
        100 * accuracy['top1'],
        100 * accuracy['top5'],
        100 * accuracy['clip_top1'],
        100 * written['chance'][column],
      )
  logging.info('Written: %s', folder / result.FILE)


def fit(
  task: Task,
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
    folder: receives checkpoints, curves and the log.
    check_lock: raises if the folder is no longer that of this process.
    schedule: of the learning rate.
    intervals: of everything else.
    record: JSON-compatible facts that a checkpoint must share for the
      training to go on from it, `fingerprint`, `network`, `settings`,
      `schedule`, `input`; and others that are kept with it, `config` one.
    keeping: which checkpoints are kept, and what is done if one cannot be
      saved: arguments of `checkpoint.Checkpoints`.
    fault: what becomes of a training that hangs, or diverges.

  Raises:
    result.ResultError: if the folder holds a training of other settings.
    checkpoint.CheckpointError: if all of its checkpoints are damaged.
    checkpoint.SaveFailedError: as in a pretraining.
    metric_log.DivergedError: if the numbers are no longer finite.
    frame_store.DatasetError: if too many frames are damaged.
    preemption.Stopped: if a signal asks for it.
  """
  distributed.share_folder(folder)
  run_log.to_file(folder, jax.process_index())
  with contextlib.ExitStack() as stack:
    checkpoints = stack.enter_context(
      checkpoint.Checkpoints(folder, items=task.items, **keeping)
    )
    state, progress = _start(task, checkpoints, record, folder)
    writer = metric_log.open_writers(
      folder,
      from_step=checkpoints.latest_step,
      again='val/seconds' if progress.evaluation_is_due else None,
      is_main=jax.process_index() == 0,
    )
    stack.callback(writer.close)
    _describe(folder, writer, int(state.step), record['config'])
    dog = stack.enter_context(
      watchdog.Watchdog(
        fault.watchdog_seconds,
        fault.watchdog_slow_seconds,
        log_path=run_log.path(folder, jax.process_index()),
      )
    )
    stack.enter_context(preemption.SIGNALS.deferring())
    loop = _Loop(
      task,
      schedule,
      intervals,
      writer,
      checkpoints,
      record,
      check_lock=check_lock,
      fault=fault,
      dog=dog,
    )
    return loop.run(state, progress)


def _describe(folder, writer, step, config):
  """Writes the resolved config, as a pretraining does."""
  text = json.dumps(config, indent=2)
  writer.write_texts(step, {'config': f'```\n{text}\n```'})
  if jax.process_index() == 0:
    (folder / CONFIG_FILE).write_text(text + '\n')


def _start(task, checkpoints, record, folder):
  """The newest checkpoint's state and progress, or new ones."""
  state = task.initialize()
  shapes = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding
    ),
    state,
  )

  def read(step):
    saved = checkpoints.record(step)
    _check(saved, record, folder)
    return checkpoints.restore(step, shapes), Progress.from_record(saved)

  found = checkpoints.read_newest(read)
  if found is None:
    return state, Progress()
  environment.warn_of_changes(
    checkpoints.record(checkpoints.latest_step).get('environment'),
    environment.describe(task.mesh),
  )
  logging.info('Going on from step %d of %s.', checkpoints.latest_step, folder)
  return found


def _check(saved: dict, record: dict, folder: pathlib.Path) -> None:
  """Refuses to go on with what was begun in another way."""
  differing = {}
  for part in ('network', 'settings', 'schedule', 'input'):
    if part not in saved:
      raise result.ResultError(
        f'{folder} holds checkpoints of something else; choose another '
        'config.result_name.'
      )
    for name, values in run_record.differing_fields(
      saved[part], record[part], f'{part}.'
    ).items():
      if name not in _FREE:
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
      '(config.result_name).'
    )


_is_finite = jax.jit(finite.all_finite)


class _Loop:
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
    dog,
  ):
    self._task = task
    self._schedule = schedule
    self._intervals = intervals
    self._writer = writer
    self._checkpoints = checkpoints
    self._record = record
    self._dog = dog
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
      experiment.go_on_counting(self._task.train_damage, progress.damage)
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
    report = periodic_actions.ReportProgress(
      num_train_steps=schedule.num_steps,
      writer=self._writer,
      every_steps=intervals.log,
      every_secs=None,
    )
    logging.info('Compiling the step. This can take minutes.')
    with self._task.open_batches(first_step) as batches:
      for step in range(first_step, schedule.num_steps):
        rate = schedule.rate(step, progress.plateau.drops)
        is_first = step == first_step
        state, metrics = self._step(step, state, batches, rate, is_first)
        done = step + 1
        is_last = done == schedule.num_steps
        if done % intervals.log == 0 or is_last:
          self._write(done, {**metrics, 'learning_rate': rate})
        report(done)
        progress, is_stopping = self._evaluate_if_due(state, progress, done)
        is_last = is_last or progress.plateau.is_over
        if is_stopping:
          self._leave(state, progress)
        if done % intervals.save == 0 or is_last:
          self._save(state, progress)
        if is_last:
          break
    return self._outcome(state, progress, was_complete=False)

  def _step(self, step, state, batches, rate, is_first):
    self._dog.expect(f'the batch of step {step + 1}')
    local = next(batches)
    batch = sharding.global_batch(local, self._task.mesh)
    self._dog.expect(f'step {step + 1}', is_slow=is_first)
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
    step, saved = int(state.step), self._checkpoints.latest_step
    if saved is None or saved < step:
      self._save(state, progress)
    self._checkpoints.wait()
    distributed.wait_for_all('saved')
    raise preemption.Stopped(
      f'Stopped early, as a signal asked: step {step} is saved.'
    )

  def _outcome(self, state, progress, *, was_complete):
    step = int(state.step)
    logging.info('This training is complete: step %d.', step)
    seconds = progress.seconds if was_complete else self._elapsed()
    damage = experiment.damage_so_far(self._task.train_damage)
    return Outcome(
      step,
      progress.accuracy,
      progress.best,
      seconds,
      was_complete,
      {'train': damage['num_bad'], 'val': progress.bad_val_frames},
    )

  def _elapsed(self):
    """Seconds of the calls before, up to what they saved, and of this one."""
    return round(self._seconds + time.monotonic() - self._started, 1)

  def _evaluate(self, state, progress, *, counts):
    """Progress after an evaluation; it is still due if a signal came."""
    self._skipped.settle()
    self._dog.expect('the evaluation', is_slow=True)
    started = time.monotonic()
    try:
      accuracy = self._task.evaluate(state)
    except preemption.Stopped:
      return dataclasses.replace(progress, evaluation_is_due=True)
    figures = {
      f'val/{column}_{name}_{figure}': value
      for column, by_name in accuracy.items()
      for name, values in by_name.items()
      for figure, value in values.items()
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
    bad = experiment.replaced(self._task.eval_damage, 'val')
    return dataclasses.replace(after, bad_val_frames=bad['val'])

  def _write(self, step, metrics):
    self._skipped.settle()
    self._checkpoints.poll()
    values = {f'train/{name}': float(value) for name, value in metrics.items()}
    damage = experiment.damage_so_far(self._task.train_damage)
    values['input/bad_frames'] = damage['num_bad']
    values['train/skipped_steps'] = self._skipped.count
    self._writer.write_scalars(step, values)

  def _stop(self, step, reason):
    with contextlib.suppress(checkpoint.SaveFailedError):
      self._checkpoints.wait()
    raise metric_log.DivergedError(
      f'The training stopped at step {step}: {reason}. Lower its '
      f'learning_rate, move {self._checkpoints.directory} away and run it '
      'again.'
    )

  def _save(self, state, progress):
    self._skipped.settle()
    self._dog.expect('the checkpoint', is_slow=True)
    if not _is_finite(state):
      self._stop(int(state.step), 'a parameter is not finite')
    self._check_lock()
    self._writer.flush()
    progress = dataclasses.replace(
      progress,
      seconds=self._elapsed(),
      damage=experiment.damage_so_far(self._task.train_damage),
      skipped_steps=self._skipped.count,
    )
    record = {
      **self._record,
      'progress': dataclasses.asdict(progress),
      'environment': environment.describe(self._task.mesh),
    }
    self._checkpoints.save(state, record)
