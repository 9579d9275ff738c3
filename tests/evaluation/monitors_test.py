import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective import losses_case

from vie_jax import sharding
from vie_jax.evaluation import monitors

NEVER = -1


@pytest.fixture
def mesh(mesh_of_a_step):
  return mesh_of_a_step


def unit(vectors):
  vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
  return vectors.astype(np.float32)


def test_same_video_retrieval_equals_a_loop():
  rng = np.random.default_rng(0)
  num_videos, num_clips = 120, 3  # more clips than are compared at a time
  videos = rng.standard_normal((num_videos, 1, 16))
  embeddings = unit(videos + rng.standard_normal((num_videos, num_clips, 16)))
  flat = embeddings.reshape(-1, 16)
  hits = 0
  for clip, vector in enumerate(flat):
    others = [i for i in range(len(flat)) if i != clip]
    nearest = max(others, key=lambda i: float(vector @ flat[i]))
    hits += nearest // num_clips == clip // num_clips
  result = monitors.same_video_retrieval(embeddings)
  assert 0.1 < result['top1'] < 0.9
  assert result['top1'] == pytest.approx(hits / len(flat))
  assert result['chance'] == pytest.approx(2 / (len(flat) - 1))


def test_same_video_retrieval_looks_at_the_first_videos_only(monkeypatch):
  monkeypatch.setattr(monitors, 'MAX_VIDEOS', 10)
  embeddings = unit(np.random.default_rng(1).standard_normal((30, 2, 8)))
  assert monitors.same_video_retrieval(
    embeddings
  ) == monitors.same_video_retrieval(embeddings[:10])


