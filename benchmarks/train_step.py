"""Compares a training step of each network with PyTorch, side by side.

  python benchmarks/train_step.py > benchmarks/results/train_step-MACHINE.json

Prints one JSON object per line; a value is the median of the rounds, and a
ratio the median of the rounds' ratios.

A step: embeddings of a batch that is on the device already, a loss, its
gradient, and SGD with momentum; no augmentation and no memory bank, which
`local_aggregation.py` times. PyTorch: peers/torch_networks.py, the same tables
of layers, channels last. Both start from the same weights and see the same
clips. Before anything is printed, the embeddings must agree: those of the first
step, and, less closely, those of the second, which the weights give after an
update.

GFLOP: of the whole step, as XLA counts it before it optimises: what falls on
padding and on zeros between strides is not counted. GFLOP/s are these over the
time of the step, of either.

The time of compiling is left out if JAX_COMPILATION_CACHE_DIR has it from
before.

The default sizes are for a small machine. On a GPU:

  python benchmarks/train_step.py --size 224 --dtype bfloat16 --batch-size 64 \\
      --torch-compile --peak-tflops 989
"""

import functools
import math
import os
import pathlib
import sys
import time
import zlib

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, result_lines, script, turns

import numpy as np

_PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy', 'torch')
_FRAMES = {
  'vie_single': 1,
  'vie_3dresnet': 16,
  'vie_trn': 4,
  'vie_slow': 4,
  'vie_slowfast': 16,
  'vie_twostream_s': 4,
  'vie_twostream_sf': 16,
}
_RULE = {'learning_rate': 0.003, 'momentum': 0.9, 'weight_decay': 1e-4}
# Length of the difference of two embeddings, whose length is 1: before and
# after an update. Batch norm over few small clips enlarges what rounding does.
_MOST_DIFFERENT = {'float32': (1e-3, 0.05), 'bfloat16': (0.1, 0.5)}
# Of each channel in a batch norm. Two become -1 and 1, whatever they are, and
# where they are close, rounding decides which is which; of one nothing is left.
_FEWEST_VALUES = 4


def make(case, shapes):
  """The clips, targets and weights that both start from.

  Args:
    case: dict: `batch_size`, `num_frames` and `size`, in pixels.
    shapes: name -> shape of each weight, kernels [..., in, out].

  Returns:
    (clips float32 [B, T, H, W, 3], targets float32 [B, D] of length 1, name ->
    float32 weight): the same for the same names and shapes.
  """
  from peers import torch_networks

  rng = np.random.default_rng(0)
  size = case['size']
  shape = (case['batch_size'], case['num_frames'], size, size, 3)
  clip = rng.standard_normal(shape, dtype=np.float32)
  target = rng.standard_normal(
    (case['batch_size'], torch_networks.EMBEDDING_SIZE), dtype=np.float32
  )
  target /= np.linalg.norm(target, axis=1, keepdims=True)
  return clip, target, {name: _draw(name, s) for name, s in shapes.items()}


def _draw(name, shape):
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  noise = rng.standard_normal(shape, dtype=np.float32)
  kind = name.rpartition('/')[2]
  if kind == 'kernel':
    return noise * np.float32(np.prod(shape[:-1]) ** -0.5)
  return 0.1 * noise + np.float32(kind == 'scale')


def prepare_ours(case, dtype):
  """The training step of vie_jax's network, compiled."""
  import jax
  import optax

  from vie_jax import optimizer
  from vie_jax.models import networks

  model = networks.build(case['name'], dtype=dtype)
  rule = optimizer.build(
    'sgd',
    optax.constant_schedule(_RULE['learning_rate']),
    momentum=_RULE['momentum'],
    weight_decay=_RULE['weight_decay'],
  )
  params, batch_stats, *arrays = _start(model, case)
  state = jax.device_put((params, batch_stats, rule.init(params)))
  arrays = jax.device_put(arrays)
  step = _step(model, rule)
  lowered = step.lower(state, *arrays)
  start = time.perf_counter()
  compiled = lowered.compile()
  seconds = time.perf_counter() - start
  memory = compiled.memory_analysis()
  gflop = _gflop(step, state, *arrays)
  holder = [state]

  def run():
    holder[0], embedding = compiled(holder[0], *arrays)
    jax.block_until_ready(holder[0])
    return np.asarray(embedding)

  return run, {
    'gflop': gflop,
    'compile': seconds,
    'memory': (memory.temp_size_in_bytes + memory.argument_size_in_bytes)
    / 2**20,
  }


