"""The files in a folder that TensorBoard reads: their names, and what they hold.

A file is a row of records: the length of an event in eight bytes, four of a
checksum, the event, and four of another one.
"""

import os
import pathlib
import re
import socket
import struct
import time

from google.protobuf import message
from tensorboard.compat.proto import event_pb2

from vie_jax.files import disk

_NAME = re.compile(r'events\.out\.tfevents\.(\d{10})\..*')
_HEAD_BYTES, _TAIL_BYTES = 12, 4


def _found(folder):
  """(seconds in the name, path) of each file."""
  matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
  return [(int(match[1]), path) for match, path in matches if match]


def next_path(folder: pathlib.Path) -> pathlib.Path:
  """A name for a file that is read after those that are there.

  TensorBoard reads files in the order of the seconds in their names; these are
  the next ones where the clock was set back meanwhile.
  """
  taken = [seconds for seconds, _ in _found(folder)]
  seconds = max(int(time.time()), 1 + max(taken, default=0))
  host, process = socket.gethostname(), os.getpid()
  return folder / f'events.out.tfevents.{seconds:010d}.{host}.{process}.0.v2'


def drop(folder: pathlib.Path, first_step: int) -> None:
  """Takes events of a step, and of all later ones, out of all files.

  Nobody may write to them meanwhile.
  """
  for _, path in _found(folder):
    if path.is_file():
      _cut(path, first_step)


def _cut(path, first_step):
  """Shortens a file by its first event of a step and all that follow it."""
  with path.open('r+b') as file:
    place, size = 0, path.stat().st_size
    while (length := _length(file.read(_HEAD_BYTES))) is not None:
      end = place + _HEAD_BYTES + length + _TAIL_BYTES
      # A kill cut the last one short.
      if end > size or _is_of(file.read(length), first_step):
        break
      place = file.seek(end)
    if place < size:
      file.truncate(place)
      disk.sync(path)


def _is_of(data, first_step):
  """Whether an event is of a step or a later one, or cannot be read."""
  try:
    event = event_pb2.Event.FromString(data)
  except message.DecodeError:
    return True
  return event.step >= first_step and not event.file_version


def _length(head):
  return struct.unpack('<Q', head[:8])[0] if len(head) == _HEAD_BYTES else None
