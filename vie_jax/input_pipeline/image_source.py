"""Labelled images, readable one at a time by index: TFDS or a folder.

Nothing is decoded here: a read returns the encoded file and its label.
"""

import collections
import hashlib
import json
import os
import pathlib
import re

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from vie_jax.input_pipeline import frame_store, record_shards

TFDS_PREFIX = 'tfds:'

# Names of image files end in one of these, in any case.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.gif')

# What each split is called, the first that is there being taken.
_TFDS_SPLITS = {'train': ('train',), 'val': ('validation', 'test')}
_FOLDER_SPLITS = {'train': ('train',), 'val': ('val', 'validation', 'test')}

_SHARDS = {
  'tfrecord': record_shards.TfRecordShards,
  'array_record': record_shards.ArrayRecordShards,
}


# ILSVRC 2012: Russakovsky et al. 2015, arXiv:1409.0575, Table 2; the images of
# each split, and the names of data sets and folders that are taken for it.
_IMAGENET_IMAGES = {'train': 1_281_167, 'val': 50_000}
_IMAGENET_CLASSES = 1000
_IMAGENET_NAME = re.compile(
  r'(tfds-)?(imagenet([-_]?(1k|2012))?|ilsvrc([-_]?2012)?)', re.IGNORECASE
)

# Of a data set without a test split, one image in so many is held out.
_HELD_OUT = 10


class ImageSource:
  """The images of one split; opened by `open_images` or `open_flat`.

  Attributes:
    name: of the data set, fit for a folder: 'tfds-imagenet2012', or the last
      part of the folder's path.
    location: str, the split's folder, or 'split train of tfds:imagenet2012'.
    num_images: N, at least 1.
    class_names: list of str, which the labels index; empty without labels.
    label_column: 'label', or None without labels.
    fingerprint: hex digest of the content of this split: of a folder the
      names and sizes of its images, of TFDS the version and the lengths of the
      shards.
    remedy: str, what to do about an image that cannot be read.
  """

  def __init__(self, *, name, location, num_images, class_names, content):
    if not num_images:
      raise frame_store.DatasetError(f'{location} has no images.')
    self.name = name
    self.location = location
    self.num_images = num_images
    self.class_names = class_names
    self.label_column = 'label' if class_names else None
    digest = hashlib.sha256(b'images 1')
    for part in (class_names, *content):
      digest.update(json.dumps(part).encode())
    self.fingerprint = digest.hexdigest()

  def __enter__(self):
    return self

  def __exit__(self, *unused_exception):
    self.close()

  def names(self, index):
    """Gives the name of an image, unique in its split: str."""
    raise NotImplementedError

  def read(self, index):
    """Reads one image; may be called from several threads.

    Args:
      index: int in [0, N).

    Returns:
      (encoded, label): bytes of an image file, and int in
      [0, len(class_names)), or -1 where unknown.

    Raises:
      IndexError: if there is no such image.
      DatasetError: if it cannot be read.
    """
    raise NotImplementedError

  def close(self):
    """Closes the files."""


class FolderImages(ImageSource):
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
    return self._paths[_checked(index, self.num_images)]

  def read(self, index):
    """Reads a file; see ImageSource."""
    path = os.path.join(self._folder, self.names(index))
    try:
      encoded = pathlib.Path(path).read_bytes()
    except OSError as error:
      raise frame_store.DatasetError(
        f'{path} cannot be read: {error.strerror}. {self.remedy}'
      ) from error
    return encoded, int(self._labels[index])


