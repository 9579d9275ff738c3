"""Which video has which labels, and which belongs to train or val."""

import collections
import csv
import hashlib
import io
import itertools
import json
import os
import pathlib
import posixpath

from errors import InputError
from wording import counted

UNKNOWN = -1
FOLDER_COLUMN = 'label'
LABELS_FILE = 'labels.csv'

# Of all label columns together, in dataset.json, of which readers take twice as
# much. Each name has a line of its own there.
MAX_NAME_BYTES = 2**25
_BYTES_BESIDE_A_NAME = 8

# What splits are called, in lower case, by folders at the top and in lists.
SPLIT_NAMES = {
  'train': 'train',
  'training': 'train',
  'val': 'val',
  'valid': 'val',
  'validate': 'val',
  'validation': 'val',
  'test': 'test',
  'testing': 'test',
}
# Columns that a list has, and a table of labels has not.
_COLUMNS_OF_LISTS = ('split', 'start', 'end')


def folder_labels(paths, *, depth=0):
  """Takes a folder of each path as its class.

  Args:
    paths: list of str, relative, with '/'.
    depth: how many folders are above that of the class.

  Returns:
    dict from column to dict from path to class name; no column where no file
    lies in such a folder. Files above it are left out.
  """
  names = {}
  for path in paths:
    folders = path.split('/')[:-1]
    if len(folders) > depth:
      names[path] = folders[depth]
  return {FOLDER_COLUMN: names} if names else {}


def split_folders(paths):
  """Tells which folders at the top are splits, and not classes.

  They are where all that hold videos have names of SPLIT_NAMES, in any case,
  and train and another one are there.

  Args:
    paths: list of str, relative, with '/'.

  Returns:
    dict from the name of each folder to 'train', 'val' or, for test where
    there is val, None. Empty where they are no splits.
  """
  found = _top_folders(paths)
  given = set(found.values())
  if None in given or 'train' not in given or len(given) < 2:
    return {}
  held_out = 'val' if 'val' in given else 'test'
  part_of = {'train': 'train', held_out: 'val'}
  return {name: part_of.get(split) for name, split in found.items()}


def stray_folders(paths):
  """Names the folders beside train and another split that are none.

  Args:
    paths: as in `split_folders`, which they make return nothing.

  Returns:
    list of str.
  """
  found = _top_folders(paths)
  given = set(found.values()) - {None}
  if 'train' not in given or len(given) < 2:
    return []
  return [name for name, split in found.items() if split is None]


def _top_folders(paths):
  """dict from each folder at the top to the split of that name, or None."""
  folders = sorted({path.split('/')[0] for path in paths if '/' in path})
  return {name: SPLIT_NAMES.get(name.lower()) for name in folders}


def read_labels(file, folder):
  """Reads a table of labels: a path, and one or more label columns.

  Args:
    file: path of a CSV file with a header, in UTF-8. The column 'path' is
      relative to the folder of videos, or absolute and below it.
    folder: str, that folder, without symlinks.

  Returns:
    dict from column to dict from path to class name; an empty cell means
    that the label is unknown and is left out.

  Raises:
    InputError: naming the line.
  """
  file = pathlib.Path(file)
  rows = _csv_rows(file)
  if not rows:
    raise InputError(f'{file} is empty; its first line must be "path,..."')
  names = _checked_header(file, rows[0][1])
  labels = {name: {} for name in names if name not in ('path', '')}
  line_of_path = {}
  for line, cells in rows[1:]:
    if len(cells) != len(names):
      raise InputError(
        f'{file}, line {line}: {counted(len(cells), "cell")} instead of '
        f'{len(names)}'
      )
    _check_nameless(f'{file}, line {line}', names, cells)
    cell_of = dict(zip(names, cells, strict=True))
    path = _relative_path(cell_of.pop('path'), folder, f'{file}, line {line}')
    if path in line_of_path:
      raise InputError(
        f'{file}, line {line}: {path!r} is already on line {line_of_path[path]}'
      )
    line_of_path[path] = line
    for column, cell in cell_of.items():
      if cell.strip():
        labels[column][path] = cell.strip()
  return labels


