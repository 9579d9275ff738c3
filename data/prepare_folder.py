"""Turns a folder of video files into a prepared data set."""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import os
import pathlib
import sys

from dataset_writer import (
  SPLITS,
  file_digest,
  remove_dataset,
  write_dataset,
)
from find_videos import find_videos
from labels_and_splits import (
  LABELS_FILE,
  InputError,
  folder_labels,
  number_classes,
  read_labels,
  read_path_list,
  split_by_hash,
  split_by_lists,
)
from open_video import VIDEO_SUFFIXES
from prepare_video import Task, is_current, prepare_video
from progress import progress_bar
from staging import OutputError, Staging, output_errors, read_json, write_json
from video_frames import FrameOptions
from worker_pool import Failure, WorkerPool

_PACKAGES = ('array_record', 'av', 'numpy', 'pillow', 'pyarrow')
_RESTART = 'add --restart to throw it away and start again'


@dataclasses.dataclass(frozen=True)
class Request:
  """What to prepare, and how.

  Attributes:
    videos: path of the folder of videos.
    out: path of the output directory.
    name: of the data set; None for the name of the folder.
    labels: path of a table of labels; None for labels.csv in the folder
      where there is one, else for the subfolders.
    train_list: path of a list of videos, or None.
    val_list: path of a list of videos, or None.
    val_percent: share of val where there are no lists, in [0, 100].
    num_processes: worker processes.
    timeout_seconds: after which a video is given up.
    restart: whether to throw away what is in `out`.
    frames: FrameOptions.
  """

  videos: str
  out: str
  name: str | None = None
  labels: str | None = None
  train_list: str | None = None
  val_list: str | None = None
  val_percent: int = 10
  num_processes: int = 1
  timeout_seconds: int = 600
  restart: bool = False
  frames: FrameOptions = dataclasses.field(default_factory=FrameOptions)


@dataclasses.dataclass(frozen=True)
class _Source:
  """The input of a run, read and checked before anything is written."""

  folder: str
  listing: object
  labels: dict
  splits: dict
  setup: dict
  warnings: list

  @property
  def videos(self):
    videos = [video for split in SPLITS for video in self.splits[split]]
    return sorted(videos, key=lambda video: video.path)


def prepare_folder(request):
  """Prepares a folder of videos, or goes on where a killed run stopped.

  Args:
    request: Request.

  Returns:
    (manifest, is_new): the content of dataset.json, and False where the data
    set was already complete.

  Raises:
    InputError: if the input or the state of `out` does not allow it.
    OutputError: if the output cannot be written.
  """
  source = _read_source(request)
  out = pathlib.Path(request.out)
  with output_errors(out):
    out.mkdir(parents=True, exist_ok=True)
  with _locked(out):
    if not request.restart and _is_complete(out, source):
      Staging(out).remove()
      return read_json(out / 'dataset.json'), False
    staging = _open_staging(out, source.setup, restart=request.restart)
    plan = read_json(staging.directory / 'plan.json')
    if plan is None:
      plan = _make_plan(source, _decode_all(source, request, staging))
      path = staging.directory / 'plan.json'
      write_json(path, plan, aside=staging.directory)
    _check_same_inputs(out, plan['inputs'], source)
    _write(out, plan)
  return read_json(out / 'dataset.json'), True


def _read_source(request):
  folder = os.path.realpath(request.videos)
  listing = _list_videos(folder, request)
  paths = [video.path for video in listing.videos]
  labels, labels_file = _labels(folder, paths, request)
  splits, lists = _splits(listing.videos, request)
  options = dataclasses.asdict(request.frames) | {
    'val_percent': None if lists else request.val_percent,
    'labels_sha256': file_digest(labels_file) if labels_file else None,
    'lists_sha256': [file_digest(file) for file in lists],
  }
  setup = {
    'name': request.name or os.path.basename(folder),
    'options': options,
    'created_with': _versions(),
  }
  warnings = _rows_without_file(labels, paths, labels_file)
  for file in lists:
    warnings += [
      _warning(path, f'in {os.path.basename(file)}, but not in the folder')
      for path in sorted(read_path_list(file) - set(paths))
    ]
  return _Source(folder, listing, labels, splits, setup, warnings)


