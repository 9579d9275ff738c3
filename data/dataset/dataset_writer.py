"""Puts finished videos together into a prepared data set.

The layout is described in data/README.md. The bytes depend on the videos and
the options only: not on the number of processes, the time or a restart.
"""

import dataclasses
import hashlib
import os
import pathlib

import pyarrow
import pyarrow.parquet
from array_record.python import array_record_module
from wording import counted

from dataset.dataset_layout import (
  FORMAT_VERSION,
  LISTS,
  MANIFEST_DIGEST,
  SPLITS,
  file_digest,
  fingerprint,
  is_dataset_file,
  manifest_digest,
  table_schema,
)
from dataset.staging import (
  OutputError,
  Staging,
  output_errors,
  read_errors,
  read_frames_file,
  read_json,
  sync,
  write_json,
)

# Large enough for few open files, small enough to copy and to retry.
SHARD_BYTES = 2**30
MAX_SHARDS = 256

_WRITER_OPTIONS = 'group_size:1,uncompressed'


@dataclasses.dataclass(frozen=True)
class Shard:
  """A file of frames: its name within the data set, and its rows in order."""

  name: str
  rows: list

  @property
  def num_frames(self):
    """Frames in it."""
    return sum(row['num_frames'] for row in self.rows)

  @property
  def frames_sha256(self):
    """A digest of them, in hex."""
    digests = ''.join(row['frames_sha256'] for row in self.rows)
    return hashlib.sha256(digests.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class ShardTask:
  """A shard for a worker process: the output directory, and which it is."""

  out: str
  shard: Shard


def write_dataset(
  out,
  plan,
  *,
  shard_bytes=SHARD_BYTES,
  progress=None,
  target=None,
  check=lambda: None,
  in_advance=iter,
):
  """Writes shards, tables and, last, dataset.json; resumes where it was.

  Frames leave the staging directory as soon as their shard is complete, so
  the disk holds them once, plus one shard for each process that writes.

  Args:
    out: path of the output directory, with its staging directory.
    plan: dict with 'name', 'created_with', 'options', 'inputs', 'warnings',
      'skipped', 'labels' and 'rows': for each split the rows in order, each
      with the columns of the table and 'num_bytes' of its frames; where they
      are known, 'missing' and 'expected'.
    shard_bytes: size at which a new shard is begun.
    progress: called with the number of frames after each video, or None.
    target: RemoteTarget that takes each file away when it is finished, or
      None: they stay.
    check: called without arguments when all but dataset.json is written; it
      may raise.
    in_advance: takes the list of Shard, and returns an iterator of them in
      any order; those that it has made by `make_shard` are not made again.

  Raises:
    OutputError: if something cannot be written, or staged frames are gone.
  """
  out = pathlib.Path(out)
  shards = plan_shards(plan, shard_bytes=shard_bytes)
  entries = {
    shard.name: write_shard(out, shard, progress, target)
    for shard in in_advance(shards)
  }
  files = {shard.name: entries[shard.name] for shard in shards}
  _remove_other_shards(out, files)
  for split in SPLITS:
    rows = plan['rows'][split]
    with output_errors(out / split):
      (out / split).mkdir(exist_ok=True)
    _write_table(out, f'{split}/videos.parquet', rows, plan['labels'])
    files |= _finished(out, f'{split}/videos.parquet', target)
    with output_errors(out / split):
      sync(out / split)
  aside = Staging(out).directory
  for key in LISTS:
    if key in plan:
      write_json(out / f'{key}.json', plan[key], aside=aside)
      files |= _finished(out, f'{key}.json', target)
  check()
  write_json(out / 'dataset.json', _manifest(plan, files), aside=aside)
  with output_errors(out):
    sync(out)
  if target is not None:
    target.finish(files)
  Staging(out).remove()


def plan_shards(plan, *, shard_bytes=SHARD_BYTES):
  """Decides which videos go into which shard.

  Args:
    plan: dict, as `write_dataset` takes it.
    shard_bytes: size at which a new shard is begun.

  Returns:
    list of Shard, in the order of the data set.
  """
  shards = []
  for split in SPLITS:
    rows = plan['rows'][split]
    bounds = shard_plan(
      [row['num_bytes'] for row in rows], shard_bytes=shard_bytes
    )
    for number, (start, end) in enumerate(bounds):
      name = f'{split}/frames-{number:05d}-of-{len(bounds):05d}.array_record'
      shards.append(Shard(name, rows[start:end]))
  return shards


def write_shard(out, shard, progress=None, target=None):
  """Writes a shard, unless it is there already.

  Its frames leave the staging directory. Several processes may write
  different shards at the same time.

  Args:
    out: path of the output directory, with its staging directory.
    shard: Shard.
    progress: as for `write_dataset`.
    target: as for `write_dataset`.

  Returns:
    dict with 'bytes', 'sha256' and 'records'.

  Raises:
    OutputError: if it cannot be written, or staged frames are gone.
  """
  staging = Staging(out)
  entry = _noted(staging, shard)
  is_delivered = (
    target is not None and entry and target.holds(shard.name, entry)
  )
  if not is_delivered:
    entry = make_shard(out, shard, progress)
  elif progress:
    progress(shard.num_frames)
  for row in shard.rows:
    staging.frames_path(row['id']).unlink(missing_ok=True)
  if target is not None and not is_delivered:
    target.deliver(shard.name, entry)
  return entry


def make_shard(out, shard, progress=None):
  """Does the first half of `write_shard`: frames stay in the staging directory.

  A process that outlives a killed run takes nothing from the next one.

  Args:
    out: as for `write_shard`.
    shard: Shard.
    progress: as for `write_dataset`.

  Returns:
    dict with 'bytes', 'sha256' and 'records'.

  Raises:
    OutputError: if it cannot be written, or staged frames are gone.
  """
  path = pathlib.Path(out) / shard.name
  staging = Staging(out)
  note = _note_path(staging, shard)
  # Asked first: whoever makes the same shard may finish it meanwhile.
  is_noted = note.exists()
  entry = _noted(staging, shard)
  if entry is not None and path.exists():
    if progress:
      progress(shard.num_frames)
    return entry
  temporary = note.with_suffix(f'.{os.getpid()}.tmp')
  with output_errors(path):
    path.parent.mkdir(exist_ok=True)
    # A note is of the shard that is there, or was delivered.
    for old in (note, path) if is_noted else ():
      old.unlink(missing_ok=True)
    _copy_frames(staging, temporary, shard.rows, progress)
    entry = _entry_of(temporary) | {'records': shard.num_frames}
    value = {'frames_sha256': shard.frames_sha256, 'entry': entry}
    write_json(note, value, aside=staging.directory)
    os.replace(temporary, path)
  return entry


def make_shard_of_task(task, unused_report_progress):
  """Does `make_shard` in a worker process.

  Args:
    task: ShardTask.
    unused_report_progress: a shard is one piece of work.

  Returns:
    dict, as `make_shard` returns it. Or str, an error that must stop the run.
  """
  try:
    return make_shard(task.out, task.shard)
  except OutputError as error:
    return str(error)


def unstaged_rows(out, plan, *, shard_bytes=SHARD_BYTES):
  """Finds the videos whose frames are needed, and not there in full.

  Args:
    out: as for `write_dataset`.
    plan: likewise.
    shard_bytes: likewise.

  Returns:
    list of rows.
  """
  staging = Staging(out)
  return [
    row
    for shard in plan_shards(plan, shard_bytes=shard_bytes)
    if _noted(staging, shard) is None
    for row in shard.rows
    if not staging.has_frames(row)
  ]


def _note_path(staging, shard):
  """Returns where it is noted that a shard is complete."""
  return staging.directory / f'{shard.name.replace("/", "-")}.json'


def _noted(staging, shard):
  """Returns the entry of a shard of these frames that is complete, or None."""
  note = read_json(_note_path(staging, shard))
  if isinstance(note, dict) and (
    note.get('frames_sha256') == shard.frames_sha256
  ):
    return note['entry']
  return None


def shard_plan(num_bytes, *, shard_bytes):
  """Cuts consecutive videos into shards; no video straddles two.

  Args:
    num_bytes: list of int, size of each video's frames.
    shard_bytes: int, size at which a new shard is begun; raised where there
      would be more than MAX_SHARDS.

  Returns:
    list of (first, last + 1) row numbers, one for each shard.
  """
  limit = max(shard_bytes, -(-sum(num_bytes) // MAX_SHARDS))
  bounds, start, size = [], 0, 0
  for row, row_bytes in enumerate(num_bytes):
    if size and size + row_bytes > limit:
      bounds.append((start, row))
      start, size = row, 0
    size += row_bytes
  if size:
    bounds.append((start, len(num_bytes)))
  return bounds


def remove_dataset(out):
  """Removes the files of a data set; dataset.json goes first."""
  out = pathlib.Path(out)
  with output_errors(out):
    (out / 'dataset.json').unlink(missing_ok=True)
    for key in LISTS:
      (out / f'{key}.json').unlink(missing_ok=True)
    for split in SPLITS:
      (out / split / 'videos.parquet').unlink(missing_ok=True)
      for shard in (out / split).glob('frames-*.array_record'):
        shard.unlink()
      if (out / split).is_dir() and not any((out / split).iterdir()):
        (out / split).rmdir()


def _copy_frames(staging, path, rows, progress):
  """Copies staged frames; videos whose frames are damaged are forgotten."""
  damaged = []
  try:
    writer = array_record_module.ArrayRecordWriter(
      os.fspath(path), _WRITER_OPTIONS
    )
    for row in rows:
      if not _copy_video(staging, row, writer):
        damaged.append(row)
      if progress:
        progress(row['num_frames'])
    writer.close()
  except RuntimeError as error:
    raise OutputError(f'cannot write {path}: {error}') from error
  if damaged:
    for row in damaged:
      staging.forget(row)
    raise OutputError(
      f'the frames of {counted(len(damaged), "video")} in {staging.directory} '
      f'are damaged or gone, the first is {damaged[0]["path"]!r}; run the same '
      'command again: it decodes these again'
    )
  sync(path)


def _copy_video(staging, row, writer):
  """Copies the frames of a video; tells whether they are those of its row."""
  digest, num_frames = hashlib.sha256(), 0
  path = staging.frames_path(row['id'])
  try:
    with read_errors(path):
      for frame in read_frames_file(path, digest):
        writer.write(frame)
        num_frames += 1
  except FileNotFoundError:
    return False
  found = digest.hexdigest(), num_frames
  return found == (row['frames_sha256'], row['num_frames'])


def _remove_other_shards(out, files):
  """Removes shards of before videos had to be decoded again."""
  for path in out.glob('*/frames-*.array_record'):
    name = path.relative_to(out).as_posix()
    if is_dataset_file(name) and name not in files:
      with output_errors(path):
        path.unlink()


def _write_table(out, name, rows, labels):
  schema = pyarrow.schema(table_schema(labels))
  arrays = {name: [row[name] for row in rows] for name in schema.names}
  table = pyarrow.table(arrays, schema=schema)
  temporary = Staging(out).directory / 'table.tmp'
  with output_errors(out / name):
    with open(temporary, 'wb') as file:
      pyarrow.parquet.write_table(table, file)
    sync(temporary)
    os.replace(temporary, out / name)


def _finished(out, name, target):
  """Returns the entry of a file that is no shard, and delivers the file."""
  entry = _entry_of(out / name)
  if target is not None:
    target.deliver(name, entry)
  return {name: entry}


def _entry_of(path):
  return {'bytes': path.stat().st_size, 'sha256': file_digest(path)}


def _manifest(plan, files):
  rows = [row for split in SPLITS for row in plan['rows'][split]]
  expected = {'expected': plan['expected']} if 'expected' in plan else {}
  manifest = expected | {
    'format_version': FORMAT_VERSION,
    'name': plan['name'],
    'created_with': plan['created_with'],
    'options': plan['options'],
    'inputs': plan['inputs'],
    'splits': {
      split: {
        'videos': len(plan['rows'][split]),
        'frames': sum(row['num_frames'] for row in plan['rows'][split]),
      }
      for split in SPLITS
    },
    'labels': plan['labels'],
    'max_short_side': max(min(row['height'], row['width']) for row in rows),
    'max_long_side': max(max(row['height'], row['width']) for row in rows),
    'files': files,
    'fingerprint': fingerprint(plan['rows'], plan['labels']),
  }
  return manifest | {MANIFEST_DIGEST: manifest_digest(manifest)}
