import functools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from models import plain_convolution

from vie_jax.models import folded_conv, frame_parts

FRAMES = 7, 9, 6, 3
"""N, H, W, in."""


def value_and_gradients(convolve, strides):
  draw = np.random.default_rng(0)
  x = draw.standard_normal(FRAMES).astype(np.float32)
  kernel = draw.standard_normal((3, 5, 3, 4)).astype(np.float32)
  y, pull_back = jax.vjp(
    functools.partial(convolve, strides=strides), x, kernel
  )
  return y, *pull_back(draw.standard_normal(y.shape).astype(np.float32))


@pytest.mark.parametrize('strides', [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize('num_parts', [2, 3, 4, 7])
def test_it_is_the_convolution(monkeypatch, num_parts, strides):
  height, width = -(-9 // strides[0]), -(-6 // strides[1])
  num_bytes = 4 * 7 * height * width * 3 * 5 * 3
  monkeypatch.setattr(frame_parts, 'PART_BYTES', -(-num_bytes // num_parts))
  sizes = []

  def convolve_part(x, kernel, *, strides):
    sizes.append(len(x))
    return plain_convolution.convolve(x, kernel, strides=strides)

  ours = value_and_gradients(
    functools.partial(frame_parts.convolve, convolve_part=convolve_part),
    strides,
  )
  assert sum(sizes) == 7
  assert max(sizes) == -(-7 // num_parts)
  for one, other in zip(
    ours, value_and_gradients(plain_convolution.convolve, strides), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


def test_there_are_never_more_than_so_many_parts(monkeypatch):
  monkeypatch.setattr(frame_parts, 'PART_BYTES', 1)
  monkeypatch.setattr(frame_parts, 'MOST_PARTS', 4)
  calls = []

  def convolve_part(x, kernel, *, strides):
    calls.append(x)
    return plain_convolution.convolve(x, kernel, strides=strides)

  x = np.ones(FRAMES, np.float32)
  kernel = np.ones((1, 1, 3, 2), np.float32)
  frame_parts.convolve(x, kernel, strides=(1, 1), convolve_part=convolve_part)
  assert len(calls) == 4


def test_several_devices_have_parts_already():
  assert jax.device_count() > 1
  shape = 64, 16, 224, 224, 3
  assert not frame_parts.applies(shape, (5, 7, 7), (1, 2, 2))


_ON_ONE_DEVICE = """
import jax
from vie_jax.models import folded_conv, frame_parts

def parts(clips, size):
  conv = folded_conv.FoldedConv(8, (3, 7, 7), (2, 2, 2))
  clips = jax.ShapeDtypeStruct((clips, 5, size, size, 3), 'float32')
  kernel = jax.eval_shape(conv.init, jax.random.key(0), clips)
  lowered = jax.jit(conv.apply).lower(kernel, clips)
  return lowered.compile().as_text().count(' convolution(')

print(parts(2, 16), parts(4, 224), parts(400, 224), frame_parts.MOST_PARTS)
"""


def test_only_large_convolutions_of_one_device_are_taken_apart():
  done = subprocess.run(
    [sys.executable, '-c', _ON_ONE_DEVICE],
    env={**os.environ, 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  # 12 frames of 112 x 112 places, 3 x 7 x 7 taps of 3 channels: 253 MiB.
  assert done.stdout.split() == ['1', '2', '32', '32']


def test_a_module_has_the_same_parameters_and_values_either_way(monkeypatch):
  conv = folded_conv.FoldedConv(4, (3, 3, 3))
  clips = np.random.default_rng(0).standard_normal((2, 4, 8, 8, 3), np.float32)
  whole, variables = conv.init_with_output(jax.random.key(0), clips)
  monkeypatch.setattr(frame_parts, 'PART_BYTES', 2000)
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  parts, same = conv.init_with_output(jax.random.key(0), clips)
  jax.tree.map(np.testing.assert_array_equal, same, variables)
  np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)
