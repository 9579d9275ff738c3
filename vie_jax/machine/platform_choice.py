"""One computation in several ways, of which each kind of device has its own."""

import contextlib
from collections.abc import Callable

import jax

TPU_LANES = 128
"""Numbers that the last axis of an array is filled up to on a TPU."""

_PLATFORMS = ('cpu', 'gpu', 'tpu')
# JAX's names of the platforms that are GPUs.
_GPUS = ('cuda', 'rocm')
# A context of JAX's own: what is traced in it is not taken for what is not.
_ONLY = jax.make_user_context(default_value=None)


def by_platform(
  *arguments,
  others: Callable,
  cpu: Callable | None = None,
  gpu: Callable | None = None,
  tpu: Callable | None = None,
):
  """Computes in the way of the device that the program is compiled for.

  Args:
    *arguments: arrays, or trees of them, of all ways.
    others: function of them, for devices that have no way of their own.
    cpu: the same function, up to rounding, for CPUs.
    gpu: likewise.
    tpu: likewise.

  Returns:
    What the way of the device does.
  """
  if _ONLY.value is not None:
    own = {'cpu': cpu, 'gpu': gpu, 'tpu': tpu}[_ONLY.value]
    return (own or others)(*arguments)
  ways = {'cpu': cpu, **dict.fromkeys(_GPUS, gpu), 'tpu': tpu}
  ways = {name: way for name, way in ways.items() if way is not None}
  return jax.lax.platform_dependent(*arguments, default=others, **ways)


def only(platform: str) -> contextlib.AbstractContextManager[None]:
  """Traces one way alone, for whoever counts what a program does.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.

  Raises:
    ValueError: if it is none of these.
  """
  if platform not in _PLATFORMS:
    raise ValueError(
      f'platform is {platform!r}; known are {", ".join(_PLATFORMS)}.'
    )
  return _ONLY(platform)
