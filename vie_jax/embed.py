"""Embeddings of clips given as an array: `--mode=embed`."""

import json
import pathlib
import zipfile
import zlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import (
  config_check,
  device_augment,
  experiment,
  sharding,
  weights,
)
from vie_jax.models import networks

FOLDER = 'embed'
EMBEDDINGS_FILE = 'embeddings.npy'
RESULT_FILE = 'result.json'
ARRAY = 'clips'
# What NumPy raises for damaged archives, and for files of another kind.
UNREADABLE = (
  EOFError,
  OSError,
  RuntimeError,
  ValueError,
  zipfile.BadZipFile,
  zlib.error,
)


class ClipsError(ValueError):
  """The file of clips is missing, or not what it should be."""


def read_clips(path: str | pathlib.Path) -> np.ndarray:
  """Reads the array `clips` of an .npz file.

  Args:
    path: of the file.

  Returns:
    uint8 [n, T, H, W, 3], RGB, already cropped.

  Raises:
    ClipsError: saying what is wrong with which file.
  """
  try:
    with open(path, 'rb') as file:
      archive = np.load(file, allow_pickle=False)
      is_archive = not isinstance(archive, np.ndarray) and ARRAY in archive
      clips = archive[ARRAY] if is_archive else None
  except FileNotFoundError:
    raise ClipsError(f'There is no file {path} (config.embed.clips).') from None
  except UNREADABLE as error:
    raise ClipsError(
      f'{path} (config.embed.clips) is damaged, or no .npz file of plain arrays.'
    ) from error
  if clips is None:
    raise ClipsError(
      f'{path} holds no array named {ARRAY!r}. Write it with '
      f'numpy.savez(path, {ARRAY}=array).'
    )
  if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
    raise ClipsError(
      f'The clips of {path} are {clips.dtype} {list(clips.shape)}; they must '
      'be uint8 [n, T, H, W, 3].'
    )
  if not clips.size:
    raise ClipsError(f'{path} holds no clips: {list(clips.shape)}.')
  return clips


def embed_clips(
  clips: np.ndarray,
  variables: weights.Variables,
  *,
  model: nn.Module,
  batch_size: int,
  mesh: Mesh,
) -> np.ndarray:
  """Embeds clips with batch norm's running statistics.

  Args:
    clips: uint8 [n, T, H, W, 3], RGB.
    variables: params and batch statistics.
    model: from normalised clips to embeddings.
    batch_size: clips at a time, over all devices, a multiple of their number.
    mesh: the batch is split over its axis `data`.

  Returns:
    float32 [n, D], unit vectors.
  """

  def embed(variables, clips):
    clips = device_augment.normalize(clips.astype(jnp.float32))
    return model.apply(variables, clips, train=False)

  embed = jax.jit(embed, out_shardings=sharding.replicated(mesh))
  # A few clips do not wait for a whole batch.
  batch_size = min(batch_size, -(-len(clips) // mesh.size) * mesh.size)
  embeddings = []
  for start in range(0, len(clips), batch_size):
    batch = clips[start : start + batch_size]
    missing = [(0, batch_size - len(batch)), *((0, 0),) * 4]
    padded = np.pad(batch, missing, mode='edge')
    placed = jax.device_put(padded, sharding.rows(mesh))
    embeddings.append(np.asarray(embed(variables, placed))[: len(batch)])
    logging.info('Embedded %d of %d clips.', start + len(batch), len(clips))
  return np.concatenate(embeddings)


def _check_frames(config: ml_collections.ConfigDict, num_frames: int) -> None:
  """Refuses clips of a length that the network cannot take."""
  name, wanted = config.model.name, config.clip.num_frames
  if name == 'vie_trn' and num_frames != wanted:
    raise ClipsError(
      f'The clips of config.embed.clips have {num_frames} frames; this '
      f'vie_trn is made for {wanted} (config.clip.num_frames).'
    )
  if networks.has_slowfast(name) and num_frames % config.model.alpha:
    raise ClipsError(
      f'The clips of config.embed.clips have {num_frames} frames; {name} '
      f'needs a multiple of config.model.alpha, {config.model.alpha}.'
    )


def embed(config: ml_collections.ConfigDict, workdir: str) -> np.ndarray:
  """Embeds the clips of a file and writes `<workdir>/embed/embeddings.npy`.

  Beside it, `result.json` says what the embeddings are of.

  Args:
    config: `embed.clips` names the file, `init_from` the weights.
    workdir: receives the folder `embed`.

  Returns:
    What is written: float32 [n, D], unit vectors.

  Raises:
    ClipsError, config_check.ConfigError, checkpoint.CheckpointError,
    official_checkpoint.OfficialCheckpointError: with the remedy.
  """
  config_check.check(config)
  if not config.embed.clips:
    raise config_check.ConfigError(
      'config.embed.clips is empty; name an .npz file with an array '
      f'{ARRAY!r}, uint8 [n, T, H, W, 3].'
    )
  clips = read_clips(config.embed.clips)
  _check_frames(config, clips.shape[1])
  mesh = experiment.make_mesh(config, 'embed.batch_size')
  model = experiment.build_model(config)
  found = weights.load(
    config,
    workdir,
    model,
    clip_shape=experiment.clip_shape(config),
    mesh=mesh,
  )
  embeddings = embed_clips(
    clips,
    found.variables,
    model=model,
    batch_size=config.embed.batch_size,
    mesh=mesh,
  )
  folder = pathlib.Path(workdir) / FOLDER
  folder.mkdir(parents=True, exist_ok=True)
  np.save(folder / EMBEDDINGS_FILE, embeddings)
  result = {
    'clips': config.embed.clips,
    'shape': list(clips.shape),
    'init_from': config.init_from,
    'streams': config.model.streams,
    'step': found.step,
    'config': json.loads(config.to_json_best_effort()),
  }
  (folder / RESULT_FILE).write_text(json.dumps(result, indent=2) + '\n')
  logging.info('Written: %s', folder / EMBEDDINGS_FILE)
  return embeddings
