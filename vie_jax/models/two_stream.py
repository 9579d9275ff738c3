"""VIE-TwoStream: a network of single frames beside one of clips.

The paper's two-stream networks are two trained networks whose readout
features are put side by side. Here they are one network with two streams,
whose weights come from two checkpoints, or which are trained together.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from vie_jax.models import embedding


class TwoStream(nn.Module):
  """Two embedding networks that see the same clips.

  Attributes:
    single: of frames: VIE-Single, averaged over the clip's frames.
    motion: of clips: VIE-Slow or VIE-SlowFast.
  """

  single: nn.Module
  motion: nn.Module

  def __call__(self, clip: jax.Array, *, train: bool) -> jax.Array:
    """Maps normalised clips [B, T, H, W, 3] to unit float32 [B, D].

    The streams' unit embeddings are added and brought back to the sphere.
    That is ours: the official code has no embedding of both streams, only
    readouts.
    """
    total = self.single(clip, train=train) + self.motion(clip, train=train)
    return embedding.normalize(total)

  def pooled(self, clip: jax.Array, *, train: bool) -> jax.Array:
    """Maps clips to the streams' pooled features, the single stream first.

    Returns:
      float32 [B, F]. Deviation: the official finetuning leaves out the fast
      pathway of VIE-TwoStream-SF.
    """
    streams = (self.single, self.motion)
    return jnp.concatenate(
      [stream.pooled(clip, train=train) for stream in streams], axis=-1
    )

  def readouts(
    self,
    clip: jax.Array,
    *,
    train: bool = False,
    averaged: tuple[str, ...] = (),
  ) -> dict[str, jax.Array]:
    """Maps clips to the streams' readouts, side by side.

    Returns:
      layer -> float32 [B, size], the single stream first (official).

    Raises:
      ValueError: if a layer to be averaged is none of them.
    """
    single, motion = (
      stream.readouts(clip, train=train, averaged=averaged)
      for stream in (self.single, self.motion)
    )
    return {
      layer: jnp.concatenate([single[layer], motion[layer]], axis=-1)
      for layer in single
    }
