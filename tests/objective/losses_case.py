"""Inputs of the official losses fixture, by its rule."""

import jax
import numpy as np

from vie_jax import sharding
from vie_jax.objective import memory_bank

NUM_VIDEOS = 2000


def inputs(seed):
  """The order of the draws matters."""
  rng = np.random.Generator(np.random.PCG64(seed))
  centres = rng.standard_normal((40, 128))
  group = rng.integers(0, 40, NUM_VIDEOS)
  bank = centres[group] + 2.0 * rng.standard_normal((NUM_VIDEOS, 128))
  bank /= np.linalg.norm(bank, axis=1, keepdims=True)
  bank = bank.astype(np.float32)
  index = rng.choice(NUM_VIDEOS, 16, replace=False).astype(np.int32)
  noise = 0.12 * rng.standard_normal((16, 128))
  unnormalised = (bank[index] + noise).astype(np.float32)
  more = [rng.integers(0, 40, NUM_VIDEOS) for _ in range(2)]
  return {
    'bank': bank,
    'instance_index': index,
    'unnormalised': unnormalised,
    'cluster': np.stack([group, *more]).astype(np.int32),
    'noise_index': rng.integers(0, NUM_VIDEOS, (16, 4096)).astype(np.int32),
    'label': rng.integers(0, 10, NUM_VIDEOS).astype(np.int32),
  }


def knn_queries(seed, case):
  rng = np.random.Generator(np.random.PCG64(seed + 1000))
  rows = rng.choice(NUM_VIDEOS, 20)
  query = case['bank'][np.repeat(rows, 5)]
  query = query + 0.22 * rng.standard_normal((100, 128))
  query /= np.linalg.norm(query, axis=1, keepdims=True)
  return rows, query.astype(np.float32)


def padded(rows, mesh):
  """Rows [N, ...] on the mesh, as a bank lies there."""
  missing = memory_bank.num_rows(len(rows), mesh.size) - len(rows)
  # Padding that would be noticed if it were read.
  filler = np.full((missing, *rows.shape[1:]), 77, rows.dtype)
  return jax.device_put(np.concatenate([rows, filler]), sharding.rows(mesh))
