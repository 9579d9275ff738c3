"""Image files in a folder: with a subfolder per class, or without labels."""

import collections
import os
import pathlib

import numpy as np
from absl import logging

from vie_jax.input_pipeline import dataset_folder, image_source

# Names of image files end in one of these, in any case.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.gif')

# Images that are not read, and not passed over in silence.
_UNREAD_SUFFIXES = frozenset(
  ('.avif', '.heic', '.heif', '.jp2', '.jxl', '.ppm', '.tif', '.tiff', '.webp')
)

# What each split is called, the first that is there being taken.
_FOLDER_SPLITS = {'train': ('train',), 'val': ('val', 'validation', 'test')}


class FolderImages(image_source.ImageSource):
  """Image files below a folder."""

  remedy = 'Replace the file or remove it.'

  def __init__(self, *, name, folder, images, labels, class_names):
    """Takes what was found.

    Args:
      name: of the data set.
      folder: of the split.
      images: list of (path below the folder, bytes).
      labels: int32 [N].
      class_names: list of str.
    """
    super().__init__(
      name=name,
      location=os.fspath(folder),
      num_images=len(images),
      class_names=class_names,
      content=images,
    )
    self._folder = folder
    self._paths = [path for path, _ in images]
    self._labels = labels

  def names(self, index):
    """Gives the path of an image, relative to the split's folder."""
    return self._paths[self._checked(index)]

  def read(self, index):
    """Reads a file; see ImageSource."""
    path = os.path.join(self._folder, self.names(index))
    try:
      encoded = pathlib.Path(path).read_bytes()
    except OSError as error:
      raise dataset_folder.DatasetError(
        f'{path} cannot be read: {error.strerror}. {self.remedy}'
      ) from error
    return encoded, int(self._labels[index])


def has_splits(folder):
  """Says whether a folder is one of labelled images, not of prepared videos.

  Args:
    folder: str or path; there need not be any.

  Returns:
    bool: it has no dataset.json, and train/, val/, validation/ or test/ in it
    has a subfolder.
  """
  folder = pathlib.Path(folder)
  if (folder / 'dataset.json').exists():
    return False
  splits = [split for names in _FOLDER_SPLITS.values() for split in names]
  return any(_has_subfolder(folder / split) for split in splits)


def open_split(name, split):
  """Opens one split of a folder of labelled images.

  Args:
    name: str, the folder.
    split: 'train' or 'val'; see `labelled_images.open_images`.

  Returns:
    FolderImages, to be used in a with-statement.

  Raises:
    DatasetError: if there are no such images.
  """
  folder = _folder(name)
  train, here = (_split_folder(folder, name) for name in ('train', split))
  class_names = _class_names(folder, train)
  images = _find_images(folder, here)
  places = {name: label for label, name in enumerate(class_names)}
  labels = np.empty(len(images), np.int32)
  for row, (path, _) in enumerate(images):
    name, _, inside = path.partition('/')
    if not inside:
      raise dataset_folder.DatasetError(
        f'{here / path} is in no class: images belong into {here}/CLASS/. Move '
        'or remove it.'
      )
    if name not in places:
      raise dataset_folder.DatasetError(
        f'The class {name!r} in {here} is not in {train}, which has '
        f'{len(places)} classes. Remove it, or add training images of it.'
      )
    labels[row] = places[name]
  if split == 'train':
    _check_classes(train, class_names, labels)
  return FolderImages(
    name=_name_of(folder),
    folder=here,
    images=images,
    labels=labels,
    class_names=class_names,
  )


def open_flat(name):
  """Opens all images in a folder and its subfolders, without labels.

  Args:
    name: str, the folder; what is passed over is as in
      `labelled_images.open_images`.

  Returns:
    ImageSource, sorted by path, to be used in a with-statement.

  Raises:
    DatasetError: if there is no such folder, or no image in it.
  """
  folder = _folder(name)
  images = _find_images(folder, folder)
  return FolderImages(
    name=_name_of(folder),
    folder=folder,
    images=images,
    labels=np.full(len(images), -1, np.int32),
    class_names=[],
  )


