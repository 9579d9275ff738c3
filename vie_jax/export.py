"""A trained network as one file that needs JAX alone: `--mode=export`."""

import json
import pathlib
import time
from collections.abc import Callable

import jax
import jax.export
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from flax import linen as nn

from vie_jax import blueprint, device_augment, weights
from vie_jax.config import config_check
from vie_jax.evaluation import features
from vie_jax.files import disk, workdir_lock
from vie_jax.machine import platform_choice
from vie_jax.processes import agreement
from vie_jax.results import result, result_owner

MODE = 'export'
ENCODER_FILE = 'encoder.jax'
PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
"""What the file runs on, by JAX's names."""
_NUM_CHECKED_CLIPS = 2


def encoder(
  model: nn.Module, variables: weights.Variables, layer: str
) -> Callable[[jax.Array], jax.Array]:
  """A network with its weights, as a function of clips alone.

  Args:
    model: from normalised clips to embeddings.
    variables: params and batch statistics, whole.
    layer: 'embedding', or a readout.

  Returns:
    uint8 [B, T, H, W, 3], RGB, to float32 [B, D], unit vectors if they are
    embeddings. On CPUs one clip after the other: `frame_parts` cannot take a
    batch apart whose size is not known yet.
  """

  def at_once(clips):
    return _apply(model, variables, clips, layer)

  def one_by_one(clips):
    return jax.lax.map(lambda clip: at_once(clip[None])[0], clips)

  def encode(clips):
    return platform_choice.by_platform(clips, cpu=one_by_one, others=at_once)

  return encode


def serialize(
  encode: Callable[[jax.Array], jax.Array],
  clip_shape: tuple[int, int, int, int],
) -> bytes:
  """Compiles a function of clips as far as no device is needed for it.

  Args:
    encode: as from `encoder`.
    clip_shape: (T, H, W, 3).

  Returns:
    What `jax.export.deserialize` reads: for batches of any size, on
    `PLATFORMS`.
  """
  (batch,) = jax.export.symbolic_shape('batch')
  clips = jax.ShapeDtypeStruct((batch, *clip_shape), jnp.uint8)
  exported = jax.export.export(jax.jit(encode), platforms=PLATFORMS)(clips)
  return bytes(exported.serialize())


def export(config: ml_collections.ConfigDict, workdir: str) -> pathlib.Path:
  """Writes the network that the config names as one file.

  It lies in WORKDIR/export/NAME, beside `result.json`, which says what it takes
  and gives, of which weights it is, and by how much its features of random
  clips differ from the network's.

  Args:
    config: `export.layer` says what the file gives, `init_from` names the
      weights.
    workdir: receives the folder `export`.

  Returns:
    The file.

  Raises:
    config_check.ConfigError, checkpoint.CheckpointError,
    official_checkpoint.OfficialCheckpointError: with the remedy.
    result.ResultError: if the folder has the network of another source.
  """
  started = time.monotonic()
  config_check.check(config)
  _check_no_embeddings(config)
  layer, clip_shape = config.export.layer, blueprint.clip_shape(config)
  mesh = blueprint.make_mesh(config, MODE)
  model = blueprint.build_model(config)
  found = weights.load(config, workdir, model, clip_shape=clip_shape, mesh=mesh)
  if layer == features.EMBEDDING:
    weights.warn_of_projection(
      found, ', so that embeddings tell little. config.export.layer=conv5 does.'
    )
  variables = jax.tree.map(np.asarray, found.variables)
  folder = _folder(config, workdir)
  with workdir_lock.hold(folder):
    result_owner.check_source(folder, config, dataset={})
    content = serialize(encoder(model, variables, layer), clip_shape)
    clips = _random_clips(clip_shape)
    expected = np.asarray(
      jax.jit(_apply, static_argnums=(0, 3))(model, variables, clips, layer)
    )
    difference = _difference(content, clips, expected)
    agreement.share_folder(folder)
    if jax.process_index() == 0:
      with disk.replacing(folder / ENCODER_FILE) as fresh:
        fresh.write_bytes(content)
    result.write(
      folder,
      {
        **_facts(config, found, expected.shape[1]),
        'largest_difference': difference,
        'num_bytes': len(content),
        'seconds': round(time.monotonic() - started, 1),
      },
    )
  logging.info(
    'Written: %s, from uint8 %s to float32 %s; of random clips its features '
    'differ by %.1e of the largest at most from those of the network.',
    folder / ENCODER_FILE,
    _shape_text(clip_shape),
    _shape_text(expected.shape[1:]),
    difference,
  )
  return folder / ENCODER_FILE


def _check_no_embeddings(config):
  """Refuses vectors in place of a network."""
  if config.embeddings:
    raise config_check.ConfigError(
      f'config.embeddings is {config.embeddings!r}: embeddings without a '
      'network. Leave it out in --mode=export.'
    )


def _folder(config, workdir):
  """The folder of the file, by the names of network and layer."""
  layer = config.export.layer
  suffix = '' if layer == features.EMBEDDING else layer
  return result.folder(config, workdir, MODE, config.model.name, suffix)


def _apply(model, variables, clips, layer):
  """Features of clips uint8 [B, T, H, W, 3]."""
  clips = device_augment.normalize(clips.astype(jnp.float32))
  return features.apply(model, variables, clips, layer)


def _random_clips(clip_shape):
  shape = (_NUM_CHECKED_CLIPS, *clip_shape)
  return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _difference(content, clips, expected):
  """Largest difference of a file's features, as a share of the largest one."""
  found = jax.export.deserialize(bytearray(content)).call(clips)
  return float(np.abs(found - expected).max() / np.abs(expected).max())


def _shape_text(shape):
  return f'[batch, {", ".join(map(str, shape))}]'


def _facts(config, found, size):
  return {
    'mode': MODE,
    'seed': config.seed,
    'accuracy': {},
    'chance': {},
    'dataset': {},
    'network': result.network(config, found),
    'layer': config.export.layer,
    'input': {
      'shape': ['batch', *blueprint.clip_shape(config)],
      'dtype': 'uint8',
      'colors': 'RGB',
      'short_side': config.crop.eval_short_side,
    },
    'output': {'shape': ['batch', size], 'dtype': 'float32'},
    'platforms': list(PLATFORMS),
    'weights_sha256': found.digest(),
    'config': json.loads(config.to_json_best_effort()),
  }
