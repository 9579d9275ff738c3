"""One of several processes of two CPU devices each, over gloo.

Arguments: port, number of processes, own number, what to do, workdir. Says on
standard output, behind '> ', what it found.
"""

import sys

import jax


def say(*words):
  print('>', *words, flush=True)


def save(workdir, mesh):
  """Saves steps 1 to 3, of which two are kept."""
  state = checkpoint_program.first_state(mesh)
  with (
    workdir_lock.hold(workdir),
    checkpoint.Checkpoints(workdir, keep=2) as checkpoints,
  ):
    for _ in range(3):
      state = checkpoint_program.train_step(state)
      checkpoints.save(state, {'step': int(state.step)})
    checkpoints.wait()
    checkpoints.poll()
    say('saved', checkpoints.latest_step)


def restore(workdir, mesh):
  """Restores the newest sound step; its sums are those of all devices."""
  with checkpoint.Checkpoints(workdir) as checkpoints:
    shapes = checkpoint_program.shapes(mesh)
    state = checkpoints.read_newest(lambda s: checkpoints.restore(s, shapes))
    digests = leaf_digest.Digests(jax.tree.leaves(state)).values()
    say('restored', int(state.step), *digests)


def fail(workdir, mesh):
  """Has no room in the second process only, for the first of two saves."""
  state = checkpoint_program.first_state(mesh)
  _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  with checkpoint.Checkpoints(workdir) as checkpoints:
    if jax.process_index() == 1:
      resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    checkpoints.save(checkpoint_program.train_step(state), {})
    try:
      checkpoints.wait()
    except checkpoint.SaveFailedError:
      say('failed', checkpoints.latest_step)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    state = checkpoint_program.train_step(checkpoint_program.first_state(mesh))
    checkpoints.save(state, {})
    checkpoints.wait()
    say('saved', checkpoints.latest_step)


def lock(workdir, unused_mesh):
  """Tries to hold what another process holds."""
  try:
    with workdir_lock.hold(workdir):
      say('held')
  except workdir_lock.WorkdirLockedError as error:
    say('refused', error)


if __name__ == '__main__':
  port, count, number, what, workdir = sys.argv[1:]
  jax.config.update('jax_num_cpu_devices', 2)
  jax.distributed.initialize(
    f'localhost:{port}',
    int(count),
    int(number),
    initialization_timeout=120,
    heartbeat_timeout_seconds=100,
  )
  import resource

  from tests.faults import checkpoint_program
  from vie_jax import checkpoint, sharding
  from vie_jax.files import workdir_lock
  from vie_jax.saved_steps import leaf_digest

  todo = {'save': save, 'restore': restore, 'fail': fail, 'lock': lock}
  todo[what](workdir, sharding.make_mesh())
  jax.distributed.shutdown()
