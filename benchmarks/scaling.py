"""Time and memory of a step against the formulas of docs/scaling.md.

  python benchmarks/scaling.py --figure=docs/scaling.png \\
      > benchmarks/results/scaling-amd-epyc-2-cores.json

The step of each objective with a network of one matrix, so that it is the
objective that is measured, and k-means of one iteration: against the number of
videos, the batch and the devices. Time is that of the processor, user and
system time of all threads, the median of rounds in which all sizes take turns;
other programs on the machine disturb it less than the clock. The formulas are given this machine's own peaks, measured
first: a matrix product and a copy. Devices are simulated on the same cores, so
that time cannot shrink with them: what all of them do is compared with the sum
of what the formulas say of each. Memory is what the compiler plans for a
device, and is as it would be on eight machines.
"""

import dataclasses
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = ' '.join(
  (
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
  )
)

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, bank_programs, result_lines, script

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax

from vie_jax import optimizer, sharding, train_state, train_step
from vie_jax.planning import scaling

mpl.use('Agg')
from matplotlib import pyplot

ROUNDS = 3
VIDEOS = (2**14, 2**16, 2**18)
BATCHES = (16, 64, 256)
DEVICES = (1, 8)
TYPICAL = {'num_videos': 2**16, 'batch_size': 64, 'num_devices': 1}
STEPS = ('instance_recognition', 'local_aggregation', 'kmeans')
AXES = {
  'videos': ('num_videos', VIDEOS),
  'batch': ('batch_size', BATCHES),
  'devices': ('num_devices', DEVICES),
}


def _sizes(**changes):
  method = {
    'embedding_size': bank_programs.DIM,
    'instance_loss': 'nce',
    'num_noise': 1024,
    'num_neighbors': 512,
    'num_clusters': 256,
    'num_clusterings': 1,
    'kmeans_iterations': 1,
  }
  return scaling.Sizes(**(TYPICAL | method | changes))


@dataclasses.dataclass
class Program:
  """A compiled step, with a state and a batch to run it on.

  Args:
    name: of `STEPS`.
    sizes: what it is compiled for.
  """

  name: str
  sizes: scaling.Sizes

  def __post_init__(self):
    sizes, mesh = self.sizes, sharding.make_mesh(self.sizes.num_devices)
    rule = optimizer.build(
      'sgd', optax.constant_schedule(0.01), momentum=0.9, weight_decay=0.0
    )
    initialize = train_state.initializer(
      bank_programs.Projection(),
      rule,
      clip_shape=bank_programs.CLIP,
      num_videos=sizes.num_videos,
      embedding_size=bank_programs.DIM,
      num_clusterings=sizes.num_clusterings,
      mesh=mesh,
    )
    self._state = initialize(jax.random.key(0))
    steps = train_step.compile_steps(
      self._state,
      model=bank_programs.Projection(),
      optimizer=rule,
      augment=lambda key, window, crop: window.astype(jnp.float32),
      method=train_step.Method(
        num_videos=sizes.num_videos,
        temperature=0.07,
        bank_momentum=0.5,
        instance_loss=sizes.instance_loss,
        num_noise=sizes.num_noise,
        num_neighbors=sizes.num_neighbors,
        num_clusters=sizes.num_clusters,
        kmeans_iterations=sizes.kmeans_iterations,
      ),
      mesh=mesh,
    )
    self._arguments = ()
    step = steps['recluster' if self.name == 'kmeans' else self.name]
    if self.name != 'kmeans':
      rng = np.random.default_rng(0)
      batch = {
        'window': rng.integers(
          0, 256, (sizes.batch_size, *bank_programs.CLIP), dtype=np.uint8
        ),
        'crop': np.zeros((sizes.batch_size, 4), np.float32),
        'instance_index': rng.permutation(sizes.num_videos)[
          : sizes.batch_size
        ].astype(np.int32),
      }
      self._arguments = (sharding.global_batch(batch, mesh),)
    self._step = step.lower(self._state, *self._arguments).compile()

  def seconds(self):
    """Runs once; returns seconds of the processor."""
    started = time.process_time()
    self._state, metrics = self._step(self._state, *self._arguments)
    jax.block_until_ready((self._state, metrics))
    return time.process_time() - started

  def temporary_bytes(self):
    """What the compiler plans beside arguments and results, on a device."""
    return self._step.memory_analysis().temp_size_in_bytes


