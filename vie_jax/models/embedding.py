"""From a clip to a point on the unit sphere."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from vie_jax.models import network_names, readout


def normalize(x: jax.Array) -> jax.Array:
  """Brings vectors [..., D] to length 1; a vector of zeros stays one."""
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


class VideoEmbedding(nn.Module):
  """A backbone, a dense layer, and the projection onto the sphere.

  Attributes:
    backbone: module mapping clips [B, T, H, W, 3] to `resnet.Features`.
    embedding_size: D; 128 in the paper.
  """

  backbone: nn.Module
  embedding_size: int = 128

  def setup(self):
    """Creates the dense layer: with bias, Glorot-uniform (official)."""
    self.projection = nn.Dense(
      self.embedding_size, kernel_init=nn.initializers.glorot_uniform()
    )

  def __call__(self, clip: jax.Array, *, train: bool) -> jax.Array:
    """Maps normalised clips [B, T, H, W, 3] to unit float32 [B, D].

    In training, batch norm uses and updates the statistics of the batch
    (collection `batch_stats`).

    Source: the paper's equation 1 without its expectation, which the memory
    bank's running mean takes.
    """
    return normalize(self.projection(self.pooled(clip, train=train)))

  def pooled(self, clip: jax.Array, *, train: bool) -> jax.Array:
    """Maps normalised clips [B, T, H, W, 3] to what the projection sees.

    Returns:
      float32 [B, F], the last maps averaged over time and space; those of the
      frames one after the other for VIE-TRN.
    """
    return self.backbone(clip, train=train).pooled

  def readouts(
    self,
    clip: jax.Array,
    *,
    train: bool = False,
    averaged: tuple[str, ...] = (),
  ) -> dict[str, jax.Array]:
    """Maps normalised clips [B, T, H, W, 3] to readout features.

    Args:
      clip: float32.
      train: as in `__call__`.
      averaged: layers that are averaged over space, too.

    Returns:
      'conv1' ... 'conv5' -> float32 [B, size], see `readout`.

    Raises:
      ValueError: if a layer to be averaged is none of them.
    """
    if unknown := set(averaged) - set(network_names.LAYERS):
      raise ValueError(
        f'averaged names {", ".join(sorted(unknown))}; known are '
        f'{", ".join(network_names.LAYERS)}.'
      )
    maps = self.backbone(clip, train=train).maps
    return {
      layer: readout.average(maps[layer])
      if layer in averaged
      else readout.flatten(maps[layer])
      for layer in network_names.LAYERS
    }
