"""The programs of a run, compiled for any number of videos without data.

The network is a single matrix, so that little is compiled beside the
objective.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from vie_jax import optimizer, sharding, train_state, train_step
from vie_jax.objective import memory_bank

# No two sizes share a divisor with each other or with eight devices, except
# for the batch, which must split: a dimension says what it counts.
DIM = 9
BATCH = 16
NOISE = 21
CLUSTERINGS = 1
# One and ten million, padded to a power of two and ten of them, so that blocks
# of a power of two are all of one size.
VIDEOS = (2**20 - 5, 10 * 2**20 - 5)
SMALL_BLOCKS = 4 * BATCH * 2**14
METHOD = train_step.Method(
  num_videos=0,
  temperature=0.07,
  bank_momentum=0.5,
  instance_loss='nce',
  num_noise=NOISE,
  num_neighbors=512,
  num_clusters=125,
  kmeans_iterations=5,
)


class Projection(nn.Module):
  """The smallest network: colours of the clip times a matrix."""

  @nn.compact
  def __call__(self, clips, train=False):
    self.variable('batch_stats', 'mean', jnp.zeros, (3,))
    colours = clips.mean(axis=(1, 2, 3))
    return memory_bank.normalize(nn.Dense(DIM)(colours))


def augment(key, window, crop):
  noise = jax.random.uniform(key, (window.shape[0], 1, 1, 1, 1))
  size = crop[:, 2:3, None, None, None]
  return window.astype(jnp.float32) / 255.0 + noise + size


def spread(shapes, layout):
  """Shapes with a place: arguments of a program that is only compiled."""
  return jax.tree.map(
    lambda shape, place: jax.ShapeDtypeStruct(
      shape.shape, shape.dtype, sharding=place
    ),
    shapes,
    layout,
  )


def array(mesh, shape, dtype=jnp.float32, *, split=True):
  """One such argument, split by rows or whole on each device."""
  place = sharding.rows(mesh) if split else sharding.replicated(mesh)
  return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def batch_of(mesh, model_input=(1, 4, 4, 3)):
  return {
    'window': array(mesh, (BATCH, *model_input), jnp.uint8),
    'crop': array(mesh, (BATCH, 4)),
    'instance_index': array(mesh, (BATCH,), jnp.int32),
  }


def run_of(num_videos, mesh, *, clusterings=CLUSTERINGS, model=None, **numbers):
  """(function to the first state, jitted steps, abstract state)."""
  model = model or Projection()
  method = train_step.Method(
    **{**vars(METHOD), 'num_videos': num_videos, **numbers}
  )
  rule = optimizer.build(
    'sgd', optax.constant_schedule(0.01), momentum=0.9, weight_decay=1e-4
  )
  initialize = train_state.initializer(
    model,
    rule,
    clip_shape=(1, 4, 4, 3),
    num_videos=num_videos,
    embedding_size=DIM,
    num_clusterings=clusterings,
    mesh=mesh,
  )
  shapes = initialize.shapes
  state = spread(shapes, train_state.layout(shapes, mesh))
  steps = train_step.compile_steps(
    state,
    model=model,
    optimizer=rule,
    augment=augment,
    method=method,
    mesh=mesh,
  )
  return initialize, steps, state


@functools.cache
def step(name, num_videos, num_devices=8, **numbers):
  """One program of a run, compiled: 'initialize', or a name of a step."""
  return compile_step(
    name, num_videos, sharding.make_mesh(num_devices), **numbers
  )


def compile_step(name, num_videos, mesh, **numbers):
  """The same for any mesh, of devices that need not be here."""
  initialize, steps, state = run_of(num_videos, mesh, **numbers)
  if name == 'initialize':
    network = {'params': state.params, 'batch_stats': state.batch_stats}
    return initialize.complete.lower(jax.random.key(0), network).compile()
  arguments = [state]
  if name != 'recluster':
    arguments.append(batch_of(mesh))
  if name == 'fill_bank':
    arguments.append(array(mesh, (), jnp.int32, split=False))
  return steps[name].lower(*arguments).compile()


def compiled(function, *arguments, **static):
  """Any function of arrays, compiled with static keyword arguments."""
  names = tuple(static)
  return (
    jax.jit(function, static_argnames=names)
    .lower(*arguments, **static)
    .compile()
  )
