"""The steps of a run with a network that takes a second to compile.

As a program it writes the figures of the run to a file, and can be one of
several processes: `python small_run.py FILE`.
"""

import functools
import json
import pathlib
import sys

import jax
import numpy as np
import optax
from flax import linen as nn

from vie_jax import device_augment, optimizer, sharding, train_state, train_step
from vie_jax.evaluation import knn
from vie_jax.models import batch_norm
from vie_jax.objective import memory_bank
from vie_jax.processes import distributed

NUM_VIDEOS = 300
BATCH = 8
SIZE = 16
# Steps before which k-means runs, twice within Local Aggregation.
STEPS = ['instance_recognition'] * 20 + ['local_aggregation'] * 20
CLUSTERINGS = (20, 28, 36)
METHOD = train_step.Method(
  num_videos=NUM_VIDEOS,
  temperature=0.07,
  bank_momentum=0.5,
  instance_loss='softmax',
  num_noise=64,
  num_neighbors=50,
  num_clusters=12,
  kmeans_iterations=10,
)


class Network(nn.Module):
  """Clips [B, 1, H, W, 3] to unit vectors [B, 16]."""

  @nn.compact
  def __call__(self, clips, *, train):
    x = nn.Conv(8, (3, 3), strides=2)(clips[:, 0])
    x = batch_norm.BatchNormRelu()(x, train=train)
    return memory_bank.normalize(nn.Dense(16)(x.mean((1, 2))))


def batch_of(step, rows):
  """Some rows of a global batch."""
  rng = np.random.default_rng(step)
  corner = rng.uniform(0, 8, (BATCH, 2))
  crop = np.concatenate([corner, np.full((BATCH, 2), float(SIZE))], axis=1)
  shape = (BATCH, 1, SIZE + 8, SIZE + 8, 3)
  batch = {
    'window': rng.integers(0, 256, shape, dtype=np.uint8),
    'crop': crop.astype(np.float32),
    'instance_index': rng.permutation(NUM_VIDEOS)[:BATCH].astype(np.int32),
  }
  return {name: value[rows] for name, value in batch.items()}


def figures(num_devices):
  """Takes all steps.

  Args:
    num_devices: over all processes.

  Returns:
    JSON-compatible: `losses` of all steps, `objectives` of k-means, and
    `neighbors` of the first videos in the bank at the end.
  """
  mesh = sharding.make_mesh(num_devices)
  rule = optimizer.build(
    'sgd', optax.constant_schedule(0.003), momentum=0.9, weight_decay=1e-4
  )
  initialize = train_state.initializer(
    Network(),
    rule,
    clip_shape=(1, SIZE, SIZE, 3),
    num_videos=NUM_VIDEOS,
    embedding_size=16,
    num_clusterings=2,
    mesh=mesh,
  )
  state = initialize(jax.random.key(0))
  steps = train_step.compile_steps(
    state,
    model=Network(),
    optimizer=rule,
    augment=functools.partial(
      device_augment.augment,
      size=SIZE,
      flip_probability=0.5,
      brightness=0.4,
      contrast=0.4,
      saturation=0.4,
      hue=0.4,
      grey_probability=0.3,
    ),
    method=METHOD,
    mesh=mesh,
  )
  share = BATCH // jax.process_count()
  first = share * jax.process_index()
  losses, objectives = [], []
  for number, name in enumerate(STEPS):
    if number in CLUSTERINGS:
      state, metrics = steps['recluster'](state)
      objectives.append(float(metrics['health/kmeans_objective']))
    batch = batch_of(number, slice(first, first + share))
    batch = sharding.global_batch(batch, mesh)
    state, metrics = steps[name](state, batch)
    losses.append(float(metrics['train/loss']))
  queries = memory_bank.take(
    state.bank, np.arange(40, dtype=np.int32), mesh=mesh
  )
  found = knn.search(
    state.bank, np.asarray(queries), k=10, num_videos=NUM_VIDEOS, mesh=mesh
  )
  return {
    'losses': losses,
    'objectives': objectives,
    'neighbors': found.index.tolist(),
  }


if __name__ == '__main__':
  distributed.initialize('auto')
  found = figures(jax.device_count())
  if jax.process_index() == 0:
    pathlib.Path(sys.argv[1]).write_text(json.dumps(found))
  distributed.finish()
