"""From a clip to a point on the unit sphere."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vie_jax.models import resnet, slowfast


class VideoEmbedding(nn.Module):
  """A backbone, a dense layer, and the projection onto the sphere.

  Attributes:
    backbone: module mapping clips [B, T, H, W, 3] to float32 [B, F].
    embedding_size: D; 128 in the paper.
  """

  backbone: nn.Module
  embedding_size: int = 128

  @nn.compact
  def __call__(self, clip: jax.Array, *, train: bool) -> jax.Array:
    """Maps normalised clips [B, T, H, W, 3] to unit float32 [B, D].

    In training, batch norm uses and updates the statistics of the batch
    (collection `batch_stats`).

    Source: the paper's equation 1 without its expectation, which the memory
    bank's running mean takes; dense layer with bias and Glorot-uniform
    weights as in the official code.
    """
    features = self.backbone(clip, train=train)
    projected = nn.Dense(
      self.embedding_size,
      kernel_init=nn.initializers.glorot_uniform(),
      name='projection',
    )(features.astype(jnp.float32))
    square = jnp.sum(jnp.square(projected), axis=-1, keepdims=True)
    return projected * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


def build(
  name: str,
  *,
  embedding_size: int,
  width: int,
  fast_width: int,
  alpha: int,
  batch_norm_decay: float = resnet.OFFICIAL_DECAY,
  dtype: Any,
) -> VideoEmbedding:
  """Builds a network by its name in the config.

  Args:
    name: 'vie_single' or 'vie_slowfast'.
    embedding_size: D.
    width: channels of the (slow) first stage.
    fast_width: channels of the fast first stage; SlowFast only.
    alpha: frame rate of fast over slow; SlowFast only.
    batch_norm_decay: share of batch norm's running statistics kept at a step.
    dtype: of the convolutions, 'float32' or 'bfloat16'.

  Returns:
    A Flax module from clips to embeddings.

  Raises:
    ValueError: naming the known networks.
  """
  dtype = jnp.dtype(dtype)
  backbones = {
    'vie_single': lambda: resnet.ResNet18(
      width, decay=batch_norm_decay, dtype=dtype
    ),
    'vie_slowfast': lambda: slowfast.SlowFast(
      width, fast_width, alpha, decay=batch_norm_decay, dtype=dtype
    ),
  }
  if name not in backbones:
    raise ValueError(
      f'config.model.name is {name!r}; known are {sorted(backbones)}.'
    )
  return VideoEmbedding(backbones[name](), embedding_size)
