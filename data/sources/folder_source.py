"""A folder of video files, with labels and splits beside it or from it."""

import os

from dataset.dataset_layout import file_digest
from errors import InputError
from media.guarded_container import VIDEO_SUFFIXES
from wording import counted, named, quoted

from sources.find_videos import find_videos, named_suffixes
from sources.labels_and_splits import (
  LABELS_FILE,
  columns_of_lists,
  folder_labels,
  read_labels,
  read_path_list,
  split_by_folders,
  split_by_hash,
  split_by_lists,
  split_folders,
  stray_folders,
)
from sources.source import Source, warning

VAL_PERCENT = 10
_MAX_CLASSES = 6


def read_folder(
  videos,
  *,
  name=None,
  labels=None,
  train_list=None,
  val_list=None,
  val_percent=None,
  follow_links=False,
  without_labels=False,
):
  """Lists a folder of videos with their labels and splits.

  Folders at the top that are called train and val are splits, and the classes
  are the folders in them.

  Args:
    videos: path of the folder.
    name: of the data set; None for the name of the folder.
    labels: path of a table of labels; None for labels.csv in the folder
      where there is one, else for the subfolders.
    train_list: path of a list of videos, or None.
    val_list: path of a list of videos, or None.
    val_percent: share of val where there are no lists, in [0, 100]; None for
      the folders train and val where there are such, else for 10.
    follow_links: whether to follow symlinks out of the folder.
    without_labels: whether there are to be none, whatever is there.

  Returns:
    Source.

  Raises:
    InputError: if the input does not allow it.
  """
  folder = os.path.realpath(videos)
  listing = list_videos(videos, follow_links=follow_links)
  paths = [video.path for video in listing.videos]
  split_of_folder = split_folders(paths)
  class_of_path, labels_file = {}, None
  if not without_labels:
    class_of_path, labels_file = _labels(folder, paths, labels, split_of_folder)
  lists = _lists(train_list, val_list)
  listed = [read_path_list(file, folder) for file in lists]
  splits, options = _splits(
    listing.videos, listed, val_percent, split_of_folder
  )
  if without_labels:
    options |= {'without_labels': True}
  elif split_of_folder and labels_file is None:
    # Versions before took the folders at the top for classes.
    options |= {'class_depth': 1}
  warnings = _without_columns_of_lists(class_of_path, labels_file)
  warnings += _rows_without_video(folder, class_of_path, paths, labels_file)
  for file, names in zip(lists, listed, strict=True):
    warnings += [
      warning(path, f'in {os.path.basename(file)}, but not in the folder')
      for path in sorted(names - set(paths))
    ]
  warnings += _about_splits(paths, split_of_folder, options)
  if labels_file is None and not without_labels:
    warnings += _about_classes(paths, depth=bool(split_of_folder))
    warnings += _about_strays(paths)
  deciding = [*lists, labels_file] if labels_file else lists
  digests = {file: file_digest(file) for file in deciding}
  return Source(
    folder=folder,
    name=name or os.path.basename(folder),
    splits=splits,
    labels=class_of_path,
    options=options
    | {
      'labels_sha256': digests.get(labels_file),
      'lists_sha256': [digests[file] for file in lists],
    },
    skipped=listing.skipped,
    other_files=listing.other_files,
    file_of_digest={digests[file]: file for file in digests},
    num_left_out=len(paths) - sum(map(len, splits.values())),
    warnings=warnings,
  )


def list_videos(folder, *, follow_links=False):
  """Lists the videos below the folder that --videos names.

  Args:
    folder: path.
    follow_links: whether to follow symlinks out of it.

  Returns:
    Listing, with at least one video.

  Raises:
    InputError: if there is no such folder, or no video in it.
  """
  if os.path.isfile(folder):
    raise InputError(
      f'--videos {folder} is a file, and no folder; where it is an archive, '
      'unpack it and name the folder'
    )
  if not os.path.isdir(folder):
    raise InputError(f'--videos {folder} is not a folder')
  try:
    listing = find_videos(folder, follow_links=follow_links)
  except OSError as error:
    raise InputError(
      f'--videos {folder} cannot be listed: {error.strerror}'
    ) from error
  if not listing.videos:
    others = listing.other_files
    kinds = f': {named_suffixes(others)}' if others else ''
    first = ''
    if listing.skipped:
      first = ', such as {path!r}: {reason}'.format(**listing.skipped[0])
    raise InputError(
      f'no video files in {folder} ({counted(sum(others.values()), "other file")}{kinds}; '
      f'{len(listing.skipped)} skipped{first}); known suffixes: '
      + ' '.join(sorted(VIDEO_SUFFIXES))
    )
  return listing


