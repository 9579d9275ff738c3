import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vie_jax import (
  device_augment,
  finite,
  optimizer,
  sharding,
  train_state,
  train_step,
)
from vie_jax.models import networks
from vie_jax.objective import kmeans, memory_bank

NUM_VIDEOS = 300
BATCH = 16
SIZE = 32
METHOD = train_step.Method(
  num_videos=NUM_VIDEOS,
  temperature=0.07,
  bank_momentum=0.5,
  instance_loss='nce',
  num_noise=64,
  num_neighbors=50,
  num_clusters=12,
  kmeans_iterations=5,
)
AUGMENT = functools.partial(
  device_augment.augment,
  size=SIZE,
  flip_probability=0.5,
  brightness=0.4,
  contrast=0.4,
  saturation=0.4,
  hue=0.4,
  grey_probability=0.3,
)
MODEL = networks.build(
  'vie_single',
  embedding_size=16,
  width=4,
  fast_width=1,
  alpha=1,
  dtype='float32',
)


@pytest.fixture
def mesh(mesh_of_a_step):
  return mesh_of_a_step


def batch_of(step):
  rng = np.random.default_rng(step)
  side = SIZE + 8
  corner = rng.uniform(0, 8, (BATCH, 2))
  crop = np.concatenate([corner, np.full((BATCH, 2), float(SIZE))], axis=1)
  return {
    'window': rng.integers(0, 256, (BATCH, 1, side, side, 3), dtype=np.uint8),
    'crop': crop.astype(np.float32),
    'instance_index': rng.permutation(NUM_VIDEOS)[:BATCH].astype(np.int32),
  }


def small_rate(step):
  """At 1e-4, parameters that differ by 1e-7 give losses that differ by 3e-3
  after twelve steps of so small a network, on one device.
  """
  return jnp.full_like(step, 3e-5, jnp.float32)


@functools.cache
def compiled(num_devices, loss='nce', rate=small_rate):
  """(function to the first state, compiled steps) of a small run."""
  mesh = sharding.make_mesh(num_devices)
  method = train_step.Method(**{**vars(METHOD), 'instance_loss': loss})
  rule = optimizer.build('sgd', rate, momentum=0.9, weight_decay=1e-4)
  initialize = train_state.initializer(
    MODEL,
    rule,
    clip_shape=(1, SIZE, SIZE, 3),
    num_videos=NUM_VIDEOS,
    embedding_size=16,
    num_clusterings=2,
    mesh=mesh,
  )
  shapes = initialize.shapes
  steps = train_step.compile_steps(
    shapes,
    model=MODEL,
    optimizer=rule,
    augment=AUGMENT,
    method=method,
    mesh=mesh,
  )
  return initialize, steps


def start(mesh, loss='nce'):
  initialize, steps = compiled(mesh.size, loss)
  return initialize(jax.random.key(0)), steps


def run(mesh, names):
  """Takes steps by name; returns the losses and the last state."""
  state, steps = start(mesh)
  losses = []
  for number, name in enumerate(names):
    if name == 'recluster':
      state, metrics = steps[name](state)
      losses.append(float(metrics['health/kmeans_objective']))
      continue
    batch = sharding.global_batch(batch_of(number), mesh)
    state, metrics = steps[name](state, batch)
    losses.append(float(metrics['train/loss']))
  return np.array(losses), state


@pytest.mark.slow
def test_losses_do_not_depend_on_the_number_of_devices():
  names = ['instance_recognition'] * 6
  one, state_one = run(sharding.make_mesh(1), names)
  eight, state_eight = run(sharding.make_mesh(8), names)
  np.testing.assert_allclose(eight, one, rtol=1e-4)
  np.testing.assert_array_equal(state_one.bank_step, state_eight.bank_step)
  np.testing.assert_allclose(state_one.bank, state_eight.bank, atol=2e-3)


