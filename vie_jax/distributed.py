"""Several processes as one run: they find, agree with and end one another.

JAX connects the processes; all of them then run the same program on their own
devices. Computations that are split over processes wait for each other, so a
process that fails alone would leave the others waiting. Hence each process
tells the others of its end, see `leave`.

Of JAX's coordination service the public interface knows only the start and
the end; its key-value store and barriers are reached as orbax does it.
"""

import dataclasses
import json
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax._src import distributed as jax_distributed
from jax.experimental import multihost_utils

from vie_jax import exit_codes, process_environment, sharding
from vie_jax.process_environment import DistributedError

# Of messages of computations that wait for a process which is gone.
_LOSS = ('Gloo ', 'Connection closed by peer', 'coordination service')
_ENDED = 'vie_jax/ended/'
_LEFT = 'vie_jax/left/'
# Of a large run each process looks less often: process 0 answers all of them.
_LOOK_EVERY_SECONDS = 0.5
_LOOKS_PER_SECOND = 128
# What a process has left, to find the same error by itself and end in order.
_GRACE_SECONDS = 5.0
# Waiting has no end of its own: one that dies or fails ends all.
_FOREVER_SECONDS = 30 * 24 * 3600
# What a network file system may take to show a new file.
_SEEN_SECONDS = 15.0


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
  if not is_shared():
    return
  _Watch.start()
  check_same({'number of devices': jax.local_device_count()})
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
  connected = threading.Event()

  def give_up():
    # A thread: JAX ends the process with a dump of its stack otherwise.
    if not connected.wait(timeouts.connect):
      logging.error('%s', _unreachable(arguments, timeouts.connect))
      _exit(exit_codes.RETRY)

  threading.Thread(target=give_up, daemon=True).start()
  try:
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
    reason = ' '.join(str(error).split())[:200]
    raise DistributedError(
      f'Process {arguments.get("process_id", "?")} cannot start at '
      f'{address or "its coordinator"}: {reason}. If the port is taken, name '
      f'another in {process_environment.ADDRESS}.'
    ) from error
  finally:
    connected.set()


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


def _client():
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


def count() -> int:
  """Number of processes, without asking for devices."""
  return jax_distributed.global_state.num_processes


def _pause():
  """Seconds between two looks at what the others have said."""
  return max(_LOOK_EVERY_SECONDS, count() / _LOOKS_PER_SECOND)


class _Calls:
  """Numbers what all processes do together, in the same order."""

  number = 0

  @classmethod
  def key(cls, name):
    cls.number += 1
    return f'vie_jax/{cls.number}/{name}'


def wait_for_all(name: str) -> None:
  """Returns when all processes have come here.

  However long one takes: it may have a slow task. A process that fails ends
  the others, see `leave`.

  Args:
    name: of the place, the same for all.
  """
  if is_shared():
    # The same barrier each time: JAX's service would remember each new one.
    _client().wait_at_barrier(f'vie_jax/{name}', _FOREVER_SECONDS * 1000)


def gather(name: str, value: Any) -> list:
  """Gives all processes what each of them has.

  To be called by all of them; returns when all have.

  Args:
    name: of the place, the same for all.
    value: JSON-compatible, this process's own.

  Returns:
    One value of each process, in their order.
  """
  if not is_shared():
    return [value]
  key = _Calls.key(name)
  _client().key_value_set(f'{key}/{index()}', json.dumps(value))
  wait_for_all(name)
  found = dict(_client().key_value_dir_get(key))
  # All have read before it is taken away.
  wait_for_all(name)
  if index() == 0:
    _client().key_value_delete(key)
  return [json.loads(found[f'{key}/{number}']) for number in range(count())]


def by_first(name: str, make: Callable[[], Any]) -> Any:
  """Has process 0 do something, and gives all processes what it returns.

  Args:
    name: of the place, the same for all.
    make: returns something JSON-compatible.
  """
  return gather(name, make() if index() == 0 else None)[0]


def share_folder(folder: pathlib.Path) -> None:
  """Makes a folder that all processes read what is written to.

  To be called by all of them; returns when it is there for all.

  Raises:
    DistributedError: if a process does not see what process 0 writes.
  """
  folder.mkdir(parents=True, exist_ok=True)
  if not is_shared():
    return
  (token,) = by_first('token', lambda: [os.urandom(8).hex()])
  mark = folder / f'.seen-by-all-{token}'
  if index() == 0:
    mark.touch()
  wait_for_all('mark')
  until = time.monotonic() + _SEEN_SECONDS
  while not (is_seen := mark.name in os.listdir(folder)):
    if time.monotonic() > until:
      break
    time.sleep(_LOOK_EVERY_SECONDS)
  if not is_seen:
    raise DistributedError(
      f'{folder} is not on a file system that all processes share: process '
      f'{index()} on {socket.gethostname()} does not see what process 0 writes '
      'there. Use a --workdir that they do.'
    )
  wait_for_all('seen')
  if index() == 0:
    mark.unlink()


def meet(name: str, seconds: float) -> None:
  """Returns when all processes have come here, from whatever thread.

  Args:
    name: used once in a run.
    seconds: after which this raises.
  """
  if is_shared():
    _client().wait_at_barrier(name, int(1000 * seconds))


