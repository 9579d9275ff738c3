"""Evaluations of a network: at intervals in training, and on their own."""

import contextlib
import dataclasses
import json
import pathlib
import time

import jax
import ml_collections
import numpy as np
from absl import logging

from vie_jax import (
  checkpoint,
  experiment,
  finite,
  run_weights,
  train_state,
  weights,
)
from vie_jax.embeddings import split_embeddings
from vie_jax.embeddings.split_embeddings import SplitEmbeddings
from vie_jax.evaluation import features, knn, monitors
from vie_jax.experiment import Experiment
from vie_jax.files import workdir_lock
from vie_jax.input_pipeline import dataset_folder, instances
from vie_jax.results import findings, result
from vie_jax.telemetry import damage_counts
from vie_jax.wording import counted

MODE = 'knn_eval'
SPLITS = ('train', 'val')
NEIGHBORS_KEPT = 3


@dataclasses.dataclass(frozen=True)
class Reference:
  """What queries are compared with.

  Attributes:
    bank: float32 [rows, D], one row per instance.
    kind: 'bank' or 'clips', see `config.knn.reference`.
    rows: what its rows stand for.
  """

  bank: jax.Array
  kind: str
  rows: instances.Instances


class Evaluator:
  """Embeds clips and looks for their neighbours among the training videos.

  Args:
    experiment: what to evaluate.
  """

  def __init__(self, experiment: Experiment):
    self._experiment = experiment
    self._embed = features.embedder(
      experiment.model, center=experiment.center, mesh=experiment.mesh
    )

  def embed(
    self,
    variables: dict,
    videos: instances.Instances,
    *,
    leaves_out: bool = True,
  ) -> np.ndarray:
    """Embeds all evaluation clips of some videos.

    Args:
      variables: params and batch statistics.
      videos: V of them.
      leaves_out: whether those without a sound frame are left out, see
        `features.LEFT_OUT`; else they are an error.

    Returns:
      float32 [V, G, D].
    """
    config = self._experiment.config
    with experiment.eval_batches(
      self._experiment, videos, leaves_out=leaves_out
    ) as batches:
      return features.embed_videos(
        batches,
        self._embed,
        variables,
        num_videos=videos.num_instances,
        num_clips=config.clip.num_eval_clips,
        embedding_size=config.model.embedding_size,
        mesh=self._experiment.mesh,
      )

  def knn(
    self,
    embeddings: np.ndarray,
    videos: instances.Instances,
    reference: Reference,
  ) -> dict:
    """Classifies validation videos by their neighbours.

    Args:
      embeddings: float32 [V, G, D] of the validation clips.
      videos: the V validation videos.
      reference: of the training videos.

    Returns:
      label column -> accuracies, see `knn.accuracy`; a column without labels
      in the validation videos is left out.
    """
    config, mesh = self._experiment.config, self._experiment.mesh
    rows = reference.rows
    if config.knn.num_neighbors > rows.num_instances:
      logging.log_first_n(
        logging.WARNING,
        'knn.num_neighbors is %d instead of %d: there are no more training '
        'videos.',
        1,
        rows.num_instances,
        config.knn.num_neighbors,
      )
    neighbors = knn.search(
      reference.bank,
      embeddings.reshape(-1, embeddings.shape[-1]),
      k=min(config.knn.num_neighbors, rows.num_instances),
      num_videos=rows.num_instances,
      mesh=mesh,
    )
    results = {}
    for column in self._experiment.label_columns:
      labels, class_names = rows.label(column)
      scores = knn.ClassScores(
        neighbors,
        labels,
        num_classes=len(class_names),
        temperature=config.objective.temperature,
      )
      accuracy = knn.accuracy(
        scores, videos.label(column)[0], num_clips=embeddings.shape[1]
      )
      if accuracy:
        results[column] = accuracy
    return results


def curves(
  evaluator: Evaluator, state: train_state.TrainState, run: Experiment
) -> dict:
  """Figures of a state in training, by their names in TensorBoard.

  Args:
    evaluator: of the run.
    state: now.
    run: what is trained.

  Returns:
    kNN accuracy on each label column against the memory bank and agreement of
    the clips of a video, of `config.eval_videos` validation videos without those
    that have no sound frame; health of the bank.
  """
  num_videos = run.train.num_instances
  figures = monitors.bank_ages(
    state.bank_step,
    state.step,
    num_videos=num_videos,
    never=train_state.NEVER,
  )
  figures['health/bank_effective_rank'] = monitors.effective_rank(
    state.bank, num_videos=num_videos, mesh=run.mesh
  )
  for column in run.label_columns:
    labels = run.train.label(column)[0]
    if not (labels >= 0).any():
      continue
    figures[f'health/neighbors_same_{column}'] = monitors.label_share(
      state.bank,
      labels,
      k=run.config.knn.num_neighbors,
      num_videos=num_videos,
      mesh=run.mesh,
    )
  val = instances.spread(run.val, run.config.eval_videos)
  if not val.num_instances:
    return figures
  embeddings = evaluator.embed(_variables(state), val)
  damage_counts.check(run.eval_damage)
  is_there = features.has_embedding(embeddings)
  if not is_there.any():
    return figures
  embeddings, val = embeddings[is_there], instances.take(val, is_there)
  accuracies = evaluator.knn(
    embeddings, val, Reference(state.bank, 'bank', run.train)
  )
  for column, accuracy in accuracies.items():
    for name, value in accuracy.items():
      if name != 'judged':
        figures[f'knn/{column}_{name}'] = value
  for name, value in monitors.same_video_retrieval(embeddings).items():
    figures[f'same_video/{name}'] = value
  return figures


