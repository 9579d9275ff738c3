"""The file `commit.json` of a saved step, which is written last.

  format_version  of this layout, see `FORMAT_VERSION`
  step            the step
  record          what the run says of itself: config, fingerprint and so on
  items           item -> leaf -> {shape, dtype, digest}: see `leaf_digest`
  files           path in the folder -> [bytes, SHA-256 or null]; files of
                  arrays that are larger than `_SMALL` have no SHA-256: the
                  digests of the leaves stand for them
  saved_by        versions, devices and processes, for people to read
  sha256          of all of the above, as `_checksum` writes it

Everything that it lists is brought to the disk before it is written, and it is
written under another name first: if it is there, all of the step is.
"""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import stat
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from vie_jax.files import disk

FILE = 'commit.json'
FORMAT_VERSION = 3
_SMALL = 2**16
# A step of thousands of leaves takes some hundred kilobytes.
_LARGEST_RECORD = 2**24


class DamagedError(ValueError):
  """A step is not as it was saved; the message says what is wrong with it."""


class UnreadError(DamagedError):
  """A file gave EIO: a bad sector, or a network file system that is away."""


class VersionError(ValueError):
  """A step was saved in another format version."""


@dataclasses.dataclass(frozen=True)
class Leaf:
  """What is known of an array that was saved.

  Attributes:
    shape: of the array; of a random key that of its words' array without the
      last axis.
    dtype: its name, such as 'float32' or 'key<fry>'.
    digest: see `leaf_digest`.
  """

  shape: tuple[int, ...]
  dtype: str
  digest: str


@dataclasses.dataclass(frozen=True)
class CommitRecord:
  """What `commit.json` says of a step.

  Attributes:
    step: the step.
    record: what the run says of itself.
    items: item -> name of a leaf -> `Leaf`.
    files: path in the folder -> (bytes, SHA-256 or None).
  """

  step: int
  record: dict
  items: Mapping[str, Mapping[str, Leaf]]
  files: Mapping[str, tuple[int, str | None]]


def write(
  folder: pathlib.Path,
  *,
  step: int,
  record: dict,
  items: Mapping[str, Mapping[str, Leaf]],
  saved_by: dict,
) -> None:
  """Brings all files of a step to the disk, and then its record.

  Args:
    folder: with all arrays in it.
    step: the step.
    record: JSON-compatible, what the run says of itself.
    items: item -> name of a leaf -> `Leaf`.
    saved_by: JSON-compatible, for people to read.

  Raises:
    OSError: if the disk does not take it.
  """
  folders = [folder, *(path for path in folder.rglob('*') if path.is_dir())]
  files = [path for path in sorted(folder.rglob('*')) if path.is_file()]
  for path in (*files, *folders):
    disk.sync(path)
  content = {
    'format_version': FORMAT_VERSION,
    'step': step,
    'record': record,
    'items': {
      item: {name: dataclasses.asdict(leaf) for name, leaf in leaves.items()}
      for item, leaves in items.items()
    },
    'files': {
      path.relative_to(folder).as_posix(): _size_and_hash(path)
      for path in files
    },
    'saved_by': saved_by,
  }
  fresh = folder / f'{FILE}.tmp'
  with fresh.open('w', encoding='utf-8') as file:
    json.dump({**content, 'sha256': _checksum(content)}, file, indent=1)
    file.flush()
    os.fsync(file.fileno())
  os.rename(fresh, folder / FILE)
  disk.sync(folder)


