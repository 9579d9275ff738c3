"""A prepared data set as files in a folder: what must be there, and be whole.

The layout is written by `data/prepare.py` and described in `data/README.md`.
A folder lies here, or behind a URL. `frame_store` reads the frames.
"""

import io
import os
import pathlib
import shlex
from typing import Any

import pyarrow

from vie_jax.input_pipeline import (
  dataset_manifest,
  remote_shards,
  unanswered,
)
from vie_jax.untrusted import json_text, tables

FORMAT_VERSION = 1
REMEDY = 'Prepare the data set again with --restart.'
# For the middle of a sentence. What is there stays as it is.
REMEDY_OF_EMPTY_VAL = (
  'prepare the videos to another --out, with a larger --val-percent, or with '
  'lists or folders that name videos for val'
)

Folder = pathlib.Path | remote_shards.RemoteFolder

# Of dataset.json: it names every file and every warning.
_MAX_MANIFEST_BYTES = 2**26

# What it names are images; the videos of such a data set are prepared first.
_TFDS_PREFIX = 'tfds:'

_MANIFEST_KEYS = (
  'files',
  'fingerprint',
  'labels',
  'max_long_side',
  'max_short_side',
  'options',
  'splits',
)


class DatasetError(ValueError):
  """A prepared data set is missing, incomplete or damaged."""


class UnansweredError(DatasetError):
  """What cannot be read may be sound: nothing may stand for it."""


class DeniedError(UnansweredError):
  """The system lets this process not read a file, and will not later."""


class UnreachableError(UnansweredError):
  """What a data set lies on cannot be reached now, but may be later."""

  @classmethod
  def of(cls, place: object, reason: object) -> 'UnreachableError':
    """One of a place and a reason, both without a full stop."""
    return cls(
      f'{place} cannot be reached: {reason}. When it can be, the same command '
      'goes on.'
    )


class UnreadableError(DatasetError):
  """Records of a prepared data set that is open cannot be read.

  Attributes:
    reason: str, without the remedy and a full stop.
  """

  def __init__(self, reason, remedy):
    super().__init__(f'{reason}. {remedy}')
    self.reason = reason


def unanswered_error(
  place: object, reason: unanswered.Reason
) -> UnansweredError:
  """The error for a place that cannot be read, and of which that tells nothing.

  Args:
    place: a file, or what else was to be read.
    reason: of `unanswered`.
  """
  if reason.remedy:
    return DeniedError(
      f'{place} cannot be read: {reason.words}. {reason.remedy}'
    )
  return UnreachableError.of(place, reason.words)


def check_answers(place: object, error: BaseException) -> None:
  """Tells a file that is damaged from one that may be sound.

  Args:
    place: that could not be read.
    error: of that.

  Raises:
    UnreachableError: if the error says that its file system does not answer, or
      that the process is short of memory or threads.
    DeniedError: if it says that the process may not read it.
  """
  reason = unanswered.reason(error)
  if reason:
    raise unanswered_error(place, reason) from error


def check_is_there(directory: str) -> None:
  """Refuses a folder that is none, or holds no complete data set, at once.

  Args:
    directory: str of a prepared data set; of a URL nothing is asked.

  Raises:
    DatasetError: with the remedy.
    UnansweredError: if it may be sound, but cannot be read.
  """
  place = find(directory)
  if _is_remote(place):
    return
  _check_folder(place)
  if not _asked(place / 'dataset.json', pathlib.Path.exists):
    raise _incomplete(place)


def num_videos_of(directory: str, split: str) -> int | None:
  """How many videos a split holds, as dataset.json says, before it is opened.

  Args:
    directory: str of a prepared data set.
    split: 'train' or 'val'.

  Returns:
    int; None of a URL, of which nothing is asked.

  Raises:
    DatasetError: if there is no such data set, or dataset.json is damaged.
    UnansweredError: if it may be sound, but cannot be read.
  """
  place = find(directory)
  if _is_remote(place):
    return None
  manifest = read_manifest(place)
  check_split(place, split, manifest)
  return manifest['splits'][split]['videos']


def find(directory: str | pathlib.Path) -> Folder:
  """What `/` finds files in: a folder here, or one behind a URL.

  Raises:
    DatasetError: if nothing is named.
    remote_shards.RemoteError: if there is no backend for the URL.
  """
  if remote_shards.is_remote(directory):
    return remote_shards.RemoteFolder(directory)
  if not os.fspath(directory):
    raise DatasetError(
      'No data set is named: config.dataset.dir is empty. Name a prepared one, '
      'as in --config.dataset.dir=PREPARED.'
    )
  return pathlib.Path(os.path.expanduser(directory))


