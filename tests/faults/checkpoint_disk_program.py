"""Saves steps while the room for files comes and goes: its last line says how.

Arguments: workdir, tries. Every second save meets a limit of the size of a
file, in place of a full disk, which needs no rights to arrange. In turns that
is too small for the arrays, and for any file.
"""

import resource
import sys

import jax.numpy as jnp
from absl import logging

from tests.faults import checkpoint_program
from vie_jax import checkpoint, sharding
from vie_jax.telemetry import run_log

LIMITS = (0, 100_000)


def main():
  """Every second save fails."""
  logging.use_absl_handler()
  run_log.to_terminal()
  workdir, tries = sys.argv[1], int(sys.argv[2])
  state = checkpoint_program.first_state(sharding.make_mesh(1))
  _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  failures = 0
  with checkpoint.Checkpoints(workdir, keep=2) as checkpoints:
    for step in range(1, 2 * tries + 1):
      state = state.replace(step=jnp.asarray(step, jnp.int32))
      is_full = step % 2 == 0
      limit = LIMITS[step // 2 % len(LIMITS)]
      soft = limit if is_full else resource.RLIM_INFINITY
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
      checkpoints.save(state, {'step': step})
      try:
        checkpoints.wait()
      except checkpoint.SaveFailedError as error:
        failures += 1
        print(error)
        assert is_full
      names = sorted(path.name for path in checkpoints.directory.iterdir())
      assert all(name.isdigit() for name in names), names
      assert checkpoints.latest_step == step - is_full
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    state = state.replace(step=jnp.asarray(2 * tries + 1, jnp.int32))
    checkpoints.save(state, {'step': 2 * tries + 1})
  print(f'{failures} failed saves')


if __name__ == '__main__':
  main()
