"""One computation in several ways, of which each kind of device has its own."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax

_ONLY = contextvars.ContextVar('only', default=None)


def by_platform(*arguments, cpu: Callable, others: Callable):
  """Computes in the way of the device that the program is compiled for.

  Args:
    *arguments: arrays, of either way.
    cpu: function of them, for CPUs.
    others: the same function, up to rounding, for GPUs and TPUs.

  Returns:
    What the way of the device does.
  """
  only = _ONLY.get()
  if only is None:
    return jax.lax.platform_dependent(*arguments, cpu=cpu, default=others)
  return (cpu if only == 'cpu' else others)(*arguments)


@contextlib.contextmanager
def only(platform: str) -> Iterator[None]:
  """Traces one way alone, for whoever counts what a program does.

  Args:
    platform: 'cpu', or any other kind of device.
  """
  token = _ONLY.set(platform)
  try:
    yield
  finally:
    _ONLY.reset(token)
