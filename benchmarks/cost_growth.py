"""How time and memory of a training step grow, beside the formulas.

  python benchmarks/cost_growth.py --figure=docs/cost_growth.png \\
      > benchmarks/results/cost_growth-MACHINE.json

Two steps, each against what it depends on:

  Local Aggregation  with a network of one matrix, so that it is the objective
                     that is measured: against the videos N, 10^5 to 10^7, and
                     the batch B
  whole step         of a small VIE-Slow, with augmentation, Local Aggregation
                     over 10,000 videos and the update: against the batch B, the
                     frames T and the side of the square

Time is that of the processor where it is the device, the median of rounds in
which all sizes of a curve take turns; those of N, which do not fit side by
side, run one after the other. Memory is what the compiler plans: arguments,
results that do not take their place, and what is needed for a while. It is
known of all sizes; those that need more than --most-gib are compiled and not
run. The formulas are those of docs/scaling.md, given the speed of a product and
of a copy on this machine. An exponent is the slope of a straight line through
the logarithms: 1 for what grows in proportion.
"""

import dataclasses
import functools
import pathlib
import statistics
import sys

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, bank_programs, result_lines, script

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np

from configs import vie_slow
from vie_jax import (
  blueprint,
  describe,
  device_augment,
  sharding,
  train_state,
  train_step,
)
from vie_jax.objective import memory_bank
from vie_jax.planning import plan, scaling

mpl.use('Agg')
from matplotlib import pyplot, ticker

_GIB = 2**30
_LA, _WHOLE = 'Local Aggregation', 'whole step'
TYPICAL = {
  _LA: {'videos': 10**5, 'batch': 64},
  _WHOLE: {'videos': 10**4, 'batch': 4, 'frames': 8, 'side': 64},
}
AXES = {
  (_LA, 'videos'): (10**5, 3 * 10**5, 10**6, 3 * 10**6, 10**7),
  (_LA, 'batch'): (16, 32, 64, 128, 256, 512),
  (_WHOLE, 'batch'): (2, 4, 8, 16),
  (_WHOLE, 'frames'): (4, 8, 16, 32),
  (_WHOLE, 'side'): (32, 64, 96, 128),
}
_LABELS = {
  'videos': 'videos N',
  'batch': 'clips in a batch B',
  'frames': 'frames of a clip T',
  'side': 'side of the square, pixels',
}
_CHUNK = memory_bank.ROW_MULTIPLE


def exponent(sizes, values):
  """Slope of a straight line through the logarithms.

  Args:
    sizes: positive numbers, two different ones at least.
    values: positive numbers, as many.
  """
  return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def config_of(sizes):
  """The config of the small VIE-Slow.

  Args:
    sizes: 'batch', 'frames' and 'side'.
  """
  config = vie_slow.get_config()
  config.batch_size = sizes['batch']
  config.clip.num_frames = sizes['frames']
  config.model.width = 16
  config.crop.size = sizes['side']
  config.crop.short_side_min = round(256 / 224 * sizes['side'])
  config.crop.short_side_max = round(319 / 224 * sizes['side'])
  config.crop.eval_short_side = config.crop.short_side_min
  config.local_aggregation.num_neighbors = 512
  config.plan.videos = float(sizes['videos'])
  config.plan.devices = 1
  return config


@dataclasses.dataclass(frozen=True)
class Parts:
  """What a step is made of.

  Attributes:
    model: from clips to embeddings.
    clip_shape: (T, H, W, 3) that it sees.
    window_shape: of a batch, uint8.
    augment: from windows to clips.
    network: what the formulas need to know of it.
  """

  model: object
  clip_shape: tuple
  window_shape: tuple
  augment: object
  network: scaling.Network


def _parts(name, sizes):
  batch = sizes['batch']
  if name == _LA:
    return Parts(
      bank_programs.Projection(),
      bank_programs.CLIP,
      (batch, *bank_programs.CLIP),
      lambda key, window, crop: window.astype(jnp.float32),
      bank_programs.NETWORK,
    )
  config = config_of(sizes)
  shape = blueprint.clip_shape(config)
  # Of frames that are stored so small that the window is no larger than it
  # has to be: a resize of the same frames for all sides would hide the rest.
  side = config.crop.short_side_max
  network = dataclasses.replace(
    plan.network_of(
      config, _facts(config), platform=jax.default_backend(), num_clips=batch
    ),
    input_bytes_per_clip=shape[0] * side * side * 3 + 5 * scaling.WORD,
  )
  return Parts(
    blueprint.build_model(config),
    shape,
    (batch, shape[0], side, side, 3),
    functools.partial(
      device_augment.augment,
      size=config.crop.size,
      crops_before_resize=False,
      **config.augmentation,
    ),
    network,
  )


def _facts(config):
  """What `describe` says of the network alone."""
  alone = config.copy_and_resolve_references()
  alone.plan.videos = 0.0
  return describe.description(alone)


