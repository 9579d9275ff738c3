"""Embeddings of the evaluation clips of a data set."""

import time
from collections.abc import Callable, Iterable

import jax
import numpy as np
from absl import logging
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import sharding

REPORT_EVERY_SECONDS = 30
Variables = dict
Embed = Callable[[Variables, dict], dict]


def embedder(model: nn.Module, *, center: Callable, mesh: Mesh) -> Embed:
  """Makes the jitted function that embeds a batch of evaluation clips.

  Args:
    model: from clips to embeddings.
    center: (window, crop) -> normalised clips [B, T, H, W, 3].
    mesh: the batch is split over its axis `data`.

  Returns:
    (variables, batch) -> dict with `embedding` float32 [B, D] in eval mode,
    and `instance_index`, `clip_index`, `is_valid` of the batch: all of the
    global batch, replicated, so that every host can read them.
  """

  def embed(variables, batch):
    clips = center(batch['window'], batch['crop'])
    passed = ('instance_index', 'clip_index', 'is_valid')
    return {
      'embedding': model.apply(variables, clips, train=False),
      **{name: batch[name] for name in passed},
    }

  return jax.jit(embed, out_shardings=sharding.replicated(mesh))


def embed_videos(
  batches: Iterable[dict[str, np.ndarray]],
  embed: Embed,
  variables: Variables,
  *,
  num_videos: int,
  num_clips: int,
  embedding_size: int,
  mesh: Mesh,
) -> np.ndarray:
  """Embeds every evaluation clip of a split.

  Args:
    batches: this host's share of the clips, see `pipeline.eval_batches`.
    embed: from `embedder`.
    variables: params and batch statistics.
    num_videos: V.
    num_clips: G per video.
    embedding_size: D.
    mesh: the mesh of `embed`.

  Returns:
    float32 [V, G, D], on every host. Clips that no batch brought are NaN.
  """
  result = np.full((num_videos, num_clips, embedding_size), np.nan, np.float32)
  num_done, reported = 0, time.monotonic()
  for batch in batches:
    output = embed(variables, sharding.global_batch(batch, mesh))
    output = jax.tree.map(np.asarray, output)
    valid = output['is_valid']
    video = output['instance_index'][valid]
    clip = output['clip_index'][valid]
    result[video, clip] = output['embedding'][valid]
    num_done += len(video)
    if time.monotonic() > reported + REPORT_EVERY_SECONDS:
      reported = time.monotonic()
      logging.info('Embedded %d of %d clips.', num_done, num_videos * num_clips)
  return result


def video_means(embeddings: np.ndarray) -> np.ndarray:
  """Averages the clips of each video and returns to the sphere.

  Args:
    embeddings: float32 [V, G, D], unit vectors.

  Returns:
    float32 [V, D], unit vectors.
  """
  mean = embeddings.mean(axis=1)
  return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
