"""Small pictures for tests."""

import numpy as np
from PIL import Image


def smooth(seed, size=(96, 64)):
  """A smooth random picture."""
  coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
  return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
