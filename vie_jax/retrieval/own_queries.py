"""The training videos nearest to videos of the user's own: `retrieve.query`."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence

import jax
import ml_collections
from absl import logging

from vie_jax import evaluate, experiment, weights
from vie_jax.config import config_check
from vie_jax.embeddings import own_files, split_embeddings
from vie_jax.evaluation import features
from vie_jax.experiment import Experiment
from vie_jax.files import workdir_lock
from vie_jax.input_pipeline import dataset_folder, frame_store, instances
from vie_jax.results import result
from vie_jax.results.findings import Findings
from vie_jax.retrieval import page
from vie_jax.retrieval.result_facts import MODE, result_facts
from vie_jax.retrieval.training_index import TrainingIndex

# Videos of which the log names the nearest ones; the result has those of all.
_NUM_LOGGED = 20


def answer_queries(config: ml_collections.ConfigDict, workdir: str) -> dict:
  """Finds the training videos nearest to those of a file or a folder.

  Args:
    config: see `retrieve.query`.
    workdir: of the run.

  Returns:
    What is written to `result.json`: `answers` is a list with `path`,
    `predicted` and `neighbors` of each video, and `skipped` names those that
    cannot be used.

  Raises:
    config_check.ConfigError, dataset_folder.DatasetError,
    checkpoint.CheckpointError, result.ResultError: with the remedy.
  """
  started = time.monotonic()
  path = pathlib.Path(os.path.expanduser(config.retrieve.query))
  _check(config, path)
  name = _folder_name(path)
  with experiment.open_experiment(config, MODE) as run:
    folder = result.folder(
      config, workdir, MODE, run.train.store.name, *run.chosen_columns
    )
    with (
      workdir_lock.hold(folder),
      _prepared(path, folder / f'{name}.videos') as (store, skipped),
    ):
      own = _find(run, workdir, folder, store)
      names = store.paths if path.is_dir() else [path.name]
      folder = folder / name
      written = result.write(
        folder,
        {
          **own.result,
          'query': str(path),
          'skipped': skipped,
          'answers': _answers(run, own, names),
          'seconds': round(time.monotonic() - started, 1),
        },
      )
      shown = page.query_page(
        run.train.store,
        store,
        dataclasses.replace(own, result=written),
        columns=run.label_columns,
        title=path.name or path.resolve().name,
        names=names,
        num_queries=config.retrieve.num_queries,
        num_neighbors=config.retrieve.num_neighbors,
      )
      page.write(folder, shown)
  _log(written, config.retrieve.num_neighbors)
  logging.info('Written: %s and %s', folder / page.FILE, result.FILE)
  return written


def _check(config: ml_collections.ConfigDict, path: pathlib.Path) -> None:
  """Refuses what cannot be answered, before anything that takes time."""
  for field, value in (
    ('embeddings', config.embeddings),
    ('retrieve.beside', config.retrieve.beside),
  ):
    if value:
      raise config_check.ConfigError(
        f'config.{field} is {value!r}, and config.retrieve.query asks for '
        'videos that only the network of this run can embed; leave one out.'
      )
  if not path.is_file() and not path.is_dir():
    raise dataset_folder.DatasetError(
      f'There is no video file or folder {path} (config.retrieve.query).'
    )
  if (path / 'dataset.json').is_file():
    raise dataset_folder.DatasetError(
      f'{path} (config.retrieve.query) is a prepared data set; name a video file '
      'or a folder of them.'
    )
  suffixes = own_files.VIDEO_SUFFIXES
  if path.is_file() and path.suffix.lower() not in suffixes.split():
    raise dataset_folder.DatasetError(
      f'{path} (config.retrieve.query) is not named like a video; known '
      f'suffixes: {suffixes}.'
    )
  if jax.process_count() > 1:
    raise config_check.ConfigError(
      'config.retrieve.query is answered by a single process; run it on one '
      'host.'
    )


@contextlib.contextmanager
def _prepared(
  path: pathlib.Path, scratch: pathlib.Path
) -> Iterator[tuple[frame_store.FrameStore, list[dict]]]:
  """Prepares a video file or a folder, for as long as the context lasts.

  What a call that does not come to its end has decoded is kept for the next.

  Yields:
    The videos, all in train, and `path` and `reason` of those that cannot be
    used.
  """
  try:
    files = own_files.folder_of(path, scratch)
    try:
      prepared = own_files.prepare(
        files, scratch, 'query', source=path, has_labels=False
      )
    except own_files.PreparationError as error:
      # Its remedy names a folder that is not the user's.
      raise dataset_folder.DatasetError(
        f'{path} (config.retrieve.query) cannot be used: {error.reason}'
      ) from error
    with frame_store.FrameStore.open(prepared, 'train') as store:
      yield store, own_files.skipped(prepared)
  except Exception:
    if not _has_frames(scratch / 'prepared'):
      shutil.rmtree(scratch, ignore_errors=True)
    raise
  shutil.rmtree(scratch, ignore_errors=True)


def _has_frames(prepared: pathlib.Path) -> bool:
  """Whether videos are decoded in a folder of `own_files.prepare`."""
  is_complete = (prepared / 'dataset.json').exists()
  return is_complete or any(prepared.glob('.staging/*.frames'))


def _folder_name(path: pathlib.Path) -> str:
  """A name that any file system takes, different for other paths."""
  stem = path.name or path.resolve().name if path.is_dir() else path.stem
  kept = ''.join(
    c if c.isascii() and (c.isalnum() or c in '._-') else '-' for c in stem
  )[:80]
  digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
  return f'query-{kept}-{digest}'


def _find(
  run: Experiment,
  workdir: str,
  folder: pathlib.Path,
  store: frame_store.FrameStore,
) -> Findings:
  """Embeds the training videos and those of a store, and finds the nearest."""
  found = weights.load(
    run.config, workdir, run.model, clip_shape=run.clip_shape, mesh=run.mesh
  )
  opened = split_embeddings.embed_splits(run, found, folder, ('train',))
  index = TrainingIndex(run, opened['train'])
  clips = evaluate.Evaluator(run).embed(
    found.variables, instances.all_videos(store), leaves_out=False
  )
  return index.findings(
    index.search(features.video_means(clips)),
    run.label_columns,
    result_facts(run, workdir, opened),
  )


def _answers(
  run: Experiment, own: Findings, names: Sequence[str]
) -> list[dict]:
  """Path, predicted classes and neighbours of each video, by its row."""
  store = run.train.store
  classes = {column: run.train.label(column)[1] for column in own.predicted}
  return [
    {
      'path': name,
      'predicted': {
        column: classes[column][numbers[row]]
        for column, numbers in own.predicted.items()
        if numbers[row] >= 0
      },
      'neighbors': [
        {
          'path': store.paths[near],
          'id': store.ids[near],
          'similarity': float(similarity),
          'labels': page.labels_of(store, near, run.label_columns),
        }
        for near, similarity in zip(
          own.index[row], own.similarity[row], strict=True
        )
      ],
    }
    for row, name in enumerate(names)
  ]


def _log(written: dict, num_neighbors: int) -> None:
  """Names the nearest training videos, and the labels they vote for."""
  for answer in written['answers'][:_NUM_LOGGED]:
    logging.info('Nearest training videos of %s:', answer['path'])
    for neighbor in answer['neighbors'][:num_neighbors]:
      labels = ', '.join(
        f'{c} {name}' for c, name in neighbor['labels'].items()
      )
      logging.info(
        '  %.3f  %s%s',
        neighbor['similarity'],
        neighbor['path'],
        f'  ({labels})' if labels else '',
      )
    for column, name in answer['predicted'].items():
      logging.info('Predicted %s: %s.', column, name)
  if (num_left := len(written['answers']) - _NUM_LOGGED) > 0:
    logging.info('%d more are in %s.', num_left, result.FILE)
