"""Benchmarks print no figures of variants that do not agree."""

import math

import pytest

from tests.benchmarks import benchmark_modules


@pytest.fixture
def local_aggregation(monkeypatch):
  return benchmark_modules.load(monkeypatch, 'local_aggregation')[0]


@pytest.fixture
def kmeans(monkeypatch):
  return benchmark_modules.load(monkeypatch, 'kmeans')[0]


@pytest.mark.parametrize(
  'ours, theirs',
  [
    ((2.0, 0.5), (2.0, 0.501)),
    ((2.0, 0.5), (2.0, math.nan)),
    ((math.nan, 0.5), (2.0, 0.5)),
    ((math.nan, 0.5), (math.nan, 0.5)),
    ((0.0, 0.0), (0.0, 1e-4)),
  ],
)
def test_a_step_that_finds_something_else_ends_the_run(
  local_aggregation, ours, theirs
):
  with pytest.raises(SystemExit, match='Error: a case: '):
    local_aggregation.check('a case', {'vie_jax': [ours], 'PyTorch': [theirs]})


@pytest.mark.parametrize(
  'ours, theirs',
  # Losses and gradients of few rows are 0 up to rounding.
  [((2.0, 0.5), (2.001, 0.5)), ((-1.2e-7, 2.2e-7), (-1.2e-7, 0.0))],
)
def test_rounding_is_no_difference(local_aggregation, ours, theirs):
  local_aggregation.check('a case', {'vie_jax': [ours], 'PyTorch': [theirs]})


def test_blocks_of_fewer_rows_than_neighbors_find_the_same(local_aggregation):
  given = local_aggregation.problem(12, 3, 12, 2, 5)
  values = [
    local_aggregation.SEARCHES[way](given['bank'], given['embedding'], k=12)[0]
    for way in ('top_k of all', 'top_k of 16 blocks, merged')
  ]
  assert (values[0] == values[1]).all()


def test_an_objective_far_above_that_of_the_peer_ends_the_run(kmeans):
  kmeans.check('a case', 100.9, 100.0)
  kmeans.check('a case', 50.0, 100.0)
  for objective, its in (
    (101.1, 100.0),
    (math.nan, 100.0),
    (100.0, math.nan),
  ):
    with pytest.raises(SystemExit, match='a case: the objective is'):
      kmeans.check('a case', objective, its)


@pytest.mark.parametrize('is_warm', [None, False, True])
def test_peers_of_k_means_set_out_from_the_same_centroids(kmeans, is_warm):
  sizes = {'num_videos': 40, 'num_clusters': 4, 'dim': 3}
  first = kmeans.prepare_first(sizes, is_warm)[0]()
  x = kmeans.points(**sizes, has_moved=is_warm is not None)
  if not is_warm:
    assert all((x == centroid).all(axis=1).any() for centroid in first)
  # An iteration of Lloyd by hand.
  distance = ((x[:, None] - first[None]) ** 2).sum(axis=2)
  labels = distance.argmin(axis=1)
  assert set(labels) == set(range(4))
  means = [x[labels == label].mean(axis=0) for label in range(4)]
  expected = ((x[:, None] - means) ** 2).sum(axis=2).min(axis=1).sum()
  run, _ = kmeans.prepare_ours(sizes, 1, is_warm)
  assert run() == pytest.approx(expected, rel=1e-4)