@pytest.mark.parametrize('num_videos', [8, 64, 1024])
def test_a_bank_along_all_axes_has_full_rank(mesh, num_videos):
  bank = np.tile(np.eye(8, dtype=np.float32), (num_videos // 8, 1))
  rank = monitors.effective_rank(
    losses_case.padded(bank, mesh), num_videos=num_videos, mesh=mesh
  )
  assert rank == pytest.approx(8.0, rel=1e-4)


def test_a_bank_along_one_direction_has_rank_one(mesh):
  direction = unit(np.arange(1.0, 9.0))
  signs = np.where(np.arange(100) % 3 == 0, -1, 1)[:, None]
  bank = (signs * direction).astype(np.float32)
  rank = monitors.effective_rank(
    losses_case.padded(bank, mesh), num_videos=100, mesh=mesh
  )
  assert rank == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize('dim, directions', [(128, 1), (128, 2), (128, 8)])
def test_a_collapsed_bank_has_the_rank_of_its_directions(mesh, dim, directions):
  """Rounding of float32 in the other axes is none."""
  rng = np.random.default_rng(directions)
  axes = np.linalg.qr(rng.standard_normal((dim, directions)))[0].T
  bank = unit(rng.standard_normal((5000, directions)) @ axes)
  singular = np.linalg.svd(bank.astype(np.float64), compute_uv=False)
  share = singular[:directions] / singular[:directions].sum()
  rank = monitors.effective_rank(
    losses_case.padded(bank, mesh), num_videos=5000, mesh=mesh
  )
  assert rank == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)


@pytest.mark.parametrize('block', [65_536, 100])
def test_effective_rank_equals_the_formula_on_singular_values(
  mesh, block, monkeypatch
):
  monkeypatch.setattr(monitors, 'MOMENT_ROWS', block)
  monitors._second_moment.clear_cache()
  rng = np.random.default_rng(2)
  bank = unit(rng.standard_normal((300, 16)) * np.linspace(0.1, 2, 16))
  singular = np.linalg.svd(bank.astype(np.float64), compute_uv=False)
  entropy = 0.0
  for value in singular:
    share = value / singular.sum()
    entropy -= share * np.log(share)
  rank = monitors.effective_rank(
    losses_case.padded(bank, mesh), num_videos=300, mesh=mesh
  )
  monitors._second_moment.clear_cache()
  assert rank == pytest.approx(np.exp(entropy), rel=1e-4)


def test_bank_ages_equal_a_loop(mesh):
  rng = np.random.default_rng(4)
  steps = rng.integers(-1, 50, 300).astype(np.int32)  # -1: never visited
  ages = [60 - step for step in steps.tolist() if step != NEVER]
  result = monitors.bank_ages(
    losses_case.padded(steps, mesh),
    jnp.asarray(60, jnp.int32),
    num_videos=300,
    never=NEVER,
  )
  assert result == {
    'health/bank_age_mean': pytest.approx(np.mean(ages)),
    'health/bank_age_max': max(ages),
    'health/bank_share_never_visited': pytest.approx(1 - len(ages) / 300),
  }


def test_a_bank_that_was_never_visited_has_age_zero(mesh):
  steps = np.full(300, NEVER, np.int32)
  result = monitors.bank_ages(
    losses_case.padded(steps, mesh),
    jnp.asarray(0, jnp.int32),
    num_videos=300,
    never=NEVER,
  )
  assert list(result.values()) == [0.0, 0.0, 1.0]


@pytest.mark.parametrize('k', [1, 10, 500])
def test_label_share_equals_a_loop(mesh, k):
  rng = np.random.default_rng(5)
  labels = rng.integers(-1, 4, 200).astype(np.int32)
  centres = rng.standard_normal((5, 8))
  bank = unit(centres[labels] + rng.standard_normal((200, 8)))
  # As before training: a short row has others that are nearer than itself.
  bank *= rng.uniform(0.3, 1.5, (200, 1)).astype(np.float32)
  same = counted = 0
  for i in range(200):
    if labels[i] < 0:
      continue
    others = [j for j in range(200) if j != i]
    others.sort(key=lambda j, i=i: -float(bank[i] @ bank[j]))
    for j in others[:k]:
      counted += labels[j] >= 0
      same += labels[j] == labels[i]
  share = monitors.label_share(
    losses_case.padded(bank, mesh), labels, k=k, num_videos=200, mesh=mesh
  )
  assert share == pytest.approx(same / counted, abs=1e-3)


def test_label_share_counts_no_video_as_its_own_neighbor(mesh):
  bank = unit(np.ones((6, 4)))  # all the same: who comes first is arbitrary
  labels = np.arange(6, dtype=np.int32)
  share = monitors.label_share(
    losses_case.padded(bank, mesh), labels, k=2, num_videos=6, mesh=mesh
  )
  assert share == 0.0


def test_label_share_without_labels_is_not_a_number(mesh8):
  bank = losses_case.padded(np.eye(8, dtype=np.float32), mesh8)
  labels = np.full(8, -1, np.int32)
  assert np.isnan(
    monitors.label_share(bank, labels, k=3, num_videos=8, mesh=mesh8)
  )


def test_the_sample_is_spread_over_all_videos():
  assert monitors.sample_rows(5).tolist() == [0, 1, 2, 3, 4]
  rows = monitors.sample_rows(1_000_000)
  assert rows.dtype == np.int32
  assert len(set(rows.tolist())) == monitors.SAMPLE_ROWS
  gaps = np.diff(rows)
  assert gaps.max() - gaps.min() <= 1
  assert rows[-1] < 1_000_000


def test_clusters_of_the_sample_are_those_of_the_videos(mesh):
  rng = np.random.default_rng(6)
  clusters = rng.integers(0, 9, (2, 300)).astype(np.int32)
  padded = np.pad(clusters, ((0, 0), (0, 724)), constant_values=77)
  on_mesh = jax.device_put(padded, sharding.columns(mesh))
  sampled = monitors.sampled_clusters(on_mesh, num_videos=300, mesh=mesh)
  np.testing.assert_array_equal(sampled, clusters.T)


def jaccard_distance(old, new):
  both = either = 0
  for i in range(len(old)):
    for j in range(i):
      before, after = old[i] == old[j], new[i] == new[j]
      both += before and after
      either += before or after
  return 1 - both / either


def test_cluster_change_equals_a_loop_over_pairs():
  rng = np.random.default_rng(7)
  before = rng.integers(0, 5, (80, 2)).astype(np.int32)
  moved = rng.uniform(size=(80, 2)) < 0.2
  after = np.where(moved, rng.integers(0, 5, (80, 2)), before)
  expected = np.mean(
    [jaccard_distance(before[:, r], after[:, r]) for r in range(2)]
  )
  assert 0.1 < expected < 0.9
  change = monitors.cluster_change(before, after)
  assert change == pytest.approx(expected)


def test_renaming_clusters_changes_nothing():
  rng = np.random.default_rng(8)
  before = rng.integers(0, 20, (500, 1)).astype(np.int32)
  names = rng.permutation(20).astype(np.int32)
  assert monitors.cluster_change(before, names[before]) == 0.0


def test_independent_clusterings_change_nearly_everything():
  rng = np.random.default_rng(9)
  before, after = rng.integers(0, 50, (2, 2000, 1)).astype(np.int32)
  assert monitors.cluster_change(before, after) > 0.97


def test_videos_that_were_and_stay_alone_have_not_changed():
  alone = np.arange(30, dtype=np.int32)[:, None]
  assert monitors.cluster_change(alone, alone[::-1]) == 0.0


@pytest.mark.parametrize('shape', [(1, 5, 8), (6, 1, 8)])
def test_same_video_retrieval_asks_nothing_of_one_video_or_one_clip(shape):
  assert monitors.same_video_retrieval(np.ones(shape, np.float32)) == {}
