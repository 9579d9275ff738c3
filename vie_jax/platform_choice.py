"""One computation in several ways, of which each kind of device has its own."""

import contextlib
from collections.abc import Callable

import jax

# JAX's names of the platforms that are GPUs.
_GPUS = ('cuda', 'rocm')
# A context of JAX's own: what is traced in it is not taken for what is not.
_ONLY = jax.make_user_context(default_value=None)


def by_platform(*arguments, others: Callable, **ways: Callable):
  """Computes in the way of the device that the program is compiled for.

  Args:
    *arguments: arrays, or trees of them, of all ways.
    others: function of them, for devices that have no way of their own.
    **ways: for 'cpu', 'gpu' or 'tpu', the same function, up to rounding.

  Returns:
    What the way of the device does.
  """
  only = _ONLY.value
  if only is not None:
    return ways.get(only, others)(*arguments)
  gpu = ways.pop('gpu', None)
  if gpu is not None:
    ways |= dict.fromkeys(_GPUS, gpu)
  return jax.lax.platform_dependent(*arguments, default=others, **ways)


def only(platform: str) -> contextlib.AbstractContextManager[None]:
  """Traces one way alone, for whoever counts what a program does.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.
  """
  return _ONLY(platform)
