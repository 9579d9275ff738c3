"""What the processes of a run do together before they go on.

But for `meet` and the notes, only the main thread may call these: all
processes must come by in the same order. No device takes part, so that nothing
waits for what devices compute.
"""

import json
import os
import pathlib
import socket
import time
from collections.abc import Callable
from typing import Any

from vie_jax.processes import peers, watchdog
from vie_jax.processes.process_environment import DistributedError

# Waiting has no end of its own: one that dies or fails ends all.
_FOREVER_SECONDS = 30 * 24 * 3600
# What a network file system may take to show a new file.
_SEEN_SECONDS = 15.0
_LOOK_EVERY_SECONDS = 0.5


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
  the others, see `ending.leave`, and so does one whose task hangs.

  Args:
    name: of the place, the same for all.
  """
  if peers.is_shared():
    with watchdog.resting():
      # The same barrier each time: JAX's service would remember each new one.
      peers.client().wait_at_barrier(f'vie_jax/{name}', _FOREVER_SECONDS * 1000)


def gather(name: str, value: Any) -> list:
  """Gives all processes what each of them has.

  To be called by all of them; returns when all have.

  Args:
    name: of the place, the same for all.
    value: JSON-compatible, this process's own.

  Returns:
    One value of each process, in their order.
  """
  if not peers.is_shared():
    return [value]
  key = _Calls.key(name)
  peers.client().key_value_set(f'{key}/{peers.index()}', json.dumps(value))
  wait_for_all(name)
  found = dict(peers.client().key_value_dir_get(key))
  # All have read before it is taken away.
  wait_for_all(name)
  if peers.index() == 0:
    peers.client().key_value_delete(key)
  return [
    json.loads(found[f'{key}/{number}']) for number in range(peers.count())
  ]


def by_first(name: str, make: Callable[[], Any]) -> Any:
  """Has process 0 do something, and gives all processes what it returns.

  Args:
    name: of the place, the same for all.
    make: returns something JSON-compatible.
  """
  return gather(name, make() if peers.index() == 0 else None)[0]


def is_first() -> bool:
  """Whether this is the process that writes files which exist once."""
  return peers.index() == 0


def anywhere(flag: bool) -> bool:
  """Whether the flag is set in any process."""
  return any(gather('flag', bool(flag)))


def everywhere(flag: bool) -> bool:
  """Whether the flag is set in every process."""
  return all(gather('flag', bool(flag)))


def share_folder(folder: pathlib.Path) -> None:
  """Makes a folder that all processes read what is written to.

  To be called by all of them; returns when it is there for all.

  Raises:
    DistributedError: if a process does not see what process 0 writes.
  """
  folder.mkdir(parents=True, exist_ok=True)
  if not peers.is_shared():
    return
  (token,) = by_first('token', lambda: [os.urandom(8).hex()])
  mark = folder / f'.seen-by-all-{token}'
  if peers.index() == 0:
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
      f'{peers.index()} on {socket.gethostname()} does not see what process 0 writes '
      'there. Use a --workdir that they do.'
    )
  wait_for_all('seen')
  if peers.index() == 0:
    mark.unlink()


def meet(name: str, seconds: float) -> None:
  """Returns when all processes have come here, from whatever thread.

  Args:
    name: used once in a run.
    seconds: after which this raises.
  """
  if peers.is_shared():
    peers.client().wait_at_barrier(name, int(1000 * seconds))


def leave_note(name: str) -> None:
  """Leaves a note that all processes can find, from whatever thread."""
  if peers.is_shared():
    peers.client().key_value_set(name, '', allow_overwrite=True)


def has_note(name: str) -> bool:
  """Whether a process has left a note."""
  if not peers.is_shared():
    return False
  folder, _, _ = name.rpartition('/')
  return name in dict(peers.client().key_value_dir_get(folder))


def check_same(facts: dict) -> None:
  """Refuses to go on unless all processes have the same facts.

  To be called by all of them; returns when all have.

  Args:
    facts: name -> JSON-compatible value, nested dicts too.

  Raises:
    DistributedError: naming what differs, and the values of both.
  """
  if not peers.is_shared():
    return
  key = _Calls.key('facts')
  own = _flatten(json.loads(json.dumps(facts)))
  if peers.index() == 0:
    peers.client().key_value_set(key, json.dumps(own))
  else:
    with watchdog.resting():
      first = peers.client().blocking_key_value_get(
        key, _FOREVER_SECONDS * 1000
      )
    _compare(json.loads(first), own)
  wait_for_all('same')


def _compare(first, own):
  differing = [
    f'{name} is {first.get(name)!r} in process 0 and {own.get(name)!r} in '
    f'process {peers.index()}'
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
