"""Readout layers: the features that linear classifiers are trained on.

Source: the paper's linear evaluation, and the official code's "ending points"
5, 7 and 9 (Conv3, Conv4, Conv5), after batch norm and ReLU, flattened.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

MAX_SIZE = 200_000


def flatten(maps: jax.Array) -> jax.Array:
  """Averages a layer's maps over time and makes them vectors.

  Maps of more than 200,000 values are average-pooled first, 2 x 2, or 4 x 4
  if a quarter would still be more than that.

  Args:
    maps: [B, T, H, W, C].

  Returns:
    float32 [B, size]. The official order: channels first, or last where the
    maps were pooled, so that weights trained there fit.

  Deviation: the official code does not pool where it averages frame by frame
  (VIE-TRN, Input-Single), and reads only layers there that are small enough.
  """
  mean = jnp.mean(maps.astype(jnp.float32), axis=1)
  pooling = _pooling(mean.shape[1:])
  if pooling == 1:
    return jax.lax.collapse(jnp.moveaxis(mean, -1, 1), 1)
  pooled = nn.avg_pool(
    mean, (pooling,) * 2, (pooling,) * 2, 'SAME', count_include_pad=False
  )
  return jax.lax.collapse(pooled, 1)


def average(maps: jax.Array) -> jax.Array:
  """Averages a layer's maps [B, T, H, W, C] over time and space: [B, C].

  Source: the official readouts of Conv5 of supervised networks on ImageNet.
  """
  return jnp.mean(maps.astype(jnp.float32), axis=(1, 2, 3))


def _pooling(shape: tuple[int, int, int]) -> int:
  size = math.prod(shape)
  if size <= MAX_SIZE:
    return 1
  return 2 if size / 4 <= MAX_SIZE else 4
