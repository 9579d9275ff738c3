"""The files in a folder that TensorBoard reads: their names, and what they hold.

A file is a row of records: the length of an event in eight bytes, four of a
checksum, the event, and four of another one. Those of a run end with a suffix,
by which they are told from files of other tools.
"""

import os
import pathlib
import re
import shutil
import socket
import struct
import time

from google.protobuf import message
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from vie_jax.files import disk

_NAME = re.compile(r'events\.out\.tfevents\.(\d{10})\..*')
_SUFFIX = '.vie_jax'
# TensorBoard reads all that has tfevents in its name.
_ASIDE = f'events{_SUFFIX}.tmp'
_LENGTH_BYTES, _SUM_BYTES = 8, 4


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
  owner = f'{socket.gethostname()}.{os.getpid()}{_SUFFIX}'
  return folder / f'events.out.tfevents.{seconds:010d}.{owner}'


def drop(folder: pathlib.Path, first_step: int) -> list[OSError]:
  """Takes events of a step, and of all later ones, out of a run's files.

  Files that need it are replaced, as other folders may have them by hard links.
  Symlinks, files of other tools and of versions before stay as they are. Nobody
  may write to a run's files meanwhile.

  Returns:
    What kept files from being read or replaced.

  Raises:
    OSError: if there is no room to replace one.
  """
  # Of a kill in the middle of this.
  (folder / _ASIDE).unlink(missing_ok=True)
  problems = []
  for _, path in _found(folder):
    if path.suffix == _SUFFIX and path.is_file() and not path.is_symlink():
      try:
        _cut(path, first_step)
      except OSError as error:
        if disk.is_no_room(error):
          raise
        problems.append(error)
  return problems


def _cut(path, first_step):
  """Shortens a file by its first event of a step and all that follow it."""
  with path.open('rb') as file:
    place = _place_of(file, first_step)
  if place is None:
    return
  with disk.replacing(path, aside=path.with_name(_ASIDE)) as fresh:
    fresh.unlink(missing_ok=True)
    shutil.copyfile(path, fresh)
    os.truncate(fresh, place)
    shutil.copymode(path, fresh)


def _place_of(file, first_step):
  """Where the first event of a step or a later one begins; None if none does.

  Records that are damaged are passed over, and so is one that a kill cut short.
  """
  place, size = 0, os.fstat(file.fileno()).st_size
  while head := file.read(_LENGTH_BYTES + _SUM_BYTES):
    end = place + len(head) + _length(head) + _SUM_BYTES
    if end > size:
      break
    data, tail = file.read(_length(head)), file.read(_SUM_BYTES)
    if _is_of(data, first_step) and _is_sound(head, data, tail):
      return place
    place = end
  return None


def _length(head):
  return int.from_bytes(head[:_LENGTH_BYTES], 'little')


def _is_of(data, first_step):
  """Whether an event is of a step or a later one."""
  try:
    event = event_pb2.Event.FromString(data)
  except message.DecodeError:
    return False
  return event.step >= first_step and not event.file_version


def _is_sound(head, data, tail):
  sums = head[_LENGTH_BYTES:] + tail
  return sums == _sum_of(head[:_LENGTH_BYTES]) + _sum_of(data)


def _sum_of(data):
  return struct.pack('<I', pywrap_tensorflow.masked_crc32c(data))