def leave_note(name: str) -> None:
  """Leaves a note that all processes can find, from whatever thread."""
  if is_shared():
    _client().key_value_set(name, '', allow_overwrite=True)


def has_note(name: str) -> bool:
  """Whether a process has left a note."""
  if not is_shared():
    return False
  folder, _, _ = name.rpartition('/')
  return name in dict(_client().key_value_dir_get(folder))


def check_same(facts: dict) -> None:
  """Refuses to go on unless all processes have the same facts.

  To be called by all of them; returns when all have.

  Args:
    facts: name -> JSON-compatible value, nested dicts too.

  Raises:
    DistributedError: naming what differs, and the values of both.
  """
  if not is_shared():
    return
  key = _Calls.key('facts')
  own = _flatten(json.loads(json.dumps(facts)))
  if index() == 0:
    _client().key_value_set(key, json.dumps(own))
  else:
    first = _client().blocking_key_value_get(key, _FOREVER_SECONDS * 1000)
    _compare(json.loads(first), own)
  wait_for_all('same')


def _compare(first, own):
  differing = [
    f'{name} is {first.get(name)!r} in process 0 and {own.get(name)!r} in '
    f'process {index()}'
    for name in sorted({*first, *own})
    if first.get(name) != own.get(name)
  ]
  if differing:
    more = '' if len(differing) < 6 else f'; and {len(differing) - 5} more'
    raise DistributedError(
      f'The processes of a run must be alike. {"; ".join(differing[:5])}{more}.'
    )


def _flatten(facts, prefix=''):
  flat = {}
  for name, value in facts.items():
    if isinstance(value, dict):
      flat |= _flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


class _Watch:
  """A thread that ends this process when another has ended early."""

  _thread = None
  _stopped = threading.Event()

  @classmethod
  def start(cls):
    cls._thread = threading.Thread(target=cls._watch, daemon=True)
    cls._thread.start()

  @classmethod
  def stop(cls):
    if cls._thread is not None:
      cls._stopped.set()
      cls._thread.join()
      cls._thread = None

  @classmethod
  def _watch(cls):
    while not cls._stopped.wait(_pause()):
      other = _ended_elsewhere()
      if other is None:
        continue
      if not cls._stopped.wait(_GRACE_SECONDS):
        _leave_as(other)


def _ended_elsewhere():
  """What another process said before it left, or None."""
  try:
    found = _client().key_value_dir_get(_ENDED)
  except RuntimeError:  # The service is gone: JAX ends this process.
    return None
  for _, text in found:
    other = json.loads(text)
    if other['process'] != index():
      return other
  return None


def _leave_as(other):
  logging.error(
    'Process %d of %d on %s has ended, and so does this one: %s',
    other['process'],
    count(),
    other['host'],
    other['message'],
  )
  _end(other['code'], 2 * (_GRACE_SECONDS + _pause()))


def tells_of_loss(error: Exception) -> bool:
  """Whether an error of a computation says that another process is gone."""
  return is_shared() and any(sign in str(error) for sign in _LOSS)


def leave(code: int, message: str, *, is_loss: bool = False) -> None:
  """Ends this process before its time, and with it all others of the run.

  They end within seconds, with the same code and this message in their logs.
  If another has ended already, its message is the reason that counts.

  Args:
    code: exit code.
    message: one line.
    is_loss: whether another process is gone, so that it is not waited for.
  """
  if not is_shared():
    sys.exit(code)
  _Watch.stop()
  said = {
    'process': index(),
    'host': socket.gethostname(),
    'code': code,
    'message': message,
  }
  try:
    _client().key_value_set(f'{_ENDED}{index()}', json.dumps(said))
  except RuntimeError:
    logging.error('The other processes cannot be reached.')
  _end(code, 2 * _pause() if is_loss else 2 * (_GRACE_SECONDS + _pause()))


def leave_if_another_has() -> None:
  """Ends this process if another has ended, for the reason that it gave.

  An error of a computation with others often only says that one of them is
  gone; it knows why.
  """
  until = time.monotonic() + 2 * _pause()
  while is_shared() and time.monotonic() < until:
    other = _ended_elsewhere()
    if other is not None:
      _Watch.stop()
      _leave_as(other)
    time.sleep(_pause() / 2)


def _end(code, patience):
  """Leaves when the others do: with process 0 goes what connects them."""
  try:
    _client().key_value_set(f'{_LEFT}{index()}', '', allow_overwrite=True)
    until = time.monotonic() + patience
    while index() == 0 and time.monotonic() < until:
      if len(_client().key_value_dir_get(_LEFT)) == count():
        break
      time.sleep(_LOOK_EVERY_SECONDS / 5)
  except RuntimeError:
    pass  # There is nobody left to tell.
  _exit(code)


def _exit(code):
  """Ends the process now: an orderly end would wait for the others."""
  for handler in logging.get_absl_logger().handlers:
    handler.flush()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def finish() -> None:
  """Ends the run in order: waits for all processes, then disconnects."""
  wait_for_all('finish')
  _Watch.stop()
  jax.distributed.shutdown()
