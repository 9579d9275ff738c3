"""The resize on the device against Pillow and the official numbers."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from synthetic_frames import assert_few_differ, noise, textured

from vie_jax.pixels import antialiased_resize

pytestmark = pytest.mark.usefixtures('strict_dtypes')
OFFICIAL = json.loads(
  (pathlib.Path(__file__).parents[1] / 'oracle/augmentation.json').read_text()
)
resize = jax.jit(
  antialiased_resize.resize, static_argnames=('size', 'crops_before_resize')
)


def test_resize_equals_the_official_one():
  for case in OFFICIAL['resize']:
    shape = case['input_shape_height_width_channel']
    picture = np.reshape(np.array(case['input'], np.uint8), shape)
    # The crop is the left square of the resized picture.
    height, width, _ = case['output_shape']
    crop = [0, 0, shape[0], shape[1] * height / width]
    window = np.zeros((1, 1, shape[1], shape[1], 3), np.uint8)
    window[0, 0, : shape[0]] = picture
    window[0, 0, shape[0] :] = picture[-1:]
    result = resize(window, jnp.array([crop], jnp.float32), size=height)
    expected = np.reshape(case['output'], case['output_shape'])
    # The window goes on below the picture, so that the last row may differ;
    # augmentation_test covers the border.
    assert_few_differ(result[0, 0, :-1], expected[:-1, :height], levels=1)


@pytest.mark.parametrize('short_side', [28, 35, 40, 47, 64, 90])
def test_resize_equals_pillow_for_any_scale_and_place(short_side):
  rng = np.random.default_rng(short_side)
  size, side = 28, 64
  frames = textured(rng, 3, 2, side, side)
  crops, expected = [], []
  for video, corner in zip(frames, ('start', 'middle', 'end'), strict=True):
    last = short_side - size
    offset = {'start': 0, 'middle': last // 2, 'end': last}[corner]
    scale = side / short_side
    crops.append([offset * scale, offset * scale, size * scale, size * scale])
    box = (offset, offset, offset + size, offset + size)
    for frame in video:
      image = Image.fromarray(frame).resize((short_side,) * 2, Image.BILINEAR)
      expected.append(np.asarray(image.crop(box)))
  result = resize(frames, jnp.array(crops, jnp.float32), size=size)
  difference = np.abs(
    np.reshape(np.asarray(result), np.shape(expected)) - np.stack(expected)
  )
  assert difference.mean() < 0.1
  assert difference.max() <= 1


@pytest.mark.parametrize('make_frames', [textured, noise])
@pytest.mark.parametrize('size', [20, 28, 45])
def test_resize_after_the_crop_equals_pillow(make_frames, size):
  rng = np.random.default_rng(size)
  side = 64
  frames = make_frames(rng, 5, 2, side, side)
  crops = [(0, 0, 64), (0, 11, 53), (24, 0, 40), (3, 5, 28), (32, 32, 32)]
  expected = []
  for video, (top, left, length) in zip(frames, crops, strict=True):
    for frame in video:
      box = (left, top, left + length, top + length)
      image = Image.fromarray(frame).crop(box)
      expected.append(np.asarray(image.resize((size, size), Image.BILINEAR)))
  expected = np.reshape(expected, (5, 2, size, size, 3))
  crop = jnp.array([(*place, place[-1]) for place in crops], jnp.float32)
  result = resize(frames, crop, size=size, crops_before_resize=True)
  difference = np.abs(np.asarray(result) - expected)
  assert difference.mean() < 0.2
  assert difference.max() <= 2
  # Reading beyond the box would show.
  beyond = np.asarray(resize(frames, crop, size=size))
  assert np.abs(beyond - expected).max() > 5
  np.testing.assert_array_equal(beyond[0], result[0])  # the whole window


@pytest.mark.parametrize('size', [5, 28, 45, 90])
@pytest.mark.parametrize('crops_before_resize', [True, False])
def test_sums_of_taps_and_products_give_the_same_pixels(
  size, crops_before_resize
):
  rng = np.random.default_rng(size)
  frames = noise(rng, 4, 2, 64, 64)
  crop = jnp.array(
    [(0, 0, 64, 64), (3, 9, 41, 41), (20, 1, 44, 30), (31, 31, 2, 2)],
    jnp.float32,
  )
  axis_filter = jax.jit(
    antialiased_resize.axis_filter, static_argnums=(2, 3, 4)
  )
  filters = [
    axis_filter(crop[:, axis], crop[:, 2 + axis], size, 64, crops_before_resize)
    for axis in range(2)
  ]
  by_taps, *others = (
    np.asarray(jax.jit(way)(frames, *filters), np.int32)
    for way in (
      antialiased_resize.filter_by_taps,
      antialiased_resize.filter_by_planes,
      antialiased_resize.filter_by_products,
    )
  )
  for other in others:
    np.testing.assert_array_equal(by_taps, other)


def test_pixels_outside_a_crop_before_the_resize_are_not_read():
  frames = noise(np.random.default_rng(3), 2, 1, 40, 40)
  crop = jnp.array([[7, 9, 20, 20], [0, 20, 20, 20]], jnp.float32)
  other = noise(np.random.default_rng(4), 2, 1, 40, 40)
  other[0, :, 7:27, 9:29] = frames[0, :, 7:27, 9:29]
  other[1, :, :20, 20:] = frames[1, :, :20, 20:]
  np.testing.assert_array_equal(
    resize(frames, crop, size=12, crops_before_resize=True),
    resize(other, crop, size=12, crops_before_resize=True),
  )


@pytest.mark.parametrize(
  ('side', 'size'), [(1, 1), (1, 7), (2, 9), (31, 1), (57, 3), (224, 16)]
)
def test_a_whole_window_of_any_size_equals_pillow(side, size):
  frames = textured(np.random.default_rng(side), 1, 1, side, side)
  crop = jnp.array([[0, 0, side, side]], jnp.float32)
  result = np.asarray(resize(frames, crop, size=size))
  image = Image.fromarray(frames[0, 0]).resize((size, size), Image.BILINEAR)
  assert np.abs(result[0, 0] - np.asarray(image)).max() <= 2


@pytest.mark.parametrize('crops_before_resize', [True, False])
def test_a_crop_of_one_pixel_is_that_pixel(crops_before_resize):
  frames = noise(np.random.default_rng(1), 3, 1, 9, 9)
  places = [(0, 0), (8, 8), (4, 2)]
  crop = jnp.array([(*place, 1, 1) for place in places], jnp.float32)
  result = np.asarray(
    resize(frames, crop, size=1, crops_before_resize=crops_before_resize)
  )
  for clip, pixel, (y, x) in zip(frames, result, places, strict=True):
    np.testing.assert_array_equal(pixel[0, 0, 0], clip[0, y, x])


def test_white_stays_white():
  frames = np.full((1, 1, 301, 301, 3), 255, np.uint8)
  crop = jnp.array([[0, 0, 301, 301]], jnp.float32)
  result = resize(frames, crop, size=37)
  np.testing.assert_array_equal(result, np.full((1, 1, 37, 37, 3), 255.0))


@pytest.mark.parametrize(
  ('platform', 'num_products'), [('tpu', 2), ('cuda', 0), ('cpu', 0)]
)
def test_only_tpus_multiply_matrices(platform, num_products):
  window = jax.ShapeDtypeStruct((2, 3, 20, 20, 3), jnp.uint8)
  crop = jax.ShapeDtypeStruct((2, 4), jnp.float32)
  traced = resize.trace(window, crop, size=8)
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  assert program.count('stablehlo.dot_general') == num_products
