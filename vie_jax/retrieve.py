"""The training videos nearest to others, on a page: `--mode=retrieve`."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence

import jax
import ml_collections
import numpy as np
from absl import logging

from vie_jax import evaluate, experiment, retrieval_page, weights
from vie_jax.config import config_check
from vie_jax.embeddings import own_files, split_embeddings
from vie_jax.evaluation import features, gallery, knn, retrieval
from vie_jax.experiment import Experiment
from vie_jax.files import workdir_lock
from vie_jax.input_pipeline import dataset_folder, frame_store, instances
from vie_jax.results import findings, result
from vie_jax.results.findings import Findings
from vie_jax.telemetry import damage_counts

MODE = 'retrieve'
PAGE_FILE = 'index.html'
RECALL_AT = (1, 5, 10, 20, 50)
# A page of 50 queries and two networks stays below 8 MB.
IMAGE_BUDGET = 7_000_000


class _Index:
  """The training videos, searchable.

  Args:
    run: opened.
    train: embeddings of the training videos' clips.
  """

  def __init__(self, run: Experiment, train: split_embeddings.SplitEmbeddings):
    self.videos = train.videos
    self._mesh = run.mesh
    self._bank = knn.as_bank(features.video_means(train.clips), run.mesh)
    self._num_voters = run.config.knn.num_neighbors
    self._temperature = run.config.objective.temperature
    # How many neighbours are looked for.
    self.num_neighbors = max(
      *RECALL_AT, self._num_voters, run.config.retrieve.num_neighbors
    )

  def search(self, queries: np.ndarray) -> knn.Neighbors:
    """Finds the nearest of queries [Q, D]: [Q, K], fewer if there are fewer."""
    return knn.search(
      self._bank,
      queries,
      k=min(self.num_neighbors, self.videos.num_instances),
      num_videos=self.videos.num_instances,
      mesh=self._mesh,
    )

  def votes(self, neighbors: knn.Neighbors, column: str) -> knn.ClassScores:
    """Lets the nearest vote for their classes: [Q, C]."""
    labels, class_names = self.videos.label(column)
    voters = knn.Neighbors(
      neighbors.similarity[:, : self._num_voters],
      neighbors.index[:, : self._num_voters],
    )
    return knn.ClassScores(
      voters,
      labels,
      num_classes=len(class_names),
      temperature=self._temperature,
    )

  def findings(
    self,
    neighbors: knn.Neighbors,
    columns: Sequence[str],
    facts: dict,
    queries: np.ndarray | None = None,
  ) -> Findings:
    """Names the neighbours by their rows in the store, and what they predict.

    Args:
      neighbors: from `search`.
      columns: label columns to predict.
      facts: the result that they belong to.
      queries: see `Findings`.
    """
    return Findings(
      self.videos.video[neighbors.index],
      neighbors.similarity,
      {
        column: retrieval.predictions(self.votes(neighbors, column))
        for column in columns
      },
      queries,
      facts['heading'],
      facts,
    )


def retrieve(config: ml_collections.ConfigDict, workdir: str) -> dict:
  """Finds the training videos nearest to the validation videos, or to one file.

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
    return _answer(config, workdir, started)
  with contextlib.ExitStack() as stack:
    run = stack.enter_context(experiment.open_experiment(config, MODE))
    if not run.val.num_instances:
      raise dataset_folder.DatasetError(
        f'{config.dataset.dir} has no validation videos to look for: '
        f'{dataset_folder.REMEDY_OF_EMPTY_VAL}. '
        '--config.retrieve.query=FILE does without: it finds the training '
        'videos nearest to a video file.'
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
    index = _Index(run, opened['train'])
    neighbors = index.search(features.video_means(val.clips))
    written = result.write(
      folder,
      {
        **_facts(run, workdir, opened),
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
      page = retrieval_page.validation_page(
        run.train.store,
        run.val.store,
        findings.distinct([own, *beside]),
        columns=run.label_columns,
        num_queries=config.retrieve.num_queries,
        num_neighbors=config.retrieve.num_neighbors,
      )
      _write_page(folder / PAGE_FILE, page)
  _log_figures(written)
  logging.info('Written: %s and %s', folder / PAGE_FILE, result.FILE)
  return written


def _facts(run: Experiment, workdir: str, opened: dict) -> dict:
  """What any result of this mode says, of embeddings by their split."""
  config = run.config
  return {
    'mode': MODE,
    'seed': config.seed,
    'dataset': experiment.dataset_facts(run),
    'bad_frames': damage_counts.replaced(run.eval_damage, 'train', 'val'),
    'left_out': split_embeddings.left_out(opened),
    'network': opened['train'].facts,
    'heading': _heading(config, workdir),
    'settings': {
      **json.loads(config.retrieve.to_json_best_effort()),
      # That vote: there may be no more.
      'num_voters': min(
        config.knn.num_neighbors, opened['train'].videos.num_instances
      ),
      'temperature': config.objective.temperature,
    },
    'config': json.loads(config.to_json_best_effort()),
  }


def _heading(config: ml_collections.ConfigDict, workdir: str) -> str:
  """What a page calls this network."""
  if config.retrieve.name:
    return config.retrieve.name
  if config.embeddings:
    return pathlib.Path(config.embeddings).stem
  name = pathlib.Path(workdir).absolute().name
  if config.init_from == 'workdir':
    return name
  return f'{name}, {weights.name_of(config.init_from)}'


def _figures(
  run: Experiment,
  index: _Index,
  neighbors: knn.Neighbors,
  queries: split_embeddings.SplitEmbeddings,
) -> dict:
  """Recall and kNN accuracy with their chance, of each column with labels."""
  figures = {
    'recall': {},
    'chance_recall': {},
    'accuracy': {},
    'chance': experiment.chance(run, index.videos, queries.videos),
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


def _write_page(path: pathlib.Path, page: gallery.Page) -> None:
  gallery.write_html(path, page, image_budget=IMAGE_BUDGET)


def _log_figures(written: dict) -> None:
  for column, recall in written['recall'].items():
    logging.info(
      'Recall on %s, %d videos: %s; kNN top-1 %.1f %% (chance %.1f %%).',
      column,
      written['accuracy'][column]['knn']['judged'],
      ', '.join(f'@{k} {100 * share:.1f} %' for k, share in recall.items()),
      100 * written['accuracy'][column]['knn']['top1'],
      100 * written['chance'][column],
    )


def _answer(
  config: ml_collections.ConfigDict, workdir: str, started: float
) -> dict:
  """Finds the training videos nearest to a video file of the user's own."""
  path = pathlib.Path(os.path.expanduser(config.retrieve.query))
  _check_query(config, path)
  with experiment.open_experiment(config, MODE) as run:
    folder = result.folder(
      config, workdir, MODE, run.train.store.name, *run.chosen_columns
    )
    with (
      workdir_lock.hold(folder),
      _prepared(path, folder / 'query-scratch') as store,
    ):
      found = weights.load(
        config, workdir, run.model, clip_shape=run.clip_shape, mesh=run.mesh
      )
      opened = split_embeddings.embed_splits(run, found, folder, ('train',))
      index = _Index(run, opened['train'])
      clips = evaluate.Evaluator(run).embed(
        found.variables, instances.all_videos(store), leaves_out=False
      )
      neighbors = index.search(features.video_means(clips))
      facts = _facts(run, workdir, opened)
      own = index.findings(neighbors, run.label_columns, facts)
      folder = folder / _query_folder(path)
      written = result.write(
        folder,
        {
          **facts,
          'query': str(path),
          'predicted': _named_predictions(run, own),
          'neighbors': _named_neighbors(run, own),
          'seconds': round(time.monotonic() - started, 1),
        },
      )
      page = retrieval_page.query_page(
        run.train.store,
        store,
        dataclasses.replace(own, result=written),
        columns=run.label_columns,
        name=path.name,
        num_neighbors=config.retrieve.num_neighbors,
      )
      _write_page(folder / PAGE_FILE, page)
  _log_answer(written, config.retrieve.num_neighbors)
  logging.info('Written: %s and %s', folder / PAGE_FILE, result.FILE)
  return written


def _check_query(config: ml_collections.ConfigDict, path: pathlib.Path) -> None:
  """Refuses what cannot be answered, before anything that takes time."""
  for field, value in (
    ('embeddings', config.embeddings),
    ('retrieve.beside', config.retrieve.beside),
  ):
    if value:
      raise config_check.ConfigError(
        f'config.{field} is {value!r}, and config.retrieve.query asks for a '
        'video that only the network of this run can embed; leave one out.'
      )
  if not path.is_file():
    raise dataset_folder.DatasetError(
      f'There is no video file {path} (config.retrieve.query).'
    )
  if path.suffix.lower() not in own_files.VIDEO_SUFFIXES.split():
    raise dataset_folder.DatasetError(
      f'{path} (config.retrieve.query) is not named like a video; known '
      f'suffixes: {own_files.VIDEO_SUFFIXES}.'
    )
  if jax.process_count() > 1:
    raise config_check.ConfigError(
      'config.retrieve.query is answered by a single process; run it on one '
      'host.'
    )


@contextlib.contextmanager
def _prepared(
  path: pathlib.Path, scratch: pathlib.Path
) -> Iterator[frame_store.FrameStore]:
  """Prepares a video file, for as long as the context lasts."""
  # A killed call may have left something.
  shutil.rmtree(scratch, ignore_errors=True)
  try:
    files = own_files.folder_of(path, scratch)
    try:
      prepared = own_files.prepare(files, scratch, 'query')
    except own_files.PreparationError as error:
      # Its remedy is of no use: the folder is removed.
      raise dataset_folder.DatasetError(
        f'{path} (config.retrieve.query) cannot be used: {error.reason}'
      ) from error
    with frame_store.FrameStore.open(prepared, 'train') as store:
      yield store
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


def _query_folder(path: pathlib.Path) -> str:
  """A folder's name that any file system takes, different for other files."""
  kept = ''.join(
    c if c.isascii() and (c.isalnum() or c in '._-') else '-' for c in path.stem
  )[:80]
  digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
  return f'query-{kept}-{digest}'


def _named_predictions(run: Experiment, own: Findings) -> dict[str, str]:
  """Column -> class name, of the only query."""
  names = {column: run.train.label(column)[1] for column in own.predicted}
  return {
    column: names[column][numbers[0]]
    for column, numbers in own.predicted.items()
    if numbers[0] >= 0
  }


def _named_neighbors(run: Experiment, own: Findings) -> list[dict]:
  """Path, id, similarity and labels of the only query's neighbours."""
  store = run.train.store
  return [
    {
      'path': store.paths[row],
      'id': store.ids[row],
      'similarity': float(similarity),
      'labels': retrieval_page.labels_of(store, row, run.label_columns),
    }
    for row, similarity in zip(own.index[0], own.similarity[0], strict=True)
  ]


def _log_answer(written: dict, count: int) -> None:
  """Prints the nearest training videos, and the labels they vote for."""
  logging.info('Nearest training videos of %s:', written['query'])
  for neighbor in written['neighbors'][:count]:
    labels = ', '.join(f'{c} {name}' for c, name in neighbor['labels'].items())
    logging.info(
      '  %.3f  %s%s',
      neighbor['similarity'],
      neighbor['path'],
      f'  ({labels})' if labels else '',
    )
  for column, name in written['predicted'].items():
    logging.info('Predicted %s: %s.', column, name)
