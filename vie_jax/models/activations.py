"""How much a network keeps of a clip between its two passes."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from vie_jax import platform_choice


def saved_bytes(
  model: nn.Module, variables: dict, shape: tuple, *, platform: str = 'gpu'
) -> int:
  """Bytes that the backward pass needs of each clip.

  What automatic differentiation keeps for the backward pass, counted without
  running anything. The compiler may compute some of it again, or keep it
  beside what it is made of: an estimate, not a bound.

  Args:
    model: from clips to embeddings.
    variables: its `params` and `batch_stats`, or their shapes.
    shape: (T, H, W, 3), of a clip.
    platform: 'cpu', 'gpu' or 'tpu', which have ways of their own.

  Returns:
    Bytes, of two clips less those of one: parameters do not count.
  """

  def backward(variables, clips):
    def embed(params):
      return model.apply(
        {**variables, 'params': params},
        clips,
        train=True,
        mutable='batch_stats',
      )[0]

    return jax.vjp(embed, variables['params'])[1]

  def of(batch_size):
    clips = jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)
    with platform_choice.only(platform):
      kept = jax.tree.leaves(jax.eval_shape(backward, variables, clips))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in kept)

  return of(2) - of(1)
