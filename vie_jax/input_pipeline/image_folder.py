"""Image files in a folder: with a subfolder per class, or without labels."""

import collections
import itertools
import os
import pathlib
import stat

import numpy as np
from absl import logging

from vie_jax.input_pipeline import dataset_folder, image_source
from vie_jax.wording import chosen, counted

# Names of image files end in one of these, in any case.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.gif')

# Images that are not read, and not passed over in silence.
_UNREAD_SUFFIXES = frozenset(
  ('.avif', '.heic', '.heif', '.jp2', '.jxl', '.ppm', '.tif', '.tiff', '.webp')
)

# What is passed over besides them, and said.
_OUTSIDE = 'symlink that leads out', 'symlinks that lead out'
_NOWHERE = 'symlink that leads nowhere', 'symlinks that lead nowhere'
_NO_FILE = 'image that is no regular file', 'images that are no regular files'
_NO_TEXT = 'name that is not UTF-8', 'names that are not UTF-8'

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
    self.labels = labels

  def names(self, index):
    """Gives the path of an image, relative to the split's folder."""
    return self._paths[self._checked(index)]

  def read(self, index):
    """Reads a file; see ImageSource."""
    path = os.path.join(self._folder, self.names(index))
    try:
      encoded = pathlib.Path(path).read_bytes()
    except OSError as error:
      dataset_folder.check_answers(path, error)
      raise dataset_folder.DatasetError(
        f'{path} cannot be read: {error.strerror}. {self.remedy}'
      ) from error
    return encoded, int(self.labels[index])


def has_splits(folder):
  """Says whether a folder is one of labelled images, not of prepared videos.

  Args:
    folder: str or path; there need not be any.

  Returns:
    bool: it has no dataset.json, and train/, val/, validation/ or test/ in it
    has a subfolder.
  """
  folder = pathlib.Path(os.path.expanduser(folder))
  if (folder / 'dataset.json').exists():
    return False
  splits = [split for names in _FOLDER_SPLITS.values() for split in names]
  return any(_has_subfolder(folder / split) for split in splits)


def check_no_loose_images(folder):
  """Refuses a folder with images of no split and class.

  Args:
    folder: str or path of what is no folder of labelled images; there need not
      be any.

  Raises:
    DatasetError: if it has no dataset.json, and it or a subfolder has images.
  """
  folder = pathlib.Path(os.path.expanduser(folder))
  if not folder.is_dir() or (folder / 'dataset.json').exists():
    return
  entries = _entries(folder)
  below = [_entries(entry) for entry in entries if entry.is_dir()]
  for entry in itertools.chain(entries, *below):
    if _is_image_name(entry.name):
      raise dataset_folder.DatasetError(
        f'{folder} has images, such as {entry.path}, but not in '
        f'{folder}/train/CLASS/ and {folder}/val/CLASS/. Move them there.'
      )


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
        f'{counted(len(places), "class", "classes")}. Remove it, or add '
        'training images of it.'
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
    if _is_utf8(entry.name)
    and entry.is_dir()
    and _is_inside(os.path.realpath(entry.path), folder)
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
      f'that {missing.size} of '
      f'{counted(len(class_names), "class", "classes")} cannot be learnt. Add '
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
  images, passed_over = [], _PassedOver()
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
        passed_over.add(_OUTSIDE, path)
        continue
      status = _status(entry)
      is_folder = status is not None and stat.S_ISDIR(status.st_mode)
      if not _is_utf8(entry.name):
        if is_folder or _is_image_name(entry.name):
          passed_over.add(_NO_TEXT, path)
      elif is_folder:
        (links if is_link else waiting).append((target, f'{path}/'))
      elif status is None and is_link:
        # It may have been a folder, and so a class.
        passed_over.add(_NOWHERE, path)
      elif _suffix(entry.name) in _UNREAD_SUFFIXES:
        passed_over.add_unread(path)
      elif not _is_image_name(entry.name):
        continue
      elif status is None or not stat.S_ISREG(status.st_mode):
        passed_over.add(_NO_FILE, path)
      else:
        images.append((path, status.st_size))
  passed_over.log(folder)
  return sorted(images)


class _PassedOver:
  """What is left out of a folder."""

  def __init__(self):
    self._paths = collections.defaultdict(list)
    self._unread = collections.Counter()

  def add(self, kind, path):
    """Takes a path; kind is its words, of one and of several."""
    self._paths[kind].append(path)

  def add_unread(self, path):
    """Takes the path of an image of a format that is not read."""
    self._unread[_suffix(path)] += 1

  def log(self, folder):
    """Says in a line of each kind how many there are."""
    unread = self._unread
    if unread:
      logging.warning(
        'Passed over in %s: %d %s (%s); %s are read: convert the others.',
        folder,
        unread.total(),
        chosen(unread.total(), 'image', 'images'),
        ', '.join(f'{suffix} {unread[suffix]}' for suffix in sorted(unread)),
        ' '.join(IMAGE_SUFFIXES),
      )
    for (one, several), paths in self._paths.items():
      logging.warning(
        'Passed over in %s: %d %s, such as %r.',
        folder,
        len(paths),
        chosen(len(paths), one, several),
        min(paths),
      )


def _status(entry):
  """What lies behind an entry, or None."""
  try:
    return entry.stat()
  except OSError as error:
    dataset_folder.check_answers(entry.path, error)
    return None


def _is_image_name(name):
  return name.lower().endswith(IMAGE_SUFFIXES)


def _suffix(name):
  return os.path.splitext(name)[1].lower()


def _entries(folder):
  """What is in a folder and not hidden, sorted by name."""
  try:
    with os.scandir(folder) as entries:
      entries = [entry for entry in entries if not entry.name.startswith('.')]
  except OSError as error:
    dataset_folder.check_answers(folder, error)
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
