"""Every other program that touches rows: objective, evaluation, readouts."""

import math

import compiled_program
import jax
import jax.numpy as jnp
import optax
import pytest
from sharded import programs
from sharded.programs import SMALL_BLOCKS

from vie_jax import sharding
from vie_jax.classifiers import loop
from vie_jax.evaluation import knn, linear_readout, monitors
from vie_jax.objective import instance_recognition, memory_bank
from vie_jax.training import train_reporter

DIM, BATCH = programs.DIM, programs.BATCH
# Not ten million: a kNN search would come in blocks then.
VIDEOS = (2**20 - 5, 3 * 2**20 - 5)
BANK = 4 * DIM


def whole(mesh, *shape, dtype=jnp.float32):
  return programs.array(mesh, shape, dtype, split=False)


def index(mesh, *shape):
  return whole(mesh, *shape, dtype=jnp.int32)


def bank_of(mesh, rows):
  return programs.array(mesh, (rows, DIM))


def labels_of(mesh, rows):
  return jax.ShapeDtypeStruct(
    (3, rows), jnp.int32, sharding=sharding.columns(mesh)
  )


def softmax_gradient(bank, embedding, own, *, num_videos, mesh):
  def total(embedding):
    return instance_recognition.softmax_loss(
      bank,
      embedding,
      own,
      num_videos=num_videos,
      temperature=0.07,
      mesh=mesh,
      product_bytes=SMALL_BLOCKS,
    ).sum()

  return jax.grad(total)(embedding)


def similarity_gradient(bank, embedding, chosen, *, mesh):
  return jax.grad(
    lambda embedding: memory_bank.similarity(
      bank, embedding, chosen, mesh=mesh
    ).sum()
  )(embedding)


def transposed(labels):
  return labels.T


def of_mesh(function):
  """A program of a bank and other arguments."""
  return lambda mesh, rows, number: programs.compiled(
    *function(mesh, rows), mesh=mesh
  )


def searched(queries, k):
  return lambda mesh, rows, number: knn._top_k.lower(
    bank_of(mesh, rows),
    whole(mesh, queries, DIM),
    k=k,
    num_videos=number,
    mesh=mesh,
  ).compile()


# (mesh, rows, number of videos) -> program; bytes that one more row of a
# device costs in arguments, results, and for a while.
PARTS = {
  'take': (
    of_mesh(
      lambda mesh, rows: (
        memory_bank.take,
        bank_of(mesh, rows),
        index(mesh, BATCH, 7),
      )
    ),
    (BANK, 0, 0),
  ),
  'put': (
    of_mesh(
      lambda mesh, rows: (
        memory_bank.put,
        bank_of(mesh, rows),
        index(mesh, BATCH),
        whole(mesh, BATCH, DIM),
      )
    ),
    (BANK, BANK, 0),
  ),
  'similarity and its gradient': (
    of_mesh(
      lambda mesh, rows: (
        similarity_gradient,
        bank_of(mesh, rows),
        whole(mesh, BATCH, DIM),
        index(mesh, BATCH, 7),
      )
    ),
    (BANK, 0, 0),
  ),
  'softmax and its gradient': (
    lambda mesh, rows, number: programs.compiled(
      softmax_gradient,
      bank_of(mesh, rows),
      whole(mesh, BATCH, DIM),
      whole(mesh, BATCH),
      num_videos=number,
      mesh=mesh,
    ),
    (BANK, 0, 0),
  ),
  'kNN search': (
    searched(knn.QUERIES_AT_A_TIME, 11),
    # Products, and the maxima of groups of 16 of them.
    (BANK, 0, (4 + 4 / 16) * knn.QUERIES_AT_A_TIME),
  ),
  'kNN search of one': (searched(1, 11), (BANK, 0, 8)),
  'bank ages': (
    lambda mesh, rows, number: monitors._ages.lower(
      programs.array(mesh, (rows,), jnp.int32),
      index(mesh),
      num_videos=number,
      never=-1,
    ).compile(),
    (4, 0, 9),
  ),
  'effective rank': (
    lambda mesh, rows, number: monitors._second_moment.lower(
      bank_of(mesh, rows),
      whole(mesh, DIM, DIM),
      num_videos=number,
      mesh=mesh,
    ).compile(),
    (BANK, 0, 0),
  ),
  'label share': (
    lambda mesh, rows, number: monitors._take.lower(
      bank_of(mesh, rows), index(mesh, 4096), mesh=mesh
    ).compile(),
    (BANK, 0, 0),
  ),
  'sampled clusters, transposed': (
    lambda mesh, rows, number: programs.compiled(
      transposed, labels_of(mesh, rows)
    ),
    (12, 12, 0),
  ),
  'is finite': (
    lambda mesh, rows, number: train_reporter._is_finite.lower(
      programs.run_of(number, mesh)[2]
    ).compile(),
    (BANK, 0, DIM + 1),
  ),
}