@pytest.mark.slow
def test_no_step_depends_on_the_number_of_devices():
  # From the same state each time: a video at the border of two clusters may
  # fall on either side by rounding, and then another loss follows.
  names = ['recluster'] + ['local_aggregation'] * 6 + ['instance_recognition']
  meshes = {count: sharding.make_mesh(count) for count in (1, 8)}
  state, _ = start(meshes[1])
  for number, name in enumerate(names):
    losses, after = {}, {}
    for count, mesh in meshes.items():
      placed = jax.device_put(
        jax.tree.map(jnp.copy, state), train_state.layout(state, mesh)
      )
      step = compiled(count)[1][name]
      if name == 'recluster':
        after[count], metrics = step(placed)
        losses[count] = float(metrics['health/kmeans_objective'])
      else:
        batch = sharding.global_batch(batch_of(number), mesh)
        after[count], metrics = step(placed, batch)
        losses[count] = float(metrics['train/loss'])
    assert losses[8] == pytest.approx(losses[1], rel=1e-5)
    np.testing.assert_allclose(after[8].bank, after[1].bank, atol=1e-5)
    one, eight = (np.asarray(after[count].cluster_labels) for count in (1, 8))
    assert np.mean(one != eight) < 0.01
    state = after[1]


@pytest.mark.parametrize(
  'name',
  [
    pytest.param('instance_recognition', marks=pytest.mark.slow),
    'local_aggregation',
  ],
)
def test_state_keeps_its_layout_and_no_step_recompiles(mesh8, name, caplog):
  state, steps = start(mesh8)
  layout = train_state.layout(state, mesh8)
  for number in range(3):
    caplog.clear()
    with jax.log_compiles():
      batch = sharding.global_batch(batch_of(number), mesh8)
      state, _ = steps[name](state, batch)
      state, _ = steps['recluster'](state)
    for leaf, expected in zip(
      jax.tree.leaves(state), jax.tree.leaves(layout), strict=True
    ):
      assert leaf.sharding.is_equivalent_to(expected, leaf.ndim)
  assert 'Compiling' not in caplog.text  # the last round
  with jax.log_compiles():
    jax.jit(lambda x: x * 3.0 + 1.0)(np.float32(number))
  assert 'Compiling' in caplog.text  # it would have been seen


def test_clusterings_start_anew_unless_the_method_says_otherwise():
  _, steps = compiled(1)
  assert steps['recluster_again'] is steps['recluster']


def bank_state(mesh, num_clusterings):
  """What a clustering reads and writes of a state, without a network."""
  rows = memory_bank.num_rows(NUM_VIDEOS, mesh.size)
  bank = memory_bank.init_uniform(jax.random.key(4), rows, 16)
  labels = jnp.zeros((num_clusterings, rows), jnp.int32)
  return train_state.TrainState(
    **{field.name: () for field in dataclasses.fields(train_state.TrainState)}
  ).replace(
    bank=jax.device_put(bank, sharding.rows(mesh)),
    cluster_labels=jax.device_put(labels, sharding.columns(mesh)),
  )


jitted_fit = jax.jit(
  kmeans.fit,
  static_argnames=('num_videos', 'num_clusters', 'num_iterations', 'mesh'),
)
jitted_recluster = jax.jit(
  train_step.recluster, static_argnames=('method', 'mesh', 'is_first')
)


def fit(state, mesh, number, num_iterations, last_labels=None):
  """Labels and objective of one clustering alone."""
  found = jitted_fit(
    state.bank,
    num_videos=NUM_VIDEOS,
    num_clusters=METHOD.num_clusters,
    num_iterations=num_iterations,
    mesh=mesh,
    key=jax.random.key(1234 + number),
    last_labels=last_labels,
  )
  return np.asarray(found.labels), float(found.objective[-1])


def cluster(state, mesh, *, is_first, warm_iterations):
  method = dataclasses.replace(METHOD, kmeans_warm_iterations=warm_iterations)
  return jitted_recluster(state, method=method, mesh=mesh, is_first=is_first)


