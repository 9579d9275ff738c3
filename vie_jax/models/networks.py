"""The seven networks of the paper, by name."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from vie_jax.models import (
  batch_norm,
  embedding,
  resnet,
  slowfast,
  temporal_relation,
  two_stream,
)
from vie_jax.models.network_names import NAMES, STREAMS


def build(
  name: str,
  *,
  embedding_size: int = 128,
  width: int = 64,
  fast_width: int = 8,
  alpha: int = 4,
  batch_norm_decay: float = batch_norm.OFFICIAL_DECAY,
  dtype: Any = 'float32',
) -> nn.Module:
  """Builds a network by its name in the config.

  Args:
    name: one of `NAMES`.
    embedding_size: D.
    width: channels of the (slow) first stage.
    fast_width: channels of the fast first stage; SlowFast only.
    alpha: frame rate of fast over slow; SlowFast only.
    batch_norm_decay: share of batch norm's running statistics kept at a step.
    dtype: of the convolutions, 'float32' or 'bfloat16'.

  Returns:
    A Flax module from clips to embeddings, with a method `readouts`.

  Raises:
    ValueError: naming the known networks, or types.
  """
  if name not in NAMES:
    raise ValueError(
      f'config.model.name is {name!r}; known are {", ".join(NAMES)}.'
    )
  if dtype not in ('float32', 'bfloat16', jnp.float32, jnp.bfloat16):
    raise ValueError(f'dtype is {dtype!r}; it must be float32 or bfloat16.')
  options = {'decay': batch_norm_decay, 'dtype': jnp.dtype(dtype)}
  backbones = {
    'vie_single': lambda: resnet.single(width, **options),
    'vie_3dresnet': lambda: resnet.three_dimensional(width, **options),
    'vie_trn': lambda: temporal_relation.TemporalRelation(width, **options),
    'vie_slow': lambda: resnet.slow(width, **options),
    'vie_slowfast': lambda: slowfast.SlowFast(
      width, fast_width, alpha, **options
    ),
  }

  def stream(name):
    return embedding.VideoEmbedding(backbones[name](), embedding_size)

  if name in STREAMS:
    return two_stream.TwoStream(
      **{part: stream(network) for part, network in STREAMS[name].items()}
    )
  return stream(name)