def columns_of_lists(labels):
  """Names the columns of a table of labels that are for `prepare.py list`.

  Args:
    labels: dict from column, as `read_labels` returns it.

  Returns:
    list of str: split, start and end, in any case.
  """
  return [name for name in labels if name.lower() in _COLUMNS_OF_LISTS]


def read_path_list(file, folder):
  """Reads a list of videos, one path a line.

  Args:
    file: path of a text file in UTF-8; empty lines are passed over. Paths are
      relative to the folder of videos, or absolute and below it.
    folder: str, that folder, without symlinks.

  Returns:
    set of str, relative.

  Raises:
    InputError: naming the line.
  """
  paths = set()
  for number, line in enumerate(_text(file).split('\n'), 1):
    line = line.removesuffix('\r')
    if line.strip():
      paths.add(_relative_path(line, folder, f'{file}, line {number}'))
  return paths


def number_classes(labels, paths):
  """Numbers the classes that occur, in alphabetical order.

  Args:
    labels: dict from column to dict from path to class name.
    paths: list of str, the videos.

  Returns:
    (class_names, numbers): dict from column to sorted list of str, and dict
    from column to list of int, one for each path, UNKNOWN where there is no
    label.
  """
  class_names, numbers = {}, {}
  for column, class_of_path in labels.items():
    names = sorted({class_of_path[p] for p in paths if p in class_of_path})
    number_of = {name: number for number, name in enumerate(names)}
    class_names[column] = names
    numbers[column] = [
      number_of.get(class_of_path.get(path), UNKNOWN) for path in paths
    ]
  return class_names, numbers


def check_class_names(labels):
  """Refuses more class names than readers of a data set take.

  Args:
    labels: dict from column to dict from path to class name.

  Raises:
    InputError: naming the column that takes most.
  """
  names = {column: set(found.values()) for column, found in labels.items()}
  sizes = {
    column: sum(len(json.dumps(name)) + _BYTES_BESIDE_A_NAME for name in found)
    for column, found in names.items()
  }
  if sum(sizes.values()) <= MAX_NAME_BYTES:
    return
  largest = max(sizes, key=sizes.get)
  raise InputError(
    f'{counted(sum(map(len, names.values())), "class name")} of labels take '
    f'{sum(sizes.values()) >> 20} MiB, and a data set has room for '
    f'{MAX_NAME_BYTES >> 20}: leave out what names no classes; the largest column '
    f'is {largest!r}, with {len(names[largest])}'
  )


def split_by_hash(videos, *, val_percent):
  """Puts about val_percent of the files into val, by a hash of the path.

  Segments of one file are never on both sides. Where the hashes alone leave a
  split less than half of its share, or no file at all of two or more, it gets
  the files whose hashes come closest; a large folder has none of these, and
  its files stay where they are when others come.

  Args:
    videos: list of VideoFile.
    val_percent: int in [0, 100].

  Returns:
    dict with the list of VideoFile of 'train' and of 'val'.
  """
  hashes = {video.name: _hash(video.name) for video in videos}
  names = sorted(hashes, key=hashes.get)
  num_val = sum(number < val_percent for number, _ in hashes.values())
  num_val = max(num_val, _fewest(len(names), val_percent))
  num_val = min(num_val, len(names) - _fewest(len(names), 100 - val_percent))
  in_val = set(names[:num_val])
  splits = {'train': [], 'val': []}
  for video in videos:
    splits['val' if video.name in in_val else 'train'].append(video)
  return splits


def _hash(name):
  """Returns a number in [0, 100), and what orders names of the same one."""
  digest = hashlib.sha256(name.encode()).hexdigest()
  return int(digest[:8], 16) % 100, digest


