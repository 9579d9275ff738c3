"""Frames with edges and noise, to be resized and coloured."""

import numpy as np


def textured(rng, *shape):
  """uint8 [..., H, W, 3]: smooth shapes, edges and noise together."""
  *_, height, width = shape
  y, x = np.mgrid[:height, :width]
  waves = rng.uniform(0.02, 0.6, (*shape[:-2], 3, 2))
  phase = waves[..., :1, np.newaxis] * y + waves[..., 1:, np.newaxis] * x
  pictures = 128 + 80 * np.sign(np.sin(phase)) * np.cos(phase / 3)
  pictures += rng.normal(0, 12, pictures.shape)
  return np.moveaxis(np.clip(pictures, 0, 255).astype(np.uint8), -3, -1)


def noise(rng, *shape):
  return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


def assert_few_differ(actual, expected, *, levels=2, share=0.0):
  difference = np.abs(np.asarray(actual, np.float64) - expected)
  assert np.mean(difference > levels) <= share
