import math

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from vie_jax.machine import platform_choice
from vie_jax.models import activations, networks

SHAPE = (2, 4, 4, 3)
FLOAT = 4


class TwoLayers(nn.Module):
  """By hand: the first layer keeps its input, the second that of its own."""

  @nn.compact
  def __call__(self, clips, *, train):
    hidden = nn.Dense(7)(clips.reshape(clips.shape[0], -1))
    return nn.Dense(5)(jnp.sin(hidden))


class TwoWays(nn.Module):
  """Keeps one number more for each input where the device is no CPU."""

  @nn.compact
  def __call__(self, clips, *, train):
    flat = nn.Dense(6)(clips.reshape(clips.shape[0], -1))
    return platform_choice.by_platform(
      flat, cpu=lambda x: 2 * x, others=lambda x: jnp.sin(x)
    )


def variables_of(model, shape=SHAPE):
  clip = jnp.zeros((1, *shape))
  return jax.eval_shape(
    lambda key: model.init(key, clip, train=False), jax.random.key(0)
  )


def test_what_is_kept_is_what_the_gradient_reads():
  saved = activations.saved_bytes(TwoLayers(), variables_of(TwoLayers()), SHAPE)
  # The clip; the cosine, which is the sine's gradient; the sine.
  assert saved == FLOAT * (2 * 4 * 4 * 3 + 7 + 7)


@pytest.mark.parametrize(('platform', 'more'), [('cpu', 0), ('gpu', 6)])
def test_the_ways_of_one_platform_count(platform, more):
  saved = activations.saved_bytes(
    TwoWays(), variables_of(TwoWays()), SHAPE, platform=platform
  )
  assert saved == FLOAT * (2 * 4 * 4 * 3 + more)


def test_bytes_grow_with_the_frames_of_a_clip():
  model = networks.build('vie_slow', width=4, dtype='float32')

  def saved(num_frames):
    shape = (num_frames, 16, 16, 3)
    return activations.saved_bytes(model, variables_of(model, shape), shape)

  assert saved(8) == pytest.approx(2 * saved(4), rel=0.01)


@pytest.mark.parametrize(
  ('shape', 'dtype', 'filled'),
  [
    # Channels on the last axis, from 64 to 128 and from 192 to 256.
    ((16, 56, 57, 64), 'bfloat16', (16, 56, 57, 128)),
    ((16, 1, 56, 57, 192), 'float32', (16, 1, 56, 57, 256)),
    # Frames there, and channels before, from 9 to the rows of a tile.
    ((8, 16, 56, 57, 9), 'float32', (128, 56, 57, 16)),
    ((8, 16, 56, 57, 9), 'bfloat16', (128, 56, 57, 16)),
    ((8, 16, 56, 57, 9), 'int8', (128, 56, 57, 32)),
    ((100, 56, 57, 16), 'float32', (128, 56, 57, 16)),
    # As large either way as it is, or no picture.
    ((2, 7, 7, 128), 'float32', (2, 7, 7, 128)),
    ((16, 100), 'float32', (16, 100)),
  ],
)
def test_pictures_are_filled_up_on_a_tpu(shape, dtype, filled):
  array = jax.ShapeDtypeStruct(shape, dtype)
  size = math.prod(filled) * array.dtype.itemsize
  assert activations.bytes_on_tpu(array) == size


class Widened(nn.Module):
  """Keeps the sine's cosine and, for the second layer, the sine."""

  @nn.compact
  def __call__(self, clips, *, train):
    hidden = nn.Dense(64, use_bias=False)(clips)
    return nn.Dense(1, use_bias=False)(jnp.sin(hidden))


@pytest.mark.parametrize(
  ('platform', 'clips', 'channels'),
  [('gpu', 1, 64), ('gpu', 8, 64), ('tpu', 1, 128), ('tpu', 64, 64)],
)
def test_what_is_kept_is_filled_up_on_a_tpu(platform, clips, channels):
  saved = activations.saved_bytes(
    Widened(),
    variables_of(Widened()),
    SHAPE,
    num_clips=clips,
    platform=platform,
  )
  # With 64 clips of two frames these fill the lanes, and 3 channels are 8.
  clip = {('tpu', 1): 128, ('tpu', 64): 8}.get((platform, clips), 3)
  assert saved == FLOAT * 2 * 4 * 4 * (clip + 2 * channels)