def read(folder: pathlib.Path) -> CommitRecord:
  """Reads the record of a step, and believes nothing that it cannot check.

  Raises:
    VersionError: if the step has another format version.
    DamagedError: if the record is missing, or not what was written.
    OSError: if the file system does not answer, so that nobody can know.
  """
  try:
    path = folder / FILE
    status = path.stat()
    # A pipe would be waited for.
    is_file = stat.S_ISREG(status.st_mode)
    is_readable = is_file and status.st_size <= _LARGEST_RECORD
    text = path.read_text('utf-8') if is_readable else None
  except FileNotFoundError:
    raise DamagedError(f'{FILE} is missing') from None
  except OSError as error:
    refuse(f'{FILE} cannot be read: {error.strerror}', error.errno, path)
  except UnicodeDecodeError:
    raise DamagedError(f'{FILE} is not JSON') from None
  if not is_file:
    raise DamagedError(f'{FILE} is no regular file')
  if text is None:
    raise DamagedError(f'{FILE} is larger than {_LARGEST_RECORD} bytes')
  try:
    content = json.loads(text)
    expected = content.pop('sha256', None)
    is_whole = expected == _checksum(content)
  except (ValueError, RecursionError, AttributeError, TypeError):
    raise DamagedError(f'{FILE} is not JSON of this kind') from None
  if not is_whole:
    raise DamagedError(f'{FILE} does not have the SHA-256 that it names')
  version = content.get('format_version')
  if version != FORMAT_VERSION:
    raise VersionError(f'{version!r}')
  try:
    return _parse(content)
  except (AttributeError, KeyError, TypeError, ValueError):
    raise DamagedError(f'{FILE} lacks what a commit record has') from None


def refuse(reason: str, number: int | None, path: pathlib.Path) -> NoReturn:
  """Tells what is damaged from what did not answer.

  Args:
    reason: why it cannot be read, naming the file or the array.
    number: of the error that the system gave, if it did.
    path: of what was to be read.

  Raises:
    OSError: if nobody can know, see `disk.NO_DAMAGE`.
    UnreadError: if it may be either.
    DamagedError: otherwise.
  """
  if number in disk.NO_DAMAGE:
    raise OSError(number, os.strerror(number), str(path)) from None
  kind = UnreadError if number == errno.EIO else DamagedError
  raise kind(reason) from None


def _parse(content: dict) -> CommitRecord:
  record = content['record']
  if not isinstance(record, dict):
    raise TypeError
  return CommitRecord(
    int(content['step']),
    record,
    {
      item: {
        name: Leaf(
          tuple(map(_length, leaf['shape'])), leaf['dtype'], leaf['digest']
        )
        for name, leaf in leaves.items()
      }
      for item, leaves in content['items'].items()
    },
    {
      str(path): (int(size), checksum)
      for path, (size, checksum) in content['files'].items()
    },
  )


def _length(value: Any) -> int:
  if not isinstance(value, int) or isinstance(value, bool) or value < 0:
    raise ValueError
  return value


def check_files(
  folder: pathlib.Path, record: CommitRecord, items: Iterable[str]
) -> None:
  """Compares the files of some items with what was written.

  Args:
    folder: of the step.
    record: of the step.
    items: of which the files are looked at, besides those of the step itself.

  Raises:
    DamagedError: naming the first file that is missing, of another size or,
      as far as it is small, of other bytes.
    OSError: if the file system does not answer, so that nobody can know.
  """
  items = set(items)
  for name, (size, checksum) in record.files.items():
    parts = pathlib.PurePosixPath(name).parts
    if '..' in parts or name.startswith('/'):
      raise DamagedError(f'{FILE} names {name!r}, outside of the step')
    if len(parts) > 1 and parts[0] not in items:
      continue
    try:
      found = (folder / name).stat().st_size
      if found != size:
        raise DamagedError(f'{name} has {found} bytes instead of {size}')
      if checksum and _hash(folder / name) != checksum:
        raise DamagedError(f'{name} does not have the bytes it was saved with')
    except FileNotFoundError:
      raise DamagedError(f'{name} is missing') from None
    except OSError as error:
      reason = f'{name} cannot be read: {error.strerror}'
      refuse(reason, error.errno, folder / name)


def _size_and_hash(path: pathlib.Path) -> tuple[int, str | None]:
  size = path.stat().st_size
  return size, _hash(path) if size <= _SMALL else None


def _hash(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def _checksum(content: dict) -> str:
  """SHA-256 of the JSON with sorted keys and no spaces."""
  text = json.dumps(content, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()
