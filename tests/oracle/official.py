"""Weights and inputs of the official implementation's fixtures, by rule.

The fixtures hold numbers that the official TensorFlow code gave for these
weights and inputs; nothing large is stored.
"""

import json
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent
SCALE = {'gamma': 1.0, 'beta': 0.0, 'bias': 0.0, 'moving_mean': 0.0}


def load(name):
  return json.loads((FOLDER / name).read_text())


def weights(name, shape):
  """The array that stands for a stored TF1 variable."""
  seed = zlib.crc32(name.encode())
  z = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
  leaf = name.rsplit('/', 1)[-1]
  if leaf == 'kernel':
    value = z * np.sqrt(2.0 / np.prod(shape[:-1]))
  elif leaf == 'moving_variance':
    value = np.exp(0.1 * z)
  else:
    value = SCALE[leaf] + 0.1 * z
  return value.astype(np.float32)


def clip(batch, frames, size, seed):
  """uint8 [batch, frames, size, size, 3]: blocks moving right."""
  rng = np.random.Generator(np.random.PCG64(seed))
  shape = (batch, size // 8, size // 8, 3)
  blocks = rng.integers(0, 256, shape, dtype=np.uint8)
  picture = np.kron(blocks, np.ones((1, 8, 8, 1), np.uint8))
  rolled = [np.roll(picture, 3 * t, axis=2) for t in range(frames)]
  return np.stack(rolled, 1)
