import functools
import types
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective import losses_case
from oracle import official

from vie_jax import sharding
from vie_jax.objective import kmeans


def fit(points, mesh, **settings):
  return jax.jit(
    functools.partial(kmeans.fit, num_videos=len(points), mesh=mesh, **settings)
  )(losses_case.padded(points, mesh), key=jax.random.key(0))


def unit(vectors):
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope='module')
def shared_points():
  """Points and true partition of the faiss fixture."""
  seed = zlib.crc32(b'kmeans_shared')
  rng = np.random.Generator(np.random.PCG64(seed))
  centres = unit(rng.standard_normal((50, 128)))
  truth = rng.integers(0, 50, 5000)
  noise = rng.standard_normal((5000, 128)) / np.sqrt(128)
  points = unit(centres[truth] + noise).astype(np.float32)
  expected = official.load('kmeans.json')
  assert zlib.crc32(points.tobytes()) == expected['data_crc32']
  return points, truth, expected


def rand_index(one, other):
  """Adjusted Rand index, from the pair-counting definition."""
  table = np.zeros((one.max() + 1, other.max() + 1))
  np.add.at(table, (one, other), 1)

  def pairs(counts):
    return (counts * (counts - 1) / 2).sum()

  both = pairs(table)
  rows, columns = pairs(table.sum(1)), pairs(table.sum(0))
  chance = rows * columns / pairs(np.array([len(one)]))
  return (both - chance) / ((rows + columns) / 2 - chance)


def test_clusters_are_as_good_as_those_of_faiss(shared_points, mesh):
  points, truth, expected = shared_points
  result = fit(points, mesh, num_clusters=50, num_iterations=20)
  bounds = expected['suggested_tolerance']
  objective = np.asarray(result.objective)
  assert objective[-1] <= bounds['final_objective_at_most']
  assert objective[-1] >= bounds['final_objective_at_least']
  assert np.all(np.diff(objective) <= 1e-3 * objective[0])
  labels = np.asarray(result.labels)[: len(points)]
  index = rand_index(truth, labels)
  assert index >= bounds['adjusted_rand_index_at_least']


def lloyd(points, centroids, iterations):
  """Plain Lloyd in float64; no cluster may become empty."""
  points = points.astype(np.float64)
  for _ in range(iterations):
    square = ((points[:, None] - centroids[None]) ** 2).sum(-1)
    labels = square.argmin(1)
    centroids = np.stack(
      [points[labels == c].mean(0) for c in range(len(centroids))]
    )
  square = ((points[:, None] - centroids[None]) ** 2).sum(-1)
  return square.argmin(1), square.min(1).sum()


@pytest.mark.parametrize('chunk', [4096, 1024, 100])
def test_iterations_equal_a_loop_from_the_same_start(mesh, chunk):
  rng = np.random.default_rng(3)
  points = rng.standard_normal((1500, 6)).astype(np.float32)
  start = fit(points, mesh, num_clusters=5, num_iterations=0)
  result = fit(points, mesh, num_clusters=5, num_iterations=7, chunk_size=chunk)
  labels, objective = lloyd(points, np.asarray(start.centroids), 7)
  np.testing.assert_array_equal(np.asarray(result.labels)[:1500], labels)
  assert result.objective[-1] == pytest.approx(objective, rel=1e-5)
  np.testing.assert_array_equal(result.sizes, np.bincount(labels))


def test_a_warm_start_goes_on_from_the_means_of_the_last_clusters(mesh):
  rng = np.random.default_rng(3)
  points = rng.standard_normal((1500, 6)).astype(np.float32)
  labels = np.asarray(
    fit(points, mesh, num_clusters=5, num_iterations=2).labels
  )
  moved = points + 0.2 * rng.standard_normal(points.shape).astype(np.float32)
  means = np.stack([moved[labels[:1500] == c].mean(0) for c in range(5)])
  warm = jax.jit(
    functools.partial(
      kmeans.fit, num_videos=1500, num_clusters=5, num_iterations=3, mesh=mesh
    )
  )(
    losses_case.padded(moved, mesh),
    key=jax.random.key(0),
    last_labels=jax.device_put(labels, sharding.rows(mesh)),
  )
  expected, objective = lloyd(moved, means, 3)
  np.testing.assert_array_equal(np.asarray(warm.labels)[:1500], expected)
  assert warm.objective[-1] == pytest.approx(objective, rel=1e-5)


def test_first_centroids_are_distinct_rows_and_the_same_on_any_mesh(mesh):
  rng = np.random.default_rng(3)
  points = rng.standard_normal((1500, 6)).astype(np.float32)
  result = fit(points, mesh, num_clusters=40, num_iterations=0)
  rows = [
    int(np.flatnonzero((points == c).all(1))[0])
    for c in np.asarray(result.centroids)
  ]
  assert len(set(rows)) == 40
  draws = jax.random.uniform(jax.random.key(0), (2048, 1))[:1500, 0]
  assert rows == np.argsort(-np.asarray(draws), kind='stable')[:40].tolist()


def test_padding_belongs_to_no_cluster(mesh):
  points = np.random.default_rng(0).standard_normal((1100, 4))
  result = fit(
    points.astype(np.float32), mesh, num_clusters=3, num_iterations=4
  )
  labels = np.asarray(result.labels)
  assert labels.shape == (2048,)
  np.testing.assert_array_equal(labels[1100:], -1)
  assert result.sizes.sum() == 1100


