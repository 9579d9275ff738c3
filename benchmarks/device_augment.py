"""Measures what the device's share of the input costs, as a part of a step.

  python benchmarks/device_augment.py > \\
      benchmarks/results/device_augment-MACHINE.json

Prints one JSON object per line; a value is the median of the rounds. Three ways
take turns in each round, on batches that are on the device already:

  whole step            crop, resize, flip, colour noise, then network, loss,
                        gradient and update: what a training does
  step without them     the same from clips that are made already
  crop and noise alone  the rest

Their share of a step is 1 - step without them / whole step. TensorFlow is not
needed. Batches are those of the configs, on one device; --batch-size, --width
and --crop-size make them small enough for a processor.
"""

import functools
import pathlib
import statistics
import sys
import time

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, program_runs, result_lines, script

import jax
import numpy as np

from vie_jax import (
  blueprint,
  device_augment,
  sharding,
  train_state,
  train_step,
)
from vie_jax.input_pipeline import augmentation

_CONFIGS = ('vie_single', 'vie_slowfast', 'vie_3dresnet')
# Sides of stored frames of 16:9.
_SHORT_SIDE, _LONG_SIDE = 320, 569
_NUM_VIDEOS = 8192
_WHOLE, _WITHOUT, _ALONE = (
  'whole step',
  'step without them',
  'crop and noise alone',
)
_PACKAGES = ('flax', 'jax', 'jaxlib', 'numpy', 'optax')


def main():
  """Measures the share for each config and prints it."""
  parser = script.parser(__doc__)
  parser.add_argument(
    '--configs',
    nargs='+',
    type=argument_types.config,
    default=_CONFIGS,
    help=f'of the steps (default: {" ".join(_CONFIGS)})',
  )
  argument_types.add_rounds(parser, 5)
  parser.add_argument(
    '--steps', type=argument_types.count, default=10, help='in a round'
  )
  parser.add_argument(
    '--batch-size', type=argument_types.count, help='else of the config'
  )
  parser.add_argument(
    '--width', type=argument_types.count, help='of the network, likewise'
  )
  parser.add_argument(
    '--crop-size', type=argument_types.count, help='in pixels, likewise'
  )
  parser.add_argument(
    '--dtype', choices=('float32', 'bfloat16'), help='likewise'
  )
  options = parser.parse_args()
  report = result_lines.Report(
    'device_augment', rounds=options.rounds, packages=_PACKAGES
  )
  for name in options.configs:
    config = program_runs.config_of(name)
    config.batch_size = options.batch_size or config.batch_size
    config.model.width = options.width or config.model.width
    config.crop.size = options.crop_size or config.crop.size
    config.model.dtype = options.dtype or config.model.dtype
    _measure(name, config, options, report)
  report.finish()


def _measure(name, config, options, report):
  mesh = sharding.make_mesh(1)
  batch = _batch(config, mesh)
  augment = functools.partial(
    device_augment.augment,
    size=config.crop.size,
    dtype=config.model.dtype,
    **config.augmentation,
  )
  augment_alone = jax.jit(augment)
  clips = augment_alone(jax.random.key(0), batch['window'], batch['crop'])
  made = batch | {'window': clips}
  ways = {
    _WHOLE: _Steps(config, augment, batch, mesh),
    _WITHOUT: _Steps(config, lambda key, clips, crop: clips, made, mesh),
    _ALONE: functools.partial(
      augment_alone, jax.random.key(0), batch['window'], batch['crop']
    ),
  }
  milliseconds = {way: [] for way in ways}
  for run in ways.values():
    jax.block_until_ready(run())  # compiles
  for _ in range(options.rounds):
    for way, run in ways.items():
      before = time.perf_counter()
      for _ in range(options.steps):
        done = run()
      jax.block_until_ready(done)
      took = time.perf_counter() - before
      milliseconds[way].append(1e3 * took / options.steps)
  whole = np.array(milliseconds[_WHOLE])
  case = (
    f'{name}, batch {config.batch_size}, width {config.model.width}, '
    f'{config.crop.size} px, {config.model.dtype}, on '
    f'{jax.devices()[0].device_kind}'
  )
  for way, values in milliseconds.items():
    report.add(
      *(case, way, 'ms', statistics.median(values)),
      ratio=None if way == _WHOLE else result_lines.ratio(values, whole),
      ratio_to=_WHOLE,
    )
  share = 100 * np.median(1 - np.array(milliseconds[_WITHOUT]) / whole)
  report.add(case, _ALONE, 'share of the whole step, %', float(share))


class _Steps:
  """A training that goes on by a step at each call, on the same batch."""

  def __init__(self, config, augment, batch, mesh):
    model, shape = blueprint.build_model(config), blueprint.clip_shape(config)
    rule, _ = blueprint.build_optimizer(config)
    initialize = train_state.initializer(
      model,
      rule,
      clip_shape=shape,
      num_videos=_NUM_VIDEOS,
      embedding_size=config.model.embedding_size,
      num_clusterings=1,
      mesh=mesh,
    )
    self._state = initialize(jax.random.key(0))
    self._batch = batch
    self._step = train_step.compile_steps(
      initialize.shapes,
      model=model,
      optimizer=rule,
      augment=augment,
      method=blueprint.method_of(config, _NUM_VIDEOS),
      mesh=mesh,
    )['instance_recognition']

  def __call__(self):
    self._state, metrics = self._step(self._state, self._batch)
    return metrics


def _batch(config, mesh):
  """Windows as the host sends them, of random pixels."""
  rng, crop, num_clips = (
    np.random.default_rng(0),
    config.crop,
    config.batch_size,
  )
  window = augmentation.window_size(
    size=crop.size,
    short_side=crop.short_side_min,
    max_short_side=_SHORT_SIDE,
    max_long_side=_LONG_SIDE,
  )
  box = augmentation.train_box(
    np.full(num_clips, _SHORT_SIDE),
    np.full(num_clips, _LONG_SIDE),
    size=crop.size,
    short_side_min=crop.short_side_min,
    short_side_max=crop.short_side_max,
    seed=rng.integers(0, 2**62, (num_clips, 2)),
  )
  # Where a window lies does not matter, but the crop is inside of it.
  box[:, :2] = (window - box[:, 2:]) / 2
  shape = num_clips, config.clip.num_frames, window, window, 3
  batch = {
    'window': rng.integers(0, 256, shape, np.uint8),
    'crop': box.astype(np.float32),
    'instance_index': rng.permutation(_NUM_VIDEOS)[:num_clips].astype(np.int32),
  }
  return sharding.global_batch(batch, mesh)


if __name__ == '__main__':
  script.run(main)
