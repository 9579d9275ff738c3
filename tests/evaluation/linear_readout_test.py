import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vie_jax import sharding
from vie_jax.evaluation import linear_readout

SIZES = {'conv3': 1500, 'conv5': 40}
CLASSES = {'motion': 9, 'appearance': 4}
RULE = optax.chain(optax.add_decayed_weights(1e-4), optax.trace(0.9))


def state_on(mesh):
  init = linear_readout.initializer(SIZES, CLASSES, RULE, mesh=mesh)
  return init(jax.random.key(3))


def features_of(rng, batch=16):
  return {
    layer: rng.standard_normal((batch, size)).astype(np.float32)
    for layer, size in SIZES.items()
  }


def test_scores_are_features_times_kernel_plus_bias(mesh):
  state, rng = state_on(mesh), np.random.default_rng(0)
  features = features_of(rng)
  params = jax.tree.map(lambda leaf: leaf + 0.25, state.params)
  found = jax.jit(lambda p, f: linear_readout.logits(p, f, mesh))(
    params, jax.device_put(features, sharding.rows(mesh))
  )
  for layer, size in SIZES.items():
    for column, count in CLASSES.items():
      head = jax.tree.map(np.asarray, params[layer][column])
      for row in range(16):
        for label in range(count):
          expected = head['bias'][label] + sum(
            float(features[layer][row, place]) * head['kernel'][place, label]
            for place in range(size)
          )
          got = found[layer][column][row, label]
          np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_first_readouts_do_not_depend_on_the_number_of_devices():
  one, eight = (state_on(sharding.make_mesh(count)) for count in (1, 8))
  jax.tree.map(np.testing.assert_array_equal, one, eight)


def test_kernels_start_with_variance_two_over_the_features(mesh8):
  heads = state_on(mesh8).params['conv3']
  kernel = np.asarray(heads['motion']['kernel'])
  assert kernel[:1500].std() == pytest.approx(np.sqrt(2 / 1500), rel=0.03)
  assert np.abs(kernel).max() < 2.01 * np.sqrt(2 / 1500) / 0.8796
  assert not kernel[1500:].any()
  assert not np.asarray(heads['motion']['bias']).any()
  other = np.asarray(heads['appearance']['kernel'])
  assert not np.array_equal(kernel[:40, :4], other[:40])


def test_each_device_holds_its_rows_of_kernels_and_momenta_only(mesh8):
  state = state_on(mesh8)
  kernels = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 2]
  assert len(kernels) == 2 * len(SIZES) * len(CLASSES)
  for kernel in kernels:
    assert kernel.shape[0] % 1024 == 0
    for shard in kernel.addressable_shards:
      assert shard.data.shape[0] == kernel.shape[0] // 8


def test_a_step_never_gathers_a_kernel(mesh8):
  state = state_on(mesh8)
  features = jax.device_put(
    features_of(np.random.default_rng(1)), sharding.rows(mesh8)
  )
  labels = jax.device_put(np.zeros(16, np.int32), sharding.rows(mesh8))

  def step(params, features, labels):
    def loss(params):
      scores = linear_readout.logits(params, features, mesh8)
      return sum(
        linear_readout.cross_entropy(heads[column], labels)
        for heads in scores.values()
        for column in CLASSES
      )

    gradient = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

  place = jax.tree.map(lambda leaf: leaf.sharding, state.params)
  program = (
    jax.jit(step, out_shardings=place)
    .lower(state.params, features, labels)
    .compile()
    .as_text()
  )
  # Per device a kernel has 2048 / 8 rows; no value has all of them.
  assert re.search(r'f32\[256,9\]', program)
  assert not re.search(r'f32\[(2048|1500),[94]\]', program)
  assert not re.search(r'f32\[[94],(2048|1500)\]', program)


def test_loss_is_the_mean_over_clips_of_known_label():
  rng = np.random.default_rng(2)
  scores = rng.standard_normal((6, 4)).astype(np.float32)
  labels = np.array([0, 3, -1, 2, -1, 1], np.int32)
  losses = []
  for row, label in zip(scores.astype(np.float64), labels, strict=True):
    if label >= 0:
      losses.append(np.log(np.exp(row).sum()) - row[label])
  found = linear_readout.cross_entropy(jnp.asarray(scores), labels)
  assert float(found) == pytest.approx(np.mean(losses), rel=1e-6)
  nothing = linear_readout.cross_entropy(scores, np.full(6, -1, np.int32))
  assert float(nothing) == 0