def test_each_clustering_begins_with_rows_of_its_own(mesh):
  state = bank_state(mesh, 3)
  found, metrics = cluster(state, mesh, is_first=True, warm_iterations=2)
  labels = np.asarray(found.cluster_labels)
  objectives = []
  for number in range(3):
    expected, objective = fit(state, mesh, number, METHOD.kmeans_iterations)
    np.testing.assert_array_equal(labels[number], expected)
    objectives.append(objective / NUM_VIDEOS)
  assert float(metrics['health/kmeans_objective']) == pytest.approx(
    np.mean(objectives), rel=1e-5
  )
  videos = labels[:, :NUM_VIDEOS]
  for one, other in ((0, 1), (0, 2), (1, 2)):
    assert not np.array_equal(videos[one], videos[other])


def test_a_later_clustering_goes_on_from_its_own_labels_if_it_is_warm(mesh):
  state = bank_state(mesh, 2)
  state, _ = cluster(state, mesh, is_first=True, warm_iterations=1)
  # Videos move between clusterings.
  moved = jnp.roll(state.bank, 1, axis=1) * 0.3 + state.bank
  state = state.replace(bank=jax.device_put(moved, sharding.rows(mesh)))
  warm, _ = cluster(state, mesh, is_first=False, warm_iterations=1)
  cold, _ = cluster(state, mesh, is_first=False, warm_iterations=0)
  for number in range(2):
    before = state.cluster_labels[number]
    expected, _ = fit(state, mesh, number, 1, last_labels=before)
    np.testing.assert_array_equal(warm.cluster_labels[number], expected)
    anew, _ = fit(state, mesh, number, METHOD.kmeans_iterations)
    np.testing.assert_array_equal(cold.cluster_labels[number], anew)
    assert not np.array_equal(expected, anew)


@jax.jit
def embeddings_before(state, batch):
  """Train-mode embeddings of a batch, computed outside of the step."""
  _, key = jax.random.split(jax.random.fold_in(state.key, state.step))
  clips = AUGMENT(key, batch['window'], batch['crop'])
  result, _ = MODEL.apply(
    {'params': state.params, 'batch_stats': state.batch_stats},
    clips,
    train=True,
    mutable='batch_stats',
  )
  return result


def test_local_aggregation_step_equals_numpy_on_the_bank_of_before(mesh):
  state, steps = start(mesh)
  state, _ = steps['recluster'](state)
  bank = np.asarray(state.bank, np.float64)[:NUM_VIDEOS]
  labels = np.asarray(state.cluster_labels)[:, :NUM_VIDEOS]
  batch = batch_of(0)
  v = np.asarray(embeddings_before(state, batch), np.float64)
  losses, sizes = [], []
  for b, i in enumerate(batch['instance_index']):
    products = bank @ v[b]
    background = np.argsort(-products)[:50]
    close = (labels[:, background] == labels[:, [i]]).any(axis=0)
    weight = np.exp(products[background] / 0.07)
    losses.append(-np.log(weight[close].sum() / weight.sum() + 1e-7))
    sizes.append(close.sum())
  new, metrics = steps['local_aggregation'](
    state, sharding.global_batch(batch, mesh)
  )
  assert metrics['train/loss'] == pytest.approx(np.mean(losses), rel=1e-4)
  assert metrics['health/close_set_size'] == pytest.approx(np.mean(sizes))
  for b, i in enumerate(batch['instance_index']):
    mixed = 0.5 * bank[i] + 0.5 * v[b]
    np.testing.assert_allclose(
      new.bank[i], mixed / np.linalg.norm(mixed), atol=1e-4
    )
  others = np.setdiff1d(np.arange(NUM_VIDEOS), batch['instance_index'])
  np.testing.assert_array_equal(
    np.asarray(new.bank)[others], bank[others].astype(np.float32)
  )
  visited = np.asarray(new.bank_step)
  assert (visited[batch['instance_index']] == 0).all()
  assert (visited[others] == train_state.NEVER).all()