class TfdsImages(ImageSource):
  """A split of a prepared TFDS data set."""

  remedy = 'Prepare the data set again.'

  def __init__(self, *, spec, builder, split, part, image_key, label_key):
    """Opens the shards.

    Args:
      spec: the data set as the user named it, without prefix.
      builder: tfds.core.DatasetBuilder, prepared.
      split: as TFDS names it.
      part: which of its images: 'all', or of those that are held out from it,
        the last tenth, 'held out', and the others, 'rest'.
      image_key: name of the feature that is the image.
      label_key: name of the feature that is the label.

    Raises:
      DatasetError: if the shards are damaged, or of a format without random
        access.
    """
    info = builder.info
    shards = [
      (file.filename, file.examples_in_shard)
      for file in info.splits[split].file_instructions
    ]
    config = builder.builder_config
    total = sum(count for _, count in shards)
    rest = total - max(1, total // _HELD_OUT)
    images = {
      'all': range(total),
      'rest': range(rest),
      'held out': range(rest, total),
    }[part]
    self._first = images.start
    super().__init__(
      name='-'.join(['tfds', builder.name, *([config.name] if config else [])]),
      location=f'split {split} of {TFDS_PREFIX}{spec}'
      + ('' if part == 'all' else f' ({part})'),
      num_images=len(images),
      class_names=list(info.features[label_key].names),
      content=[
        info.full_name,
        split,
        [count for _, count in shards],
        *([] if part == 'all' else [part]),
      ],
    )
    file_format = info.file_format.value
    if file_format not in _SHARDS:
      raise frame_store.DatasetError(
        f'{TFDS_PREFIX}{spec} is stored as {file_format}; prepare it as '
        f'{" or ".join(_SHARDS)}.'
      )
    if file_format == 'tfrecord':
      logging.info('Reading the record headers of %s.', self.location)
    self._shards = _SHARDS[file_format](shards)
    self._image_key = image_key
    self._label_key = label_key

  def names(self, index):
    """Gives the shard and the number of the record there, as tfds_id does."""
    path, record = self._shards.find(self._first + index)
    return f'{os.path.basename(path)}__{record}'

  def read(self, index):
    """Reads a record; see ImageSource."""
    record = self._shards.read(self._first + _checked(index, self.num_images))
    try:
      values = tf.train.Example.FromString(record).features.feature
      encoded = values[self._image_key].bytes_list.value[0]
      label = values[self._label_key].int64_list.value[0]
    except Exception as error:  # of protobuf, or there is no such value
      raise frame_store.DatasetError(
        f'Record {self.names(index)} of {self.location} is damaged: it holds '
        f'no {self._image_key} and {self._label_key}. {self.remedy}'
      ) from error
    return encoded, label

  def close(self):
    """Closes the shards."""
    self._shards.close()


def is_images(name):
  """Says whether a name is that of labelled images, not of prepared videos.

  Args:
    name: str.

  Returns:
    bool: it starts with 'tfds:', or is a folder without dataset.json in which
    train/, val/, validation/ or test/ has a subfolder.
  """
  if name.startswith(TFDS_PREFIX):
    return True
  folder = pathlib.Path(name)
  if (folder / 'dataset.json').exists():
    return False
  splits = [split for names in _FOLDER_SPLITS.values() for split in names]
  return any(_has_subfolder(folder / split) for split in splits)


def open_images(name, split, *, data_dir=None):
  """Opens one split of labelled images.

  Args:
    name: 'tfds:' and what `tfds.builder` takes, such as 'imagenet2012',
      'imagenet2012:5.1.0' or 'name/config', prepared before in format tfrecord
      or array_record, with one image and one class label, or with those that
      its supervised keys say; or a folder with train/ and val/, each with a
      subfolder per class. The classes are the subfolders of train/. Hidden
      files and folders and other files are passed over, and so are symlinks
      that lead out of the folder. Where it is called imagenet or ilsvrc,
      perhaps with 1k or 2012, other counts than the known ones are logged.
    split: 'train', or 'val': the split validation of TFDS, else its test; the
      folder val/, else validation/, else test/.
    data_dir: where TFDS keeps its data sets; empty for where it looks itself.

  Returns:
    ImageSource, to be used in a with-statement.

  Raises:
    DatasetError: if there are no such images.
  """
  if name.startswith(TFDS_PREFIX):
    source = _open_tfds(name.removeprefix(TFDS_PREFIX), split, data_dir)
  else:
    source = _open_folder(_folder(name), split)
  if _IMAGENET_NAME.fullmatch(source.name):
    _compare_with_imagenet(source, split)
  return source


def _compare_with_imagenet(source, split):
  """Says in one line what is missing or too many; a part is no error."""
  found = source.num_images, len(source.class_names)
  expected = _IMAGENET_IMAGES[split], _IMAGENET_CLASSES
  if found != expected:
    logging.warning(
      '%s has %d images of %d classes; ImageNet has %d of %d (%+d and %+d).',
      source.location,
      *found,
      *expected,
      *(there - due for there, due in zip(found, expected, strict=True)),
    )


def open_flat(name):
  """Opens all images in a folder and its subfolders, without labels.

  Args:
    name: str, the folder; what is passed over is as in `open_images`.

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


def _open_tfds(spec, split, data_dir):
  builder = _builder(spec, data_dir)
  if not builder.info.splits:
    where = f', data_dir={data_dir!r}' if data_dir else ''
    raise frame_store.DatasetError(
      f'{TFDS_PREFIX}{spec} is not prepared: there is none in '
      f'{builder.data_dir}. Name another folder of TFDS data sets with '
      'config.linear_eval.tfds_data_dir, or prepare it once in Python, with '
      '"import tensorflow_datasets as tfds; '
      f'tfds.builder({spec!r}{where}).download_and_prepare()"; '
      f'https://www.tensorflow.org/datasets/catalog/{builder.name} says which '
      'files that needs.'
    )
  there = builder.info.splits
  found = [name for name in _TFDS_SPLITS[split] if name in there]
  part = 'all'
  if not any(name in there for name in _TFDS_SPLITS['val']):
    found = [name for name in ('train',) if name in there]
    part = 'rest' if split == 'train' else 'held out'
  if not found:
    raise frame_store.DatasetError(
      f'{TFDS_PREFIX}{spec} has no split {_TFDS_SPLITS[split][0]}, only '
      f'{", ".join(sorted(there))}.'
    )
  if part == 'held out':
    logging.info(
      '%s%s has neither a validation nor a test split: tested on the last '
      'tenth of train, which is not trained on.',
      TFDS_PREFIX,
      spec,
    )
  image_key, label_key = _keys(builder.info, spec)
  return TfdsImages(
    spec=spec,
    builder=builder,
    split=found[0],
    part=part,
    image_key=image_key,
    label_key=label_key,
  )


def _builder(spec, data_dir):
  """The builder of a data set; nothing is downloaded."""
  _, _, version = spec.partition(':')
  # Any other word before a colon names a place that TFDS would download from.
  if version and not re.match(r'[\d*]', version):
    raise frame_store.DatasetError(
      f'{TFDS_PREFIX}{spec} is no data set of TFDS itself; images can also be '
      'read from a folder with train/ and val/.'
    )
  try:
    return tfds.builder(spec, data_dir=data_dir or None)
  except Exception as error:  # TFDS raises whatever it comes across
    reason = str(error).strip().split('\n')[0].rstrip('.')
    raise frame_store.DatasetError(
      f'{TFDS_PREFIX}{spec} cannot be opened: {reason}. Data sets are listed at '
      'https://www.tensorflow.org/datasets/catalog; folders with those of your '
      'own are named with config.linear_eval.tfds_data_dir.'
    ) from error


def _keys(info, spec):
  """Names of the image and of the label among the features."""
  features = info.features
  images = [
    key
    for key, feature in features.items()
    if isinstance(feature, tfds.features.Image)
    and not isinstance(feature, tfds.features.LabeledImage)
    and np.issubdtype(feature.np_dtype, np.integer)
  ]
  labels = [
    key
    for key, feature in features.items()
    if isinstance(feature, tfds.features.ClassLabel)
  ]
  if len(images) == len(labels) == 1:
    return images[0], labels[0]
  keys = info.supervised_keys or ()
  if len(keys) == 2 and keys[0] in images and keys[1] in labels:
    return keys
  raise frame_store.DatasetError(
    f'{TFDS_PREFIX}{spec} is no image classification: it needs one image and '
    f'one class label, and has the images {sorted(images)} and the labels '
    f'{sorted(labels)}.'
  )


def _open_folder(folder, split):
  train, here = (_split_folder(folder, name) for name in ('train', split))
  class_names = _class_names(folder, train)
  images = _find_images(folder, here)
  places = {name: label for label, name in enumerate(class_names)}
  labels = np.empty(len(images), np.int32)
  for row, (path, _) in enumerate(images):
    name, _, inside = path.partition('/')
    if not inside:
      raise frame_store.DatasetError(
        f'{here / path} is in no class: images belong into {here}/CLASS/. Move '
        'or remove it.'
      )
    if name not in places:
      raise frame_store.DatasetError(
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


def _split_folder(folder, split):
  names = _FOLDER_SPLITS[split]
  for name in names:
    if (folder / name).is_dir():
      if not _is_inside(os.path.realpath(folder / name), folder):
        raise frame_store.DatasetError(
          f'{folder / name} is a symlink that leads out of {folder}, and is '
          'not followed. Move the images there, or mount them.'
        )
      return folder / name
  raise frame_store.DatasetError(
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
    raise frame_store.DatasetError(
      f'{train} has no classes: it needs a subfolder of images for each.'
    )
  return names


def _check_classes(train, class_names, labels):
  missing = np.setdiff1d(np.arange(len(class_names)), labels)
  if missing.size:
    raise frame_store.DatasetError(
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
  images, outside = [], []
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
  if outside:
    logging.warning(
      '%d symlinks in %s lead out of %s and are passed over, such as %r.',
      len(outside),
      folder,
      root,
      min(outside),
    )
  return sorted(images)


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
    raise frame_store.DatasetError(
      f'{folder} cannot be listed: {error.strerror}.'
    ) from error
  return sorted(entries, key=lambda entry: entry.name)


def _has_subfolder(folder):
  return folder.is_dir() and any(entry.is_dir() for entry in _entries(folder))


def _folder(name):
  folder = pathlib.Path(os.path.abspath(name))
  if '://' in name or not folder.is_dir():
    raise frame_store.DatasetError(
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


def _checked(index, count):
  if not 0 <= index < count:
    raise IndexError(f'image {index} is not in [0, {count}).')
  return int(index)
