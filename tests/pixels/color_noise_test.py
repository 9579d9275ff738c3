"""Colour noise against Pillow and the official numbers."""

import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from synthetic_frames import assert_few_differ, noise, textured

from vie_jax.machine import platform_choice
from vie_jax.pixels import color_noise

pytestmark = pytest.mark.usefixtures('strict_dtypes')
OFFICIAL = json.loads(
  (pathlib.Path(__file__).parents[1] / 'oracle/augmentation.json').read_text()
)
OPERATIONS = ('brightness', 'contrast', 'saturation', 'hue')


@pytest.fixture(params=['cpu', 'gpu'])
def change_color(request):
  """color_noise.apply, in the way of a CPU and in that of a GPU."""
  with platform_choice.only(request.param):
    yield jax.jit(color_noise.apply, static_argnames=('grey_first',))


def pillow_noise(frame, operations, is_grey):
  """One uint8 frame after (name, factor) operations, by Pillow alone."""
  image = Image.fromarray(frame)
  for name, factor in operations:
    if name == 'brightness':
      image = ImageEnhance.Brightness(image).enhance(factor)
    elif name == 'contrast':
      image = ImageEnhance.Contrast(image).enhance(factor)
    elif name == 'saturation':
      image = ImageEnhance.Color(image).enhance(factor)
    else:
      hue, saturation, value = image.convert('HSV').split()
      turned = (np.asarray(hue, np.int32) + int(factor * 255)) % 256
      hue = Image.fromarray(turned.astype(np.uint8))
      image = Image.merge('HSV', (hue, saturation, value)).convert('RGB')
  if is_grey:
    image = image.convert('L').convert('RGB')
  return np.asarray(image)


def noise_arguments(clips):
  """Arguments of color_noise for a list of (operations, is_grey)."""
  arguments = {name: [] for name in (*OPERATIONS, 'order')}
  for operations, _ in clips:
    named = dict(operations)
    for name in OPERATIONS:
      neutral = 0.0 if name == 'hue' else 1.0
      arguments[name].append(named.get(name, neutral))
    order = [OPERATIONS.index(name) for name in named]
    order += [i for i in range(4) if i not in order]
    arguments['order'].append(order)
  order = jnp.array(arguments.pop('order'), jnp.int32)
  arguments = {k: jnp.array(v, jnp.float32) for k, v in arguments.items()}
  is_grey = jnp.array([grey for _, grey in clips])
  return {**arguments, 'order': order, 'is_grey': is_grey}


def test_color_noise_equals_the_official_one(change_color):
  colour = OFFICIAL['colour']
  picture = np.array(colour['input'], np.float32)
  picture = picture.reshape(1, 1, *colour['input_shape'])
  for case in colour['cases']:
    operations = [tuple(operation) for operation in case['operations']]
    arguments = noise_arguments([(operations, case['grayscale'])])
    if 'hue' not in dict(operations):
      arguments['hue'] = None  # a shift of 0 still rounds through HSV
    result = change_color(picture, **arguments)
    expected = np.reshape(case['output'], picture.shape)
    assert_few_differ(result, expected, levels=2)
    # But for rounding before a shift of the hue, not a level differs.
    assert_few_differ(result, expected, levels=0, share=0.01)


@pytest.mark.parametrize('make_frames', [textured, noise])
def test_color_noise_equals_pillow_for_random_orders_and_factors(
  change_color, make_frames
):
  rng = np.random.default_rng(1)
  frames = make_frames(rng, 24, 2, 20, 30)
  clips = []
  for _ in range(len(frames)):
    factors = dict(zip(OPERATIONS, rng.uniform(0.6, 1.4, 4), strict=True))
    factors['hue'] = rng.uniform(-0.4, 0.4)
    operations = [
      (OPERATIONS[i], factors[OPERATIONS[i]]) for i in rng.permutation(4)
    ]
    clips.append((operations, rng.uniform() < 0.3))
  result = change_color(frames.astype(np.float32), **noise_arguments(clips))
  expected = np.stack(
    [
      np.stack([pillow_noise(frame, *clip) for frame in video])
      for video, clip in zip(frames, clips, strict=True)
    ]
  )
  # Pillow's 8-bit hues turn one level before the shift into several after.
  assert_few_differ(result, expected, share=0.0005)
  assert_few_differ(result, expected, levels=0, share=0.005)
  assert np.all(np.asarray(result) == np.round(result))


