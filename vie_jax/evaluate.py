"""Evaluations of a network: at intervals in training, and on their own."""

import dataclasses
import json
import pathlib

import jax
import ml_collections
import numpy as np
from absl import logging

from vie_jax import experiment, train_state, weights
from vie_jax.evaluation import features, knn, monitors
from vie_jax.experiment import Experiment
from vie_jax.input_pipeline import frame_store, instances

NEIGHBORS_FILE = 'neighbors.npz'
RESULT_FILE = 'result.json'
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

  def embed(self, variables: dict, videos: instances.Instances) -> np.ndarray:
    """Embeds all evaluation clips of some videos: float32 [V, G, D]."""
    config = self._experiment.config
    with experiment.eval_batches(self._experiment, videos) as batches:
      return features.embed_videos(
        batches,
        self._embed,
        variables,
        num_videos=videos.num_instances,
        num_clips=config.clip.num_eval_clips,
        embedding_size=config.model.embedding_size,
        mesh=self._experiment.mesh,
      )

  def knn(self, embeddings: np.ndarray, reference: Reference) -> dict:
    """Classifies validation videos by their neighbours.

    Args:
      embeddings: float32 [V, G, D] of the validation clips.
      reference: of the training videos.

    Returns:
      label column -> accuracies, see `knn.accuracy`; a column without labels
      in the validation videos is left out.
    """
    config, mesh = self._experiment.config, self._experiment.mesh
    rows, val = reference.rows, self._experiment.val
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
      scores = knn.class_scores(
        neighbors,
        labels,
        num_classes=len(class_names),
        temperature=config.objective.temperature,
      )
      accuracy = knn.accuracy(
        scores, val.label(column)[0], num_clips=embeddings.shape[1]
      )
      if accuracy:
        results[column] = accuracy
    return results

  def clip_reference(self, variables: dict) -> Reference:
    """Embeds the training videos: the mean of their evaluation clips."""
    videos = self._experiment.train.distinct_videos()
    means = features.video_means(self.embed(variables, videos))
    bank = knn.as_bank(means, self._experiment.mesh)
    return Reference(bank, 'clips', videos)


def curves(
  evaluator: Evaluator, state: train_state.TrainState, run: Experiment
) -> dict:
  """Figures of a state in training, by their names in TensorBoard.

  Args:
    evaluator: of the run.
    state: now.
    run: what is trained.

  Returns:
    kNN accuracy on each label column against the memory bank, agreement of
    the clips of a video, health of the bank.
  """
  num_videos = run.train.num_instances
  figures = monitors.bank_ages(
    state.bank_step,
    state.step,
    num_videos=num_videos,
    never=train_state.NEVER,
  )
  figures['health/bank_effective_rank'] = monitors.effective_rank(
    state.bank, num_videos=num_videos
  )
  for column in run.label_columns:
    figures[f'health/neighbors_same_{column}'] = monitors.label_share(
      state.bank,
      run.train.label(column)[0],
      k=run.config.knn.num_neighbors,
      num_videos=num_videos,
      mesh=run.mesh,
    )
  if not run.val.num_instances:
    return figures
  embeddings = evaluator.embed(_variables(state), run.val)
  accuracies = evaluator.knn(
    embeddings, Reference(state.bank, 'bank', run.train)
  )
  for column, accuracy in accuracies.items():
    for name, value in accuracy.items():
      figures[f'knn/{column}_{name}'] = value
  for name, value in monitors.same_video_retrieval(embeddings).items():
    figures[f'same_video/{name}'] = value
  return figures


def _variables(state: train_state.TrainState) -> dict:
  return {'params': state.params, 'batch_stats': state.batch_stats}


def knn_eval(config: ml_collections.ConfigDict, workdir: str) -> dict:
  """Evaluates a network by kNN and writes the result and the neighbours.

  Args:
    config: `init_from` and `knn` say what is evaluated and how.
    workdir: of the run; results go to its folder `knn_eval`, or
      `knn_eval_random` for a network that was never trained.

  Returns:
    What is written to `result.json`.

  Raises:
    frame_store.DatasetError, checkpoint.CheckpointError,
    config_check.ConfigError: with the remedy.
  """
  is_random = config.init_from == 'random'
  folder = pathlib.Path(workdir) / (
    'knn_eval_random' if is_random else 'knn_eval'
  )
  with experiment.open_experiment(config, trains=False) as run:
    if not run.val.num_instances:
      raise frame_store.DatasetError(
        f'{config.dataset.dir} has no validation videos to evaluate; prepare '
        'it again with a larger --val-percent.'
      )
    found = weights.load(
      config, workdir, run.model, clip_shape=run.clip_shape, mesh=run.mesh
    )
    evaluator = Evaluator(run)
    if config.knn.reference == 'bank' and found.workdir:
      bank = weights.load_bank(
        found.workdir,
        fingerprint=run.train.fingerprint,
        embedding_size=config.model.embedding_size,
        mesh=run.mesh,
        step=found.step,
      )
      reference = Reference(bank, 'bank', run.train)
    else:
      if config.knn.reference == 'bank':
        logging.info('These weights have no memory bank: comparing with clips.')
      reference = evaluator.clip_reference(found.variables)
    embeddings = evaluator.embed(found.variables, run.val)
    result = {
      'accuracy': evaluator.knn(embeddings, reference),
      'chance': _chance(run),
      'same_video': monitors.same_video_retrieval(embeddings),
      'reference': reference.kind,
      'init_from': config.init_from,
      'streams': config.model.streams,
      'step': found.step,
      'num_neighbors': config.knn.num_neighbors,
      'num_clips': config.clip.num_eval_clips,
      'dataset': {
        'fingerprint': run.train.fingerprint,
        'train_videos': run.train.distinct_videos().num_instances,
        'val_videos': run.val.num_instances,
      },
      'config': experiment.record(run)['config'],
    }
    if jax.process_index() == 0:
      _write(folder, result, run, embeddings, reference)
  for column, accuracy in result['accuracy'].items():
    logging.info(
      'kNN on %s: video top-1 %.1f %%, clip top-1 %.1f %% (most frequent class '
      '%.1f %%).',
      column,
      100 * accuracy['top1'],
      100 * accuracy['clip_top1'],
      100 * result['chance'][column],
    )
  logging.info('Written: %s', folder / RESULT_FILE)
  return result


def _chance(run: Experiment) -> dict[str, float]:
  """Accuracy of always naming the training videos' most frequent class."""
  chance, videos = {}, run.train.distinct_videos()
  for column in run.label_columns:
    train, class_names = videos.label(column)
    counts = np.bincount(train[train >= 0], minlength=len(class_names))
    val = run.val.label(column)[0]
    val = val[val >= 0]
    if val.size:
      chance[column] = float((val == counts.argmax()).mean())
  return chance


def _write(folder, result, run, embeddings, reference):
  """Writes result.json and, for pictures, each video's nearest neighbours."""
  nearest = knn.search(
    reference.bank,
    features.video_means(embeddings),
    k=min(NEIGHBORS_KEPT, reference.rows.num_instances),
    num_videos=reference.rows.num_instances,
    mesh=run.mesh,
  )
  folder.mkdir(parents=True, exist_ok=True)
  np.savez(
    folder / NEIGHBORS_FILE,
    index=reference.rows.video[nearest.index],
    similarity=nearest.similarity,
  )
  (folder / RESULT_FILE).write_text(json.dumps(result, indent=2) + '\n')
