"""A checkpoint of each format version is read, or refused by name."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vie_jax import checkpoint, train_state

STORED = pathlib.Path(__file__).parent / 'stored_checkpoint'
RECORD = {'config': {'seed': 0}, 'fingerprint': '0' * 64, 'damage': None}


def state_of_old(mesh):
  """The state that was saved, by arithmetic alone; step 3."""

  def numbers(*shape):
    size = int(np.prod(shape))
    return jnp.arange(size, dtype=jnp.float32).reshape(shape) / 7

  params = {
    'conv1': {'kernel': numbers(3, 3, 3, 4)},
    'out': {'bias': numbers(4)},
  }
  rows = 64
  state = train_state.TrainState(
    step=jnp.asarray(3, jnp.int32),
    key=jax.random.key(5),
    params=params,
    batch_stats={'norm': {'mean': numbers(4), 'var': 1 + numbers(4)}},
    opt_state=optax.trace(0.9).init(params),
    bank=numbers(rows, 8),
    bank_step=jnp.arange(rows, dtype=jnp.int32) - 1,
    cluster_labels=jnp.arange(rows, dtype=jnp.int32)[None] // 2,
  )
  return jax.tree.map(jax.device_put, state, train_state.layout(state, mesh))


def test_version_3_is_read(mesh):
  expected = state_of_old(mesh)
  shapes = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding
    ),
    expected,
  )
  with checkpoint.Checkpoints(
    STORED / 'version_3', read_only=True
  ) as checkpoints:
    assert checkpoints.latest_step == 3
    assert checkpoints.record(3) == RECORD
    state = checkpoints.restore(3, shapes)
  for one, other in zip(
    jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
  ):
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
      one, other = jax.random.key_data(one), jax.random.key_data(other)
    np.testing.assert_array_equal(one, other)


def test_they_are_small():
  files = [path for path in STORED.rglob('*') if path.is_file()]
  assert 10 < len(files) < 100
  assert sum(path.stat().st_size for path in files) < 100_000