@pytest.mark.parametrize('last', OPERATIONS)
def test_grey_comes_after_every_order(change_color, last):
  frames = textured(np.random.default_rng(8), 1, 2, 12, 12)
  operations = [(n, 0.2 if n == 'hue' else 1.3) for n in OPERATIONS]
  operations.sort(key=lambda operation: operation[0] == last)
  arguments = noise_arguments([(operations, True)])
  result = np.asarray(change_color(frames.astype(np.float32), **arguments))
  np.testing.assert_array_equal(result, np.repeat(result[..., :1], 3, axis=-1))
  expected = [pillow_noise(frame, operations, True) for frame in frames[0]]
  assert_few_differ(result[0], np.stack(expected), levels=2)


def test_neutral_color_noise_changes_nothing(change_color):
  frames = textured(np.random.default_rng(2), 2, 2, 9, 9).astype(np.float32)
  arguments = noise_arguments([([], False)] * 2) | {'hue': None}
  np.testing.assert_array_equal(change_color(frames, **arguments), frames)


@pytest.mark.parametrize('make_frames', [textured, noise])
def test_grey_can_come_before_every_order(change_color, make_frames):
  rng = np.random.default_rng(10)
  frames = make_frames(rng, 24, 1, 20, 30)
  clips, expected = [], []
  for number, (frame,) in enumerate(frames):
    factors = dict(zip(OPERATIONS, rng.uniform(0.6, 1.4, 4), strict=True))
    factors['hue'] = rng.uniform(-0.4, 0.4)
    operations = [
      (OPERATIONS[i], factors[OPERATIONS[i]]) for i in rng.permutation(4)
    ]
    clips.append((operations, number % 2 == 0))
    if number % 2 == 0:
      frame = np.asarray(Image.fromarray(frame).convert('L').convert('RGB'))
    expected.append([pillow_noise(frame, operations, False)])
  frames, expected = frames.astype(np.float32), np.stack(expected)
  arguments = noise_arguments(clips)
  result = np.asarray(change_color(frames, **arguments, grey_first=True))
  assert_few_differ(result, expected, share=0.0005)
  assert_few_differ(result, expected, levels=0, share=0.005)
  is_grey = np.all(result == result[..., :1], axis=(1, 2, 3, 4))
  assert is_grey.tolist() == [number % 2 == 0 for number in range(24)]
  # A shift of the hue changes how light a colour is, but no grey.
  last = np.asarray(change_color(frames, **arguments))
  assert np.all(np.abs(last - result)[::2].mean(axis=(1, 2, 3, 4)) > 0.5)
  np.testing.assert_array_equal(last[1::2], result[1::2])


@pytest.mark.parametrize('grey_first', [False, True])
@pytest.mark.parametrize('has_hue', [False, True])
def test_ways_of_each_platform_are_equal_to_the_bit(has_hue, grey_first):
  rng = np.random.default_rng(3)
  orders = list(itertools.permutations(range(4)))
  frames = noise(rng, len(orders), 2, 9, 7).astype(np.float32)
  factors = rng.uniform(0, 2, (3, len(orders))).astype(np.float32)
  arguments = dict(zip(OPERATIONS, factors, strict=False)) | {
    'hue': rng.uniform(-0.5, 0.5, len(orders)).astype(np.float32),
    'order': np.array(orders, np.int32),
    'is_grey': rng.uniform(size=len(orders)) < 0.3,
  }
  if not has_hue:
    arguments['hue'] = None
  results = []
  for platform in ('cpu', 'gpu'):
    with platform_choice.only(platform):
      apply = jax.jit(color_noise.apply, static_argnames='grey_first')
      results.append(apply(frames, **arguments, grey_first=grey_first))
  np.testing.assert_array_equal(*results)
  assert np.abs(results[0] - frames).mean() > 10
