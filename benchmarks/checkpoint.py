"""What saving a checkpoint costs a training, beside orbax alone.

  python benchmarks/checkpoint.py > benchmarks/results/checkpoint-MACHINE.json

The state is as large as that of VIE-Single, 11.3 million parameters with their
momentum, with a memory bank of `--videos` rows. The way of orbax alone writes
the same arrays by the same handlers, with no digests, no commit record and
fewer files brought to the disk. All ways take turns, round by round. Metrics:

  blocking ms                 until `save` returns and steps go on
  blocking, % of 60 s         the same, if a save comes every minute
  commit s                    from the start of a save until the step counts
  restore s                   of the whole state; vie_jax checks digests
  MB on the disk              of one step
"""

import pathlib
import statistics
import sys
import tempfile
import time

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, result_lines, script

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from vie_jax import checkpoint, sharding, train_state
from vie_jax.objective import memory_bank

KINETICS_VIDEOS = 239_888
NUM_KERNELS, KERNEL = 43, (512, 512)
SIZE = 128


def first_state(num_videos, mesh):
  """A state of the size of a real one, on the mesh."""
  rows = memory_bank.num_rows(num_videos, mesh.size)
  draw = jax.jit(lambda key: jax.random.normal(key, KERNEL))
  params = {
    f'layer{number}': {'kernel': draw(jax.random.key(number))}
    for number in range(NUM_KERNELS)
  }
  state = train_state.TrainState(
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key(1),
    params=params,
    batch_stats={},
    opt_state=jax.tree.map(lambda leaf: 0.1 * leaf, params),
    bank=memory_bank.init_uniform(jax.random.key(2), rows, SIZE),
    bank_step=jnp.zeros((rows,), jnp.int32),
    cluster_labels=jnp.arange(rows, dtype=jnp.int32)[None],
  )
  return jax.tree.map(jax.device_put, state, train_state.layout(state, mesh))


def shapes_of(state):
  """ShapeDtypeStructs with shardings."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding
    ),
    state,
  )


def megabytes(folder):
  """Bytes of all files in a folder, in millions."""
  return sum(p.stat().st_size for p in folder.rglob('*') if p.is_file()) / 1e6


class OwnWay:
  """Steps with digests and a commit record."""

  name = 'vie_jax'

  def __init__(self, folder):
    self._checkpoints = checkpoint.Checkpoints(folder, keep=1)

  def save(self, state):
    """Starts to save."""
    self._checkpoints.save(state, {})

  def wait(self):
    """Returns when the step counts."""
    self._checkpoints.wait()

  def folder(self, step):
    """Where a step is."""
    return self._checkpoints.directory / str(step)

  def restore(self, step, shapes):
    """Restores a step and checks it."""
    return self._checkpoints.restore(step, shapes)


class OrbaxAlone:
  """The same items by a CheckpointManager."""

  name = 'orbax alone'

  def __init__(self, folder):
    self._folder = folder
    self._manager = ocp.CheckpointManager(
      folder, options=ocp.CheckpointManagerOptions(max_to_keep=1)
    )

  def _items(self, state, way):
    return ocp.args.Composite(
      **{
        item: way({field: getattr(state, field) for field in fields})
        for item, fields in checkpoint.ITEMS.items()
      }
    )

  def save(self, state):
    """Starts to save."""
    args = self._items(state, ocp.args.StandardSave)
    assert self._manager.save(int(state.step), args=args)

  def wait(self):
    """Returns when the step counts."""
    self._manager.wait_until_finished()

  def folder(self, step):
    """Where a step is."""
    return self._folder / str(step)

  def restore(self, step, shapes):
    """Restores a step."""
    args = self._items(shapes, ocp.args.StandardRestore)
    restored = self._manager.restore(step, args=args)
    return [restored[item] for item in checkpoint.ITEMS]


def measure(way, state):
  """One save and one restore: metric -> value."""
  started = time.perf_counter()
  way.save(state)
  blocked = time.perf_counter() - started
  way.wait()
  committed = time.perf_counter() - started
  step = int(state.step)
  size = megabytes(way.folder(step))
  started = time.perf_counter()
  jax.block_until_ready(way.restore(step, shapes_of(state)))
  return {
    'blocking ms': 1000 * blocked,
    'blocking, % of 60 s': 100 * blocked / 60,
    'commit s': committed,
    'restore s': time.perf_counter() - started,
    'MB on the disk': size,
  }


def take_turns(ways, state, rounds):
  """Measures all ways, round by round: name -> figures of each round."""
  found = {way.name: [] for way in ways}
  # The first round compiles, and is not counted.
  for number in range(rounds + 1):
    state = state.replace(step=jnp.asarray(number + 1, jnp.int32))
    for way in ways:
      # A save that is cut short leaves threads, which complain.
      with script.held_back():
        figures = measure(way, state)
      if number:
        found[way.name].append(figures)
  return found


def main():
  """Measures all ways in turn."""
  parser = script.parser(__doc__)
  argument_types.add_rounds(parser, 7)
  parser.add_argument(
    '--videos',
    type=argument_types.count,
    default=KINETICS_VIDEOS,
    help='rows of the memory bank (default: %(default)s)',
  )
  parser.add_argument(
    '--folder',
    type=argument_types.new_folder,
    help='where to save (default: a folder for temporary files)',
  )
  arguments = parser.parse_args()
  report = result_lines.Report(
    'checkpoint',
    rounds=arguments.rounds,
    packages=['jax', 'orbax-checkpoint', 'tensorstore'],
  )
  state = first_state(arguments.videos, sharding.make_mesh())
  with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
    ways = [OwnWay(pathlib.Path(root, 'own'))]
    ways += [OrbaxAlone(pathlib.Path(root, 'orbax'))]
    found = take_turns(ways, state, arguments.rounds)
  case = f'{NUM_KERNELS * KERNEL[0] * KERNEL[1] / 1e6:.1f} million parameters, '
  case += f'memory bank of {arguments.videos:,} videos'
  for name, rounds in found.items():
    for metric in rounds[0]:
      values = [figures[metric] for figures in rounds]
      base = [figures[metric] for figures in found[ways[0].name]]
      has_ratio = name != ways[0].name and '%' not in metric
      report.add(
        case,
        name,
        metric,
        statistics.median(values),
        ratio=result_lines.ratio(values, base) if has_ratio else None,
        ratio_to=ways[0].name,
      )
  report.finish()


if __name__ == '__main__':
  script.run(main)
