"""A list of videos, or of parts of videos, with labels and splits."""

import collections
import dataclasses
import functools
import os
import pathlib

from dataset.dataset_layout import file_digest
from errors import InputError
from media.segments import parse_segment
from progress import progress_bar

from sources.find_videos import VideoFile
from sources.labels_and_splits import FOLDER_COLUMN, SPLIT_NAMES, split_by_hash
from sources.list_rows import name_in, read_rows
from sources.safe_paths import RefusedPathError, escaped, regular_file
from sources.source import Source, warning

_LABEL_PREFIX = 'label_'
_COLUMNS = ('path', 'label', 'split', 'start', 'end')
_SPLITS = SPLIT_NAMES | {'': None}


def read_list(file, *, root=None, name=None, val_percent=10):
  """Reads a list of videos.

  A row that names no usable file does not end the run: it is missing where
  there is no file, and skipped where its path is refused. A row that cannot
  be understood does.

  Args:
    file: path of a CSV, JSON lines or Parquet file with the column path, and
      where wanted label, label_*, split, start and end.
    root: path of the folder below which the files are; None for that of the
      list.
    name: of the data set; None for the name of the list.
    val_percent: share of val where there is no split, in [0, 100].

  Returns:
    Source.

  Raises:
    InputError: naming the line.
  """
  # First, so that a list that is not there is what is said.
  columns, rows = _known_rows(file)
  root = os.path.realpath(root or os.path.dirname(os.path.abspath(file)))
  if not os.path.isdir(root):
    raise InputError(f'--root {root} is not a folder')
  label_columns = _label_columns(file, columns)
  reader = _Reader(root, label_columns)
  with progress_bar('reading', 'row', len(rows), delay_seconds=5) as bar:
    for row in rows:
      reader.add(row)
      bar.update()
  reader.check(file)
  splits = _splits(reader, 'split' in columns, val_percent)
  digest = file_digest(file)
  return Source(
    folder=root,
    name=name or pathlib.Path(file).stem,
    splits=splits,
    labels=reader.labels,
    options={
      'definition': 'list',
      'val_percent': None if 'split' in columns else val_percent,
      'labels_sha256': None,
      'lists_sha256': [digest],
    },
    file_of_digest={digest: file},
    skipped=sorted(reader.skipped, key=lambda entry: entry['path']),
    num_left_out=len(reader.videos) - sum(map(len, splits.values())),
    warnings=[
      warning(os.path.basename(file), f'the column {column!r} is not used')
      for column in columns
      if not _is_used(column)
    ],
    missing=reader.missing,
  )


class _Reader:
  """Takes the rows of a list one by one.

  Attributes:
    videos: list of VideoFile.
    split_of_path: dict from path to 'train', 'val', 'test' or None.
    labels: dict from column to dict from path to class name.
    skipped: list of dict with 'path' and 'reason'.
    missing: list of dict with 'path' and 'split'.
  """

  def __init__(self, root, label_columns):
    self.videos = []
    self.split_of_path = {}
    self.labels = {column: {} for column in label_columns.values()}
    self.skipped = []
    self.missing = []
    # Lists of parts name a file in many rows.
    self._found = functools.lru_cache(maxsize=4096)(
      functools.partial(_found, root)
    )
    self._root = root
    self._label_columns = label_columns
    self._place_of_path = {}
    self._name_of_file = {}

  def add(self, row):
    """Takes a row."""
    segment, split = _segment(row), _split(row)
    written = row.cells.get('path', '')
    fragment = segment.fragment if segment else ''
    try:
      file, status, real = self._found(written)
    except RefusedPathError as error:
      # What has no path is found by its line.
      place = '' if written.strip() else f' ({row.place})'
      self._skip(f'{written}{fragment}', f'{error}{place}')
      return
    if status is None:
      self.missing.append({'path': f'{file}{fragment}', 'split': split})
      return
    video = VideoFile(file, file, status.st_size, status.st_mtime_ns, segment)
    # By two names, such as those of a symlink, it could be in both splits.
    first_name = self._name_of_file.setdefault(real, file)
    if first_name != file:
      self._skip(video.path, f'the same file as {first_name}')
      return
    first = self._place_of_path.setdefault(video.path, row.place)
    if first != row.place:
      other = self._contradiction(video.path, row, split)
      self._skip(video.path, f'already in {first}{other}')
      return
    self.videos.append(video)
    self.split_of_path[video.path] = split
    for cell, column in self._label_columns.items():
      if name := name_in(row, cell):
        self.labels[column][video.path] = name

  def _contradiction(self, path, row, split):
    """Says how a row differs from the one that its video is in, if at all."""
    first = self.split_of_path[path]
    if first != split:
      return (
        f', with another split: {first or "none"} there, {split or "none"} here'
      )
    for cell, column in self._label_columns.items():
      before, now = self.labels[column].get(path, ''), name_in(row, cell)
      if before != now:
        return f', with another {cell}: {before!r} there, {now!r} here'
    return ''

  def check(self, file):
    """Raises InputError where no row is left."""
    if self.videos:
      return
    if not self.missing and not self.skipped:
      raise InputError(f'{file} has no rows, only names of columns')
    example = ''
    if self.missing:
      example = f'; the first missing one is {self.missing[0]["path"]!r}'
    elif self.skipped:
      first = self.skipped[0]
      example = f'; the first one, {first["path"]!r}: {first["reason"]}'
    raise InputError(
      f'none of the videos in {file} can be used: {len(self.missing)} not in '
      f'{self._root} (--root), {len(self.skipped)} refused{example}'
    )

  def _skip(self, path, reason):
    self.skipped.append({'path': escaped(path), 'reason': reason})