def test_empty_clusters_are_split_off_the_largest(mesh):
  # Ten places only, so that most first centroids coincide.
  rng = np.random.default_rng(0)
  places = rng.standard_normal((10, 8)).astype(np.float32)
  points = places[rng.integers(0, 10, 1200)]
  points += 1e-3 * rng.standard_normal(points.shape).astype(np.float32)
  result = fit(points, mesh, num_clusters=30, num_iterations=20)
  assert np.all(np.asarray(result.sizes) > 0)
  assert np.isfinite(result.objective).all()


def test_a_split_moves_the_halves_apart_along_all_axes():
  means = jnp.asarray([[2.0, 4.0], [1.0, 1.0], [0.0, 0.0]])
  sizes = jnp.asarray([10, 3, 0], jnp.int32)
  sums = means * sizes.astype(jnp.float32)[:, None]
  moved = np.asarray(kmeans._updated_centroids(means, sums, sizes))
  e = 1 / 1024
  np.testing.assert_allclose(moved[2], [2 * (1 + e), 4 * (1 - e)], rtol=1e-6)
  np.testing.assert_allclose(moved[0], [2 * (1 - e), 4 * (1 + e)], rtol=1e-6)
  np.testing.assert_allclose(moved[1], [1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize('sizes', [[10, 0, 0, 0], [0, 0, 10, 0]])
def test_pieces_of_one_donor_all_differ(sizes):
  sizes = jnp.asarray(sizes, jnp.int32)
  # Where the empty ones were does not matter.
  centroids = jnp.where((sizes > 0)[:, None], jnp.asarray([[2.0, 4.0]]), 9.0)
  sums = centroids * sizes.astype(jnp.float32)[:, None]
  moved = np.asarray(kmeans._updated_centroids(centroids, sums, sizes))
  e = np.arange(1, 4) / 1024
  np.testing.assert_allclose(
    moved[np.asarray(sizes) == 0],
    np.stack([2 * (1 + e), 4 * (1 - e)], axis=1),
    rtol=1e-6,
  )


def test_a_row_that_is_not_finite_belongs_to_one_of_the_clusters(mesh):
  points = np.random.default_rng(0).standard_normal((1100, 4))
  points[17] = np.nan
  labels = fit(
    points.astype(np.float32), mesh, num_clusters=5, num_iterations=0
  ).labels
  labels = np.asarray(labels)[:1100]
  assert labels.min() >= 0
  assert labels.max() < 5


def test_as_many_clusters_as_videos_is_fine_and_more_are_refused(mesh8):
  points = np.random.default_rng(0).standard_normal((20, 4))
  points = points.astype(np.float32)
  result = fit(points, mesh8, num_clusters=20, num_iterations=3)
  assert result.objective[-1] == pytest.approx(0.0, abs=1e-4)
  with pytest.raises(ValueError, match='21 clusters'):
    fit(points, mesh8, num_clusters=21, num_iterations=3)


@pytest.mark.parametrize('name', ['num_clusters', 'chunk_size'])
def test_nothing_at_a_time_and_no_clusters_are_refused_by_name(mesh8, name):
  points = np.zeros((20, 4), np.float32)
  options = {'num_clusters': 5, 'num_iterations': 3, name: 0}
  with pytest.raises(ValueError, match=f'{name} must be at least 1, got 0'):
    fit(points, mesh8, **options)


@pytest.mark.parametrize('columns', [128, 384, 640])
def test_the_first_largest_is_that_of_numpy(columns):
  rng = np.random.default_rng(columns)
  # Few different values, so that most rows have their largest several times.
  score = rng.integers(0, columns // 32, (50, columns)).astype(np.float32)
  score[7] = -np.inf
  best, place = jax.jit(kmeans._first_largest)(score)
  np.testing.assert_array_equal(best, score.max(axis=1))
  np.testing.assert_array_equal(place, score.argmax(axis=1))


def test_nan_is_the_largest_and_has_the_last_place():
  score = np.zeros((2, 128), np.float32)
  score[1, 5] = np.nan
  best, place = kmeans._first_largest(score)
  np.testing.assert_array_equal(best, [0.0, np.nan])
  np.testing.assert_array_equal(place, [0, 127])


@pytest.mark.parametrize(
  ('platform', 'capability', 'is_split'),
  [
    ('gpu', '9.0', True),
    ('gpu', '10.3', True),
    ('gpu', '8.0', True),
    ('gpu', '8.6', False),
    ('gpu', '8.9', False),
    ('gpu', '12.0', False),
    ('gpu', '7.5', False),
    ('gpu', 'gfx942', False),
    ('cpu', None, False),
    ('tpu', None, False),
  ],
)
def test_gpus_with_quick_tensorfloat_add_three_products(
  platform, capability, is_split
):
  device = types.SimpleNamespace(platform=platform)
  if capability:
    device.compute_capability = capability
  precision = kmeans._product_precision(device)
  assert (precision == jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3) == is_split


def test_three_products_are_what_a_gpu_is_told(mesh, monkeypatch):
  preset = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3
  monkeypatch.setattr(kmeans, '_product_precision', lambda device: preset)
  cluster = functools.partial(
    kmeans.fit, num_videos=64, num_clusters=4, num_iterations=2, mesh=mesh
  )
  points = jax.ShapeDtypeStruct((64, 16), jnp.float32)
  traced = jax.jit(cluster).trace(points, key=jax.random.key(0))
  program = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert 'precision_type = tf32' in program


@pytest.mark.parametrize(
  ('platform', 'num_clusters', 'rows'),
  [
    ('cpu', 8000, 1024),
    ('tpu', 8000, 1024),
    ('gpu', 8000, 2**29 // 32000),
    ('gpu', 2**20, 1024),
  ],
)
def test_a_gpu_compares_as_many_rows_as_fit(platform, num_clusters, rows):
  assert kmeans.rows_of_chunk(platform, num_clusters) == rows
