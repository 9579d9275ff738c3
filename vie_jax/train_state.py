"""Everything that survives a step and a restart."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import sharding
from vie_jax.objective import memory_bank

NEVER = -1


@flax.struct.dataclass
class TrainState:
  """The state of a run, a pytree.

  Attributes:
    step: int32 scalar, updates done.
    key: the run's random key; every draw is folded from it and the step.
    params: parameters of the network, float32.
    batch_stats: running statistics of batch norm, float32.
    opt_state: of the optimiser.
    bank: float32 [rows, D], the memory bank, rows split over `data`.
    bank_step: int32 [rows], the step that last updated a row, or `NEVER`;
      split like the bank.
    cluster_labels: int32 [R, rows], clusters of the bank rows, one row per
      clustering, split over `data` by columns. Each video its own cluster
      until the first k-means (official).
  """

  step: jax.Array
  key: jax.Array
  params: Any
  batch_stats: Any
  opt_state: optax.OptState
  bank: jax.Array
  bank_step: jax.Array
  cluster_labels: jax.Array


def layout(state: TrainState, mesh: Mesh) -> TrainState:
  """The sharding of each leaf: bank and clusters split, the rest whole.

  Args:
    state: a state, or its shapes.
    mesh: the mesh of the run.

  Returns:
    A tree like `state` of NamedShardings.
  """
  whole = jax.tree.map(lambda _: sharding.replicated(mesh), state)
  return whole.replace(
    bank=sharding.rows(mesh),
    bank_step=sharding.rows(mesh),
    cluster_labels=sharding.columns(mesh),
  )


def network_initializer(
  model: nn.Module, *, clip_shape: tuple[int, int, int, int], mesh: Mesh
) -> Callable[[jax.Array], dict]:
  """Makes the function that draws a network's first weights.

  Args:
    model: from clips to embeddings.
    clip_shape: (T, H, W, 3).
    mesh: the mesh of the run.

  Returns:
    A jitted function from a run's random key to `params` and `batch_stats`,
    whole on each device: those that `initializer` gives for this key.
  """

  def init(key):
    return _init_network(model, clip_shape, jax.random.split(key, 3)[0])

  return _jit_once(init, sharding.replicated(mesh), mesh)


def _init_network(model, clip_shape, key):
  return model.init(key, jnp.zeros((1, *clip_shape), jnp.float32), train=False)


def _jit_once(init: Callable, placement: Any, mesh: Mesh) -> Callable:
  """Jits what runs once: on CPUs, optimising it takes longer than running."""
  is_cpu = mesh.devices.flat[0].platform == 'cpu'
  options = {'xla_backend_optimization_level': 0} if is_cpu else None
  return jax.jit(init, out_shardings=placement, compiler_options=options)


def initializer(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  *,
  clip_shape: tuple[int, int, int, int],
  num_videos: int,
  embedding_size: int,
  num_clusterings: int,
  mesh: Mesh,
) -> Callable[[jax.Array], TrainState]:
  """Makes the function that creates a run's first state.

  Args:
    model: from clips to embeddings.
    optimizer: its state is part of the run's.
    clip_shape: (T, H, W, 3).
    num_videos: N.
    embedding_size: D.
    num_clusterings: R.
    mesh: the mesh of the run.

  Returns:
    A jitted function from a random key to a `TrainState` laid out on the
    mesh. Its values do not depend on the number of devices.
  """
  rows = memory_bank.num_rows(num_videos, mesh.size)

  def init(key):
    params_key, bank_key, run_key = jax.random.split(key, 3)
    variables = _init_network(model, clip_shape, params_key)
    own_cluster = jnp.arange(rows, dtype=jnp.int32)[None, :]
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      key=run_key,
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      opt_state=optimizer.init(variables['params']),
      bank=memory_bank.init_uniform(bank_key, rows, embedding_size),
      bank_step=jnp.full((rows,), NEVER, jnp.int32),
      cluster_labels=jnp.tile(own_cluster, (num_clusterings, 1)),
    )

  shapes = jax.eval_shape(init, jax.random.key(0))
  return _jit_once(init, layout(shapes, mesh), mesh)