def _list_videos(folder, request):
  if not os.path.isdir(folder):
    raise InputError(f'--videos {request.videos} is not a folder')
  if os.path.realpath(request.out) == folder:
    raise InputError('--out must be another directory than --videos')
  try:
    listing = find_videos(folder)
  except OSError as error:
    raise InputError(
      f'--videos {request.videos} cannot be listed: {error.strerror}'
    ) from error
  if not listing.videos:
    raise InputError(
      f'no video files in {request.videos} ({listing.num_other_files} other '
      f'files, {len(listing.skipped)} skipped); known suffixes: '
      + ' '.join(sorted(VIDEO_SUFFIXES))
    )
  return listing


def _labels(folder, paths, request):
  """Returns the labels and the file that they come from, if any."""
  file = request.labels
  if file is None:
    own_file = os.path.join(folder, LABELS_FILE)
    file = own_file if os.path.isfile(own_file) else None
  if file is None:
    return folder_labels(paths), None
  labels = read_labels(file)
  if not any(path in labels[column] for column in labels for path in paths):
    raise InputError(
      f'{file} names no video of the folder; its paths must be relative to '
      f'the folder, such as {paths[0]!r}'
    )
  return labels, file


def _splits(videos, request):
  """Returns the splits and the files of the lists, if any."""
  lists = [file for file in (request.train_list, request.val_list) if file]
  if not lists:
    return split_by_hash(videos, val_percent=request.val_percent), []
  if len(lists) == 1:
    raise InputError('--train-list and --val-list must be given together')
  train, val = (read_path_list(file) for file in lists)
  return split_by_lists(videos, train=train, val=val), lists


def _rows_without_file(labels, paths, labels_file):
  if labels_file is None:
    return []
  named = set().union(*(set(labels[column]) for column in labels))
  return [
    _warning(path, f'in {os.path.basename(labels_file)}, but not a video')
    for path in sorted(named.difference(paths))
  ]


def _warning(path, text):
  return {'path': path, 'warning': text}


def _versions():
  return {name: importlib.metadata.version(name) for name in _PACKAGES}


@contextlib.contextmanager
def _locked(out):
  """Holds a lock on the output directory; the system frees it at a kill."""
  descriptor = os.open(out, os.O_RDONLY)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
        raise InputError(
          f'another run is preparing {out}; wait for it or choose another --out'
        ) from error
      # Some network file systems cannot lock a directory.
      print(f'Note: {out} cannot be locked.', file=sys.stderr)
    yield
  finally:
    os.close(descriptor)


def _is_complete(out, source):
  """Tells whether the same data set is there already."""
  path = out / 'dataset.json'
  if not path.exists():
    return False
  manifest = read_json(path)
  if manifest is None:
    raise InputError(f'{path} is damaged; {_RESTART}')
  for key in ('name', 'options'):
    _check_same(out, key, manifest[key], source.setup[key])
  _check_same_inputs(out, manifest['inputs'], source)
  finished_ns = path.stat().st_mtime_ns
  if any(video.mtime_ns > finished_ns for video in source.videos):
    digests = {
      video.path: _digest_or_empty(source.folder, video.path)
      for video in source.videos
    }
    if _content_digest(digests) != manifest['inputs']['content_sha256']:
      raise InputError(
        f'videos have changed since {out} was prepared; {_RESTART}'
      )
  return True


def _check_same(out, key, old, new):
  if old == new:
    return
  if isinstance(old, dict):
    changed = ', '.join(
      f'{name} {old.get(name)!r} -> {new.get(name)!r}'
      for name in sorted(old.keys() | new.keys())
      if old.get(name) != new.get(name)
    )
  else:
    changed = f'{old!r} -> {new!r}'
  raise InputError(
    f'{out} was begun with other settings, {key}: {changed}; use the same '
    f'as before, or {_RESTART}'
  )


def _check_same_inputs(out, inputs, source):
  if inputs['listing_sha256'] != _listing_digest(source.videos):
    raise InputError(
      f'the video files are not those from which {out} was prepared '
      f'({inputs["files"]} files then, {len(source.videos)} now); {_RESTART}'
    )


def _listing_digest(videos):
  return _digest_of([[video.path, video.size] for video in videos])


def _content_digest(digest_of_path):
  return _digest_of(sorted(digest_of_path.items()))


def _digest_of(lines):
  digest = hashlib.sha256()
  for line in lines:
    digest.update(f'{line!r}\n'.encode())
  return digest.hexdigest()


def _digest_or_empty(folder, path):
  try:
    return file_digest(os.path.join(folder, path))
  except OSError:
    return ''


