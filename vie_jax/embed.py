"""Embeddings to hand on: `--mode=embed`.

Of a prepared data set, of video files, of images, or of clips that are given
as an array.
"""

import contextlib
import functools
import hashlib
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import blueprint, device_augment, sharding, weights
from vie_jax.config import config_check
from vie_jax.embeddings import (
  clip_files,
  embed_sources,
  embedding_files,
  split_embeddings,
)
from vie_jax.evaluation import features
from vie_jax.files import disk, workdir_lock
from vie_jax.models import network_names
from vie_jax.processes import agreement, watchdog
from vie_jax.results import result, result_owner
from vie_jax.telemetry import damage_counts, run_log
from vie_jax.wording import counted

MODE = 'embed'
EMBEDDINGS_FILE = 'embeddings.npy'


def embed_clips(
  clips: np.ndarray,
  variables: weights.Variables,
  *,
  model: nn.Module,
  batch_size: int,
  mesh: Mesh,
  layer: str = features.EMBEDDING,
) -> np.ndarray:
  """Embeds clips with batch norm's running statistics.

  Args:
    clips: uint8 [n, T, H, W, 3], RGB.
    variables: params and batch statistics.
    model: from normalised clips to embeddings.
    batch_size: clips at a time, over all devices, a multiple of their number.
    mesh: the batch is split over its axis `data`.
    layer: 'embedding', or a readout.

  Returns:
    float32 [n, D], unit vectors if they are embeddings.
  """

  def embed(variables, clips):
    clips = device_augment.normalize(clips.astype(jnp.float32))
    return features.apply(model, variables, clips, layer)

  embed = jax.jit(embed, out_shardings=sharding.replicated(mesh))
  # A few clips do not wait for a whole batch.
  batch_size = min(batch_size, -(-len(clips) // mesh.size) * mesh.size)
  embeddings = []
  for start in range(0, len(clips), batch_size):
    batch = clips[start : start + batch_size]
    missing = [(0, batch_size - len(batch)), *((0, 0),) * 4]
    padded = np.pad(batch, missing, mode='edge')
    placed = sharding.place(padded, sharding.rows(mesh))
    embeddings.append(np.asarray(embed(variables, placed))[: len(batch)])
    watchdog.beat()
    logging.info(
      'Embedded %d of %s.', start + len(batch), counted(len(clips), 'clip')
    )
  return np.concatenate(embeddings)


def _check_frames(config: ml_collections.ConfigDict, num_frames: int) -> None:
  """Refuses clips of a length that the network cannot take."""
  name, wanted = config.model.name, config.clip.num_frames
  if name == 'vie_trn' and num_frames != wanted:
    raise clip_files.ClipsError(
      f'The clips of config.embed.clips have {counted(num_frames, "frame")}; '
      f'this vie_trn is made for {wanted} (config.clip.num_frames).'
    )
  if network_names.has_slowfast(name) and num_frames % config.model.alpha:
    raise clip_files.ClipsError(
      f'The clips of config.embed.clips have {counted(num_frames, "frame")}; '
      f'{name} needs a multiple of config.model.alpha, {config.model.alpha}.'
    )


def embed(config: ml_collections.ConfigDict, workdir: str) -> np.ndarray:
  """Embeds what the config names, and writes `embeddings.npy`.

  It lies in a folder of its own, WORKDIR/embed/NAME, beside `result.json`,
  which says what the embeddings are of, and what `embedding_files` writes.

  Args:
    config: `embed.clips` names an array of clips; else `embed.source`, or
      `dataset.dir`, what is embedded. `init_from` names the weights.
    workdir: receives the folder `embed`.

  Returns:
    What is written, float32 [n, D]: unit vectors if they are embeddings. But
    for an array of clips it lies on the disk.

  Raises:
    clip_files.ClipsError, config_check.ConfigError,
    dataset_folder.DatasetError, checkpoint.CheckpointError, result.ResultError,
    official_checkpoint.OfficialCheckpointError: with the remedy.
  """
  config_check.check(config)
  if config.embeddings:
    raise config_check.ConfigError(
      f'config.embeddings is {config.embeddings!r}: embeddings that there are '
      'already. Leave it out in --mode=embed.'
    )
  if config.embed.clips:
    return _embed_array(config, workdir)
  if not config.embed.splits:
    raise config_check.ConfigError(
      "config.embed.splits is empty; ('val',) names one split."
    )
  return _embed_source(config, workdir)


def _embed_array(config, workdir):
  """Embeds the clips of a file."""
  started = time.monotonic()
  path = config.embed.clips
  clips = clip_files.read_clips(path)
  _check_frames(config, clips.shape[1])
  mesh, model, found = _network(config, workdir)
  dataset = {
    'name': pathlib.Path(path).stem,
    'path': path,
    'kind': 'clips',
    'fingerprint': hashlib.sha256(clips).hexdigest(),
    'clips': len(clips),
  }
  folder = result.folder(config, workdir, MODE, dataset['name'])
  with workdir_lock.hold(folder):
    result_owner.check_source(folder, config, dataset)
    embeddings = embed_clips(
      clips,
      found.variables,
      model=model,
      batch_size=config.embed.batch_size,
      mesh=mesh,
      layer=config.embed.layer,
    )
    split_embeddings.check_finite(embeddings, 'clips')
    agreement.share_folder(folder)
    if jax.process_index() == 0:
      path = folder / EMBEDDINGS_FILE
      with disk.replacing(path) as fresh, fresh.open('wb') as file:
        np.save(file, embeddings)
    result.write(
      folder,
      {
        **_facts(config, found, dataset, embeddings.shape),
        'clips': list(clips.shape),
        'seconds': round(time.monotonic() - started, 1),
      },
    )
  logging.info('Written: %s', folder / EMBEDDINGS_FILE)
  return embeddings


def _embed_source(config, workdir):
  """Embeds videos or images."""
  started = time.monotonic()
  name = config.embed.source or config.dataset.dir
  embed_sources.check_is_there(
    name, 'config.embed.source' if config.embed.source else 'config.dataset.dir'
  )
  mesh, model, found = _network(config, workdir)
  folder = _folder(config, workdir, name)
  with (
    workdir_lock.hold(folder),
    embed_sources.open_source(config, name, folder) as source,
  ):
    result_owner.check_source(folder, config, source.facts)
    agreement.share_folder(folder)
    run_log.to_file(folder, jax.process_index())
    path = folder / EMBEDDINGS_FILE
    shape = _fill(path, source, config, model, found, mesh)
    if jax.process_index() == 0:
      embedding_files.write(
        path,
        source.items,
        label_columns=source.label_columns,
        num_clips=source.num_clips if config.embed.per_clip else None,
        picture=source.picture,
      )
    result.write(
      folder,
      {
        **_facts(config, found, source.facts, shape),
        'bad_frames': damage_counts.replaced(source.damage, 'train', 'val'),
        'views': {
          'clips': source.num_clips,
          'crop': 'center',
          'average': 'none' if config.embed.per_clip else 'mean',
        },
        'seconds': round(time.monotonic() - started, 1),
      },
    )
  logging.info('Written: %s', path)
  return np.load(path, mmap_mode='r', allow_pickle=False)


def _network(config, workdir):
  """The mesh, the network, and its weights."""
  mesh = blueprint.make_mesh(config, 'embed')
  model = blueprint.build_model(config)
  found = weights.load(
    config,
    workdir,
    model,
    clip_shape=blueprint.clip_shape(config),
    mesh=mesh,
  )
  if config.embed.layer == features.EMBEDDING:
    weights.warn_of_projection(found, split_embeddings.TELLS_LITTLE)
  return mesh, model, found


def _folder(config, workdir, name):
  """The folder of the result, by the name of what is embedded."""
  layer = config.embed.layer
  return result.folder(
    config,
    workdir,
    MODE,
    embed_sources.name_of(name),
    '' if layer == features.EMBEDDING else layer,
    'per_clip' if config.embed.per_clip else '',
  )


def _fill(path, source, config, model, found, mesh):
  """Writes the array, or what is missing of it; returns its shape."""
  layer, per_clip = config.embed.layer, config.embed.per_clip
  rows_per_item = source.num_clips if per_clip else 1
  size = _size(config, model, found.variables)
  shape = (len(source.items) * rows_per_item, size)
  split_embeddings.fill(
    path,
    shape=shape,
    identity={
      **split_embeddings.identity(config, found),
      'source': {k: v for k, v in source.facts.items() if k != 'path'},
      'layer': layer,
      'per_clip': per_clip,
    },
    rows_from=functools.partial(
      _rows_from, source, config, model, found.variables, mesh
    ),
    unit='rows',
    notes=source.damage.clips,
  )
  return shape


def _size(config, model, variables):
  """D, of the layer that is embedded."""
  clip = jax.ShapeDtypeStruct((1, *blueprint.clip_shape(config)), jnp.float32)
  layer = config.embed.layer
  return jax.eval_shape(
    lambda v, c: features.apply(model, v, c, layer), variables, clip
  ).shape[1]


def _rows_from(source, config, model, variables, mesh, start):
  """Yields blocks of rows [b, D] of a source, from one of them on."""
  embed = features.embedder(
    model, center=source.center, mesh=mesh, layer=config.embed.layer
  )
  num_clips = source.num_clips
  rows_per_item = num_clips if config.embed.per_clip else 1
  for part in source.parts:
    num_rows = len(part.items) * rows_per_item
    if start < num_rows:
      with contextlib.closing(
        features.embed_from(
          part.open_batches,
          embed,
          variables,
          first_clip=start * num_clips // rows_per_item,
          batch_size=config.embed.batch_size,
          mesh=mesh,
        )
      ) as clips:
        if config.embed.per_clip:
          yield from clips
        else:
          for videos in features.by_video(clips, num_clips):
            yield _mean(videos, config.embed.layer)
    start = max(0, start - num_rows)


def _mean(clips, layer):
  """Mean of the clips [v, G, D] of each video; embeddings stay unit vectors."""
  if layer == features.EMBEDDING:
    return features.video_means(clips)
  return clips.mean(axis=1)


def _facts(config, found, dataset, shape):
  """What all results of this mode say."""
  return {
    'mode': MODE,
    'seed': config.seed,
    'accuracy': {},
    'chance': {},
    'dataset': dataset,
    'network': result.network(config, found),
    'layer': config.embed.layer,
    'shape': list(shape),
    'settings': json.loads(config.embed.to_json_best_effort()),
    'config': json.loads(config.to_json_best_effort()),
  }