def _formula_seconds(name, sizes, machine):
  """Of all devices together, which share the cores."""
  if name == 'kmeans':
    each = scaling.kmeans_seconds(sizes, bank_programs.NETWORK, machine)
  else:
    each = sum(
      scaling.step_seconds(sizes, bank_programs.NETWORK, machine)[name].values()
    )
  return each * sizes.num_devices


def measure(report):
  """Runs everything; returns (name, axis) -> rows of figures."""
  rounds = report.rounds
  machine = bank_programs.measured_machine(rounds)
  peaks = machine.accelerator
  report.add('this machine', 'product', 'GFLOP/s', peaks.exact_flops / 1e9)
  report.add('this machine', 'copy', 'GB/s', peaks.memory_bandwidth / 1e9)
  curves = {}
  for axis, (field, values) in AXES.items():
    for name in STEPS:
      if name == 'kmeans' and axis == 'batch':
        continue
      programs = [Program(name, _sizes(**{field: value})) for value in values]
      for program in programs:
        program.seconds()  # first calls warm up
      taken = [[] for _ in programs]
      for _ in range(rounds):
        for program, seconds in zip(programs, taken, strict=True):
          seconds.append(program.seconds())
      curves[name, axis] = [
        {
          'size': value,
          'seconds': statistics.median(seconds),
          'formula': _formula_seconds(name, program.sizes, machine),
          'bytes': program.temporary_bytes(),
          'formula_bytes': scaling.temporary_bytes(program.sizes)[name],
        }
        for value, program, seconds in zip(values, programs, taken, strict=True)
      ]
      _report(report, name, axis, curves[name, axis])
  return curves


def _report(report, name, axis, rows):
  case = f'{name.replace("_", " ")}, {axis}'
  for row in rows:
    variant = f'{row["size"]:,} {axis}'
    report.add(
      case,
      variant,
      'CPU ms',
      1000 * row['seconds'],
      ratio=row['seconds'] / row['formula'],
      ratio_to='formula',
    )
    report.add(
      case,
      variant,
      'temporary MB of a device',
      row['bytes'] / 1e6,
      ratio=row['bytes'] / row['formula_bytes'],
      ratio_to='formula',
    )


def draw(curves, path):
  """Draws time and memory against each axis, formulas as lines."""
  figure, axes = pyplot.subplots(
    2, len(AXES), figsize=(11, 6.5), layout='constrained'
  )
  colors = dict(
    zip(STEPS, ('tab:blue', 'tab:orange', 'tab:green'), strict=True)
  )
  for (name, axis), rows in curves.items():
    column = list(AXES).index(axis)
    sizes = [row['size'] for row in rows]
    for row, (measured, formula, scale) in enumerate(
      (('seconds', 'formula', 1e3), ('bytes', 'formula_bytes', 1e-6))
    ):
      plot = axes[row][column]
      plot.plot(
        sizes,
        [scale * found[measured] for found in rows],
        'o',
        color=colors[name],
        label=name.replace('_', ' '),
      )
      plot.plot(
        sizes, [scale * found[formula] for found in rows], color=colors[name]
      )
  for column, axis in enumerate(AXES):
    for row, label in enumerate(('CPU ms a step', 'temporary MB of a device')):
      plot = axes[row][column]
      plot.set_xscale('log', base=2)
      plot.set_yscale('log')
      plot.grid(alpha=0.3)
      plot.set_xlabel(axis)
      if not column:
        plot.set_ylabel(label)
  figure.legend(
    *axes[0][0].get_legend_handles_labels(),
    loc='outside upper center',
    ncols=len(STEPS),
    frameon=False,
    title='points: measured, lines: formula',
  )
  figure.savefig(path, dpi=110, format='png')


def main():
  """Prints the figures and draws them."""
  parser = script.parser(__doc__)
  parser.add_argument(
    '--figure',
    type=argument_types.new_file,
    help='PNG to write (default: none)',
  )
  argument_types.add_rounds(parser, ROUNDS)
  arguments = parser.parse_args()
  report = result_lines.Report(
    'scaling', rounds=arguments.rounds, packages=('jax', 'jaxlib', 'numpy')
  )
  curves = measure(report)
  report.finish()
  if arguments.figure:
    draw(curves, arguments.figure)


if __name__ == '__main__':
  script.run(main)
