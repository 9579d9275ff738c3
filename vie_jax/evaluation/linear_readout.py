"""Linear softmax readouts of features: their weights, scores and loss.

The weights are large, up to 225,792 x 1,000, and split over the mesh by rows.
"""

from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vie_jax import sharding
from vie_jax.objective import memory_bank

Features = Mapping[str, jax.Array]


@flax.struct.dataclass
class ReadoutState:
  """The readouts in training, a pytree.

  Attributes:
    step: int32 scalar, updates done.
    params: layer -> label column -> `kernel` float32 [rows, C], whose rows are
      split over `data`, and `bias` float32 [C], whole. A kernel has rows of
      zeros behind those of its layer's features, so that it splits evenly.
    opt_state: momentum, laid out like the parameters.
  """

  step: jax.Array
  params: dict
  opt_state: optax.OptState


def initializer(
  sizes: dict[str, int],
  classes: dict[str, int],
  optimizer: optax.GradientTransformation,
  *,
  mesh: Mesh,
) -> Callable[[jax.Array], ReadoutState]:
  """Makes the function that draws readouts, each device its own rows.

  Args:
    sizes: layer -> number of features.
    classes: label column -> number of classes.
    optimizer: its state is part of the readouts' state.
    mesh: the mesh of the run.

  Returns:
    A jitted function from a key to a `ReadoutState`. Its values do not depend
    on the number of devices.

  Source: the official code: truncated normal of variance 2 / features, zero
    bias.
  """

  def draw(key, size, num_classes):
    rows = memory_bank.num_rows(size, mesh.size)
    kernel = jax.random.truncated_normal(key, -2, 2, (rows, num_classes))
    # 0.8796 is the deviation of a normal that is cut at two deviations.
    kernel *= np.sqrt(2 / size) / 0.87962566
    is_feature = jnp.arange(rows)[:, None] < size
    return {
      'kernel': jnp.where(is_feature, kernel, 0),
      'bias': jnp.zeros((num_classes,)),
    }

  def init(key):
    keys = iter(jax.random.split(key, len(sizes) * len(classes)))
    params = {
      layer: {
        column: draw(next(keys), size, count)
        for column, count in classes.items()
      }
      for layer, size in sizes.items()
    }
    return ReadoutState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state=optimizer.init(params),
    )

  shapes = jax.eval_shape(init, jax.random.key(0))
  return jax.jit(init, out_shardings=layout(shapes, mesh))


def layout(state: ReadoutState, mesh: Mesh) -> ReadoutState:
  """The sharding of each leaf: kernels and their momenta by rows."""

  def place(leaf):
    split = leaf.ndim == 2
    return sharding.rows(mesh) if split else sharding.replicated(mesh)

  return jax.tree.map(place, state)


def logits(params: dict, features: Features, mesh: Mesh) -> dict:
  """Applies all readouts.

  Args:
    params: of a `ReadoutState`.
    features: layer -> float32 [B, size], the batch split over `data`.
    mesh: the mesh of the run.

  Returns:
    layer -> label column -> float32 [B, C]. Each device has all clips of its
    share of the features meet its rows of the kernel, and the sums are added
    up: kernels stay where they are.
  """
  by_feature = NamedSharding(mesh, PartitionSpec(None, sharding.DATA_AXIS))
  found = {}
  for layer, heads in params.items():
    rows = next(iter(heads.values()))['kernel'].shape[0]
    missing = rows - features[layer].shape[1]
    padded = jnp.pad(features[layer], ((0, 0), (0, missing)))
    padded = jax.lax.with_sharding_constraint(padded, by_feature)
    found[layer] = {
      column: jax.lax.with_sharding_constraint(
        padded @ head['kernel'] + head['bias'][None], sharding.rows(mesh)
      )
      for column, head in heads.items()
    }
  return found


def cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
  """Mean over the clips of known label: float32 scalar.

  Args:
    scores: float32 [B, C], logits.
    labels: int32 [B]; -1 where unknown.
  """
  known = labels >= 0
  losses = optax.softmax_cross_entropy_with_integer_labels(
    scores, jnp.maximum(labels, 0)
  )
  return jnp.sum(losses * known) / jnp.maximum(jnp.sum(known), 1)
