import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective import losses_case
from oracle import official

from vie_jax import sharding
from vie_jax.objective import local_aggregation, memory_bank, nearest_neighbors


def test_loss_equals_a_loop():
  rng = np.random.default_rng(0)
  similarity = rng.uniform(-1, 1, (4, 12)).astype(np.float32)
  close = rng.random((4, 12)) < 0.3
  loss, has_close = local_aggregation.loss(similarity, close, temperature=0.07)
  for b in range(4):
    weights = np.exp(similarity[b].astype(np.float64) / 0.07)
    share = sum(w for w, c in zip(weights, close[b], strict=True) if c)
    share /= weights.sum()
    assert loss[b] == pytest.approx(-np.log(share + 1e-7), abs=1e-5)
    assert has_close[b] == close[b].any()


def test_without_close_neighbor_the_loss_is_constant():
  def total(similarity):
    loss, _ = local_aggregation.loss(
      similarity, jnp.zeros((1, 5), bool), temperature=0.07
    )
    return loss[0]

  loss, gradient = jax.value_and_grad(total)(jnp.linspace(-1, 1, 5)[None])
  assert loss == pytest.approx(-np.log(1e-7), rel=1e-5)
  np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize('k', [64, 512])
@pytest.mark.parametrize('clusterings', [1, 3])
def test_loss_and_gradient_equal_the_official_ones(mesh, clusterings, k):
  case, expected = losses_case.inputs(11), official.load('losses_11.json')
  expected = expected[f'la_H{clusterings}_k{k}']
  bank = losses_case.padded(case['bank'], mesh)
  labels = losses_case.padded(case['cluster'][:clusterings].T, mesh).T
  labels = jax.device_put(labels, sharding.columns(mesh))

  def total(unnormalised):
    v = memory_bank.normalize(unnormalised)
    _, neighbor = nearest_neighbors.top_k(
      bank, v, k=k, num_videos=2000, mesh=mesh
    )
    close = local_aggregation.is_close(
      labels, case['instance_index'], neighbor, mesh=mesh
    )
    similarity = memory_bank.similarity(bank, v, neighbor, mesh=mesh)
    loss, _ = local_aggregation.loss(similarity, close, temperature=0.07)
    return jnp.mean(loss)

  loss, gradient = jax.jit(jax.value_and_grad(total))(case['unnormalised'])
  assert loss == pytest.approx(expected['loss'], abs=1e-5)
  assert np.linalg.norm(gradient) == pytest.approx(
    expected['grad_raw_norm'], rel=1e-4
  )
  np.testing.assert_allclose(
    gradient[0, :8],
    expected['grad_raw_first'],
    atol=1e-4 * np.abs(gradient[0]).max(),
  )


def test_close_neighbors_share_any_clustering(mesh):
  labels = np.full((2, 1024), -1, np.int32)
  labels[:, :6] = [[0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 0, 2]]
  close = local_aggregation.is_close(
    jax.device_put(labels, sharding.columns(mesh)),
    jnp.asarray([0, 3], jnp.int32),
    jnp.asarray([[1, 2, 4, 0], [2, 5, 0, 1]], jnp.int32),
    mesh=mesh,
  )
  np.testing.assert_array_equal(
    close, [[True, False, True, True], [True, True, False, False]]
  )