def _fewest(num_files, percent):
  """How many files a split must have that is to have such a share of them."""
  if num_files < 2 or not percent:
    return 0
  return max(1, -(-num_files * percent // 200))


def check_apart(train, val):
  """Refuses lists of both splits that share a path.

  Args:
    train: set of str.
    val: set of str.

  Raises:
    InputError: naming the first of them.
  """
  both = train & val
  if both:
    raise InputError(
      f'paths that are in both lists: {len(both)}, the first is {min(both)!r}'
    )


def split_by_lists(videos, *, train, val):
  """Splits by two lists; videos in neither are left out.

  Args:
    videos: list of VideoFile.
    train: set of str, paths.
    val: set of str, paths.

  Returns:
    dict with the list of VideoFile of 'train' and of 'val'.

  Raises:
    InputError: if a path is in both lists, or none is in the folder.
  """
  check_apart(train, val)
  splits = {
    'train': [video for video in videos if video.path in train],
    'val': [video for video in videos if video.path in val],
  }
  if videos and not (splits['train'] or splits['val']):
    raise InputError(
      'no video of the folder is in the lists; lines must be paths '
      f'relative to the folder, such as {videos[0].path!r}'
    )
  return splits


def split_by_folders(videos, split_of_folder):
  """Splits by the folder at the top; videos outside of these are left out.

  Args:
    videos: list of VideoFile.
    split_of_folder: dict, as `split_folders` returns it.

  Returns:
    dict with the list of VideoFile of 'train' and of 'val'.
  """
  splits = {'train': [], 'val': []}
  for video in videos:
    split = split_of_folder.get(video.name.split('/')[0])
    if split and '/' in video.name:
      splits[split].append(video)
  return splits


def _text(file):
  try:
    # Not read_text: it would change line ends inside of quoted names.
    return pathlib.Path(file).read_bytes().decode('utf-8-sig')
  except OSError as error:
    raise InputError(f'{file} cannot be read: {error.strerror}') from error
  except UnicodeDecodeError as error:
    line = error.object[: error.start].count(b'\n') + 1
    raise InputError(f'{file}, line {line}: not UTF-8') from error


def _csv_rows(file):
  """Returns (line number, cells) of each row in which there is something."""
  reader = csv.reader(io.StringIO(_text(file), newline=''), strict=True)
  rows, line = [], 1
  try:
    for cells in reader:
      if any(map(str.strip, cells)):
        rows.append((line, cells))
      line = reader.line_num + 1
  except csv.Error as error:
    raise InputError(f'{file}, line {reader.line_num}: {error}') from error
  return rows


def _checked_header(file, header):
  """Returns the names of all columns, and '' of those that end the line.

  Spreadsheets write commas for them.
  """
  names = [name.strip() for name in header]
  names = ['path' if name.lower() == 'path' else name for name in names]
  named = names[: len(names) - _num_unnamed_at_end(names)]
  if 'path' not in named or len(named) < 2:
    raise InputError(
      f'{file}, line 1: the header must be "path" and one or more label '
      f'columns, with commas between them, not {",".join(names)!r}'
    )
  repeated = [name for name, n in collections.Counter(named).items() if n > 1]
  if repeated or not all(named):
    raise InputError(
      f'{file}, line 1: column names must be unique and not empty'
    )
  return names


def _check_nameless(place, names, cells):
  for name, cell in zip(names, cells, strict=True):
    if cell.strip() and not name:
      raise InputError(
        f'{place}: {cell!r} is in a column without a name; name it on line 1'
      )


def _num_unnamed_at_end(names):
  return len(list(itertools.takewhile(lambda name: not name, reversed(names))))


def _relative_path(text, folder, place):
  path = posixpath.normpath(text)
  if path.startswith('/') and '\0' not in path:
    path = _relative_to(folder, path)
  if path.startswith(('/', '../')) or path in ('.', '..'):
    raise InputError(
      f'{place}: {text!r} is not a path relative to the folder of videos, nor '
      'one below it'
    )
  return path


def _relative_to(folder, path):
  """Returns an absolute path relative to a folder, or as it is."""
  for place in (path, os.path.realpath(path)):
    if pathlib.PurePosixPath(place).is_relative_to(folder):
      return os.path.relpath(place, folder)
  return path
