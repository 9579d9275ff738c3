import jax
import numpy as np
import pytest

from vie_jax.models import readout


def test_small_maps_are_averaged_over_time_and_flattened_channels_first():
  maps = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6))
  expected = maps.mean(axis=1).transpose(0, 3, 1, 2).reshape(2, -1)
  found = readout.flatten(maps.astype(np.float32))
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
  'size,pooling',
  [((40, 50, 100), 1), ((41, 50, 100), 2), ((90, 90, 100), 4)],
)
def test_large_maps_are_pooled_and_flattened_channels_last(size, pooling):
  maps = np.random.default_rng(0).standard_normal((1, 1, *size))
  found = readout.flatten(jax.numpy.asarray(maps, np.float32))
  if pooling == 1:
    assert found.shape == (1, np.prod(size))
    return
  height, width, channels = size
  rows = [range(i, min(i + pooling, height)) for i in range(0, height, pooling)]
  columns = [
    range(j, min(j + pooling, width)) for j in range(0, width, pooling)
  ]
  # Where the sides are not divisible, TensorFlow's 'SAME' moves the windows.
  if height % pooling or width % pooling:
    expected = _same(maps[0, 0], pooling)
  else:
    expected = np.stack(
      [
        [maps[0, 0][np.ix_(i, j)].mean(axis=(0, 1)) for j in columns]
        for i in rows
      ]
    )
  np.testing.assert_allclose(found[0], expected.ravel(), atol=1e-5)
  assert expected.size == found.size
  assert channels == expected.shape[-1]


def _same(maps, pooling):
  """Average pooling with TensorFlow's 'SAME', the padding not counted."""
  height, width, channels = maps.shape
  out = (-(-height // pooling), -(-width // pooling))
  expected = np.empty((*out, channels))
  for i, j in np.ndindex(out):
    window = []
    for position, count, side in ((i, out[0], height), (j, out[1], width)):
      first = position * pooling - (count * pooling - side) // 2
      window.append(range(max(first, 0), min(first + pooling, side)))
    expected[i, j] = maps[np.ix_(*window)].mean(axis=(0, 1))
  return expected
