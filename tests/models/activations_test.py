import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from vie_jax import platform_choice
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
