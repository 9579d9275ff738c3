"""What any result of retrieval says of its run."""

import json
import pathlib

import ml_collections

from vie_jax import experiment, weights
from vie_jax.embeddings import split_embeddings
from vie_jax.experiment import Experiment
from vie_jax.telemetry import damage_counts

MODE = 'retrieve'


def result_facts(run: Experiment, workdir: str, opened: dict) -> dict:
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
