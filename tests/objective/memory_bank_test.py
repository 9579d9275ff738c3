import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective import losses_case
from oracle import official

from vie_jax import sharding
from vie_jax.objective import memory_bank


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def unit(rng, rows, dim=16):
  vectors = rng.standard_normal((rows, dim)).astype(np.float32)
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize('devices', [1, 2, 8, 256, 1024, 3])
def test_rows_hold_all_videos_and_split_evenly(devices):
  for videos in (1, 40, 1024, 1025, 239_888):
    rows = memory_bank.num_rows(videos, devices)
    assert rows >= videos
    assert rows % devices == 0
    assert rows % memory_bank.ROW_MULTIPLE == 0


@pytest.mark.parametrize(
  ('videos', 'expected'),
  [
    (2500, 3072),
    (131_071, 131_072),
    (131_073, 133_120),
    (239_888, 241_664),
    (10**7, 77 * 2**17),
    (10**9, 7630 * 2**17),
  ],
)
def test_rows_are_the_same_on_any_power_of_two_devices(videos, expected):
  rows = {memory_bank.num_rows(videos, 2**p) for p in range(11)}
  assert rows == {expected}
  assert expected - videos < max(1024, videos / 64)


def test_rows_of_a_device_of_many_are_whole_groups_of_columns():
  for videos, devices in ((239_888, 16), (10**6, 64), (10**7, 1024)):
    assert memory_bank.num_rows(videos, devices) // devices % 128 == 0


def test_initial_rows_are_bounded_as_the_official_ones_and_near_unit_norm():
  bank = np.asarray(memory_bank.init_uniform(jax.random.key(1), 1024, 128))
  assert np.abs(bank).max() <= 0.153094
  assert np.abs(bank).max() > 0.1530
  assert np.linalg.norm(bank, axis=1).mean() == pytest.approx(1.0, abs=0.01)


def test_initial_row_does_not_depend_on_the_number_of_rows():
  small = memory_bank.init_uniform(jax.random.key(1), 1024, 128)
  large = memory_bank.init_uniform(jax.random.key(1), 2048, 128)
  np.testing.assert_array_equal(small, large[:1024])


def test_take_reads_rows_by_global_index(mesh, rng):
  table = rng.integers(0, 1000, (2000, 3)).astype(np.int32)
  index = rng.integers(0, 2000, (4, 5)).astype(np.int32)
  taken = jax.jit(functools.partial(memory_bank.take, mesh=mesh))(
    losses_case.padded(table, mesh), index
  )
  np.testing.assert_array_equal(taken, table[index])


def test_taken_rows_have_the_type_of_the_table(mesh):
  table = np.arange(2000) % 3 == 0
  taken = memory_bank.take(
    losses_case.padded(table[:, None], mesh),
    np.array([3, 4], np.int32),
    mesh=mesh,
  )
  assert taken.dtype == bool
  assert taken.tolist() == [[True], [False]]


def test_put_changes_exactly_the_rows_named(mesh, rng):
  table = rng.standard_normal((2000, 3)).astype(np.float32)
  index = rng.choice(2000, 50, replace=False).astype(np.int32)
  values = rng.standard_normal((50, 3)).astype(np.float32)
  result = jax.jit(functools.partial(memory_bank.put, mesh=mesh))(
    losses_case.padded(table, mesh), index, values
  )
  assert result.sharding.is_equivalent_to(sharding.rows(mesh), 2)
  expected = table.copy()
  expected[index] = values
  np.testing.assert_array_equal(np.asarray(result)[:2000], expected)
  np.testing.assert_array_equal(np.asarray(result)[2000:], 77)


def test_similarity_equals_a_loop_and_so_does_its_gradient(mesh, rng):
  bank, embedding = unit(rng, 1500), unit(rng, 6)
  index = rng.integers(0, 1500, (6, 9)).astype(np.int32)
  weight = rng.standard_normal((6, 9)).astype(np.float32)

  def weighted(embedding, bank):
    products = memory_bank.similarity(bank, embedding, index, mesh=mesh)
    return jnp.sum(weight * products), products

  (_, products), gradient = jax.jit(jax.value_and_grad(weighted, has_aux=True))(
    embedding, losses_case.padded(bank, mesh)
  )
  for b in range(6):
    expected = np.zeros(16)
    for k in range(9):
      row = bank[index[b, k]]
      assert products[b, k] == pytest.approx(row @ embedding[b], abs=1e-6)
      expected += weight[b, k] * row
    np.testing.assert_allclose(gradient[b], expected, atol=1e-5)


