"""Instance Recognition: every video is a class of its own.

The paper's IR loss (section "Video Instance Embedding", after Wu et al. 2018,
arXiv:1805.01978): the probability that an embedding v belongs to video i is
P(i|v) = exp(v . M_i / t) / Z, with M the memory bank.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from vie_jax import sharding
from vie_jax.objective import row_blocks

AXIS = sharding.DATA_AXIS

Z_PER_VIDEO = 2876934.2 / 1281167
"""Z = Z_PER_VIDEO * N: a constant of the official code, inherited from
instance discrimination on ImageNet; it is never estimated from the data."""

EPSILON = 1e-7


def draw_noise(
  key: jax.Array, *, batch_size: int, num_noise: int, num_videos: int
) -> jax.Array:
  """Draws the noise videos of a step.

  Returns:
    int32 [B, num_noise], uniform in [0, N) with replacement; the own video is
    not excluded. Source: official code.
  """
  shape = (batch_size, num_noise)
  return jax.random.randint(key, shape, 0, num_videos, jnp.int32)


def nce_loss(
  own_similarity: jax.Array,
  noise_similarity: jax.Array,
  *,
  num_videos: int,
  temperature: float,
) -> tuple[jax.Array, jax.Array]:
  """Noise-contrastive estimate of -log P(i|v).

      data  = -log( P_i / (P_i + m p + e) )
      noise = -sum_j log( m p / (P_j + m p + e) ),     p = 1 / N, e = 1e-7

  with P = exp(similarity / t) / Z and m noise videos; the loss is data + noise.

  Args:
    own_similarity: float [B], v . M_i of the video itself.
    noise_similarity: float [B, m], v . M_j of the noise videos.
    num_videos: N.
    temperature: t, at least 0.02: at 0.01 float32 has no exp(-1 / t) / Z.

  Returns:
    (data, noise), float32 [B] each.

  Source: official code (`instance_model.py`), constants included.
  """
  normalizer = Z_PER_VIDEO * num_videos
  expected = noise_similarity.shape[-1] / num_videos  # m p
  own_logit = own_similarity.astype(jnp.float32) / temperature
  noise_logit = noise_similarity.astype(jnp.float32) / temperature
  own = jnp.exp(own_logit) / normalizer
  noise = jnp.exp(noise_logit) / normalizer
  data_term = -jnp.log(own / (own + expected + EPSILON))
  noise_term = -jnp.sum(
    jnp.log(expected / (noise + expected + EPSILON)), axis=-1
  )
  return data_term, noise_term


def softmax_loss(
  bank: jax.Array,
  embedding: jax.Array,
  own_similarity: jax.Array,
  *,
  num_videos: int,
  temperature: float,
  mesh: Mesh,
  product_bytes: int = row_blocks.PRODUCT_BYTES,
) -> jax.Array:
  """The exact -log P(i|v), its normaliser summed over the whole bank.

  Args:
    bank: float32 [rows, D], rows split over `data`; carries no gradient.
    embedding: float32 [B, D], unit rows; differentiable.
    own_similarity: float32 [B], v . M_i of the video itself.
    num_videos: N; later rows are padding.
    temperature: t, at least 0.01: below it all terms may be 0 in float32.
    mesh: the mesh that the bank lies on.
    product_bytes: the most memory that a matrix of products takes on a
      device. More are formed block by block, and again in the backward pass;
      the result is the same up to rounding.

  Returns:
    float32 [B].

  Raises:
    ValueError: if B is 0.

  Sharding: each device sums over its rows; one all-reduce of [B], and one of
  [B, D] in the backward pass.

  Source: the paper's equation for P(i|v); the official code uses `nce_loss`.
  """
  if not embedding.shape[0]:
    raise ValueError('A loss of no clips: the batch is empty.')

  def local_sum(local_bank, embedding):
    rows = local_bank.shape[0]
    first = jax.lax.axis_index(AXIS).astype(jnp.int32) * rows
    # As a value of this device: else the backward pass adds up over the
    # devices after every block.
    embedding = jax.lax.pcast(embedding, AXIS, to='varying')

    def of_block(total, row, is_new):
      products = jnp.einsum(
        'bd,nd->bn',
        embedding,
        row_blocks.read(local_bank, row),
        precision=jax.lax.Precision.HIGHEST,
      )
      is_video = is_new & (first + row < num_videos)
      products = jnp.where(is_video[None, :], products, -jnp.inf)
      # Subtracting the largest possible logit, 1 / t, keeps exp in range.
      # Subtracting the largest that there is takes twice the memory.
      terms = jnp.exp((products - 1.0) / temperature)
      return total + jnp.sum(terms, axis=1)

    block = row_blocks.rows_of_products(embedding.shape[0], product_bytes)
    start = jnp.zeros((embedding.shape[0],), jnp.float32)
    total = row_blocks.fold(
      of_block,
      jax.lax.pcast(start, AXIS, to='varying'),
      num_rows=rows,
      block_rows=block,
      is_differentiated=True,
    )
    return jax.lax.psum(total, AXIS)

  total = jax.shard_map(
    local_sum,
    mesh=mesh,
    in_specs=(PartitionSpec(AXIS, None), PartitionSpec()),
    out_specs=PartitionSpec(),
  )(jax.lax.stop_gradient(bank), embedding)
  return jnp.log(total) + (1.0 - own_similarity) / temperature