def _labels(folder, paths, file, split_of_folder):
  """Returns the labels and the file that they come from, if any."""
  if file is None:
    own_file = os.path.join(folder, LABELS_FILE)
    file = own_file if os.path.isfile(own_file) else None
  if file is None:
    return folder_labels(paths, depth=bool(split_of_folder)), None
  labels = read_labels(file, folder)
  if not any(path in labels[column] for column in labels for path in paths):
    other = next((path for column in labels.values() for path in column), None)
    raise InputError(
      f'{file} names no video of the folder{f", but {other!r}" if other else ""}; '
      f'its paths must be relative to the folder, such as {paths[0]!r}'
    )
  return labels, file


def _lists(train_list, val_list):
  """Returns the files of the lists, if any."""
  lists = [file for file in (train_list, val_list) if file]
  if len(lists) == 1:
    raise InputError('--train-list and --val-list must be given together')
  return lists


def _splits(videos, listed, val_percent, split_of_folder):
  """Returns the splits, and the options that say what decided about them."""
  if listed:
    train, val = listed
    splits = split_by_lists(videos, train=train, val=val)
    return splits, {'val_percent': None}
  if split_of_folder and val_percent is None:
    splits = split_by_folders(videos, split_of_folder)
    return splits, {'val_percent': None, 'split_folders': split_of_folder}
  percent = VAL_PERCENT if val_percent is None else val_percent
  return split_by_hash(videos, val_percent=percent), {'val_percent': percent}


def _about_splits(paths, split_of_folder, options):
  """Warns of what one might take for another split than it is."""
  if split_of_folder and options['val_percent'] is not None:
    text = 'is no split: --val-percent has a hash of the paths choose instead'
    return [warning(folder, text) for folder in split_of_folder]
  if 'split_folders' not in options:
    return []
  left_out = 'in no split: it is left out where there is a folder for val'
  loose = f'in no split: it is in none of {", ".join(split_of_folder)}'
  return [
    warning(folder, left_out)
    for folder, split in split_of_folder.items()
    if split is None
  ] + [warning(path, loose) for path in paths if '/' not in path]


def _about_classes(paths, *, depth):
  """Warns where all videos lie deeper than in the folders of the classes."""
  inside = [path.split('/') for path in paths if path.count('/') > depth]
  if not inside or any(len(parts) == depth + 2 for parts in inside):
    return []
  first = inside[0][: depth + 2]
  classes = sorted({parts[depth] for parts in inside})
  if len(classes) == 1:
    what = f'it is a class, and its subfolders, such as {first[-1]}, are none'
    remedy = 'name the folder right above them with --videos, or '
  else:
    what = (
      f'all {len(classes)} classes ({named(classes, _MAX_CLASSES)}) hold '
      f'folders only, and these, such as {first[-1]}, are no classes'
    )
    remedy = ''
  return [
    warning(
      '/'.join(first[:-1]),
      f'{what}; where they are the classes, {remedy}give {LABELS_FILE}',
    )
  ]


def _about_strays(paths):
  text = (
    'beside it, train and val are classes, and no split; move it out of the '
    'folder, or give lists, where they should be'
  )
  return [warning(folder, text) for folder in stray_folders(paths)]


def _without_columns_of_lists(labels, file):
  """Takes columns that only a list has out of the labels, and names them."""
  columns = columns_of_lists(labels)
  for column in columns:
    del labels[column]
  return [
    warning(
      os.path.basename(file),
      f'the column {column!r} is not used; "prepare.py list --list" reads '
      'split, start and end',
    )
    for column in columns
  ]


def _rows_without_video(folder, labels, paths, labels_file):
  if labels_file is None:
    return []
  named = set().union(*(set(labels[column]) for column in labels))
  file, alike = os.path.basename(labels_file), _by_small_letters(paths)
  return [
    warning(path, f'in {file}, but {_what_is_there(folder, path, alike)}')
    for path in sorted(named.difference(paths))
  ]


def _by_small_letters(paths):
  """Paths by how they read where upper and lower case are one."""
  return {path.casefold(): path for path in paths}


def _what_is_there(folder, path, alike):
  """What stands where a row names a video and there is none."""
  if os.path.lexists(os.path.join(folder, path)):
    return 'not a video'
  near = alike.get(path.casefold())
  return 'there is no such file' + (
    f'; did you mean {quoted(near)}?' if near else ''
  )
