"""Everything that survives a step and a restart."""

import dataclasses
import functools
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


def is_clustered(state: TrainState, mesh: Mesh) -> bool:
  """Whether k-means has run: videos are not each their own cluster any more.

  Args:
    state: on the mesh; to be called by all hosts.
    mesh: the mesh of the run.
  """

  @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
  def differs(labels):
    return jnp.any(labels != _own_clusters(*labels.shape))

  return bool(differs(state.cluster_labels))


def _own_clusters(num_clusterings, rows):
  own_cluster = jnp.arange(rows, dtype=jnp.int32)[None, :]
  return jnp.tile(own_cluster, (num_clusterings, 1))


@dataclasses.dataclass(frozen=True)
class Initializer:
  """Makes a run's first state.

  The network's weights are drawn on the host (see `network_initializer`), the
  rest where it stays.

  Attributes:
    draw: from a random key to `params` and `batch_stats`, whole on each device.
    complete: jitted, from a random key and those to the state, laid out on the
      mesh.
    shapes: what `complete` returns, as a TrainState of jax.ShapeDtypeStruct
      that lie nowhere.
  """

  draw: Callable[[jax.Array], dict]
  complete: Callable[[jax.Array, dict], TrainState]
  shapes: TrainState

  def __call__(self, key: jax.Array) -> TrainState:
    """The first state of the run with this random key."""
    return self.complete(key, self.draw(key))


def network_shapes(
  model: nn.Module, clip_shape: tuple[int, int, int, int]
) -> dict:
  """Shapes of `params` and `batch_stats`; arguments as below."""
  init = functools.partial(_init_network, model, clip_shape)
  return jax.eval_shape(init, jax.random.key(0))


def network_initializer(
  model: nn.Module, *, clip_shape: tuple[int, int, int, int], mesh: Mesh
) -> Callable[[jax.Array], dict]:
  """Makes the function that draws a network's first weights.

  They are drawn by a CPU, where there is one: to compile the many small draws
  for a GPU takes longer than to compile them for a CPU, to run and to send
  them; and no weight depends on the kind of accelerator then.

  Args:
    model: from clips to embeddings.
    clip_shape: (T, H, W, 3).
    mesh: the mesh of the run.

  Returns:
    A function from a run's random key to `params` and `batch_stats`, whole on
    each device: those that `initializer` gives for this key.
  """
  whole = sharding.replicated(mesh)
  device = sharding.host_device()

  def init(key):
    return _init_network(model, clip_shape, jax.random.split(key, 3)[0])

  jitted = _jit_once(init, None, device)

  def draw(key):
    with jax.default_device(device):
      drawn = jitted(jax.device_put(key, device))
    return jax.tree.map(lambda leaf: sharding.place(leaf, whole), drawn)

  return draw


def _init_network(model, clip_shape, key):
  return model.init(key, jnp.zeros((1, *clip_shape), jnp.float32), train=False)


def _jit_once(init: Callable, placement: Any, device: jax.Device) -> Callable:
  """Jits what runs once: on CPUs, optimising it takes longer than running."""
  is_cpu = device.platform == 'cpu'
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
) -> Initializer:
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
    A function from a random key to a `TrainState` laid out on the mesh. Its
    values do not depend on the number of devices.
  """
  rows = memory_bank.num_rows(num_videos, mesh.size)

  def complete(key, variables):
    _, bank_key, run_key = jax.random.split(key, 3)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      key=run_key,
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      opt_state=optimizer.init(variables['params']),
      bank=memory_bank.init_uniform(bank_key, rows, embedding_size),
      bank_step=jnp.full((rows,), NEVER, jnp.int32),
      cluster_labels=_own_clusters(num_clusterings, rows),
    )

  network = network_shapes(model, clip_shape)
  shapes = jax.eval_shape(complete, jax.random.key(0), network)
  return Initializer(
    draw=network_initializer(model, clip_shape=clip_shape, mesh=mesh),
    complete=_jit_once(complete, layout(shapes, mesh), mesh.devices.flat[0]),
    shapes=shapes,
  )