@pytest.mark.parametrize('name', PARTS)
def test_each_device_holds_its_share_and_sends_none_of_it(mesh8, name):
  compile_it, (argument, output, temporary) = PARTS[name]
  rows = [memory_bank.num_rows(number, 8) for number in VIDEOS]
  more_rows = (rows[1] - rows[0]) / 8
  small, large = (
    compile_it(mesh8, *sizes) for sizes in zip(rows, VIDEOS, strict=True)
  )
  assert compiled_program.problems(small, large, more_rows=more_rows) == []
  found = compiled_program.slopes(small, large, more_rows)
  assert found['argument'] == argument
  assert found['output'] == output
  assert found['temp'] <= temporary + 0.5


def test_the_transposed_clusters_are_split_by_rows(mesh8):
  compiled = programs.compiled(transposed, labels_of(mesh8, 8192))
  assert compiled.output_shardings.is_equivalent_to(sharding.rows(mesh8), 2)


CLASSES = 7


def readout_step(mesh, num_features):
  """The step that trains readouts, of features that are there already."""
  sizes, rule = {'conv3': num_features}, optax.trace(0.9)
  init = linear_readout.initializer(sizes, {'motion': CLASSES}, rule, mesh=mesh)

  def step(state, features, labels):
    def loss(params):
      scores = linear_readout.logits(params, features, mesh)
      return linear_readout.cross_entropy(scores['conv3']['motion'], labels)

    gradient = jax.grad(loss)(state.params)
    update, opt_state = rule.update(gradient, state.opt_state)
    params = jax.tree.map(lambda p, u: p - 0.01 * u, state.params, update)
    after = linear_readout.ReadoutState(state.step + 1, params, opt_state)
    return jax.lax.with_sharding_constraint(
      after, linear_readout.layout(after, mesh)
    )

  shapes = jax.eval_shape(init, jax.random.key(0))
  state = programs.spread(shapes, linear_readout.layout(shapes, mesh))
  features = {'conv3': programs.array(mesh, (BATCH, num_features))}
  labels = programs.array(mesh, (BATCH,), jnp.int32)
  arguments = state, features, labels
  step = jax.jit(step, donate_argnums=0).lower(*arguments).compile()
  return init.lower(jax.random.key(0)).compile(), step, state


def test_readouts_and_their_momenta_stay_split(mesh8):
  small, large = 102_400, 409_600
  more_rows = (large - small) / 8
  of_small, of_large = (readout_step(mesh8, size) for size in (small, large))
  # A device's clips with all features, or its features of all clips; as for a
  # kernel, its rows.
  share = max(BATCH, CLASSES) * large / 8
  for one, other in zip(of_small[:2], of_large[:2], strict=True):
    for grown in compiled_program.growing(one, other, more_rows):
      assert math.prod(grown.array.dims) <= share, grown
      # Features travel between the two; no weight does.
      assert grown.instruction.collective in (None, 'all-to-all'), grown
  found = compiled_program.slopes(of_small[1], of_large[1], more_rows)
  # Kernel and momentum, and the share of the batch, which is whole in its
  # features: as much as eight devices' rows of an eighth of the batch.
  assert found['argument'] == 2 * 4 * CLASSES + 4 * BATCH
  assert found['output'] == found['alias'] == 2 * 4 * CLASSES


def test_a_whole_training_state_of_classifiers_is_checked_in_its_place(mesh8):
  small, large = (
    loop._is_finite.lower(readout_step(mesh8, size)[2]).compile()
    for size in (409_600, 1_638_400)
  )
  more_rows = (1_638_400 - 409_600) / 8
  assert compiled_program.problems(small, large, more_rows=more_rows) == []
