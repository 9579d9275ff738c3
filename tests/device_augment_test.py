"""The device's picture operations against Pillow and the official numbers."""

import json
import pathlib

import compiled_program
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic_frames import assert_few_differ, noise, textured

from vie_jax import device_augment
from vie_jax.machine import platform_choice
from vie_jax.pixels import antialiased_resize

pytestmark = pytest.mark.usefixtures('strict_dtypes')
OFFICIAL = json.loads(
  (pathlib.Path(__file__).parent / 'oracle/augmentation.json').read_text()
)
OPERATIONS = ('brightness', 'contrast', 'saturation', 'hue')
STRENGTHS = {
  'flip_probability': 0.5,
  'brightness': 0.4,
  'contrast': 0.4,
  'saturation': 0.4,
  'hue': 0.4,
  'grey_probability': 0.3,
}
NO_NOISE = dict.fromkeys(STRENGTHS, 0.0)
augment = jax.jit(
  device_augment.augment,
  static_argnames=(
    'size',
    'crops_before_resize',
    'dtype',
    'grey_first',
    *STRENGTHS,
  ),
)
center = jax.jit(
  device_augment.center, static_argnames=('size', 'crops_before_resize')
)


def pixels(normalized):
  """Grey levels back from normalised values."""
  std = 255 * np.array(device_augment.PIXEL_STD)
  mean = 255 * np.array(device_augment.PIXEL_MEAN)
  return np.asarray(normalized) * std + mean


def test_parameters_are_drawn_as_the_official_ones():
  official, count = OFFICIAL['jitter'], 24_000
  assert official['strengths'] == {
    'brightness': STRENGTHS['brightness'],
    'contrast': STRENGTHS['contrast'],
    'saturation': STRENGTHS['saturation'],
    'hue': STRENGTHS['hue'],
    'grayscale_probability': STRENGTHS['grey_probability'],
  }
  draw = jax.jit(
    device_augment.draw_parameters, static_argnames=('num_clips', *STRENGTHS)
  )
  drawn = draw(jax.random.key(3), num_clips=count, **STRENGTHS)
  drawn = {name: np.asarray(values) for name, values in drawn.items()}
  for name in OPERATIONS:
    middle = 0.0 if name == 'hue' else 1.0
    assert drawn[name].dtype == np.float32
    assert np.all(np.abs(drawn[name] - middle) <= 0.4 + 1e-6)
    # Uniform: in each tenth of the range a tenth of the draws, and the range
    # that the official code was seen to use is reached.
    tenths = np.histogram(drawn[name], 10, (middle - 0.4, middle + 0.4))[0]
    assert np.all(np.abs(tenths - count / 10) < 5 * (count / 10) ** 0.5)
    low, high = official['observed_factor_range'][f'adjust_{name}']
    assert drawn[name].min() < low + 1e-3
    assert drawn[name].max() > high - 1e-3
  orders, counts = np.unique(drawn['order'], axis=0, return_counts=True)
  assert len(orders) == official['distinct_orders_of_four'] == 24
  assert np.all(np.abs(counts - count / 24) < 5 * (count / 24) ** 0.5)
  assert abs(drawn['is_grey'].mean() - 0.3) < 0.015
  assert abs(drawn['is_grey'].mean() - official['grayscale_fraction']) < 0.02
  assert abs(drawn['is_flipped'].mean() - 0.5) < 0.015
  # One draw says nothing of another.
  names = (*OPERATIONS, 'is_grey', 'is_flipped')
  columns = [drawn[name] for name in names] + [drawn['order'][:, 0]]
  correlation = np.corrcoef(np.stack(columns).astype(np.float64))
  assert np.abs(correlation - np.eye(7)).max() < 0.035


@pytest.mark.parametrize('crops_before_resize', [True, False])
def test_both_orders_of_crop_and_resize_reach_the_network(crops_before_resize):
  rng = np.random.default_rng(14)
  frames, size = noise(rng, 2, 2, 40, 40), 28
  crop = jnp.array([(3, 5, 28, 28), (12, 0, 20, 20)], jnp.float32)
  order = {'size': size, 'crops_before_resize': crops_before_resize}
  expected = antialiased_resize.resize(frames, crop, **order)
  for values in (
    center(frames, crop, **order),
    augment(jax.random.key(0), frames, crop, **order, **NO_NOISE),
  ):
    np.testing.assert_allclose(pixels(values), expected, atol=1e-3)


def test_flip_mirrors_whole_clips_only():
  frames = textured(np.random.default_rng(4), 64, 2, 12, 12)
  crop = jnp.tile(jnp.array([[1.0, 2.0, 9.0, 9.0]]), (64, 1))
  plain = device_augment.center(frames, crop, size=8)
  settings = NO_NOISE | {'flip_probability': 0.5}
  result = np.asarray(
    augment(jax.random.key(0), frames, crop, size=8, **settings)
  )
  plain = np.asarray(plain)

  def equals(others):
    return np.all(result == others, axis=(1, 2, 3, 4))

  is_same, is_mirrored = equals(plain), equals(plain[:, :, :, ::-1])
  assert np.all(is_same | is_mirrored)
  assert 16 < is_mirrored.sum() < 48