def _variables(state: train_state.TrainState) -> dict:
  return {'params': state.params, 'batch_stats': state.batch_stats}


def knn_eval(config: ml_collections.ConfigDict, workdir: str) -> dict:
  """Evaluates embeddings by kNN and writes the result and the neighbours.

  Args:
    config: `init_from` or `embeddings` says what is evaluated, `knn` how.
    workdir: of the run; everything goes to its folder `knn_eval/NAME`.

  Returns:
    What is written to `result.json`.

  Raises:
    dataset_folder.DatasetError, checkpoint.CheckpointError,
    config_check.ConfigError, foreign_embeddings.EmbeddingsError,
    result.ResultError: with the remedy.
  """
  started = time.monotonic()
  with contextlib.ExitStack() as stack:
    run = stack.enter_context(experiment.open_experiment(config, MODE))
    if not run.val.num_instances:
      raise dataset_folder.DatasetError(
        f'{config.dataset.dir} has no validation videos to evaluate: '
        f'{dataset_folder.REMEDY_OF_EMPTY_VAL}.'
      )
    folder, opened, reference = _open(run, config, workdir, stack)
    val = opened['val']
    accuracy = Evaluator(run).knn(val.clips, val.videos, reference)
    found = _nearest(run, val, reference)
    # All processes search together, one writes.
    if jax.process_index() == 0:
      findings.write(folder, run.train.store, run.val.store, found)
    written = result.write(
      folder,
      {
        'mode': MODE,
        'seed': config.seed,
        'accuracy': {
          column: {'knn': figures} for column, figures in accuracy.items()
        },
        'chance': experiment.chance(run, reference.rows, val.videos),
        'classes': experiment.num_classes(run),
        'same_video': monitors.same_video_retrieval(val.clips),
        'reference': reference.kind,
        'dataset': experiment.dataset_facts(run),
        'bad_frames': damage_counts.replaced(run.eval_damage, *SPLITS),
        'left_out': split_embeddings.left_out(opened),
        'network': val.facts,
        'views': {
          'clips': val.clips.shape[1],
          'crop': 'center',
          'average': 'knn',
        },
        'settings': {
          **json.loads(config.knn.to_json_best_effort()),
          # That voted: there may be no more.
          'num_neighbors': min(
            config.knn.num_neighbors, reference.rows.num_instances
          ),
        },
        'config': experiment.record(run)['config'],
        'seconds': round(time.monotonic() - started, 1),
      },
    )
  _log_figures(written)
  logging.info('Written: %s', folder / result.FILE)
  return written


def _log_figures(written: dict) -> None:
  is_bank = written['reference'] == 'bank'
  for column, figures in written['accuracy'].items():
    logging.info(
      'kNN on %s, %s against %s: top-1 %.1f %%, of clips %.1f %% (chance '
      '%.1f %%).',
      column,
      counted(figures['knn']['judged'], 'video'),
      'the memory bank' if is_bank else 'clips of the training videos',
      100 * figures['knn']['top1'],
      100 * figures['knn']['clip_top1'],
      100 * written['chance'][column],
    )
  if not written['accuracy']:
    logging.info('No labels, so that there is no accuracy of kNN.')
  if same := written['same_video']:
    logging.info(
      'The nearest other clip is of the same video in %.1f %% (chance %.1f %%).',
      100 * same['top1'],
      100 * same['chance'],
    )


