"""The training videos nearest to others, on a page: `--mode=retrieve`."""

import contextlib
import time

import jax
import ml_collections
import numpy as np
from absl import logging

from vie_jax import experiment
from vie_jax.embeddings import split_embeddings
from vie_jax.evaluation import features, knn, recall_figures, retrieval
from vie_jax.experiment import Experiment
from vie_jax.files import workdir_lock
from vie_jax.input_pipeline import dataset_folder
from vie_jax.results import findings, result
from vie_jax.retrieval import own_queries, page
from vie_jax.retrieval.result_facts import MODE, result_facts
from vie_jax.retrieval.training_index import RECALL_AT, TrainingIndex
from vie_jax.wording import counted


def retrieve(config: ml_collections.ConfigDict, workdir: str) -> dict:
  """Finds the training videos nearest to those of validation, or to one's own.

  A video is the mean of its clips' embeddings, back on the sphere.

  Args:
    config: `init_from` says of which network, or `embeddings` names vectors
      made elsewhere; see `retrieve`.
    workdir: of the run; everything goes to its folder `retrieve`.

  Returns:
    What is written to `result.json`.

  Raises:
    config_check.ConfigError, dataset_folder.DatasetError,
    checkpoint.CheckpointError, foreign_embeddings.EmbeddingsError,
    result.ResultError: with the remedy.
  """
  started = time.monotonic()
  if config.retrieve.query:
    return own_queries.answer_queries(config, workdir)
  with contextlib.ExitStack() as stack:
    run = stack.enter_context(experiment.open_experiment(config, MODE))
    if not run.val.num_instances:
      raise dataset_folder.DatasetError(
        f'{config.dataset.dir} has no validation videos to look for: '
        f'{dataset_folder.REMEDY_OF_EMPTY_VAL}. '
        '--config.retrieve.query=FILE does without: it finds the training '
        'videos nearest to a video file, or to those of a folder.'
      )
    folder = result.folder(
      config, workdir, MODE, run.val.store.name, *run.chosen_columns
    )
    stack.enter_context(workdir_lock.hold(folder))
    # Before anything that takes time.
    beside = findings.read_beside(
      config.retrieve.beside,
      run.train.store,
      run.val.store,
      mode=MODE,
      name=folder.name,
    )
    opened = split_embeddings.open_embeddings(
      run, config, workdir, folder, ('train', 'val')
    )
    val = opened['val']
    index = TrainingIndex(run, opened['train'])
    neighbors = index.search(features.video_means(val.clips))
    written = result.write(
      folder,
      {
        **result_facts(run, workdir, opened),
        'views': {
          'clips': val.clips.shape[1],
          'crop': 'center',
          'average': 'embedding',
        },
        **_figures(run, index, neighbors, val),
        'seconds': round(time.monotonic() - started, 1),
      },
    )
    own = index.findings(
      neighbors, run.label_columns, written, val.videos.video
    )
    if jax.process_index() == 0:
      findings.write(folder, run.train.store, run.val.store, own)
      shown = page.validation_page(
        run.train.store,
        run.val.store,
        findings.distinct([own, *beside]),
        columns=run.label_columns,
        num_queries=config.retrieve.num_queries,
        num_neighbors=config.retrieve.num_neighbors,
      )
      page.write(folder, shown)
  _log_figures(written)
  logging.info('Written: %s and %s', folder / page.FILE, result.FILE)
  return written


def _figures(
  run: Experiment,
  index: TrainingIndex,
  neighbors: knn.Neighbors,
  queries: split_embeddings.SplitEmbeddings,
) -> dict:
  """Recall and kNN accuracy with their chance, of each column with labels."""
  figures = {
    'recall': {},
    'chance_recall': {},
    'accuracy': {},
    'chance': experiment.chance(run, index.videos, queries.videos),
    'classes': experiment.num_classes(run),
  }
  for column in run.label_columns:
    train = index.videos.label(column)[0]
    val = queries.videos.label(column)[0]
    recall = retrieval.recall(
      val, train[neighbors.index], num_neighbors=RECALL_AT
    )
    if not recall:
      continue
    figures['recall'][column] = recall
    figures['chance_recall'][column] = retrieval.chance_recall(
      val, train, num_neighbors=RECALL_AT
    )
    accuracy = knn.accuracy(index.votes(neighbors, column), val, num_clips=1)
    figures['accuracy'][column] = {'knn': accuracy}
  # Each clip for itself, one of every video at a time: less is in memory.
  by_clip = {column: [] for column in figures['accuracy']}
  for number in range(queries.clips.shape[1]) if by_clip else ():
    of_clips = index.search(np.asarray(queries.clips[:, number]))
    for column, accuracies in by_clip.items():
      accuracy = knn.accuracy(
        index.votes(of_clips, column),
        queries.videos.label(column)[0],
        num_clips=1,
      )
      accuracies.append(accuracy['top1'])
  for column, accuracies in by_clip.items():
    figures['accuracy'][column]['knn']['clip_top1'] = float(np.mean(accuracies))
  return figures


def _log_figures(written: dict) -> None:
  if not written['recall']:
    logging.info('No labels, so that nothing is right or wrong.')
  num_videos = recall_figures.num_compared(written)
  for column, recall in written['recall'].items():
    places = recall_figures.telling(list(recall), num_videos)
    logging.info(
      'Recall on %s, %s: %s; kNN top-1 %.1f %% (chance %.1f %%).',
      column,
      counted(written['accuracy'][column]['knn']['judged'], 'video'),
      ', '.join(f'@{k} {100 * recall[k]:.1f} %' for k in places),
      100 * written['accuracy'][column]['knn']['top1'],
      100 * written['chance'][column],
    )