def _found(root, path):
  """As `regular_file`, with the path without symlinks."""
  file, status = regular_file(root, path)
  return file, status, os.path.realpath(os.path.join(root, file))


def _known_rows(file):
  """Reads the rows, with the columns that are used under their own names."""
  columns, rows = read_rows(file, lambda column: _is_used(_known(column)))
  columns_of = collections.defaultdict(list)
  for column in columns:
    columns_of[_known(column)].append(column)
  for name, same in columns_of.items():
    if len(same) > 1 and _is_used(name):
      raise InputError(
        f'{file}: the columns {" and ".join(map(repr, same))} differ in capital '
        'letters only'
      )
  if list(columns_of) != columns:
    rows = [
      dataclasses.replace(
        row, cells={_known(k): v for k, v in row.cells.items()}
      )
      for row in rows
    ]
  return list(columns_of), rows


def _known(column):
  """The name of a column that is used, in whatever letters; others stay."""
  lower = column.lower()
  if lower in _COLUMNS:
    return lower
  if lower.startswith(_LABEL_PREFIX):
    return _LABEL_PREFIX + column[len(_LABEL_PREFIX) :]
  return column


def _is_used(column):
  return column in _COLUMNS or column.startswith(_LABEL_PREFIX)


def _label_columns(file, columns):
  """Returns dict from column of the list to label column of the data set."""
  if 'path' not in columns:
    raise InputError(
      f'{file} has no column "path", only {", ".join(map(repr, columns))}; '
      'the others may be label or label_*, split, start and end, with commas '
      'between them'
    )
  found = {
    column: column.removeprefix(_LABEL_PREFIX)
    for column in columns
    if column == FOLDER_COLUMN or column.startswith(_LABEL_PREFIX)
  }
  if len(set(found.values())) < len(found) or not all(found.values()):
    raise InputError(f'{file}: label columns must be unique and have a name')
  return found


def _segment(row):
  try:
    return parse_segment(row.cells.get('start'), row.cells.get('end'))
  except ValueError as error:
    raise InputError(f'{row.place}: {error}') from error


def _split(row):
  split = row.cells.get('split', '').strip().lower()
  if split not in _SPLITS:
    raise InputError(
      f'{row.place}: the split {split!r} is none of train, val and test'
    )
  return _SPLITS[split]


def _splits(reader, has_splits, val_percent):
  """Returns the splits; test is val where there is no val."""
  if not has_splits:
    return split_by_hash(
      sorted(reader.videos, key=lambda video: video.path),
      val_percent=val_percent,
    )
  given = set(reader.split_of_path.values())
  held_out = 'val' if 'val' in given else 'test'
  splits = {
    split: sorted(
      (v for v in reader.videos if reader.split_of_path[v.path] == wanted),
      key=lambda video: video.path,
    )
    for split, wanted in (('train', 'train'), ('val', held_out))
  }
  if not any(splits.values()):
    raise InputError(
      'no video of the list is in a split: the column split is empty for all '
      'that are there'
    )
  return splits