def _start(model, case):
  """(weights, batch statistics, clips, targets) to begin with."""
  import jax
  import jax.numpy as jnp

  clip_shape = (1, case['num_frames'], case['size'], case['size'], 3)
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    jax.ShapeDtypeStruct(clip_shape, jnp.float32),
  )
  paths, structure = jax.tree_util.tree_flatten_with_path(shapes['params'])
  names = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
    for path, leaf in paths
  }
  clip, target, weights = make(case, names)
  params = jax.tree.unflatten(structure, [weights[name] for name in names])
  batch_stats = jax.tree_util.tree_map_with_path(
    lambda path, leaf: np.full(leaf.shape, 'var' in str(path[-1]), np.float32),
    shapes['batch_stats'],
  )
  return params, batch_stats, clip, target


def _step(model, rule):
  """A jitted step: (weights, statistics, moments), clips, targets."""
  import jax
  import jax.numpy as jnp
  import optax

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, clip, target):
    params, batch_stats, opt_state = state

    def loss_of(params):
      embedding, updated = model.apply(
        {'params': params, 'batch_stats': batch_stats},
        clip,
        train=True,
        mutable='batch_stats',
      )
      loss = -jnp.mean(jnp.sum(embedding * target, axis=1))
      return loss, (updated['batch_stats'], embedding)

    (_, (batch_stats, embedding)), gradient = jax.value_and_grad(
      loss_of, has_aux=True
    )(params)
    updates, opt_state = rule.update(gradient, opt_state, params)
    state = optax.apply_updates(params, updates), batch_stats, opt_state
    return state, embedding

  return step


def _gflop(step, *arguments):
  """GFLOP of a jitted step, counted for a CPU: for GPUs XLA does not count."""
  import jax

  shapes = jax.eval_shape(lambda *arrays: arrays, *arguments)
  with jax.default_device(jax.local_devices(backend='cpu')[0]):
    return step.lower(*shapes).cost_analysis()['flops'] / 1e9


def main():
  """Runs all comparisons and prints them."""
  options, cases = _asked_for()
  script.require('torch')
  report = result_lines.Report(
    'train_step', rounds=options.rounds, packages=_PACKAGES
  )
  for case in cases:
    _compare(case, options, report)
  report.finish()


def _asked_for():
  """(options, cases) of the command line."""
  parser = script.parser(__doc__)
  parser.add_argument(
    '--networks',
    nargs='+',
    choices=list(_FRAMES),
    default=list(_FRAMES),
    help='to compare (default: all)',
  )
  parser.add_argument(
    '--batch-size',
    type=argument_types.count,
    default=4,
    help='clips (default: %(default)s)',
  )
  parser.add_argument(
    '--size',
    type=argument_types.count,
    default=112,
    help='pixels; of VIE-3DResNet at most 112 (default: %(default)s)',
  )
  argument_types.add_rounds(parser, 5)
  parser.add_argument(
    '--dtype',
    choices=list(_MOST_DIFFERENT),
    default='float32',
    help='of the convolutions (default: %(default)s)',
  )
  parser.add_argument(
    '--torch-compile',
    action='store_true',
    help='also compare what torch.compile makes in its default mode',
  )
  parser.add_argument(
    '--huge-pages',
    action='store_true',
    help='of memory, on Linux, for all of them',
  )
  parser.add_argument(
    '--peak-tflops',
    type=argument_types.positive,
    help='of the device, for the utilisation (default: not told)',
  )
  options = parser.parse_args()
  cases = [
    {
      'name': name,
      'num_frames': _FRAMES[name],
      # VIE-3DResNet is made for half the resolution of the others.
      'size': min(options.size, 112 if name == 'vie_3dresnet' else math.inf),
      'batch_size': options.batch_size,
    }
    for name in options.networks
  ]
  for case in cases:
    if too_small := why_too_small(case):
      parser.error(too_small)
  return options, cases


