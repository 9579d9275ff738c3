import functools

import jax
import numpy as np
import pytest
from objective import losses_case

from vie_jax import sharding
from vie_jax.objective import nearest_neighbors, row_blocks


def search(bank, query, k, mesh, **options):
  return jax.jit(
    functools.partial(
      nearest_neighbors.top_k,
      k=k,
      num_videos=len(bank),
      mesh=mesh,
      **options,
    )
  )(losses_case.padded(bank, mesh), query)


@pytest.mark.parametrize('k', [1, 10, 700, 1500])
def test_neighbors_equal_a_full_sort(mesh, k):
  rng = np.random.default_rng(k)
  bank = rng.standard_normal((1500, 8)).astype(np.float32)
  query = rng.standard_normal((5, 8)).astype(np.float32)
  similarity, index = search(bank, query, k, mesh)
  products = query @ bank.T
  order = np.argsort(-products, axis=1, kind='stable')[:, :k]
  np.testing.assert_allclose(
    similarity, np.take_along_axis(products, order, 1), atol=1e-5
  )
  found = np.take_along_axis(products, np.asarray(index), 1)
  np.testing.assert_allclose(found, similarity, atol=1e-5)
  assert all(len(set(row)) == k for row in np.asarray(index).tolist())


def test_equal_similarities_give_the_lower_index_on_any_number_of_devices(mesh):
  bank = np.ones((1300, 4), np.float32)
  _, index = search(bank, np.ones((2, 4), np.float32), 1100, mesh)
  np.testing.assert_array_equal(index, np.tile(np.arange(1100), (2, 1)))


@pytest.mark.parametrize(  # a batch of 16 splits over eight devices
  'batch, rows, k',
  [(16, 1, 1), (5, 100, 10), (16, 128, 700), (5, 1000, 700), (5, 700, 3)],
)
def test_blocks_of_any_size_give_the_same_neighbors(mesh, batch, rows, k):
  # Few values: many ties, which must be broken the same way.
  rng = np.random.default_rng(rows)
  bank = rng.integers(-2, 3, (1500, 4)).astype(np.float32)
  query = rng.integers(-2, 3, (batch, 4)).astype(np.float32)
  whole = search(bank, query, k, mesh)
  blocks = search(bank, query, k, mesh, product_bytes=4 * batch * rows)
  np.testing.assert_array_equal(blocks[0], whole[0])
  np.testing.assert_array_equal(blocks[1], whole[1])
  order = np.argsort(-(query @ bank.T), axis=1, kind='stable')[:, :k]
  np.testing.assert_array_equal(whole[1], order)


@pytest.mark.parametrize('number', [1488, 1491, 1503])
@pytest.mark.parametrize('k', [1, 2, 5])
@pytest.mark.parametrize('rows', [2000, 2008])
def test_padding_that_shares_a_group_with_videos_takes_no_place(
  rows, number, k
):
  # A row beyond the videos is better than all of them, and so are, of 2,008
  # rows, those that the block before has searched already: the maxima of two
  # groups mislead.
  mesh = sharding.make_mesh(1)
  rng = np.random.default_rng(number)
  bank = rng.standard_normal((rows, 4)).astype(np.float32)
  query = rng.standard_normal((3, 4)).astype(np.float32)
  bank[number:] = 100 * query[0]
  order = np.argsort(-(query @ bank[:number].T), axis=1, kind='stable')[:, :k]
  for block in (rows, 512, 717):
    size = row_blocks.rows_of_block(rows, block)
    assert nearest_neighbors.is_grouped(size, k) == (size != 2008)
    _, index = jax.jit(
      functools.partial(
        nearest_neighbors.top_k,
        k=k,
        num_videos=number,
        mesh=mesh,
        product_bytes=4 * 3 * block,
      )
    )(bank, query)
    np.testing.assert_array_equal(index, order)


def test_no_queries_have_no_neighbors(mesh):
  bank = np.ones((1300, 4), np.float32)
  similarity, index = search(bank, bank[:0], 10, mesh)
  assert similarity.shape == index.shape == (0, 10)


def test_k_out_of_range_is_refused(mesh8):
  bank = np.ones((20, 4), np.float32)
  with pytest.raises(ValueError, match='k must lie'):
    search(bank, bank[:1], 21, mesh8)
  with pytest.raises(ValueError, match='k must lie'):
    search(bank, bank[:1], 0, mesh8)


@pytest.mark.parametrize('has_nan', [False, True])
def test_tpus_find_groups_and_their_columns_in_another_way(has_nan):
  rng = np.random.default_rng(0)
  products = rng.standard_normal((5, 6 * 128)).astype(np.float32)
  if has_nan:
    products[2, 200] = np.nan
  group = rng.integers(0, 48, (5, 7)).astype(np.int32)
  group[2, 3] = 200 // 16
  columns = products.reshape(5, 48, 16)
  np.testing.assert_array_equal(
    nearest_neighbors.maxima_of_groups_on_tpu(products), columns.max(axis=2)
  )
  np.testing.assert_array_equal(
    nearest_neighbors.maxima_of_groups(products), columns.max(axis=2)
  )
  expected = np.stack([columns[row, group[row]] for row in range(5)])
  for find in (
    nearest_neighbors.columns_of_groups_on_tpu,
    nearest_neighbors.columns_of_groups,
  ):
    np.testing.assert_array_equal(find(products, group), expected)


@pytest.mark.parametrize(
  ('platform', 'videos', 'has_windows'),
  [
    ('tpu', 2048, True),
    ('tpu', 2048 + 16, False),
    ('cuda', 2048, False),
    ('cpu', 2048, False),
  ],
)
def test_only_tpus_search_windows(platform, videos, has_windows):
  mesh = sharding.make_mesh(1)
  bank = jax.ShapeDtypeStruct((videos, 8), np.float32)
  query = jax.ShapeDtypeStruct((4, 8), np.float32)
  traced = jax.jit(
    functools.partial(
      nearest_neighbors.top_k, k=3, num_videos=videos, mesh=mesh
    )
  ).trace(bank, query)
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  assert ('stablehlo.reduce_window' in program) == has_windows
