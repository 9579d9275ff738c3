"""A folder of video files, with labels and splits beside it or from it."""

import os

from dataset_writer import file_digest
from find_videos import find_videos
from labels_and_splits import (
  LABELS_FILE,
  InputError,
  folder_labels,
  read_labels,
  read_path_list,
  split_by_hash,
  split_by_lists,
)
from open_video import VIDEO_SUFFIXES
from source import Source, warning


def read_folder(
  videos,
  *,
  name=None,
  labels=None,
  train_list=None,
  val_list=None,
  val_percent=10,
):
  """Lists a folder of videos with their labels and splits.

  Args:
    videos: path of the folder.
    name: of the data set; None for the name of the folder.
    labels: path of a table of labels; None for labels.csv in the folder
      where there is one, else for the subfolders.
    train_list: path of a list of videos, or None.
    val_list: path of a list of videos, or None.
    val_percent: share of val where there are no lists, in [0, 100].

  Returns:
    Source.

  Raises:
    InputError: if the input does not allow it.
  """
  folder = os.path.realpath(videos)
  listing = list_videos(videos)
  paths = [video.path for video in listing.videos]
  class_of_path, labels_file = _labels(folder, paths, labels)
  splits, lists = _splits(listing.videos, train_list, val_list, val_percent)
  warnings = _rows_without_file(class_of_path, paths, labels_file)
  for file in lists:
    warnings += [
      warning(path, f'in {os.path.basename(file)}, but not in the folder')
      for path in sorted(read_path_list(file) - set(paths))
    ]
  return Source(
    folder=folder,
    name=name or os.path.basename(folder),
    splits=splits,
    labels=class_of_path,
    options={
      'val_percent': None if lists else val_percent,
      'labels_sha256': file_digest(labels_file) if labels_file else None,
      'lists_sha256': [file_digest(file) for file in lists],
    },
    skipped=listing.skipped,
    num_other_files=listing.num_other_files,
    num_left_out=len(paths) - sum(map(len, splits.values())),
    warnings=warnings,
  )


def list_videos(folder):
  """Lists the videos below the folder that --videos names.

  Args:
    folder: path.

  Returns:
    Listing, with at least one video.

  Raises:
    InputError: if there is no such folder, or no video in it.
  """
  if not os.path.isdir(folder):
    raise InputError(f'--videos {folder} is not a folder')
  try:
    listing = find_videos(folder)
  except OSError as error:
    raise InputError(
      f'--videos {folder} cannot be listed: {error.strerror}'
    ) from error
  if not listing.videos:
    raise InputError(
      f'no video files in {folder} ({listing.num_other_files} other '
      f'files, {len(listing.skipped)} skipped); known suffixes: '
      + ' '.join(sorted(VIDEO_SUFFIXES))
    )
  return listing


def _labels(folder, paths, file):
  """Returns the labels and the file that they come from, if any."""
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


def _splits(videos, train_list, val_list, val_percent):
  """Returns the splits and the files of the lists, if any."""
  lists = [file for file in (train_list, val_list) if file]
  if not lists:
    return split_by_hash(videos, val_percent=val_percent), []
  if len(lists) == 1:
    raise InputError('--train-list and --val-list must be given together')
  train, val = (read_path_list(file) for file in lists)
  return split_by_lists(videos, train=train, val=val), lists


def _rows_without_file(labels, paths, labels_file):
  if labels_file is None:
    return []
  named = set().union(*(set(labels[column]) for column in labels))
  return [
    warning(path, f'in {os.path.basename(labels_file)}, but not a video')
    for path in sorted(named.difference(paths))
  ]
