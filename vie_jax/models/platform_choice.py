"""One computation in several ways, of which each kind of device has its own."""

import contextlib
from collections.abc import Callable

import jax

# A context of JAX's own: what is traced in it is not taken for what is not.
_ONLY = jax.make_user_context(default_value=None)


def by_platform(*arguments, cpu: Callable, others: Callable):
  """Computes in the way of the device that the program is compiled for.

  Args:
    *arguments: arrays, of either way.
    cpu: function of them, for CPUs.
    others: the same function, up to rounding, for GPUs and TPUs.

  Returns:
    What the way of the device does.
  """
  only = _ONLY.value
  if only is None:
    return jax.lax.platform_dependent(*arguments, cpu=cpu, default=others)
  return (cpu if only == 'cpu' else others)(*arguments)


def only(platform: str) -> contextlib.AbstractContextManager[None]:
  """Traces one way alone, for whoever counts what a program does.

  Args:
    platform: 'cpu', or any other kind of device.
  """
  return _ONLY(platform)
