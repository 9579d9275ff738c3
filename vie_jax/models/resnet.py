"""ResNet-18 over clips: one pre-activation block for every network.

"v2" blocks (He et al. 2016, arXiv:1603.05027) as the official VIE code has
them; it differs from common ResNet-18 implementations in this: no batch norm
or ReLU after the stem, a projection shortcut in the first block of *every*
stage, taken from the normalised and rectified input.

The networks of the paper that are one such ResNet:

  VIE-Single     `single`: 2D convolutions on each frame
  VIE-Slow       `slow`: convolutions over time in the last two stages
  VIE-3DResNet   `three_dimensional`: 3D convolutions, time is halved four
                 times
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from vie_jax.models import batch_norm, folded_conv, max_pool
from vie_jax.models.taps import Size

BLOCKS_PER_STAGE = 2
NUM_STAGES = 4
# Of each stage, the taps in time of a block's first and second convolution.
FLAT_KERNELS = ((1, 1),) * NUM_STAGES
SLOW_KERNELS = ((1, 1), (1, 1), (3, 1), (3, 1))
CUBIC_KERNELS = ((3, 3),) * NUM_STAGES
CUBIC_STEM_KERNEL = 7


class Features(NamedTuple):
  """What a backbone finds in clips.

  Attributes:
    pooled: float32 [B, F], what the embedding is a projection of.
    maps: 'conv1' ... 'conv5' -> [B, T', H', W', C], normalised and rectified:
      the stem's output, then those of the four stages.
  """

  pooled: jax.Array
  maps: dict[str, jax.Array]


class Stem(nn.Module):
  """First convolution and max-pool: a quarter of the resolution.

  Attributes:
    features: output channels.
    temporal_kernel: taps of the convolution in time.
    pools_time: whether the max-pool also halves the number of frames.
    dtype: of the computation.
  """

  features: int
  temporal_kernel: int = 1
  pools_time: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, T, H, W, 3] to [B, T or T / 2, H / 4, W / 4, features]."""
    x = folded_conv.FoldedConv(
      self.features,
      (self.temporal_kernel, 7, 7),
      (1, 2, 2),
      dtype=self.dtype,
      name='conv',
    )(x)
    time = (3, 2) if self.pools_time else (1, 1)
    return max_pool.max_pool(x, window=(time[0], 3, 3), strides=(time[1], 2, 2))


class Block(nn.Module):
  """Pre-activation residual block of two 3 x 3 convolutions.

  Attributes:
    features: output channels.
    temporal_kernels: taps in time of the first and second convolution.
    strides: (time, height, width) of the first convolution and the shortcut.
    projects: whether the shortcut is a 1 x 1 convolution.
    decay: of batch norm's running statistics.
    dtype: of the computation.
  """

  features: int
  temporal_kernels: tuple[int, int] = (1, 1)
  strides: Size = (1, 1, 1)
  projects: bool = False
  decay: float = batch_norm.OFFICIAL_DECAY
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """Maps [B, T, H, W, in] to (output, the input normalised and rectified).

    The output is [B, T', H', W', features], ceil-divided by the strides.
    """
    conv = partial(folded_conv.FoldedConv, self.features, dtype=self.dtype)
    norm = partial(batch_norm.BatchNormRelu, self.decay, dtype=self.dtype)
    first, second = self.temporal_kernels
    active = norm(name='norm1')(x, train=train)
    shortcut = x
    if self.projects:
      shortcut = conv((1, 1, 1), self.strides, name='projection')(active)
    y = conv((first, 3, 3), self.strides, name='conv1')(active)
    y = norm(name='norm2')(y, train=train)
    y = conv((second, 3, 3), name='conv2')(y)
    return y + shortcut, active


class Stage(nn.Module):
  """Two blocks; the first changes resolution and channels.

  Attributes:
    features: output channels.
    temporal_kernels: of the two convolutions of each block.
    strides: of the first block.
    decay: of batch norm's running statistics.
    dtype: of the computation.
  """

  features: int
  temporal_kernels: tuple[int, int] = (1, 1)
  strides: Size = (1, 1, 1)
  decay: float = batch_norm.OFFICIAL_DECAY
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """Maps [B, T, H, W, in] to (output, the input normalised and rectified)."""
    active = []
    for number in range(BLOCKS_PER_STAGE):
      x, block_active = Block(
        self.features,
        self.temporal_kernels,
        strides=self.strides if number == 0 else (1, 1, 1),
        projects=number == 0,
        decay=self.decay,
        dtype=self.dtype,
        name=f'block{number + 1}',
      )(x, train=train)
      active.append(block_active)
    return x, active[0]


class ResNet18(nn.Module):
  """A ResNet-18, to be run as a whole or stage by stage.

  Attributes:
    width: channels of the stem and first stage; they double with each stage.
    stem_temporal_kernel: taps in time of the stem.
    temporal_kernels: for each stage those of its two kinds of convolution.
    halves_time: whether the max-pool and the last three stages halve the
      number of frames.
    decay: of batch norm's running statistics.
    dtype: of the computation.
  """

  width: int = 64
  stem_temporal_kernel: int = 1
  temporal_kernels: Sequence[tuple[int, int]] = FLAT_KERNELS
  halves_time: bool = False
  decay: float = batch_norm.OFFICIAL_DECAY
  dtype: Any = jnp.float32

  def setup(self):
    """Creates the stem, the four stages and the last normalisation."""
    self.stem = Stem(
      self.width, self.stem_temporal_kernel, self.halves_time, self.dtype
    )
    halving = (2 if self.halves_time else 1, 2, 2)
    self.stages = [
      Stage(
        self.width * 2**number,
        tuple(kernels),
        strides=(1, 1, 1) if number == 0 else halving,
        decay=self.decay,
        dtype=self.dtype,
      )
      for number, kernels in enumerate(self.temporal_kernels)
    ]
    self.final_norm = batch_norm.BatchNormRelu(self.decay, dtype=self.dtype)

  def __call__(self, clip: jax.Array, *, train: bool) -> Features:
    """Maps normalised clips [B, T, H, W, 3] to features, F = 8 width."""
    x, maps = self.run_stem(clip), {}
    for number in range(NUM_STAGES):
      x, maps[f'conv{number + 1}'] = self.run_stage(number, x, train=train)
    maps['conv5'] = self.run_final_norm(x, train=train)
    return Features(self.pool(maps['conv5']), maps)

  def run_stem(self, x: jax.Array) -> jax.Array:
    """Maps a clip [B, T, H, W, 3] to the input of stage 0."""
    return self.stem(x)

  def run_stage(
    self, number: int, x: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """Runs stage `number`, from 0, on [B, T, H, W, C]; see `Stage`."""
    return self.stages[number](x, train=train)

  def run_final_norm(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Normalises and rectifies the last stage's output."""
    return self.final_norm(x, train=train)

  def pool(self, x: jax.Array) -> jax.Array:
    """Averages [B, T, H, W, C] over time and space: float32 [B, C]."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2, 3))


def single(width: int, **options) -> ResNet18:
  """VIE-Single: frames are treated alike, and averaged if there are several.

  Several frames make it the Input-Single control of the paper's Table 4.
  """
  return ResNet18(width, **options)


def slow(width: int, **options) -> ResNet18:
  """VIE-Slow: the slow pathway of SlowFast, on its own."""
  return ResNet18(width, temporal_kernels=SLOW_KERNELS, **options)


def three_dimensional(width: int, **options) -> ResNet18:
  """VIE-3DResNet, after Hara et al. 2018 (arXiv:1711.09577).

  The official network differs from theirs in the pre-activation, in a stem
  that keeps all frames, and in projection shortcuts in every stage.
  """
  return ResNet18(
    width,
    stem_temporal_kernel=CUBIC_STEM_KERNEL,
    temporal_kernels=CUBIC_KERNELS,
    halves_time=True,
    **options,
  )
