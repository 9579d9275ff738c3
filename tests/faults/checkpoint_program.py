"""A training that is all state and checkpoints, to be killed: no videos.

It has a real `TrainState` and optimiser, says on standard output what it does,
and sleeps between steps as if a device computed:

  resumed STEP      or -1, when it starts
  step STEP         when a step is done
  saving STEP       when a save has begun
  done
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import optax

from vie_jax import checkpoint, sharding, train_state

WIDTH, ROWS, SIZE = 64, 4096, 64


def _init():
  keys = jax.random.split(jax.random.key(0), 3)
  params = {
    'dense': {'kernel': jax.random.normal(keys[0], (WIDTH, SIZE))},
    'head': {'kernel': jax.random.normal(keys[1], (SIZE, SIZE))},
  }
  return train_state.TrainState(
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key(1),
    params=params,
    batch_stats={'mean': jnp.zeros(SIZE)},
    opt_state=optax.adamw(1e-2).init(params),
    bank=jax.random.normal(keys[2], (ROWS, SIZE)),
    bank_step=jnp.full((ROWS,), train_state.NEVER, jnp.int32),
    cluster_labels=jnp.arange(ROWS, dtype=jnp.int32)[None],
  )


def first_state(mesh):
  """The state of step 0, laid out on the mesh."""
  layout = train_state.layout(jax.eval_shape(_init), mesh)
  return jax.jit(_init, out_shardings=layout)()


def shapes(mesh):
  """The ShapeDtypeStructs of a state, with shardings."""
  state = jax.eval_shape(_init)
  return jax.tree.map(
    lambda leaf, layout: leaf.update(sharding=layout),
    state,
    train_state.layout(state, mesh),
  )


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state):
  """Changes every leaf, by gradients and draws that depend on the step."""
  key = jax.random.fold_in(state.key, state.step)
  inputs = jax.random.normal(key, (16, WIDTH))
  rows = jax.random.choice(key, ROWS, (16,), replace=False)

  def loss_of(params):
    hidden = jnp.tanh(inputs @ params['dense']['kernel'])
    outputs = hidden @ params['head']['kernel']
    return jnp.mean((outputs - state.bank[rows]) ** 2), outputs

  (_, outputs), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
  updates, opt_state = optax.adamw(1e-2).update(
    grads, state.opt_state, state.params
  )
  bank = 0.5 * state.bank.at[rows].get() + 0.5 * outputs
  return state.replace(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats={'mean': 0.9 * state.batch_stats['mean'] + outputs.mean(0)},
    opt_state=opt_state,
    bank=state.bank.at[rows].set(bank),
    bank_step=state.bank_step.at[rows].set(state.step),
    cluster_labels=jnp.roll(state.cluster_labels, 1, axis=1),
  )


def train(arguments, mesh):
  """Trains to the end, from the newest checkpoint."""
  with checkpoint.Checkpoints(
    arguments.workdir, keep=arguments.keep
  ) as checkpoints:

    def read(step):
      assert checkpoints.record(step) == {'step': step}
      return checkpoints.restore(step, shapes(mesh))

    state = checkpoints.read_newest(read)
    print('resumed', -1 if state is None else int(state.step), flush=True)
    state = first_state(mesh) if state is None else state
    while int(state.step) < arguments.num_steps:
      state = train_step(state)
      step = int(state.step)
      time.sleep(arguments.seconds_per_step)
      print('step', step, flush=True)
      if step % arguments.save_every == 0:
        checkpoints.save(state, {'step': step})
        print('saving', step, flush=True)
  print('done', flush=True)


def main():
  """Reads the command line."""
  parser = argparse.ArgumentParser()
  parser.add_argument('workdir')
  parser.add_argument('--num-steps', type=int, default=100)
  parser.add_argument('--save-every', type=int, default=10)
  parser.add_argument('--seconds-per-step', type=float, default=0.03)
  parser.add_argument('--keep', type=int)
  train(parser.parse_args(), sharding.make_mesh(1))


if __name__ == '__main__':
  main()
