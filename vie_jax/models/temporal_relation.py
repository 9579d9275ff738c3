"""VIE-TRN: frames apart from each other, then put side by side in order.

After the temporal relation network of Zhou et al. 2018 (arXiv:1711.08496), of
which the official VIE-TRN keeps one relation, over all frames at once, as a
linear layer: the embedding's own projection.
"""

import jax
import jax.numpy as jnp

from vie_jax.models import resnet


class TemporalRelation(resnet.ResNet18):
  """A 2D ResNet-18 on each frame; features are concatenated over time.

  Batch norm sees the frames of all clips as one batch. Parameters are named
  as VIE-Single's, from whose weights it can start.
  """

  def pool(self, x: jax.Array) -> jax.Array:
    """Averages [B, T, H, W, C] over space: float32 [B, T * C], time first."""
    pooled = jnp.mean(x.astype(jnp.float32), axis=(2, 3))
    return jax.lax.collapse(pooled, 1)
