"""Compiles the steps of a training for TPUs that are not here.

  pip install 'jax[tpu]==0.10.2'
  python benchmarks/tpu_programs.py \\
      > benchmarks/results/tpu_programs-MACHINE.json

libtpu compiles for a TPU without one. What it plans for a device is compared
with the plan that `--mode=describe --config.plan.videos=N` makes: MiB of a
step, arguments, results that do not take their place and temporary arrays, over
those that the formulas of docs/scaling.md expect. Steps are those of a run: crop
and colour noise, network, objective, update, of the config's batch, in bfloat16.
Nothing is run.
"""

import functools
import os
import pathlib
import sys
import time

# No TPU is looked for, neither here nor at Google's metadata server.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['TPU_SKIP_MDS_QUERY'] = '1'

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import argument_types, program_runs, result_lines, script

import jax
import numpy as np
import optax
from jax.experimental import topologies

from vie_jax import (
  blueprint,
  describe,
  device_augment,
  optimizer,
  sharding,
  train_state,
  train_step,
)
from vie_jax.input_pipeline import augmentation
from vie_jax.planning import plan

_CONFIGS = ('vie_single', 'vie_slow', 'vie_slowfast', 'vie_3dresnet')
# Step of a training -> program of a plan.
_PLANNED = {
  'instance_recognition': 'instance_recognition',
  'local_aggregation': 'local_aggregation',
  'recluster': 'kmeans',
}
_PACKAGES = ('flax', 'jax', 'jaxlib', 'libtpu')
# Topology, as libtpu names it -> accelerator, as the plan does.
_TOPOLOGIES = {
  'v5e:2x4': 'tpu_v5e',
  'v6e:2x4': 'tpu_v6e',
}
_MIB = 2**20


def main():
  """Compiles all steps and prints what they take."""
  parser = script.parser(__doc__)
  parser.add_argument(
    '--configs',
    nargs='+',
    type=argument_types.config,
    default=_CONFIGS,
    help=f'to compile (default: {" ".join(_CONFIGS)})',
  )
  parser.add_argument(
    '--topologies',
    nargs='+',
    choices=list(_TOPOLOGIES),
    default=['v5e:2x4'],
    help='chips (default: v5e:2x4)',
  )
  parser.add_argument(
    '--steps',
    nargs='+',
    choices=list(_PLANNED),
    default=list(_PLANNED),
    help='programs (default: all)',
  )
  parser.add_argument(
    '--videos',
    type=argument_types.count,
    default=239_888,
    help='rows of the bank (default: %(default)s)',
  )
  options = parser.parse_args()
  script.require('libtpu', "pip install 'jax[tpu]==0.10.2'")
  report = result_lines.Report('tpu_programs', rounds=1, packages=_PACKAGES)
  for topology in options.topologies:
    for name in options.configs:
      _report(name, topology, options, report)
  report.finish()


def _report(name, topology, options, report):
  mesh = sharding.mesh_over(
    topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
  )
  config = _config(name, options, mesh)
  config.plan.accelerator = _TOPOLOGIES[topology]
  planned = plan.plan(config, describe.description(config))
  case = (
    f'{name}, {config.batch_size} clips, N = {options.videos:,}, on {topology}'
  )
  lower = _lowering(config, mesh)
  for step in options.steps:
    lowered = lower(step)
    started = time.perf_counter()
    compiled = lowered.compile()
    say = functools.partial(report.add, case, step)
    say('compile s', time.perf_counter() - started)
    memory = compiled.memory_analysis()
    peak = (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes
      + memory.temp_size_in_bytes
    )
    expected = planned['peak_bytes_per_device'][_PLANNED[step]]
    say('arguments MiB', memory.argument_size_in_bytes / _MIB)
    say('temporary MiB', memory.temp_size_in_bytes / _MIB)
    say('all MiB', peak / _MIB, ratio=peak / expected, ratio_to='the plan')


def _config(name, options, mesh):
  config = program_runs.config_of(name)
  config.model.dtype = 'bfloat16'
  config.plan.videos, config.plan.devices = options.videos, mesh.size
  return config


def _lowering(config, mesh):
  """A function that lowers a step of a training for the mesh."""
  model = blueprint.build_model(config)
  rule = optimizer.build(
    config.optimizer.name,
    optax.constant_schedule(config.optimizer.learning_rate),
    momentum=config.optimizer.momentum,
    weight_decay=config.optimizer.weight_decay,
  )
  num_videos = plan.sizes_of(config).num_videos
  initialize = train_state.initializer(
    model,
    rule,
    clip_shape=blueprint.clip_shape(config),
    num_videos=num_videos,
    embedding_size=config.model.embedding_size,
    num_clusterings=config.local_aggregation.num_clusterings,
    mesh=mesh,
  )
  shapes = initialize.shapes
  state = jax.tree.map(_placed, shapes, train_state.layout(shapes, mesh))
  steps = train_step.compile_steps(
    state,
    model=model,
    optimizer=rule,
    augment=functools.partial(
      device_augment.augment, size=config.crop.size, **config.augmentation
    ),
    method=blueprint.method_of(config, num_videos),
    mesh=mesh,
  )
  batch = _batch(config, mesh)

  def lower(name):
    return steps[name].lower(state, *([] if name == 'recluster' else [batch]))

  return lower


def _placed(shape, placement):
  return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=placement)


def _batch(config, mesh):
  side = augmentation.window_size(
    size=config.crop.size,
    short_side=config.crop.short_side_min,
    **plan.STORED_FRAME,
  )
  clips = config.batch_size
  shapes = {
    'window': ((clips, config.clip.num_frames, side, side, 3), np.uint8),
    'crop': ((clips, 4), np.float32),
    'instance_index': ((clips,), np.int32),
  }
  return {
    name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.rows(mesh))
    for name, (shape, dtype) in shapes.items()
  }


if __name__ == '__main__':
  script.run(main)
