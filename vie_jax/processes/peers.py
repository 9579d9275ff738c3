"""This process among those of its run, as JAX's service knows them.

Of JAX's coordination service the public interface knows only the start and
the end; its key-value store and barriers are reached as orbax does it.
"""

from typing import Any

import jax
from jax._src import distributed as jax_distributed


def client() -> Any:
  """The connection with JAX's service: a key-value store and barriers."""
  return jax_distributed.global_state.client


def is_shared() -> bool:
  """Whether this process is one of several."""
  state = jax_distributed.global_state
  return state.client is not None and state.num_processes > 1


def describe() -> str:
  """What this process is, for the log: 'process 1 of 2, 4 of 8 devices'."""
  return (
    f'process {jax.process_index()} of {jax.process_count()}, '
    f'{jax.local_device_count()} of {jax.device_count()} devices'
  )


def index() -> int:
  """Number of this process, from 0, without asking for devices."""
  return jax_distributed.global_state.process_id


def address() -> str:
  """HOST:PORT of JAX's service, in process 0."""
  return jax_distributed.global_state.coordinator_address


def count() -> int:
  """Number of processes, without asking for devices."""
  return jax_distributed.global_state.num_processes