@pytest.mark.parametrize(('batch', 'chosen'), [(3, 0), (0, 4)])
def test_no_products_are_empty_and_so_is_their_gradient(mesh, batch, chosen):
  bank = losses_case.padded(np.ones((1300, 16), np.float32), mesh)
  index = np.zeros((batch, chosen), np.int32)

  def total(embedding):
    products = memory_bank.similarity(bank, embedding, index, mesh=mesh)
    assert products.shape == (batch, chosen)
    return jnp.sum(products)

  gradient = jax.grad(total)(jnp.ones((batch, 16)))
  np.testing.assert_array_equal(gradient, np.zeros((batch, 16)))


def test_known_products_are_taken_over_and_receive_the_same_gradient(mesh, rng):
  bank, embedding = losses_case.padded(unit(rng, 1500), mesh), unit(rng, 6)
  index = rng.integers(0, 1500, (6, 9)).astype(np.int32)
  weight = rng.standard_normal((6, 9)).astype(np.float32)

  def weighted(embedding, bank, known):
    products = memory_bank.similarity(
      bank, embedding, index, mesh=mesh, known=known
    )
    return jnp.sum(weight * products), products

  grad = jax.jit(jax.grad(weighted, argnums=(0, 2), has_aux=True))
  known = np.full((6, 9), 0.25, np.float32)
  (given, to_known), products = grad(embedding, bank, known)
  computed = jax.jit(jax.grad(lambda e: weighted(e, bank, None)[0]))(embedding)
  np.testing.assert_array_equal(products, known)
  np.testing.assert_allclose(given, computed, atol=1e-6)
  np.testing.assert_array_equal(to_known, 0.0)


def test_rows_that_take_much_memory_are_gathered_a_few_at_a_time(
  mesh8, rng, monkeypatch
):
  bank, embedding = losses_case.padded(unit(rng, 1500), mesh8), unit(rng, 6)
  index = rng.integers(0, 1500, (6, 9)).astype(np.int32)

  def total(embedding):
    products = memory_bank.similarity(bank, embedding, index, mesh=mesh8)
    return jnp.sum(jnp.square(products)), products

  def gradient():
    return jax.jit(jax.value_and_grad(total, has_aux=True))(embedding)

  at_once = gradient()
  # Four of six embeddings, then the other two.
  monkeypatch.setattr(memory_bank, 'GATHERED_BYTES', 4 * 4 * 9 * 16)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-6),
    gradient(),
    at_once,
  )


def test_the_bank_carries_no_gradient(mesh, rng):
  bank = losses_case.padded(unit(rng, 1000), mesh)
  embedding, index = unit(rng, 2), np.zeros((2, 3), np.int32)

  def total(bank):
    return jnp.sum(memory_bank.similarity(bank, embedding, index, mesh=mesh))

  assert not np.any(jax.jit(jax.grad(total))(bank))


def update(bank, index, embedding, *, momentum, mesh):
  """As a training step does."""
  old = memory_bank.take(bank, index, mesh=mesh)
  new = memory_bank.updated_rows(old, embedding, momentum=momentum)
  return memory_bank.put(bank, index, new, mesh=mesh)


def test_update_equals_the_formula_and_leaves_other_rows_unchanged(mesh, rng):
  bank, embedding = unit(rng, 1500), unit(rng, 8)
  index = rng.choice(1500, 8, replace=False).astype(np.int32)
  new = jax.jit(functools.partial(update, momentum=0.25, mesh=mesh))(
    losses_case.padded(bank, mesh), index, embedding
  )
  expected = bank.copy()
  for row, vector in zip(index, embedding, strict=True):
    mixed = 0.25 * bank[row] + 0.75 * vector
    expected[row] = mixed / np.linalg.norm(mixed)
  np.testing.assert_allclose(np.asarray(new)[:1500], expected, atol=1e-6)
  others = np.setdiff1d(np.arange(1500), index)
  np.testing.assert_array_equal(np.asarray(new)[others], bank[others])


def test_update_equals_the_official_one(mesh):
  case, expected = losses_case.inputs(11), official.load('losses_11.json')
  new = update(
    losses_case.padded(case['bank'], mesh),
    case['instance_index'],
    memory_bank.normalize(jnp.asarray(case['unnormalised'])),
    momentum=0.5,
    mesh=mesh,
  )
  rows = np.asarray(new)[case['instance_index']]
  np.testing.assert_allclose(
    rows[0, :8], expected['new_rows_first'][:8], atol=1e-6
  )
  assert rows.sum() == pytest.approx(expected['new_rows_sum'], rel=1e-5)


def test_an_update_refuses_what_does_not_fit():
  rows = jnp.zeros((2, 4))
  with pytest.raises(ValueError, match='do not match'):
    memory_bank.updated_rows(rows, jnp.zeros((3, 4)), momentum=0.5)
  with pytest.raises(ValueError, match='momentum'):
    memory_bank.updated_rows(rows, rows, momentum=1.0)


def test_normalize_leaves_zero_at_zero():
  vectors = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
  np.testing.assert_allclose(
    memory_bank.normalize(vectors), [[0.6, 0.8], [0.0, 0.0]], atol=1e-6
  )