class Program:
  """A compiled step on one device, and what the formulas say of it.

  Args:
    name: which of the two steps.
    sizes: name of an axis -> size.
    machine: scaling.Machine.
  """

  def __init__(self, name, sizes, machine):
    config = config_of({'frames': 8, 'side': 64, **sizes})
    self._parts, self._sizes = _parts(name, sizes), sizes
    self._mesh = sharding.make_mesh(1)
    method = blueprint.method_of(config, sizes['videos'])
    self._rule, _ = blueprint.build_optimizer(config)
    shapes = jax.eval_shape(self._first_state, jax.random.key(0))
    step = train_step.compile_steps(
      shapes,
      model=self._parts.model,
      optimizer=self._rule,
      augment=self._parts.augment,
      method=method,
      mesh=self._mesh,
    )['local_aggregation']
    batch = jax.tree.map(
      lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype),
      self._batch(),
    )
    self._step = step.lower(shapes, batch).compile()
    formula = plan.sizes_of(config)
    seconds = scaling.step_seconds(formula, self._parts.network, machine)
    peaks = scaling.peak_bytes(formula, self._parts.network)
    self.formula_seconds = sum(seconds['local_aggregation'].values())
    self.formula_bytes = peaks['local_aggregation']
    memory = self._step.memory_analysis()
    self.bytes = (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes
      + memory.temp_size_in_bytes
    )
    self._state = self._arguments = None

  def _first_state(self, key):
    """A first state, whose bank is drawn a few rows at a time.

    As a run draws it, it would take three times its memory for a while.
    """
    rows = memory_bank.num_rows(self._sizes['videos'], 1)
    clip = jnp.zeros((1, *self._parts.clip_shape), jnp.float32)
    variables = self._parts.model.init(key, clip, train=False)

    def write(number, bank):
      drawn = jax.random.normal(
        jax.random.fold_in(key, number), (_CHUNK, bank_programs.DIM)
      )
      return jax.lax.dynamic_update_slice(
        bank, memory_bank.normalize(drawn), (number * _CHUNK, 0)
      )

    bank = jnp.zeros((rows, bank_programs.DIM), jnp.float32)
    return train_state.TrainState(
      step=jnp.zeros((), jnp.int32),
      key=key,
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      opt_state=self._rule.init(variables['params']),
      bank=jax.lax.fori_loop(0, rows // _CHUNK, write, bank),
      bank_step=jnp.zeros((rows,), jnp.int32),
      # So few that neighbours share them.
      cluster_labels=jnp.arange(rows, dtype=jnp.int32)[None] % 100,
    )

  def _batch(self):
    batch, rng = self._sizes['batch'], np.random.default_rng(0)
    window = self._parts.window_shape
    # y, x, height and width of the crop, in pixels of the window.
    crop = np.tile([0.0, 0.0, window[2], window[3]], (batch, 1))
    return {
      'window': rng.integers(0, 256, window, dtype=np.uint8),
      'crop': crop.astype(np.float32),
      'instance_index': rng.choice(
        self._sizes['videos'], batch, replace=False
      ).astype(np.int32),
    }

  def start(self):
    """Makes what a step works on, and takes one that does not count."""
    self._state = jax.jit(self._first_state)(jax.random.key(0))
    self._arguments = sharding.global_batch(self._batch(), self._mesh)
    self.seconds()

  def seconds(self):
    """Takes a step; returns seconds of `bank_programs.clock`."""
    start = bank_programs.clock()
    self._state, metrics = self._step(self._state, self._arguments)
    jax.block_until_ready((self._state, metrics))
    return bank_programs.clock() - start

  def stop(self):
    """Lets go of its memory."""
    self._state = self._arguments = None


def measure(report, axes, most_bytes):
  """Measures curves.

  Args:
    report: result_lines.Report.
    axes: (step, axis) -> sizes.
    most_bytes: that a program may take, to be run.

  Returns:
    (step, axis) -> list of dicts: `size`, `seconds` (None if it was not run),
    `formula`, `bytes`, `formula_bytes`.
  """
  machine = bank_programs.measured_machine(report.rounds)

  @functools.cache
  def compiled(name, **sizes):
    # Compiling takes longer than running, and curves meet.
    return Program(name, sizes, machine)

  peaks = machine.accelerator
  report.add('this machine', 'product', 'GFLOP/s', peaks.exact_flops / 1e9)
  report.add('this machine', 'copy', 'GB/s', peaks.memory_bandwidth / 1e9)
  curves = {}
  for (name, axis), sizes in axes.items():
    programs = [
      compiled(name, **TYPICAL[name] | {axis: size}) for size in sizes
    ]
    fitting = [program for program in programs if program.bytes <= most_bytes]
    is_alone = axis == 'videos'
    groups = [[program] for program in fitting] if is_alone else [fitting]
    seconds = {}
    for group in groups:
      seconds |= _take_turns(group, report.rounds)
    curves[name, axis] = [
      {
        'size': size,
        'seconds': seconds.get(program),
        'formula': program.formula_seconds,
        'bytes': program.bytes,
        'formula_bytes': program.formula_bytes,
      }
      for size, program in zip(sizes, programs, strict=True)
    ]
    _report(report, name, axis, curves[name, axis])
  return curves


def _take_turns(programs, rounds):
  taken = {program: [] for program in programs}
  for program in programs:
    program.start()
  for _ in range(rounds):
    for program, seconds in taken.items():
      seconds.append(program.seconds())
  for program in programs:
    program.stop()
  return {p: statistics.median(seconds) for p, seconds in taken.items()}


def _report(report, name, axis, rows):
  case = f'{name}, {_LABELS[axis]}'
  add = functools.partial(report.add, case)
  for row in rows:
    variant = f'{row["size"]:,}'
    for metric, value, formula, scale in (
      (bank_programs.unit(), 'seconds', 'formula', 1e3),
      ('MB', 'bytes', 'formula_bytes', 1e-6),
    ):
      if row[value] is not None:
        ratio = {'ratio': row[value] / row[formula], 'ratio_to': 'formula'}
        add(variant, metric, scale * row[value], **ratio)
  for metric, slopes in exponents(rows).items():
    for variant, slope in slopes.items():
      add(f'exponent, {variant}', metric, slope)


def exponents(rows):
  """How a curve grows, from its smallest size on.

  Args:
    rows: see `measure`.

  Returns:
    'exponent of time' (where two sizes were run) and 'exponent of memory' ->
    'measured' and 'formula' -> float, both of the same sizes.
  """
  found = {}
  for metric, value, formula in (
    ('exponent of time', 'seconds', 'formula'),
    ('exponent of memory', 'bytes', 'formula_bytes'),
  ):
    known = [row for row in rows if row[value] is not None]
    if len(known) > 1:
      sizes = [row['size'] for row in known]
      found[metric] = {
        variant: exponent(sizes, [row[column] for row in known])
        for variant, column in (('measured', value), ('formula', formula))
      }
  return found


def draw(curves, path):
  """Draws each curve, the formula as a line, with the exponents above it."""
  figure, axes = pyplot.subplots(
    2, len(curves), figsize=(3.1 * len(curves), 6.6), layout='constrained'
  )
  for column, ((name, axis), rows) in enumerate(curves.items()):
    slopes = exponents(rows)
    color = 'tab:orange' if name == _LA else 'tab:blue'
    for row, (value, formula, scale, metric) in enumerate(
      (
        ('seconds', 'formula', 1e3, 'exponent of time'),
        ('bytes', 'formula_bytes', 1e-6, 'exponent of memory'),
      )
    ):
      plot = axes[row][column]
      known = [found for found in rows if found[value] is not None]
      for column_, style, label in (
        (value, 'o', 'measured' if value == 'seconds' else 'compiled'),
        (formula, '-', 'formula'),
      ):
        shown = known if column_ == value else rows
        plot.plot(
          [found['size'] for found in shown],
          [scale * found[column_] for found in shown],
          style,
          color=color,
          label=label,
        )
      title = f'{name}\n' if row == 0 else ''
      if metric in slopes:
        title += 'exponent {measured:.2f}, formula {formula:.2f}'.format(
          **slopes[metric]
        )
      plot.set_title(title, fontsize=9)
      plot.set_xscale('log')
      plot.set_yscale('log')
      plot.grid(alpha=0.3)
      if axis != 'videos':
        sizes = [found['size'] for found in rows]
        plot.set_xticks(sizes, [f'{size}' for size in sizes])
        plot.xaxis.set_minor_locator(ticker.NullLocator())
      if row:
        plot.set_xlabel(_LABELS[axis])
  axes[0][0].set_ylabel(f'{bank_programs.unit()} of a step')
  axes[1][0].set_ylabel('MB of a step')
  figure.suptitle(
    'points: measured times, and memory of compiled programs; lines: formula',
    fontsize=10,
  )
  figure.savefig(path, dpi=100, format='png')


def main():
  """Prints the figures and draws them."""
  parser = script.parser(__doc__)
  parser.add_argument(
    '--figure',
    type=argument_types.new_file,
    help='PNG to write (default: none)',
  )
  argument_types.add_rounds(parser, 5)
  parser.add_argument(
    '--most-gib',
    type=argument_types.positive,
    default=16,
    help='of a program that is run (default: %(default)s)',
  )
  parser.add_argument(
    '--step', choices=tuple(TYPICAL), help='only this one; both unless given'
  )
  parser.add_argument(
    '--sizes',
    type=argument_types.count,
    help='of each curve, the smallest ones; all unless it is given',
  )
  options = parser.parse_args()
  report = result_lines.Report(
    'cost_growth', rounds=options.rounds, packages=('jax', 'jaxlib', 'numpy')
  )
  axes = {
    (step, axis): sizes[: options.sizes]
    for (step, axis), sizes in AXES.items()
    if options.step in (None, step)
  }
  curves = measure(report, axes, options.most_gib * _GIB)
  report.finish()
  if options.figure:
    draw(curves, options.figure)


if __name__ == '__main__':
  script.run(main)
