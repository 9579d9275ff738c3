"""Verifies a prepared data set, byte by byte."""

import hashlib
import io
import os

import numpy as np
import unread
from array_record.python import array_record_module
from dataset.dataset_layout import (
  MANIFEST_DIGEST,
  SPLITS,
  file_digest,
  fingerprint,
  manifest_digest,
)
from dataset.dataset_tables import read_videos
from dataset.manifest import check_manifest, has_manifest
from dataset.remote import RemoteFolder, local_file, place_of
from dataset.staging import frames_digest
from dataset.summary import table
from PIL import Image
from sources.labels_and_splits import UNKNOWN
from untrusted import tables
from wording import printable

_SAMPLED_VIDEOS = 100
_MAX_LISTED = 50


def check_dataset(directory, *, full):
  """Verifies a data set and prints a table of the checks.

  Args:
    directory: path of the data set, or its URL; each file of that is copied
      here, one at a time.
    full: whether to decode every frame rather than a sample.

  Returns:
    list of str, the problems; empty where all is well.

  Raises:
    InputError: if a file may be sound, but cannot be read.
  """
  place = place_of(directory)
  results = [('check', 'items', 'problems')]
  problems = []

  def note(name, num_items, found):
    results.append((name, str(num_items), str(len(found))))
    problems.extend(found)

  manifest, found = check_manifest(place)
  if manifest is not None:
    found = _check_digest(manifest)
  note('dataset.json', 1, found)
  if manifest is not None:
    rows, in_tables = _check_tables(place, manifest)
    content = _Content(rows, manifest, full=full)
    for name, entry in sorted(manifest['files'].items()):
      with local_file(place, name) as path:
        content.check(name, entry, path, place / name)
    content.files += _not_listed(place, manifest)
    content.shards += content.missing_frames()
    note('files', len(manifest['files']), content.files)
    note('videos', sum(map(len, rows.values())), in_tables)
    note('shards', content.num_shards, content.shards)
    note('decoded frames', content.num_frames, content.frames)
  _print(place, results, problems)
  return problems


def _print(directory, results, problems):
  print(f'Check of {directory}:')
  print(table(results))
  for problem in problems[:_MAX_LISTED]:
    print(f'  PROBLEM: {printable(problem)}')
  if len(problems) > _MAX_LISTED:
    print(f'  ... and {len(problems) - _MAX_LISTED} more')
  if problems:
    print(
      'Prepare the data set again with --restart.'
      if has_manifest(directory)
      else 'Run its preparation; one that was stopped goes on.'
    )
  else:
    print('All is well.')


def _check_digest(manifest):
  """Compares dataset.json with its own digest, which older ones lack."""
  digest = manifest_digest(manifest)
  if manifest.get(MANIFEST_DIGEST, digest) == digest:
    return []
  return [
    f'dataset.json is not what was written: {MANIFEST_DIGEST} in it is the '
    'digest of another one'
  ]


class _Content:
  """What is wrong with the files of a data set, looked at one by one.

  Attributes:
    files: list of str, problems of their sizes and checksums.
    shards: list of str, of their records.
    frames: list of str, of what is in these.
    num_shards: that were looked at.
    num_frames: that were decoded.
  """

  def __init__(self, rows, manifest, *, full):
    self.files, self.shards, self.frames = [], [], []
    self.num_shards = self.num_frames = 0
    self._rows = {split: _sample(rows[split], full=full) for split in SPLITS}
    self._first_frame = {
      split: np.array([row['first_frame'] for row in self._rows[split]], int)
      for split in SPLITS
    }
    self._expected = manifest['splits']
    self._start = dict.fromkeys(SPLITS, 0)
    self._full = full

  def check(self, name, entry, path, origin):
    """Looks at the next file, sorted by name.

    Args:
      name: of the file.
      entry: what dataset.json says of it.
      path: where it is here, or a copy of it.
      origin: path or URL of the file itself, for messages.
    """
    self.files += _check_file(name, entry, path, origin)
    if 'records' not in entry:
      return
    self.num_shards += 1
    split = name.split('/')[0]
    start = self._start[split]
    self._start[split] += entry['records']
    reader, found = _open_shard(name, entry, path, origin)
    self.shards += found
    if reader is None:
      return
    record = self._first_frame[split] - start
    for number in np.flatnonzero((record >= 0) & (record < entry['records'])):
      row = self._rows[split][number]
      read, problem = _check_video(
        row, reader, int(record[number]), (path, origin), full=self._full
      )
      self.num_frames += read
      if problem:
        self.frames.append(f'{name}, video {row["path"]}: {problem}')

  def missing_frames(self):
    """What is wrong with all shards of a split together."""
    return [
      f'the shards of {split} do not hold all its frames'
      for split in SPLITS
      if self._start[split] != self._expected[split]['frames']
    ]


def _check_file(name, entry, path, origin):
  """Compares size and checksum."""
  try:
    size = path.stat().st_size
    if size != entry['bytes']:
      return [f'{name} has {size} bytes, not {entry["bytes"]}']
    if file_digest(path) != entry['sha256']:
      return [f'{name} has another checksum: bytes have changed']
  except OSError as error:
    unread.check(origin, error)
    return [f'{name} cannot be read: {error.strerror}']
  return []


