"""SlowFast ResNet-18 (Feichtenhofer et al. 2018, arXiv:1812.03982).

As the official VIE code builds it. It differs from the SlowFast paper in
pre-activation basic blocks and in a fifth lateral connection, after the last
stage; the lateral connections have no normalisation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vie_jax.models import batch_norm, folded_conv, resnet

FAST_TEMPORAL_KERNELS = ((3, 1),) * resnet.NUM_STAGES
FAST_STEM_TEMPORAL_KERNEL = 5
LATERAL_TEMPORAL_KERNEL = 5


class SlowFast(nn.Module):
  """Two pathways; the fast one feeds the slow one after the stem and stages.

  Attributes:
    width: channels of the slow pathway's first stage; 64 in the paper.
    fast_width: channels of the fast pathway's first stage; 8 in the paper.
    alpha: the slow pathway sees every alpha-th frame; 4 in the paper.
    decay: of batch norm's running statistics.
    dtype: of the computation.
  """

  width: int = 64
  fast_width: int = 8
  alpha: int = 4
  decay: float = batch_norm.OFFICIAL_DECAY
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, clip: jax.Array, *, train: bool) -> resnet.Features:
    """Maps normalised clips [B, T, H, W, 3] to features.

    Args:
      clip: [B, T, H, W, 3], T a multiple of alpha.
      train: whether batch norm uses and updates batch statistics.

    Returns:
      Features: slow ones, then fast ones, F = 704 in the paper; the maps are
      the slow pathway's, to which the fast one's are joined (official).

    Raises:
      ValueError: if T is not a multiple of alpha.
    """
    if clip.shape[1] % self.alpha:
      raise ValueError(
        f'clips of {clip.shape[1]} frames do not split into steps of '
        f'alpha = {self.alpha}.'
      )
    slow_pathway = resnet.slow(
      self.width, decay=self.decay, dtype=self.dtype, name='slow'
    )
    fast_pathway = resnet.ResNet18(
      self.fast_width,
      stem_temporal_kernel=FAST_STEM_TEMPORAL_KERNEL,
      temporal_kernels=FAST_TEMPORAL_KERNELS,
      decay=self.decay,
      dtype=self.dtype,
      name='fast',
    )
    slow = slow_pathway.run_stem(clip[:, :: self.alpha])
    fast = fast_pathway.run_stem(clip)
    slow = self._fuse(slow, fast, 'lateral_stem')
    maps = {}
    for number in range(resnet.NUM_STAGES):
      slow, active = slow_pathway.run_stage(number, slow, train=train)
      maps[f'conv{number + 1}'] = active
      fast, _ = fast_pathway.run_stage(number, fast, train=train)
      slow = self._fuse(slow, fast, f'lateral_stage{number + 1}')
    maps['conv5'] = slow_pathway.run_final_norm(slow, train=train)
    fast = fast_pathway.run_final_norm(fast, train=train)
    pooled = [slow_pathway.pool(maps['conv5']), fast_pathway.pool(fast)]
    return resnet.Features(jnp.concatenate(pooled, axis=-1), maps)

  def _fuse(self, slow: jax.Array, fast: jax.Array, name: str) -> jax.Array:
    """Appends the fast maps, strided to the slow frame rate, to the slow."""
    lateral = folded_conv.FoldedConv(
      2 * fast.shape[-1],
      (LATERAL_TEMPORAL_KERNEL, 1, 1),
      (self.alpha, 1, 1),
      dtype=self.dtype,
      name=name,
    )(fast)
    return jnp.concatenate([slow, lateral], axis=-1)
