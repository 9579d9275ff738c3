import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective import losses_case
from oracle import official

from vie_jax.objective import instance_recognition, memory_bank


def test_nce_loss_equals_a_loop():
  rng = np.random.default_rng(0)
  own = rng.uniform(-1, 1, 3).astype(np.float32)
  noise = rng.uniform(-1, 1, (3, 20)).astype(np.float32)
  data, rest = instance_recognition.nce_loss(
    own, noise, num_videos=50, temperature=0.1
  )
  z, chance = 2876934.2 / 1281167 * 50, 20 / 50
  for b in range(3):
    p = np.exp(own[b] / 0.1) / z
    assert data[b] == pytest.approx(-np.log(p / (p + chance + 1e-7)), rel=1e-5)
    total = 0.0
    for s in noise[b]:
      total -= np.log(chance / (np.exp(s / 0.1) / z + chance + 1e-7))
    assert rest[b] == pytest.approx(total, rel=1e-5)


def test_nce_loss_and_gradient_equal_the_official_ones(mesh):
  case, expected = losses_case.inputs(11), official.load('losses_11.json')
  expected = expected['ir_4096']
  bank = losses_case.padded(case['bank'], mesh)

  def total(unnormalised):
    v = memory_bank.normalize(unnormalised)
    own = memory_bank.similarity(
      bank, v, case['instance_index'][:, None], mesh=mesh
    )
    noise = memory_bank.similarity(bank, v, case['noise_index'], mesh=mesh)
    data, rest = instance_recognition.nce_loss(
      own[:, 0], noise, num_videos=2000, temperature=0.07
    )
    return jnp.mean(data + rest), (jnp.mean(data), jnp.mean(rest))

  (loss, (data, rest)), gradient = jax.jit(
    jax.value_and_grad(total, has_aux=True)
  )(case['unnormalised'])
  assert loss == pytest.approx(expected['loss'], abs=1e-5)
  assert data == pytest.approx(expected['data_term'], abs=1e-5)
  assert rest == pytest.approx(expected['noise_term'], abs=1e-5)
  assert np.linalg.norm(gradient) == pytest.approx(
    expected['grad_raw_norm'], rel=1e-4
  )
  np.testing.assert_allclose(
    gradient[0, :8],
    expected['grad_raw_first'],
    atol=1e-4 * np.abs(gradient[0]).max(),
  )


def test_loss_of_a_random_bank_starts_where_theory_says():
  # ln(m * 2.2456) for the data term, see the module's formula with P = 1 / Z.
  data, _ = instance_recognition.nce_loss(
    jnp.zeros(1), jnp.zeros((1, 4096)), num_videos=239_888, temperature=0.07
  )
  assert data[0] == pytest.approx(np.log(4096 * 2.2455575 + 1), rel=1e-3)


@pytest.mark.parametrize('rows_at_a_time', [2048, 300, 100])
def test_softmax_loss_and_gradient_equal_numpy(mesh, rows_at_a_time):
  case = losses_case.inputs(5)
  bank, index = case['bank'], case['instance_index']
  v = case['unnormalised']
  v = v / np.linalg.norm(v, axis=1, keepdims=True)
  laid_out = losses_case.padded(bank, mesh)

  def total(v):
    own = memory_bank.similarity(laid_out, v, index[:, None], mesh=mesh)[:, 0]
    loss = instance_recognition.softmax_loss(
      laid_out,
      v,
      own,
      num_videos=2000,
      temperature=0.07,
      mesh=mesh,
      product_bytes=4 * len(v) * rows_at_a_time,
    )
    return jnp.sum(loss), loss

  (_, loss), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(v)
  for b in range(len(v)):
    logits = bank.astype(np.float64) @ v[b] / 0.07
    probability = np.exp(logits - logits.max())
    probability /= probability.sum()
    assert loss[b] == pytest.approx(-np.log(probability[index[b]]), rel=1e-4)
    slope = (probability @ bank - bank[index[b]]) / 0.07
    np.testing.assert_allclose(gradient[b], slope, atol=1e-4)


def test_noise_is_uniform_over_all_videos():
  noise = instance_recognition.draw_noise(
    jax.random.key(0), batch_size=64, num_noise=4096, num_videos=100
  )
  counts = np.bincount(np.asarray(noise).ravel(), minlength=100)
  assert len(counts) == 100
  assert np.abs(counts / counts.mean() - 1).max() < 0.1


def test_a_softmax_loss_of_no_clips_is_refused(mesh):
  bank = losses_case.padded(np.ones((1300, 4), np.float32), mesh)
  with pytest.raises(ValueError, match='no clips'):
    instance_recognition.softmax_loss(
      bank,
      jnp.zeros((0, 4)),
      jnp.zeros(0),
      num_videos=1300,
      temperature=0.07,
      mesh=mesh,
    )


@pytest.mark.parametrize('similarity', [-1.0, 1.0])
def test_nce_loss_is_finite_at_the_lowest_temperature(similarity):
  def total(own, noise):
    data, rest = instance_recognition.nce_loss(
      own, noise, num_videos=10**9, temperature=0.02
    )
    return jnp.sum(data + rest)

  similarities = jnp.full(1, similarity), jnp.full((1, 4096), similarity)
  loss, gradients = jax.value_and_grad(total, argnums=(0, 1))(*similarities)
  assert np.isfinite(loss)
  assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_nce_loss_of_half_precision_is_computed_in_single():
  own = np.array([-0.5, 0.5, 1.0], np.float16)
  noise = np.array([[0.25, 1.0]] * 3, np.float16)
  numbers = {'num_videos': 239_888, 'temperature': 0.07}
  half = instance_recognition.nce_loss(own, noise, **numbers)
  single = instance_recognition.nce_loss(
    own.astype(np.float32), noise.astype(np.float32), **numbers
  )
  np.testing.assert_array_equal(half, single)