def _not_listed(place, manifest):
  """Looks for files that dataset.json does not list, and tables it should."""
  problems = []
  for split in SPLITS:
    if f'{split}/videos.parquet' not in manifest['files']:
      problems.append(f'dataset.json does not list {split}/videos.parquet')
    if isinstance(place, RemoteFolder):
      names = [n for n in place.sizes() if n.startswith(f'{split}/')]
    else:
      names = [f'{split}/{path.name}' for path in (place / split).glob('*')]
    problems += [
      f'{name} is not part of the data set'
      for name in sorted(names)
      if name not in manifest['files']
    ]
  return problems


def _check_tables(directory, manifest):
  """Reads the tables and checks each row and their sum."""
  rows, problems = {}, []
  for split in SPLITS:
    name = f'{split}/videos.parquet'
    rows[split] = []
    try:
      read = read_videos(directory, name, manifest['labels'])
    except (OSError, tables.TableError) as error:
      unread.check(directory / name, error)
      problems.append(f'{name} cannot be read: {error}')
      continue
    rows[split] = read.to_pylist()
    problems += _check_rows(name, rows[split], manifest)
    problems += _check_counts(name, rows[split], manifest['splits'][split])
  if not problems:
    problems += _check_whole(rows, manifest)
  return rows, problems


def _check_rows(name, rows, manifest):
  problems, next_frame = [], 0
  for number, row in enumerate(rows):
    place = f'{name}, row {number} ({row["path"]})'
    expected_id = hashlib.sha256(row['path'].encode()).hexdigest()[:16]
    if row['id'] != expected_id:
      problems.append(f'{place}: the id does not belong to the path')
    if row['first_frame'] != next_frame or row['num_frames'] < 1:
      problems.append(f'{place}: its frames do not follow the row before')
    next_frame = row['first_frame'] + row['num_frames']
    for column, names in manifest['labels'].items():
      if not UNKNOWN <= row[f'label_{column}'] < len(names):
        problems.append(f'{place}: no such class in column {column!r}')
  if [row['path'] for row in rows] != sorted(row['path'] for row in rows):
    problems.append(f'{name} is not sorted by path')
  return problems


def _check_counts(name, rows, expected):
  found = {
    'videos': len(rows),
    'frames': sum(row['num_frames'] for row in rows),
  }
  return [
    f'{name} has {found[key]} {key}, dataset.json says {expected.get(key)}'
    for key in found
    if found[key] != expected.get(key)
  ]


def _check_whole(rows, manifest):
  """Checks what concerns both splits together."""
  problems = []
  all_rows = [row for split in SPLITS for row in rows[split]]
  if len({row['id'] for row in all_rows}) != len(all_rows):
    problems.append('a video is in the tables twice')
  if fingerprint(rows, manifest['labels']) != manifest['fingerprint']:
    problems.append('the fingerprint in dataset.json is not that of the rows')
  for key, side in (('max_short_side', min), ('max_long_side', max)):
    largest = max(side(row['height'], row['width']) for row in all_rows)
    if manifest[key] != largest:
      problems.append(f'{key} is {manifest[key]}, the rows say {largest}')
  return problems


def _open_shard(name, entry, path, origin):
  """Returns the reader of a sound shard, or None, and the problems."""
  try:
    # The reader takes a missing file for an empty one.
    os.stat(path)
    reader = array_record_module.ArrayRecordReader(
      os.fspath(path), options='readahead_buffer_size:0,max_parallelism:0'
    )
    found = reader.num_records()
  except (OSError, RuntimeError, MemoryError) as error:
    unread.check_record(origin, error, path)
    reason = str(error).replace(os.fspath(path), str(origin))
    return None, [f'{name} cannot be opened: {reason}']
  if not found:
    unread.check_empty(origin, reader, path)
  if found != entry['records']:
    return None, [
      f'{name} has {found} frames by its index, not {entry["records"]}'
    ]
  return reader, []


def _sample(rows, *, full):
  if full or len(rows) <= _SAMPLED_VIDEOS:
    return rows
  chosen = np.linspace(0, len(rows) - 1, _SAMPLED_VIDEOS).astype(int)
  return [rows[number] for number in chosen]


def _check_video(row, reader, start, places, *, full):
  """Returns the number of frames decoded, and a problem or None.

  Args:
    row: of the video.
    reader: of its shard.
    start: number of its first frame there.
    places: of the shard, here and for messages.
    full: as in check_dataset.
  """
  last = row['num_frames'] - 1
  numbers = range(last + 1) if full else sorted({0, last // 2, last})
  try:
    frames = reader.read([start + number for number in numbers])
  except (RuntimeError, IndexError, MemoryError) as error:
    path, origin = places
    unread.check_record(origin, error, path)
    return 0, f'its frames cannot be read: {error}'
  for number, frame in zip(numbers, frames, strict=True):
    problem = _check_jpeg(frame, row['width'], row['height'])
    if problem:
      return number, f'frame {number} {problem}'
  if full and frames_digest(frames) != row['frames_sha256']:
    return len(frames), 'its frames have another checksum'
  return len(frames), None


def _check_jpeg(frame, width, height):
  try:
    with Image.open(io.BytesIO(frame), formats=['JPEG']) as image:
      image.load()
  except (OSError, ValueError, SyntaxError) as error:
    return f'cannot be decoded: {error}'
  if image.size != (width, height) or image.mode != 'RGB':
    return f'is {image.mode} {image.size}, not RGB {(width, height)}'
  return None