def _open(
  run: Experiment,
  config: ml_collections.ConfigDict,
  workdir: str,
  stack: contextlib.ExitStack,
) -> tuple[pathlib.Path, dict[str, SplitEmbeddings], Reference]:
  """The folder of the result, the embeddings, what to compare with."""
  name = run.train.store.name
  if config.embeddings:
    folder = result.folder(config, workdir, MODE, name, *run.chosen_columns)
    stack.enter_context(workdir_lock.hold(folder))
    opened = split_embeddings.open_embeddings(
      run, config, workdir, folder, SPLITS
    )
    return folder, opened, _clip_reference(run, opened['train'])
  found = weights.load(
    config,
    workdir,
    run.model,
    clip_shape=run.clip_shape,
    mesh=run.mesh,
    with_bank=config.knn.reference == 'bank',
  )
  if found.workdir and config.knn.reference == 'bank':
    _check_bank(run, found)
    folder = result.folder(config, workdir, MODE, name, *run.chosen_columns)
    stack.enter_context(workdir_lock.hold(folder))
    # Before what takes long: a training may go on, and remove this step.
    reference = _bank_reference(run, found)
    opened = split_embeddings.embed_splits(run, found, folder, SPLITS[1:])
    return folder, opened, reference
  if config.knn.reference == 'bank':
    logging.info('These weights have no memory bank: comparing with clips.')
  folder = result.folder(
    config,
    workdir,
    MODE,
    name,
    *run.chosen_columns,
    'clips' if found.workdir else '',
  )
  stack.enter_context(workdir_lock.hold(folder))
  opened = split_embeddings.embed_splits(run, found, folder, SPLITS)
  return folder, opened, _clip_reference(run, opened['train'])


def _check_bank(run: Experiment, found: weights.Weights) -> None:
  """Refuses a memory bank whose rows are not these videos."""
  trained_on = found.trained_on
  if trained_on['fingerprint'] != run.train.fingerprint:
    raise checkpoint.CheckpointError(
      f'The memory bank of {found.workdir} is of other videos than '
      f'{run.config.dataset.dir}: of {trained_on["path"]}, share '
      f'{trained_on["share"]}, bin_frames {trained_on["bin_frames"]}. Compare '
      'with the clips of these: --config.knn.reference=clips.'
    )


def _bank_reference(run: Experiment, found: weights.Weights) -> Reference:
  """The memory bank that the weights were trained with."""
  loaded = run_weights.load_bank(
    found.workdir,
    fingerprint=run.train.fingerprint,
    num_videos=run.train.num_instances,
    embedding_size=run.config.model.embedding_size,
    mesh=run.mesh,
    step=found.step,
  )
  bank = loaded['bank']
  rows = finite.bad_rows(
    bank, num_videos=run.train.num_instances, mesh=run.mesh
  )
  if rows:
    names = ', '.join(
      f'{row} ({experiment.video_path(run, row)})' for row in rows
    )
    raise checkpoint.CheckpointError(
      f'Rows of the memory bank of {found.workdir} are not finite: {names}. '
      'Compare with the clips of these videos: --config.knn.reference=clips.'
    )
  _warn_of_first_values(run, found, loaded['bank_step'])
  return Reference(bank, 'bank', run.train)


def _warn_of_first_values(run, found, bank_step):
  ages = monitors.bank_ages(
    bank_step,
    found.step,
    num_videos=run.train.num_instances,
    never=train_state.NEVER,
  )
  if share := ages['health/bank_share_never_visited']:
    logging.warning(
      '%.1f %% of the training %s were in no batch until step %d: their '
      'rows of the memory bank have their first values (memory_bank.init), and '
      'are compared with all the same. --config.knn.reference=clips compares '
      'with clips of the videos instead.',
      100 * share,
      'parts of videos' if run.config.dataset.bin_frames else 'videos',
      found.step,
    )


def _clip_reference(run: Experiment, train: SplitEmbeddings) -> Reference:
  """The training videos: the mean of the clips of each."""
  bank = knn.as_bank(features.video_means(train.clips), run.mesh)
  return Reference(bank, 'clips', train.videos)


def _nearest(run, val, reference) -> findings.Findings:
  """The nearest training videos of each validation video, each once."""
  rows = reference.rows
  queries = features.video_means(val.clips)
  count = min(NEIGHBORS_KEPT, len(np.unique(rows.video)))
  video = np.zeros((len(queries), count), rows.video.dtype)
  similarity = np.zeros((len(queries), count), np.float32)
  # A video may have many rows: where too few videos are found among some rows,
  # more are looked at.
  left, k = np.arange(len(queries)), 4 * count
  while len(left):
    k = min(k, rows.num_instances)
    found = knn.search(
      reference.bank,
      queries[left],
      k=k,
      num_videos=rows.num_instances,
      mesh=run.mesh,
    )
    of_rows = rows.video[found.index]
    first = [_first_of_each(videos, count) for videos in of_rows]
    is_enough = np.array([len(places) == count for places in first])
    for place in np.flatnonzero(is_enough):
      video[left[place]] = of_rows[place, first[place]]
      similarity[left[place]] = found.similarity[place, first[place]]
    left, k = left[~is_enough], 4 * k
  return findings.Findings(video, similarity, queries=val.videos.video)


def _first_of_each(videos, count):
  """Places at which videos [k] come first, of `count` videos at most, in order."""
  return np.sort(np.unique(videos, return_index=True)[1])[:count]