@pytest.mark.parametrize(
  'loss', ['nce', pytest.param('softmax', marks=pytest.mark.slow)]
)
def test_instance_recognition_step_equals_numpy(mesh, loss):
  state, steps = start(mesh, loss)
  bank = np.asarray(state.bank, np.float64)[:NUM_VIDEOS]
  batch = batch_of(0)
  v = np.asarray(embeddings_before(state, batch), np.float64)
  noise_key, _ = jax.random.split(jax.random.fold_in(state.key, state.step))
  noise = jax.random.randint(noise_key, (BATCH, 64), 0, NUM_VIDEOS, jnp.int32)
  losses = []
  for b, i in enumerate(batch['instance_index']):
    weight = np.exp(bank @ v[b] / 0.07)
    if loss == 'softmax':
      losses.append(-np.log(weight[i] / weight.sum()))
      continue
    p, chance = weight / (2876934.2 / 1281167 * NUM_VIDEOS), 64 / NUM_VIDEOS
    total = -np.log(p[i] / (p[i] + chance + 1e-7))
    for j in np.asarray(noise)[b]:
      total -= np.log(chance / (p[j] + chance + 1e-7))
    losses.append(total)
  _, metrics = steps['instance_recognition'](
    state, sharding.global_batch(batch, mesh)
  )
  assert metrics['train/loss'] == pytest.approx(np.mean(losses), rel=1e-4)


def only_at_first(step):
  return jnp.where(step == 0, 0.01, 0.0)


def test_a_skipped_step_counts_for_the_rate(mesh):
  initialize, steps = compiled(mesh.size, rate=only_at_first)
  state = initialize(jax.random.key(0))
  before = jax.tree.map(np.asarray, state.params)
  broken = batch_of(0)
  broken['crop'][0] = np.nan
  for batch, is_skipped in ((broken, True), (batch_of(1), False)):
    state, metrics = steps['instance_recognition'](
      state, sharding.global_batch(batch, mesh)
    )
    assert bool(metrics[finite.FLAG]) == is_skipped
    jax.tree.map(np.testing.assert_array_equal, before, state.params)


def test_filling_the_bank_changes_only_the_bank(mesh):
  state, steps = start(mesh)
  before = jax.tree.map(np.asarray, state.params)
  old = np.asarray(state.bank)
  batch = batch_of(0)
  state = steps['fill_bank'](
    state, sharding.global_batch(batch, mesh), jnp.asarray(0, jnp.int32)
  )
  rows = np.asarray(state.bank)[batch['instance_index']]
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
  others = np.setdiff1d(np.arange(NUM_VIDEOS), batch['instance_index'])
  np.testing.assert_array_equal(np.asarray(state.bank)[others], old[others])
  jax.tree.map(np.testing.assert_array_equal, before, state.params)
  assert int(state.step) == 0


def test_first_state_is_the_same_on_any_number_of_devices():
  one, _ = start(sharding.make_mesh(1))
  eight, _ = start(sharding.make_mesh(8))
  np.testing.assert_array_equal(one.bank, eight.bank)
  np.testing.assert_array_equal(one.cluster_labels, eight.cluster_labels)
  jax.tree.map(np.testing.assert_array_equal, one.params, eight.params)
  expected = memory_bank.num_rows(NUM_VIDEOS, 1)
  assert one.bank.shape == (expected, 16)


def test_nothing_of_the_banks_size_is_gathered(mesh8):
  """No device holds more than its share of the bank's rows."""
  state, steps = start(mesh8)
  batch = sharding.global_batch(batch_of(0), mesh8)
  for name, arguments in (
    ('instance_recognition', (state, batch)),
    ('local_aggregation', (state, batch)),
    ('recluster', (state,)),
  ):
    text = steps[name].lower(*arguments).compile().as_text()
    assert 'f32[128,16]' in text  # a share: 1024 rows on 8 devices
    assert 'f32[1024,16]' not in text
