"""What a run's numbers depend on beside its config: versions, cores, devices.

A checkpoint keeps it. A run that goes on elsewhere says what is different, and
what can still be promised.
"""

import importlib.metadata
import os
import pathlib
import platform

import jax
from absl import logging
from jax.sharding import Mesh

_PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
)
# One of them is installed. Older checkpoints have both.
_TENSORFLOW = ('tensorflow', 'tensorflow-cpu')
# Settings of JAX that decide numbers, or which programs there are, by the names
# that they have in checkpoints. Each is also an environment variable, in capitals.
_SETTINGS = {'matmul precision': 'jax_default_matmul_precision'} | {
  name: name
  for name in (
    'jax_default_prng_impl',
    'jax_threefry_partitionable',
    'jax_random_seed_offset',
    'jax_enable_x64',
    'jax_numpy_dtype_promotion',
    'jax_disable_jit',
    'jax_debug_nans',
    'jax_debug_infs',
  )
}
# Of XLA's, those that name files tell nothing, and are nobody's business.
_NO_NUMBERS = (
  '--xla_dump',
  '--xla_gpu_cuda_data_dir',
  '--xla_gpu_dump_autotune',
  '--xla_gpu_load_autotune',
  '--xla_gpu_per_fusion_autotune_cache_dir',
  '--xla_gpu_kernel_cache_file',
)
_CPU_FEATURES = (
  'sse4_2',
  'avx',
  'avx2',
  'fma',
  'avx512f',
  'avx512_bf16',
  'avx512_vnni',
  'amx_bf16',
  'asimd',
  'sve',
)
# The order of videos and what is drawn for them is TensorFlow's.
_OF_THE_INPUT = ('TensorFlow',)
_OF_THE_MESH = ('devices', 'processes')
_OF_WHAT_IS_DRAWN = (
  'jax_default_prng_impl',
  'jax_threefry_partitionable',
  'jax_random_seed_offset',
)


def settings() -> dict[str, str | int | None]:
  """Versions and settings that all processes of a run have in common.

  Returns:
    name -> value, JSON-compatible; None for what is not there.
  """
  flags = os.environ.get('XLA_FLAGS', '').split()
  numeric = [flag for flag in flags if not flag.startswith(_NO_NUMBERS)]
  return {
    **{name: _version(name) for name in _PACKAGES},
    'TensorFlow': next(filter(None, map(_version, _TENSORFLOW)), None),
    'XLA_FLAGS': ' '.join(sorted(numeric)),
    **{name: _setting(field) for name, field in _SETTINGS.items()},
  }


def _setting(name):
  value = getattr(jax.config, name, None)
  is_plain = value is None or isinstance(value, bool | int | str)
  # Some are of kinds of their own.
  return value if is_plain else str(getattr(value, 'value', value))


def describe(mesh: Mesh) -> dict[str, str | int | None]:
  """The environment of this process, JSON-compatible.

  Args:
    mesh: of the run.

  Returns:
    name -> value, None for what is not there or not set. No paths, no names of
    machines.
  """
  device = mesh.devices.flat[0]
  return {
    'python': platform.python_version(),
    **settings(),
    'NPROC': os.environ.get('NPROC'),
    'platform': device.platform,
    'device kind': device.device_kind,
    'devices': mesh.size,
    'processes': jax.process_count(),
    'cores': _num_cores(),
    'machine': platform.machine(),
    'instruction sets': _instruction_sets(),
  }


def _version(package):
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _num_cores():
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _instruction_sets():
  """Those of the CPU that change how it rounds or in what order it adds."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text('utf-8')
  except OSError:
    return None
  for line in text.splitlines():
    name, _, value = line.partition(':')
    if name.strip() in ('flags', 'Features'):
      found = set(value.split())
      return ' '.join(name for name in _CPU_FEATURES if name in found)
  return None


def differences(old: dict, new: dict) -> dict[str, tuple]:
  """What is different: name -> (old, new), in the order of `describe`.

  The number of cores counts only on a CPU whose threads `NPROC` does not pin.
  """
  tensorflow = next(filter(None, map(old.get, _TENSORFLOW)), None)
  old = {'TensorFlow': tensorflow, **old} if tensorflow else old
  found = {
    name: (old[name], value)
    for name, value in new.items()
    if name in old and old[name] != value
  }
  is_cpu = old.get('platform') == new.get('platform') == 'cpu'
  if not is_cpu or (new['NPROC'] and 'NPROC' not in found):
    found.pop('cores', None)
  return found


def warn_of_changes(old: dict | None, new: dict) -> None:
  """Says in one line what is different, and what is promised all the same.

  Args:
    old: of the checkpoint; None if it is from before this was kept.
    new: of this process.
  """
  if old is None:
    return
  changed = differences(old, new)
  if not changed:
    return
  listing = '; '.join(f'{k}: {a!r} -> {b!r}' for k, (a, b) in changed.items())
  logging.warning(
    'This run goes on in another environment: %s. %s',
    listing,
    _promise(changed),
  )


def _promise(changed):
  if any(name in changed for name in _OF_THE_INPUT):
    return (
      'The restored state is exact; the order of the videos, their crops and '
      'all numbers may differ.'
    )
  if all(name in _OF_THE_MESH for name in changed):
    return (
      'The restored state and the order of the videos are exact; numbers agree '
      'up to rounding, not to the bit.'
    )
  if any(name in changed for name in _OF_WHAT_IS_DRAWN):
    return (
      'The restored state and the order of the videos are exact; what is drawn '
      'on the devices, such as colour noise, and all numbers may differ.'
    )
  return (
    'The restored state and the order of the videos are exact; numbers agree '
    'to a tolerance only.'
  )
