"""Embeddings of the evaluation clips of a data set."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import sharding
from vie_jax.evaluation import row_progress

EMBEDDING = 'embedding'
# In the rows of clips that are left out. A unit vector may be NaN if its network
# has numbers that are not finite, but never this.
LEFT_OUT = np.float32(np.inf)
Variables = dict
Embed = Callable[[Variables, dict], dict]


def apply(
  model: nn.Module, variables: Variables, clips: jax.Array, layer: str
) -> jax.Array:
  """Maps normalised clips to a layer's features, in eval mode.

  Args:
    model: from clips to embeddings, with a method `readouts`.
    variables: params and batch statistics.
    clips: [B, T, H, W, 3].
    layer: 'embedding', or one of `readouts`.

  Returns:
    float32 [B, D], unit vectors if they are embeddings.
  """
  if layer == EMBEDDING:
    return model.apply(variables, clips, train=False)
  return model.apply(variables, clips, method='readouts')[layer]


def embedder(
  model: nn.Module,
  *,
  center: Callable,
  mesh: Mesh,
  layer: str = EMBEDDING,
) -> Embed:
  """Makes the jitted function that embeds a batch of evaluation clips.

  Args:
    model: from clips to embeddings.
    center: (window, crop) -> normalised clips [B, T, H, W, 3].
    mesh: the batch is split over its axis `data`.
    layer: as in `apply`.

  Returns:
    (variables, batch) -> dict with `embedding` float32 [B, D] in eval mode,
    and `instance_index`, `clip_index`, `is_valid` of the batch: all of the
    global batch, replicated, so that every host can read them.
  """

  def embed(variables, batch):
    clips = center(batch['window'], batch['crop'])
    passed = ('instance_index', 'clip_index', 'is_valid')
    return {
      'embedding': apply(model, variables, clips, layer),
      **{name: batch[name] for name in passed},
    }

  return jax.jit(embed, out_shardings=sharding.replicated(mesh))


def _outputs(batches, embed, variables, mesh):
  """Yields what `embed` gives, as NumPy arrays.

  The device works on a batch while the one before is read.
  """
  pending = None
  for batch in batches:
    output = embed(variables, sharding.global_batch(batch, mesh))
    if pending is not None:
      yield jax.tree.map(np.asarray, pending)
    pending = output
  if pending is not None:
    yield jax.tree.map(np.asarray, pending)


def embed_from(
  open_batches: Callable[[int], contextlib.AbstractContextManager],
  embed: Embed,
  variables: Variables,
  *,
  first_clip: int,
  batch_size: int,
  mesh: Mesh,
) -> Iterator[np.ndarray]:
  """Embeds clips in order, from one of them on, and keeps none.

  Args:
    open_batches: number of the first batch -> context manager over this host's
      share of the clips, in the order of the videos.
    embed: from `embedder`.
    variables: params and batch statistics.
    first_clip: number of clips to leave out.
    batch_size: clips in a batch, over all devices.
    mesh: the mesh of `embed`.

  Yields:
    float32 [b, D]: the clips of a batch, without those that only fill it.
    Clips that are left out are LEFT_OUT.
  """
  first_batch, skipped = divmod(first_clip, batch_size)
  with open_batches(first_batch) as batches:
    for output in _outputs(batches, embed, variables, mesh):
      rows = np.where(
        output['is_valid'][:, None], output['embedding'], LEFT_OUT
      )
      yield rows[_is_new(output)][skipped:]
      skipped = 0


def _is_new(output):
  """Which rows of a batch are not copies of the row before: bool [B]."""
  is_new = np.ones(len(output['is_valid']), bool)
  is_new[1:] = False
  for name in ('instance_index', 'clip_index'):
    is_new[1:] |= np.diff(output[name]) != 0
  return is_new


def by_video(
  blocks: Iterable[np.ndarray], num_clips: int
) -> Iterator[np.ndarray]:
  """Puts the clips of a video together, across the borders of blocks.

  Args:
    blocks: [b, D], clips in the order of the videos.
    num_clips: G per video.

  Yields:
    [v, G, D], v at least 1.
  """
  rest = None
  for block in blocks:
    rest = block if rest is None else np.concatenate([rest, block])
    whole = len(rest) // num_clips * num_clips
    if whole:
      yield rest[:whole].reshape(-1, num_clips, rest.shape[1])
      rest = rest[whole:]


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
    float32 [V, G, D], on every host. Clips that no batch brought, as those that
    are left out, are LEFT_OUT.
  """
  result = np.full((num_videos, num_clips, embedding_size), LEFT_OUT)
  num_done = 0
  progress = row_progress.RowProgress(
    'Embedded', num_videos * num_clips, 'clips'
  )
  for output in _outputs(batches, embed, variables, mesh):
    valid = output['is_valid']
    video = output['instance_index'][valid]
    clip = output['clip_index'][valid]
    result[video, clip] = output['embedding'][valid]
    num_done += len(video)
    progress.report(num_done)
  return result


def has_embedding(embeddings: np.ndarray) -> np.ndarray:
  """Tells the videos that were embedded from those that were left out.

  Args:
    embeddings: float32 [V, G, D], with LEFT_OUT for clips that are.

  Returns:
    bool [V], False if any clip is left out: those of a video are together.
  """
  return (embeddings[..., 0] != LEFT_OUT).all(axis=1)


def video_means(embeddings: np.ndarray) -> np.ndarray:
  """Averages the clips of each video and returns to the sphere.

  Args:
    embeddings: float32 [V, G, D], unit vectors.

  Returns:
    float32 [V, D], unit vectors.
  """
  mean = embeddings.mean(axis=1)
  return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
