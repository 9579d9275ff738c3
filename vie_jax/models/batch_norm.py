"""Batch normalisation followed by ReLU, as the official networks have it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

OFFICIAL_DECAY = 0.997
EPSILON = 1e-5


class BatchNormRelu(nn.Module):
  """Normalises by the batch in training, by running statistics otherwise.

  Flax's own layer keeps a running mean of the biased variance; the official
  networks normalise with the biased one and keep the unbiased one. Hence this
  layer, which is otherwise the same.

  Statistics are over the global batch when the batch is split over devices
  under jit. Deviation: the official code normalises per replica.

  Attributes:
    decay: share of the running statistics kept at an update.
    dtype: of the result; statistics are float32.

  Parameters:
    scale, bias: float32 [C], 1 and 0 at first.

  Statistics (collection `batch_stats`):
    mean, var: float32 [C], 0 and 1 at first.
  """

  decay: float = OFFICIAL_DECAY
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [..., C] to dtype [..., C]; updates the statistics in training."""
    shape = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, shape, jnp.float32)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    running_var = self.variable('batch_stats', 'var', jnp.ones, shape)
    x = x.astype(jnp.float32)
    if train:
      axes = tuple(range(x.ndim - 1))
      mean = jnp.mean(x, axes)
      var = jnp.mean(jnp.square(x - _spread(mean, x)), axes)
    else:
      mean, var = running_mean.value, running_var.value
    if train and not self.is_initializing():
      count = x.size // x.shape[-1]
      unbiased = var * (count / max(count - 1, 1))
      for running, new in ((running_mean, mean), (running_var, unbiased)):
        running.value = self.decay * running.value + (1 - self.decay) * new
    factor = jax.lax.rsqrt(var + EPSILON) * scale
    y = (x - _spread(mean, x)) * _spread(factor, x) + _spread(bias, x)
    return nn.relu(y).astype(self.dtype)


def _spread(values: jax.Array, x: jax.Array) -> jax.Array:
  """[C] -> [1, ..., 1, C], of the rank of x."""
  return jnp.expand_dims(values, tuple(range(x.ndim - 1)))