def why_too_small(case):
  """What to say of a case whose embeddings would not agree; '' of a larger one.

  Sides are halved five times before the last batch norm and, in VIE-3DResNet,
  frames four times.
  """
  frames, batch_size = case['num_frames'], case['batch_size']
  if case['name'] == 'vie_3dresnet':
    frames = math.ceil(frames / 2**4)
  side = math.ceil(case['size'] / 2**5)
  if batch_size * frames * side**2 >= _FEWEST_VALUES:
    return ''
  batch = math.ceil(_FEWEST_VALUES / (frames * side**2))
  larger = math.ceil(math.sqrt(_FEWEST_VALUES / (frames * batch_size)))
  return (
    f'--batch-size: {batch_size} x {case["size"]} px are too little for '
    f'{case["name"]}, whose last batch norm needs {_FEWEST_VALUES} values of '
    f'each channel for two libraries to agree; take --batch-size={batch} or '
    f'--size={2**5 * (larger - 1) + 1}, or more'
  )


def _compare(case, options, report):
  from peers import torch_networks

  theirs = {'make': make, 'case': case, 'rule': _RULE, 'dtype': options.dtype}
  variants = {
    'vie_jax': (prepare_ours, {'case': case, 'dtype': options.dtype}),
    'PyTorch': (torch_networks.prepare, theirs | {'compiles': False}),
  }
  if options.torch_compile:
    variants['PyTorch, compiled'] = (
      torch_networks.prepare,
      theirs | {'compiles': True},
    )
  found = turns.take_turns(
    variants,
    rounds=options.rounds,
    environment=turns.HUGE_PAGES if options.huge_pages else {},
  )
  title = (
    f'{case["name"]}, {case["batch_size"]} clips of {case["num_frames"]} x '
    f'{case["size"]} px, {options.dtype}' + ', huge pages' * options.huge_pages
  )
  _check(title, found, _MOST_DIFFERENT[options.dtype])
  gflop = found['vie_jax'].facts['gflop']
  for name, variant in found.items():
    say = functools.partial(report.add, title, name)
    wall, cpu = {}, {}
    if name == 'vie_jax':
      peer = found['PyTorch']
      wall, cpu = (
        {'ratio': ratio, 'ratio_to': 'PyTorch'}
        for ratio in (variant.ratio(peer), variant.cpu_ratio(peer))
      )
    seconds = variant.milliseconds / 1000
    say('wall ms', variant.milliseconds, **wall)
    say('CPU ms', variant.cpu_milliseconds, **cpu)
    say('clips per second', case['batch_size'] / seconds)
    say('GFLOP/s', gflop / seconds)
    if options.peak_tflops:
      say('utilisation, %', gflop / seconds / options.peak_tflops / 10)
    if name == 'vie_jax':
      say('GFLOP of a step', gflop)
      say('memory MiB', variant.facts['memory'])
      if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        say('compile s', variant.facts['compile'])


def _check(title, found, bounds):
  """Ends the run unless all variants embed alike in the first two steps."""
  for name, variant in found.items():
    steps = zip(
      (variant.first, variant.results[0]),
      (found['PyTorch'].first, found['PyTorch'].results[0]),
      bounds,
      strict=True,
    )
    for own, its, bound in steps:
      apart = np.linalg.norm(own - its, axis=1).max()
      if not apart <= bound:
        sys.exit(f'Error: {title}: embeddings of {name} are {apart:.2g} apart.')


if __name__ == '__main__':
  script.run(main)
