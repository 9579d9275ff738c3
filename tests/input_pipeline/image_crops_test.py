"""Crops of still images: drawn as the official ones, or in the middle."""

import numpy as np
import pytest
import tensorflow as tf

from vie_jax.input_pipeline import batch_order, image_crops


def many_areas(shape, count):
  """int [count, 4]: crops of many positions."""
  seeds = tf.data.Dataset.range(count).map(
    lambda position: image_crops.train_area(
      tf.constant(shape), seed=batch_order.seed_at(position, seed=1)
    )
  )
  return np.stack(list(seeds.as_numpy_iterator()))


def test_middle_squares_are_as_the_official_ones():
  rng = np.random.default_rng(0)
  for _ in range(200):
    height, width = rng.integers(1, 600, 2)
    size = int(rng.integers(1, 300))
    short_side = size + int(rng.integers(0, 100))
    area = image_crops.eval_area(
      tf.constant([height, width], tf.int32), size=size, short_side=short_side
    )
    side = max(1, int(size * min(height, width)) // short_side)
    top, left = int((height - side) / 2), int((width - side) / 2)
    assert area.numpy().tolist() == [top, left, side, side]


@pytest.mark.parametrize('shape', [(300, 400), (256, 256)])
def test_training_crops_are_drawn_as_the_official_ones(shape):
  height, width = shape
  areas = many_areas(shape, 2000)
  top, left, rows, columns = areas.T
  assert np.all(areas >= 0)
  assert np.all(top + rows <= height)
  assert np.all(left + columns <= width)
  share = rows * columns / (height * width)
  aspect = columns / rows
  # Sides are whole pixels.
  is_square = rows == columns
  is_whole = is_square & (rows == min(shape))
  assert np.all(share[~is_whole] > 0.2 - 0.01)
  assert np.all(aspect[~is_whole] > 3 / 4 - 0.02)
  assert np.all(aspect[~is_whole] < 4 / 3 + 0.02)
  assert share.min() < 0.22
  assert share.max() > 0.9 * min(shape) / max(shape)
  assert aspect.min() < 0.77
  assert aspect.max() > 1.3
  # All kinds come up: each fifth of the range of areas, both aspects.
  counts = np.histogram(share, 4, (0.2, 0.9))[0]
  assert counts.min() > 60
  assert 0.3 < np.mean(aspect > 1) < 0.7
  # Anywhere: the offset's share of the room is uniform.
  for offset, room in ((top, height - rows), (left, width - columns)):
    free = room > 20
    assert abs(np.mean(offset[free] / room[free]) - 0.5) < 0.03
    assert np.mean(offset[free] < 0.1 * room[free]) > 0.05
    assert np.mean(offset[free] > 0.9 * room[free]) > 0.05


@pytest.mark.parametrize('shape', [(10, 500), (500, 10), (1, 7), (30, 30)])
def test_what_no_crop_fits_into_gives_a_square(shape):
  areas = many_areas(shape, 400)
  side = min(shape)
  if side < max(shape):  # too long for any aspect
    assert np.all(areas[:, 2:] == side)
    assert np.all(areas[:, np.argmin(shape)] == 0)
    offset = areas[:, np.argmax(shape)]
    last = max(shape) - side
    assert offset.min() <= last * 0.05
    assert offset.max() >= last * 0.95
    assert abs(offset.mean() / last - 0.5) < 0.08
  else:
    assert np.all(areas[:, :2] + areas[:, 2:] <= side)


def test_a_crop_of_the_whole_image_becomes_a_square():
  # Of so few pixels many draws are the whole image.
  areas = many_areas((6, 7), 600)
  assert not np.any(np.all(areas[:, 2:] == (6, 7), axis=1))
  squares = areas[np.all(areas[:, 2:] == (6, 6), axis=1)]
  assert len(squares) > 20
  assert set(squares[:, 1]) == {0, 1}
