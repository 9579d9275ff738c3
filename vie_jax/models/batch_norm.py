"""Batch normalisation followed by ReLU, as the official networks have it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

OFFICIAL_DECAY = 0.997
EPSILON = 1e-5


class BatchNormRelu(nn.Module):
  """Normalises by the batch in training, by running statistics otherwise.

  Flax's own layer keeps a running mean of the biased variance; the official
  networks of single frames normalise with the biased one and keep the unbiased
  one. Hence this layer, which is otherwise the same. It keeps the unbiased one
  in all networks; what the official 3D ones keep depends on the version of
  TensorFlow, and differs by 0.1 % at most.

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
    if not train:
      mean, var = running_mean.value, running_var.value
      factor = jax.lax.rsqrt(var + EPSILON) * scale
      return _rectified(x, mean, factor, bias).astype(self.dtype)
    y, mean, var = _normalize(
      x, scale, bias, running_mean.value, jnp.dtype(self.dtype)
    )
    if not self.is_initializing():
      count = x.size // x.shape[-1]
      unbiased = var * (count / max(count - 1, 1))
      for running, new in ((running_mean, mean), (running_var, unbiased)):
        running.value = self.decay * running.value + (1 - self.decay) * new
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalize(x, scale, bias, shift, dtype):
  """Normalises by the batch and rectifies; with a gradient of its own.

  JAX's takes more passes over the array, forward and back, and a step of a
  network is mostly such passes on a GPU (docs/performance.md). The gradient
  here is the same: it is that by x, scale and bias of y alone.

  Args:
    x: [..., C].
    scale: float32 [C].
    bias: float32 [C].
    shift: float32 [C]. Mean and variance come from one pass over x - shift,
      and (mean - shift)^2 / variance times the rounding of float32 is the
      variance's relative error: 1e-4 at 30 deviations.
    dtype: of y.

  Returns:
    (y dtype [..., C], mean float32 [C], biased variance float32 [C]).
  """
  return _forward(x, scale, bias, shift, dtype)[0]


def _forward(x, scale, bias, shift, dtype):
  axes = tuple(range(x.ndim - 1))
  apart = x.astype(jnp.float32) - _spread(shift, x)
  offset = jnp.mean(apart, axes)
  var = jnp.maximum(jnp.mean(jnp.square(apart), axes) - offset**2, 0.0)
  mean = shift + offset
  rate = jax.lax.rsqrt(var + EPSILON)
  y = _rectified(x, mean, rate * scale, bias).astype(dtype)
  return (y, mean, var), (x, mean, rate, scale, bias)


def _backward(dtype, kept, cotangents):
  del dtype
  x, mean, rate, scale, bias = kept
  axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
  normal = (x.astype(jnp.float32) - _spread(mean, x)) * _spread(rate, x)
  is_positive = _rectified(x, mean, rate * scale, bias) > 0
  gradient = jnp.where(is_positive, cotangents[0].astype(jnp.float32), 0.0)
  bias_gradient = jnp.sum(gradient, axes)
  scale_gradient = jnp.sum(gradient * normal, axes)
  gradient -= _spread(bias_gradient / count, x)
  gradient -= normal * _spread(scale_gradient / count, x)
  gradient *= _spread(scale * rate, x)
  shift_gradient = jnp.zeros_like(mean)
  return gradient.astype(x.dtype), scale_gradient, bias_gradient, shift_gradient


_normalize.defvjp(_forward, _backward)


def _rectified(x, mean, factor, bias):
  """float32 [..., C]: normalised, scaled, shifted, and not negative."""
  y = (x.astype(jnp.float32) - _spread(mean, x)) * _spread(factor, x)
  return nn.relu(y + _spread(bias, x))


def _spread(values: jax.Array, x: jax.Array) -> jax.Array:
  """[C] -> [1, ..., 1, C], of the rank of x."""
  return jnp.expand_dims(values, tuple(range(x.ndim - 1)))