def read_manifest(directory: Folder) -> dict[str, Any]:
  """Reads dataset.json, whose presence says that the data set is complete.

  Args:
    directory: as `find` gives it.

  Returns:
    Its content, of `FORMAT_VERSION`, with nothing missing or garbled.

  Raises:
    DatasetError: if there is no such data set, or dataset.json is damaged.
    UnansweredError: if it may be sound, but cannot be read.
    remote_shards.RemoteError: if a URL does not give it.
  """
  is_remote = _is_remote(directory)
  if not is_remote:
    _check_folder(directory)
  path = directory / 'dataset.json'
  try:
    if is_remote:
      manifest = json_text.loads(
        directory.read('dataset.json'), max_bytes=_MAX_MANIFEST_BYTES
      )
    else:
      manifest = json_text.read(path, max_bytes=_MAX_MANIFEST_BYTES)
  except FileNotFoundError:
    raise _incomplete(directory) from None
  except (OSError, ValueError) as error:
    check_answers(path, error)
    raise DatasetError(f'{path} cannot be read: {error}.') from error
  if not isinstance(manifest, dict):
    manifest = {}
  version = manifest.get('format_version')
  if version != FORMAT_VERSION:
    raise DatasetError(
      f'{path} has format version {version!r}; this code reads version '
      f'{FORMAT_VERSION}. Prepare the data set again with this code.'
    )
  missing = [key for key in _MANIFEST_KEYS if key not in manifest]
  if missing:
    raise DatasetError(f'{path} lacks {", ".join(missing)}. {REMEDY}')
  problem = dataset_manifest.manifest_problem(manifest)
  if problem:
    raise DatasetError(f'{path} is damaged: {problem}. {REMEDY}')
  return manifest


def check_split(
  directory: Folder, split: str, manifest: dict[str, Any]
) -> None:
  """Refuses a split that the data set does not have.

  Raises:
    DatasetError: naming those that it has.
  """
  if split not in manifest['splits']:
    raise DatasetError(
      f'{directory} has no split {split!r}, only '
      f'{", ".join(sorted(manifest["splits"]))}.'
    )


def check_sizes(
  directory: Folder, split: str, manifest: dict[str, Any]
) -> None:
  """Compares the size of each file of a split with dataset.json.

  Whoever may not read one of them learns so here, and not in the middle of a
  training.

  Raises:
    DatasetError: if a file is missing or of another size.
    UnansweredError: if it may be sound, but cannot be read.
    remote_shards.RemoteError: if a URL does not answer.
  """
  listed = directory.sizes(split) if _is_remote(directory) else None
  for name, entry in manifest['files'].items():
    if not name.startswith(f'{split}/'):
      continue
    try:
      size = _size(directory / name) if listed is None else listed[name]
    except (OSError, KeyError) as error:
      check_answers(directory / name, error)
      reason = getattr(error, 'strerror', 'it is not there')
      raise DatasetError(
        f'{directory / name} is missing or unreadable ({reason}). {REMEDY}'
      ) from error
    if size != entry['bytes']:
      raise DatasetError(
        f'{directory / name} has {size} bytes instead of {entry["bytes"]}. '
        f'{REMEDY}'
      )


def read_table(
  directory: Folder, name: str, manifest: dict[str, Any]
) -> pyarrow.Table:
  """Reads a split's table of videos.

  Args:
    directory: as `find` gives it.
    name: of the file, such as 'train/videos.parquet'.
    manifest: of the data set.

  Raises:
    DatasetError: if it cannot be read, or is garbled.
    UnansweredError: if it may be sound, but cannot be read.
    remote_shards.RemoteError: if a URL does not give it.
  """
  path = directory / name
  try:
    file = io.BytesIO(directory.read(name)) if _is_remote(directory) else path
    return dataset_manifest.read_table(file, manifest)
  except (OSError, tables.TableError) as error:
    check_answers(path, error)
    raise DatasetError(f'{path} cannot be read: {error}. {REMEDY}') from error


def shards_of(
  directory: Folder, split: str, manifest: dict[str, Any]
) -> list[tuple[pathlib.Path | remote_shards.RemoteShard, int]]:
  """Lists (shard, number of records) of a split's shards, in order.

  A shard is its path, or a RemoteShard.
  """
  shards = []
  for name, entry in sorted(manifest['files'].items()):
    if name.startswith(f'{split}/') and 'records' in entry:
      shard = directory / name
      if _is_remote(directory):
        shard = directory.shard(
          name, num_bytes=entry['bytes'], num_records=entry['records']
        )
      shards.append((shard, entry['records']))
  return shards


def _check_folder(directory):
  # An object store has no folders: none is the same as an empty one.
  if not _asked(directory, pathlib.Path.is_dir):
    raise DatasetError(
      f'There is no prepared data set at {directory}. Make one with "python '
      f'data/prepare.py {_preparation(str(directory))}", or name yours in its '
      'place, as the training does with --config.dataset.dir=PREPARED.'
    )


def _asked(path, question):
  """Asks something of a local path that its file system may not answer."""
  try:
    return question(path)
  except OSError as error:
    check_answers(path, error)
    raise


def _incomplete(directory):
  return DatasetError(
    f'{directory} holds no complete data set: it has no dataset.json. If its '
    'preparation was stopped, run that data/prepare.py command again; it '
    'goes on. If it is a folder of videos, prepare them first: "python '
    f'data/prepare.py folder --videos {shlex.quote(str(directory))} '
    '--out PREPARED".'
  )


def _preparation(directory):
  """The command and the options that prepare what is not there."""
  if directory.startswith(_TFDS_PREFIX):
    name = shlex.quote(directory.removeprefix(_TFDS_PREFIX))
    return f'tfds --name {name} --out DIR'
  return f'folder --videos VIDEOS --out {shlex.quote(directory)}'


def _size(path):
  """The size of a file that this process may read, which is not opened."""
  size = path.stat().st_size
  is_effective = os.access in os.supports_effective_ids
  if not os.access(path, os.R_OK, effective_ids=is_effective):
    # To be told why.
    with open(path, 'rb'):
      pass
  return size


def _is_remote(place):
  return isinstance(place, remote_shards.RemoteFolder)