def _open_staging(out, setup, *, restart):
  """Finds or begins the staging directory; never touches foreign files."""
  staging = Staging(out)
  is_ours = staging.exists() or (out / 'dataset.json').exists()
  if not is_ours and any(out.iterdir()):
    raise InputError(
      f'{out} is not empty and holds no prepared data set; choose another --out'
    )
  old = staging.setup()
  if old is None or restart:
    with output_errors(out):
      # First the mark that these files are ours, so that a kill in between
      # leaves something this function recognises.
      staging.directory.mkdir(exist_ok=True)
      remove_dataset(out)
      staging.clear()
    staging.start(setup)
  else:
    for key in ('name', 'options', 'created_with'):
      _check_same(out, key, old[key], setup[key])
  staging.remove_leftovers()
  return staging


def _decode_all(source, request, staging):
  """Decodes what is not yet in the staging directory.

  Returns:
    dict from path to record, one for each video of the two splits.
  """
  records, tasks = {}, []
  for video in source.videos:
    record = staging.record(video.id)
    if is_current(record, video):
      records[video.path] = record
    else:
      tasks.append(_task(video, source, request))
  pool = WorkerPool(
    prepare_video,
    num_processes=request.num_processes,
    timeout_seconds=request.timeout_seconds,
  )
  bar = progress_bar('decoding', 'video', len(source.videos), len(records))
  with contextlib.ExitStack() as at_the_end:
    # Last of all, so that no process is writing any more.
    at_the_end.callback(staging.remove_leftovers)
    at_the_end.enter_context(pool)
    at_the_end.enter_context(bar)
    for task, outcome in pool.run(tasks):
      if isinstance(outcome, str):
        raise OutputError(outcome)
      if isinstance(outcome, Failure):
        digest = _digest_or_empty(source.folder, task.path)
        outcome = {'source_sha256': digest, 'reason': outcome.reason}
      records[task.path] = outcome
      bar.update()
  return records


def _task(video, source, request):
  return Task(
    folder=source.folder,
    path=video.path,
    id=video.id,
    size=video.size,
    mtime_ns=video.mtime_ns,
    out=os.path.abspath(request.out),
    options=request.frames,
  )


def _make_plan(source, records):
  """Decides the whole content of the data set, but for the frames."""
  rows = {split: _rows(source.splits[split], records) for split in SPLITS}
  all_rows = [row for split in SPLITS for row in rows[split]]
  failed = [
    {'path': path, 'reason': record['reason']}
    for path, record in records.items()
    if 'reason' in record
  ]
  skipped = source.listing.skipped + failed
  skipped = sorted(skipped, key=lambda entry: entry['path'])
  if not all_rows:
    raise InputError(
      f'none of the {len(records)} video files could be used. '
      + '; '.join(f'{e["path"]!r}: {e["reason"]}' for e in skipped[:20])
    )
  paths = [row['path'] for row in all_rows]
  class_names, numbers = number_classes(source.labels, paths)
  for column, values in numbers.items():
    for row, value in zip(all_rows, values, strict=True):
      row[f'label_{column}'] = value
  num_left_out = len(source.listing.videos) - len(source.videos)
  return {
    'name': source.setup['name'],
    'created_with': source.setup['created_with'],
    'options': source.setup['options'],
    'inputs': _inputs(source.videos, records)
    | {
      'other_files': source.listing.num_other_files,
      'left_out': num_left_out,
    },
    'labels': class_names,
    'rows': rows,
    'skipped': skipped,
    'warnings': _warnings(source, records, all_rows),
  }


def _rows(videos, records):
  """Returns the rows of a split by path, numbered through."""
  rows, first_frame = [], 0
  for video in videos:
    if 'row' in records[video.path]:
      row = records[video.path]['row'] | {'first_frame': first_frame}
      first_frame += row['num_frames']
      rows.append(row)
  return rows


def _inputs(videos, records):
  digests = {path: record['source_sha256'] for path, record in records.items()}
  return {
    'files': len(videos),
    'bytes': sum(video.size for video in videos),
    'listing_sha256': _listing_digest(videos),
    'content_sha256': _content_digest(digests),
  }


def _warnings(source, records, rows):
  warnings = list(source.warnings)
  for path in sorted(records):
    warnings += [
      _warning(path, text) for text in records[path].get('warnings', [])
    ]
  first_path = {}
  for row in sorted(rows, key=lambda row: row['path']):
    first = first_path.setdefault(row['source_sha256'], row['path'])
    if first != row['path']:
      warnings.append(_warning(row['path'], f'same content as {first}'))
  return warnings


def _write(out, plan):
  total = sum(
    row['num_frames'] for split in SPLITS for row in plan['rows'][split]
  )
  with progress_bar('writing', 'frame', total) as bar:
    write_dataset(out, plan, progress=bar.update)
