"""A tiny run: as a config in this process, or as a command line of its own."""

import os
import pathlib
import signal
import subprocess
import sys

from configs import vie_single, vie_slowfast

REPOSITORY = pathlib.Path(__file__).parents[1]
NUM_STEPS = 24
# Generous: other work may take the processor away.
PATIENCE_SECONDS = 300
BASES = {'vie_single': vie_single, 'vie_slowfast': vie_slowfast}
OVERRIDES = {
  'model.width': 4,
  'model.fast_width': 2,
  'crop.size': 32,
  'crop.short_side_min': 36,
  'crop.short_side_max': 48,
  'crop.eval_short_side': 36,
  'instance_recognition.num_noise': 64,
  'objective.instance_recognition_steps': 10,
  'local_aggregation.num_neighbors': 16,
  'local_aggregation.min_videos_per_cluster': 4,
  'optimizer.learning_rate': 0.003,
  'batch_size': 16,
  'num_steps': NUM_STEPS,
  'log_every_steps': 1,
  'eval_every_steps': 12,
  'checkpoint_every_steps': 4,
  'knn.batch_size': 32,
}
SLOWFAST_OVERRIDES = {'clip.num_frames': 8, 'clip.frame_step': 2}


def overrides_of(base, dataset, **changes):
  """Dotted field -> value; `__` stands for a dot in the names of changes."""
  overrides = OVERRIDES | {'dataset.dir': str(dataset)}
  if base == 'vie_slowfast':
    overrides |= SLOWFAST_OVERRIDES
  return overrides | {
    name.replace('__', '.'): value for name, value in changes.items()
  }


def config(dataset, base='vie_single', **changes):
  """The config of a tiny run."""
  result = BASES[base].get_config()
  result.update_from_flattened_dict(overrides_of(base, dataset, **changes))
  return result


def command(workdir, dataset, base='vie_single', mode='train', **changes):
  """The command line of a tiny run."""
  return [
    sys.executable,
    str(REPOSITORY / 'main.py'),
    f'--config={REPOSITORY / "configs" / base}.py',
    f'--workdir={workdir}',
    f'--mode={mode}',
    *(
      f'--config.{field}={value}'
      for field, value in overrides_of(base, dataset, **changes).items()
    ),
  ]


def environment(num_devices=1):
  """Quick compilation, shared by all runs, and so many devices."""
  return os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': (
      '--xla_backend_optimization_level=0 '
      f'--xla_force_host_platform_device_count={num_devices}'
    ),
    'JAX_COMPILATION_CACHE_DIR': str(REPOSITORY / '.jax_cache'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
  }


def start(arguments, *, num_devices=1, cwd=REPOSITORY, output=subprocess.PIPE):
  """Starts a command in a process group of its own.

  A pipe takes 64 KiB: who prints more waits until somebody reads.
  """
  return subprocess.Popen(
    arguments,
    cwd=cwd,
    env=environment(num_devices),
    stdout=output,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def kill(process):
  """Ends a process and its children at once, as a power cut would."""
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()


def output_of(process, patience_seconds=PATIENCE_SECONDS):
  """Waits for the end of a process; returns what it said, both streams."""
  try:
    output, _ = process.communicate(timeout=patience_seconds)
  except subprocess.TimeoutExpired:
    kill(process)
    raise
  return output


def run(arguments, *, patience_seconds=PATIENCE_SECONDS, **options):
  """Runs a command that must succeed; returns what it said."""
  process = start(arguments, **options)
  output = output_of(process, patience_seconds)
  assert process.returncode == 0, output
  return output


def describe(config, cwd, *arguments):
  """Runs --mode=describe; returns the process, which has ended well."""
  return subprocess.run(
    [
      sys.executable,
      str(REPOSITORY / 'main.py'),
      f'--config={REPOSITORY / "configs" / config}.py',
      '--mode=describe',
      *arguments,
    ],
    capture_output=True,
    check=True,
    cwd=cwd,
    env=environment(),
    text=True,
  )


def prepare(*arguments):
  """Runs data/prepare.py."""
  subprocess.run(
    [sys.executable, str(REPOSITORY / 'data' / 'prepare.py'), *arguments],
    check=True,
    capture_output=True,
  )


def prepare_without_val(demo_dataset, out):
  """Prepares the demo's videos again, all of them for training."""
  prepare(
    'folder',
    f'--videos={demo_dataset.parent / "demo-videos"}',
    f'--out={out}',
    '--val-percent=0',
    '--processes=2',
  )