def test_center_normalises_the_crop():
  frames = textured(np.random.default_rng(5), 2, 3, 16, 16)
  crop = jnp.array([[2, 4, 8, 8], [0, 0, 8, 8]], jnp.float32)
  result = device_augment.center(frames, crop, size=8)
  assert result.shape == (2, 3, 8, 8, 3)
  np.testing.assert_allclose(
    pixels(result[0]), frames[0, :, 2:10, 4:12], atol=1e-3
  )
  low = device_augment.center(frames, crop, size=8, dtype=jnp.bfloat16)
  assert low.dtype == jnp.bfloat16


def test_augment_without_strength_is_center():
  frames = textured(np.random.default_rng(6), 3, 2, 16, 16)
  crop = jnp.tile(jnp.array([[1.0, 1.0, 12.0, 12.0]]), (3, 1))
  np.testing.assert_array_equal(
    augment(jax.random.key(1), frames, crop, size=8, **NO_NOISE),
    center(frames, crop, size=8),
  )


def test_frames_of_a_clip_share_their_noise_and_clips_do_not():
  frame = textured(np.random.default_rng(7), 1, 1, 12, 12)
  frames = np.broadcast_to(frame, (64, 3, 12, 12, 3))
  crop = jnp.tile(jnp.array([[0.0, 0.0, 12.0, 12.0]]), (64, 1))
  num_grey = 0
  for seed in range(8):
    result = np.asarray(
      augment(jax.random.key(seed), frames, crop, size=12, **STRENGTHS)
    )
    assert np.array_equal(result[:, 0], result[:, 1])
    assert np.array_equal(result[:, 0], result[:, 2])
    assert len(np.unique(result[:, 0].reshape(64, -1), axis=0)) > 60
    levels = np.round(pixels(result[:, 0]))
    num_grey += (levels == levels[..., :1]).all(axis=(1, 2, 3)).sum()
  assert 0.22 < num_grey / (8 * 64) < 0.38


@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
def test_augment_is_the_same_on_any_number_of_devices(platform):
  devices = jax.devices()
  count = min(len(devices), 4)
  mesh = jax.make_mesh(
    (count,),
    ('data',),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=devices[:count],
  )
  sharded = jax.NamedSharding(mesh, jax.P('data'))
  frames = textured(np.random.default_rng(9), 8, 2, 16, 16)
  crop = np.tile(np.array([[1.5, 0.0, 13.0, 14.5]], np.float32), (8, 1))
  spread = [jax.device_put(array, sharded) for array in (frames, crop)]
  alone = augment(jax.random.key(4), frames, crop, size=8, **STRENGTHS)
  with platform_choice.only(platform):
    compiled = augment.lower(
      jax.random.key(4), *spread, size=8, **STRENGTHS
    ).compile()
  result = compiled(jax.random.key(4), *spread)
  assert_few_differ(pixels(result), pixels(alone), levels=0.01)
  assert compiled.output_shardings.spec == jax.P('data')
  for in_loops in (False, True):
    assert not compiled_program.collectives(compiled, in_loops=in_loops)


NO_CROPS = {
  'NaN': (1.0, 2.0, 12.0, np.nan),
  'infinite': (1.0, 2.0, 12.0, np.inf),
  'nothing': (1.0, 2.0, 0.0, 12.0),
  'less than nothing': (4.0, 4.0, -3.0, 5.0),
  'behind the window': (50.0, 50.0, 5.0, 5.0),
  'before the window': (1.0, -2.0, 12.0, 12.0),
  'past the window': (1.0, 2.0, 12.0, 15.0),
}


@pytest.mark.parametrize('crops_before_resize', [True, False])
@pytest.mark.parametrize('fault', NO_CROPS)
def test_a_crop_that_is_none_makes_a_clip_of_nan(fault, crops_before_resize):
  frames = textured(np.random.default_rng(13), 3, 2, 16, 16)
  crop = np.tile(np.array([[1.0, 2.0, 12.0, 12.0]], np.float32), (3, 1))
  crop[1] = NO_CROPS[fault]
  order = {'size': 8, 'crops_before_resize': crops_before_resize}
  for clips in (
    center(frames, crop, **order),
    augment(jax.random.key(1), frames, crop, **order, **STRENGTHS),
  ):
    is_fault = np.isnan(clips).reshape(3, -1)
    np.testing.assert_array_equal(is_fault.all(axis=1), [False, True, False])
    np.testing.assert_array_equal(is_fault.any(axis=1), [False, True, False])


def test_shapes_that_do_not_fit_are_refused():
  window = np.zeros((2, 3, 8, 8, 3), np.uint8)
  with pytest.raises(ValueError, match=r'crop \(3, 4\) does not match 2'):
    device_augment.center(window, jnp.zeros((3, 4)), size=4)
  with pytest.raises(ValueError, match=r'must be uint8 .* got float32'):
    device_augment.center(window.astype(np.float32), jnp.zeros((2, 4)), size=4)


def test_augment_turns_grey_first_if_asked_to():
  frames = textured(np.random.default_rng(11), 8, 1, 12, 12)
  crop = jnp.tile(jnp.array([[0.0, 0.0, 12.0, 12.0]]), (8, 1))
  grey = NO_NOISE | {'grey_probability': 1.0}
  turned = grey | {'hue': 0.4, 'saturation': 0.4}

  def pictures(settings, **options):
    key = jax.random.key(2)
    return pixels(augment(key, frames, crop, size=12, **settings, **options))

  plain = pictures(grey)
  # Neither hue nor saturation changes a picture that is grey already.
  first = pictures(turned, grey_first=True)
  np.testing.assert_allclose(first, plain, atol=1e-3)
  assert np.abs(pictures(turned) - plain).mean() > 1
