"""ResNet-18 over clips: one pre-activation block for every network.

"v2" blocks (He et al. 2016, arXiv:1603.05027) as the official VIE code has
them; it differs from common ResNet-18 implementations in this: no batch norm
or ReLU after the stem, a projection shortcut in the first block of *every*
stage, taken from the normalised and rectified input.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vie_jax.models import folded_conv

BLOCKS_PER_STAGE = 2
NUM_STAGES = 4
OFFICIAL_DECAY = 0.997


class BatchNormRelu(nn.Module):
  """Batch normalisation, then ReLU.

  Statistics are over the global batch when the batch is split over devices
  under jit. Epsilon 1e-5 as in the official code, which normalises per replica
  instead.

  Attributes:
    decay: share of the running statistics kept at an update.
    dtype: of the result; statistics are float32.
  """

  decay: float = OFFICIAL_DECAY
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Normalises the last axis of [..., C]; updates statistics in training."""
    x = nn.BatchNorm(
      use_running_average=not train,
      momentum=self.decay,
      epsilon=1e-5,
      dtype=self.dtype,
      use_fast_variance=False,
      name='batch_norm',
    )(x)
    return nn.relu(x)


class Stem(nn.Module):
  """First convolution and max-pool: a quarter of the resolution.

  Attributes:
    features: output channels.
    temporal_kernel: taps of the convolution in time.
    dtype: of the computation.
  """

  features: int
  temporal_kernel: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, T, H, W, 3] to [B, T, H / 4, W / 4, features]."""
    x = folded_conv.FoldedConv(
      self.features,
      (self.temporal_kernel, 7, 7),
      (1, 2, 2),
      dtype=self.dtype,
      name='conv',
    )(x)
    return folded_conv.max_pool(x, window=(1, 3, 3), strides=(1, 2, 2))


class Block(nn.Module):
  """Pre-activation residual block of two 3 x 3 convolutions.

  Attributes:
    features: output channels.
    temporal_kernels: taps in time of the first and second convolution.
    stride: spatial stride of the first convolution and the shortcut.
    projects: whether the shortcut is a 1 x 1 convolution.
    decay: of batch norm's running statistics.
    dtype: of the computation.
  """

  features: int
  temporal_kernels: tuple[int, int] = (1, 1)
  stride: int = 1
  projects: bool = False
  decay: float = OFFICIAL_DECAY
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, T, H, W, in] to [B, T, H / stride, W / stride, features]."""
    conv = partial(folded_conv.FoldedConv, self.features, dtype=self.dtype)
    strides = (1, self.stride, self.stride)
    first, second = self.temporal_kernels
    norm = partial(BatchNormRelu, self.decay, dtype=self.dtype)
    active = norm(name='norm1')(x, train=train)
    self.sow('intermediates', 'active', active)
    shortcut = x
    if self.projects:
      shortcut = conv((1, 1, 1), strides, name='projection')(active)
    y = conv((first, 3, 3), strides, name='conv1')(active)
    y = norm(name='norm2')(y, train=train)
    y = conv((second, 3, 3), name='conv2')(y)
    return y + shortcut


class Stage(nn.Module):
  """Two blocks; the first changes resolution and channels.

  Attributes:
    features: output channels.
    temporal_kernels: of the two convolutions of each block.
    stride: spatial stride of the first block.
    decay: of batch norm's running statistics.
    dtype: of the computation.
  """

  features: int
  temporal_kernels: tuple[int, int] = (1, 1)
  stride: int = 1
  decay: float = OFFICIAL_DECAY
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps [B, T, H, W, in] to [B, T, H / stride, W / stride, features]."""
    for number in range(BLOCKS_PER_STAGE):
      x = Block(
        self.features,
        self.temporal_kernels,
        stride=self.stride if number == 0 else 1,
        projects=number == 0,
        decay=self.decay,
        dtype=self.dtype,
        name=f'block{number + 1}',
      )(x, train=train)
    return x


class Pathway(nn.Module):
  """A ResNet-18 that can be run stage by stage.

  Attributes:
    width: channels of the stem and first stage; they double with each stage.
    stem_temporal_kernel: taps in time of the stem.
    temporal_kernels: for each stage those of its two kinds of convolution.
    decay: of batch norm's running statistics.
    dtype: of the computation.
  """

  width: int
  stem_temporal_kernel: int = 1
  temporal_kernels: Sequence[tuple[int, int]] = ((1, 1),) * NUM_STAGES
  decay: float = OFFICIAL_DECAY
  dtype: Any = jnp.float32

  def setup(self):
    """Creates the stem, the four stages and the last normalisation."""
    self.stem = Stem(self.width, self.stem_temporal_kernel, self.dtype)
    self.stages = [
      Stage(
        self.width * 2**number,
        tuple(kernels),
        stride=1 if number == 0 else 2,
        decay=self.decay,
        dtype=self.dtype,
      )
      for number, kernels in enumerate(self.temporal_kernels)
    ]
    self.final_norm = BatchNormRelu(self.decay, dtype=self.dtype)

  def run_stem(self, x: jax.Array) -> jax.Array:
    """Maps a clip [B, T, H, W, 3] to [B, T, H / 4, W / 4, width]."""
    return self.stem(x)

  def run_stage(self, number: int, x: jax.Array, *, train: bool) -> jax.Array:
    """Runs stage `number`, from 0, on [B, T, H, W, C]."""
    return self.stages[number](x, train=train)

  def pool(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Normalises the last maps and averages them: float32 [B, C]."""
    active = self.final_norm(x, train=train)
    self.sow('intermediates', 'active', active)
    return jnp.mean(active.astype(jnp.float32), axis=(1, 2, 3))


class ResNet18(nn.Module):
  """One pathway from clip to pooled features.

  With temporal kernels of 1 it treats frames alike and averages them:
  VIE-Single, whose clips are single frames.

  Attributes:
    width: channels of the first stage; 64 in the paper.
    decay: of batch norm's running statistics.
    dtype: of the computation.
  """

  width: int = 64
  decay: float = OFFICIAL_DECAY
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, clip: jax.Array, *, train: bool) -> jax.Array:
    """Maps normalised clips [B, T, H, W, 3] to float32 [B, 8 width]."""
    pathway = Pathway(
      self.width, decay=self.decay, dtype=self.dtype, name='pathway'
    )
    x = pathway.run_stem(clip)
    for number in range(NUM_STAGES):
      x = pathway.run_stage(number, x, train=train)
    return pathway.pool(x, train=train)