def _split_folder(folder, split):
  names = _FOLDER_SPLITS[split]
  for name in names:
    if (folder / name).is_dir():
      if not _is_inside(os.path.realpath(folder / name), folder):
        raise dataset_folder.DatasetError(
          f'{folder / name} is a symlink that leads out of {folder}, and is '
          'not followed. Move the images there, or mount them.'
        )
      return folder / name
  raise dataset_folder.DatasetError(
    f'{folder} has no folder {" or ".join(names)} with a subfolder per class.'
  )


def _class_names(folder, train):
  """Names of the subfolders of train, sorted."""
  names = [
    entry.name
    for entry in _entries(train)
    if entry.is_dir() and _is_inside(os.path.realpath(entry.path), folder)
  ]
  if not names:
    raise dataset_folder.DatasetError(
      f'{train} has no classes: it needs a subfolder of images for each.'
    )
  return names


def _check_classes(train, class_names, labels):
  missing = np.setdiff1d(np.arange(len(class_names)), labels)
  if missing.size:
    raise dataset_folder.DatasetError(
      f'{train / class_names[missing[0]]} has no images of its own, so '
      f'that {missing.size} of {len(class_names)} classes cannot be learnt. Add '
      'images or remove the folder.'
    )


def _find_images(root, folder):
  """Lists the images below a folder.

  Args:
    root: path; symlinks that lead out of it are passed over.
    folder: path, in it.

  Returns:
    list of (path below the folder with '/', bytes), sorted by path.

  Raises:
    DatasetError: if a folder cannot be listed.
  """
  images, outside, unread = [], [], collections.Counter()
  # A folder that can be reached by several paths is listed once: under its
  # own, or else the first of the others.
  waiting = collections.deque([(os.path.realpath(folder), '')])
  links = collections.deque()
  seen = set()
  while waiting or links:
    current, prefix = waiting.popleft() if waiting else links.popleft()
    if current in seen:
      continue
    seen.add(current)
    for entry in _entries(current):
      path = prefix + entry.name
      is_link = entry.is_symlink()
      target = os.path.realpath(entry.path) if is_link else entry.path
      if is_link and not _is_inside(target, root):
        outside.append(path)
      elif entry.is_dir():
        (links if is_link else waiting).append((target, f'{path}/'))
      elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
        images.append((path, entry.stat().st_size))
      elif _suffix(entry.name) in _UNREAD_SUFFIXES and entry.is_file():
        unread[_suffix(entry.name)] += 1
  if unread:
    logging.warning(
      '%d images in %s are passed over (%s); %s are read: convert the others.',
      unread.total(),
      folder,
      ', '.join(f'{suffix} {unread[suffix]}' for suffix in sorted(unread)),
      ' '.join(IMAGE_SUFFIXES),
    )
  if outside:
    logging.warning(
      '%d symlinks in %s lead out of %s and are passed over, such as %r.',
      len(outside),
      folder,
      root,
      min(outside),
    )
  return sorted(images)


def _suffix(name):
  return os.path.splitext(name)[1].lower()


def _entries(folder):
  """What is in a folder and not hidden, sorted by name."""
  try:
    with os.scandir(folder) as entries:
      entries = [
        entry
        for entry in entries
        if not entry.name.startswith('.') and _is_utf8(entry.name)
      ]
  except OSError as error:
    raise dataset_folder.DatasetError(
      f'{folder} cannot be listed: {error.strerror}.'
    ) from error
  return sorted(entries, key=lambda entry: entry.name)


def _has_subfolder(folder):
  return folder.is_dir() and any(entry.is_dir() for entry in _entries(folder))


def _folder(name):
  folder = pathlib.Path(os.path.abspath(name))
  if '://' in name or not folder.is_dir():
    raise dataset_folder.DatasetError(
      f'{name} is no folder of images on this machine.'
    )
  return folder


def _name_of(folder):
  return folder.name or 'images'


def _is_inside(path, root):
  return pathlib.Path(path).is_relative_to(os.path.realpath(root))


def _is_utf8(name):
  try:
    name.encode()
  except UnicodeEncodeError:
    return False
  return True
