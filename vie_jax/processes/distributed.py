"""Several processes as one run: they find each other, and end together.

JAX connects the processes; all of them then run the same program on their own
devices. What they do together is in `agreement`, what ends them in `ending`.
"""

import dataclasses
import os
import socket
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from vie_jax import sharding
from vie_jax.processes import (
  agreement,
  ending,
  exit_codes,
  peers,
  preemption,
  process_environment,
)
from vie_jax.processes.process_environment import DistributedError


@dataclasses.dataclass(frozen=True)
class Timeouts:
  """How long processes wait for each other, in seconds.

  Attributes:
    connect: for all of them to start.
    heartbeat: for a sign of life, before a process counts as lost.
    shutdown: at the end, when all are done.
  """

  connect: int = 300
  heartbeat: int = 20
  shutdown: int = 60


def initialize(choice: str, timeouts: Timeouts | None = None) -> None:
  """Connects this process with the others of the run, if there are any.

  To be called before anything asks JAX for a device. Standard output is kept
  for the program itself: what libraries print there goes to standard error.
  A process whose others do not come ends with `exit_codes.RETRY` and one line.

  Args:
    choice: see `process_environment.find_start`.
    timeouts: of the run; None for the default ones.

  Raises:
    DistributedError: if the environment is wrong, or the processes see
      different numbers of devices.
  """
  arguments = process_environment.find_start(choice, os.environ)
  if arguments is None:
    return
  if arguments.get('num_processes') != 1:
    _keep_stdout()
  _connect(arguments, timeouts or Timeouts())
  if not peers.is_shared():
    return
  ending.Watch.start()
  agreement.check_same({'number of devices': jax.local_device_count()})
  _connect_devices()


def _connect_devices():
  """Makes the connections of devices while all processes are together.

  On CPUs they are made when they are first used, and gloo fails where one
  process comes half a minute after another: that happens when both compile.
  Once they are there, it waits.
  """
  multihost_utils.sync_global_devices('connect')
  mesh = sharding.make_mesh()
  numbers = sharding.place(np.ones(mesh.size, np.float32), sharding.rows(mesh))
  add = jax.jit(jnp.sum, out_shardings=sharding.replicated(mesh))
  add(numbers).block_until_ready()


def _connect(arguments, timeouts):
  """Starts JAX's service; does not wait for the others longer than asked."""
  address = arguments.get('coordinator_address')
  if arguments.get('process_id') == 0 and address:
    _check_port(address)
  connected = threading.Event()

  def give_up():
    # A thread: JAX ends the process with a dump of its stack otherwise.
    if not connected.wait(timeouts.connect):
      logging.error('%s', _unreachable(arguments, timeouts.connect))
      ending.exit_now(exit_codes.RETRY)

  threading.Thread(target=give_up, daemon=True).start()
  try:
    # A signal reaches no Python while JAX waits for the others.
    with preemption.SIGNALS.leaving():
      jax.distributed.initialize(
        **arguments,
        initialization_timeout=timeouts.connect + 60,
        heartbeat_timeout_seconds=timeouts.heartbeat,
        shutdown_timeout_seconds=timeouts.shutdown,
      )
  except ValueError as error:
    raise DistributedError(
      f'Several processes are asked for, and JAX cannot tell which: {error} '
      f'Set {process_environment.VARIABLES}, or start with --distributed=off.'
    ) from error
  except RuntimeError as error:
    raise DistributedError(
      f'Process {arguments.get("process_id", "?")} cannot start at '
      f'{address or "its coordinator"}: {" ".join(str(error).split())[:200]}.'
    ) from error
  finally:
    connected.set()


def _check_port(address):
  """Looks for another program at the port of the coordinator.

  JAX 0.10 sometimes ends with a segmentation fault where there is one.
  """
  port = address.rpartition(':')[2]
  family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
  try:
    # What a run has left behind that has just ended is no other program.
    socket.create_server(('', int(port)), family=family).close()
  except OSError as error:
    raise DistributedError(
      f'Process 0 cannot start at {address}: {error.strerror}. If the port is '
      f'taken, name another in {process_environment.ADDRESS}.'
    ) from error


def _unreachable(arguments, seconds):
  address = arguments.get('coordinator_address') or 'its address'
  if arguments.get('process_id') == 0:
    return (
      f'Process 0 waited {seconds} s at {address} for all '
      f'{arguments["num_processes"]} processes, and some did not come. Look at '
      'their logs, and start all of them again.'
    )
  index = arguments.get('process_id', 'of this host')
  return (
    f'Process {index} waited {seconds} s for the coordinator at {address}, '
    'process 0, and did not reach it. Is process 0 running, is the address '
    'right, and does no firewall close the port? Start all processes again.'
  )


def _keep_stdout():
  """Sends what native libraries print to standard error."""
  sys.stdout.flush()
  own = os.dup(1)
  os.dup2(2, 1)
  sys.stdout = os.fdopen(own, 'w', encoding=sys.stdout.encoding)


def finish() -> None:
  """Ends the run in order: waits for all processes, then disconnects."""
  agreement.wait_for_all('finish')
  ending.Watch.stop()
  jax.distributed.shutdown()
