"""Labelled images by name: a data set of TFDS, or a folder.

What they are read from has one interface, `image_source.ImageSource`.
"""

import re

from absl import logging

from vie_jax.input_pipeline import image_folder, tfds_images
from vie_jax.input_pipeline.tfds_images import TFDS_PREFIX
from vie_jax.wording import counted

# ILSVRC 2012: Russakovsky et al. 2015, arXiv:1409.0575, Table 2; the images of
# each split, and the names of data sets and folders that are taken for it.
_IMAGENET_IMAGES = {'train': 1_281_167, 'val': 50_000}
_IMAGENET_CLASSES = 1000
_IMAGENET_NAME = re.compile(
  r'(tfds-)?(imagenet([-_]?(1k|2012))?|ilsvrc([-_]?2012)?)', re.IGNORECASE
)


def is_images(name):
  """Says whether a name is that of labelled images, not of prepared videos.

  Args:
    name: str.

  Returns:
    bool: it starts with 'tfds:', or is a folder without dataset.json in which
    train/, val/, validation/ or test/ has a subfolder.
  """
  return name.startswith(TFDS_PREFIX) or image_folder.has_splits(name)


def open_images(name, split, *, data_dir=None):
  """Opens one split of labelled images.

  Args:
    name: 'tfds:' and what `tfds.builder` takes, such as 'imagenet2012',
      'imagenet2012:5.1.0' or 'name/config', prepared before in format tfrecord
      or array_record, with one image and one class label, or with those that
      its supervised keys say; or a folder with train/ and val/, each with a
      subfolder per class. The classes are the subfolders of train/. Hidden
      files and folders and other files are passed over, and so are symlinks
      that lead out of the folder or nowhere, and names that are not UTF-8; these,
      images that are no regular files, and images of formats that are not read
      are counted in the log. Where it is called imagenet or ilsvrc, perhaps with
      1k or 2012, other counts than the known ones are logged.
    split: 'train', or 'val': the split validation of TFDS, else its test; the
      folder val/, else validation/, else test/.
    data_dir: where TFDS keeps its data sets; empty for where it looks itself.

  Returns:
    ImageSource, to be used in a with-statement.

  Raises:
    DatasetError: if there are no such images.
  """
  if name.startswith(TFDS_PREFIX):
    source = tfds_images.open_split(
      name.removeprefix(TFDS_PREFIX), split, data_dir
    )
  else:
    source = image_folder.open_split(name, split)
  if _IMAGENET_NAME.fullmatch(source.name):
    _compare_with_imagenet(source, split)
  return source


def _compare_with_imagenet(source, split):
  """Says in one line what is missing or too many; a part is no error."""
  found = source.num_images, len(source.class_names)
  expected = _IMAGENET_IMAGES[split], _IMAGENET_CLASSES
  if found != expected:
    logging.warning(
      '%s has %s of %s; ImageNet has %d of %d (%+d and %+d).',
      source.location,
      counted(found[0], 'image'),
      counted(found[1], 'class', 'classes'),
      *expected,
      *(there - due for there, due in zip(found, expected, strict=True)),
    )
