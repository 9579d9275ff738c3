"""Local Aggregation: pull an embedding towards its close neighbours.

Zhuang, Zhai and Yamins 2019 (arXiv:1903.12355), as the official video code
computes it. The background neighbours are the k nearest bank rows; the close
ones are those background neighbours that share a cluster with the video.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vie_jax.objective import memory_bank

EPSILON = 1e-7


def is_close(
  cluster_labels: jax.Array,
  instance_index: jax.Array,
  neighbor_index: jax.Array,
  *,
  mesh: Mesh,
) -> jax.Array:
  """Which background neighbours share a cluster with the video.

  Args:
    cluster_labels: int32 [R, rows], one row per clustering, split over `data`
      by videos. The label of a video is that of its bank row.
    instance_index: int32 [B].
    neighbor_index: int32 [B, K].
    mesh: the mesh that the labels lie on.

  Returns:
    bool [B, K], true where at least one of the R clusterings agrees: the
    union of the clusters. A video counts as its own close neighbour.
  """
  by_video = cluster_labels.T
  own = memory_bank.take(by_video, instance_index, mesh=mesh)
  others = memory_bank.take(by_video, neighbor_index, mesh=mesh)
  return jnp.any(own[:, None, :] == others, axis=-1)


def loss(
  similarity: jax.Array, close: jax.Array, *, temperature: float
) -> tuple[jax.Array, jax.Array]:
  """Local Aggregation loss of each video, from its background neighbours.

      loss = -log( sum_{close} exp(s / t) / sum_{all K} exp(s / t) + 1e-7 )

  The normaliser over the whole bank cancels and is never formed.

  Args:
    similarity: float32 [B, K], dot product of the embedding with each
      background neighbour's bank row; differentiable.
    close: bool [B, K], which of them are close neighbours too.
    temperature: t > 0.

  Returns:
    (loss float32 [B], has_close bool [B]). A video without a close neighbour
    has loss -log(1e-7) = 16.1 and no gradient.

  Source: official code (`instance_model.py`), the 1e-7 included.
  """
  logits = similarity / temperature
  has_close = jnp.any(close, axis=1)
  # Rows without a close neighbour take all of them, so that no gradient of
  # log 0 arises; their ratio is then replaced by 0.
  chosen = close | ~has_close[:, None]
  background = jax.nn.logsumexp(logits, axis=1)
  nearby = jax.nn.logsumexp(logits, axis=1, where=chosen)
  ratio = jnp.where(has_close, jnp.exp(nearby - background), 0.0)
  return -jnp.log(ratio + EPSILON), has_close
