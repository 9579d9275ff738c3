"""What images are read from, one at a time by index: one split of a data set.

Nothing is decoded here: a read returns the encoded file and its label.
"""

import hashlib
import json

from vie_jax.input_pipeline import dataset_folder


class ImageSource:
  """The images of one split.

  `labelled_images.open_images` and `image_folder.open_flat` give such.

  Attributes:
    name: of the data set, fit for a folder: 'tfds-imagenet2012', or the last
      part of the folder's path.
    location: str, the split's folder, or 'split train of tfds:imagenet2012'.
    num_images: N, at least 1.
    class_names: list of str, which the labels index; empty without labels.
    label_column: 'label', or None without labels.
    labels: int32 [N], -1 where unknown; None if only `read` tells.
    fingerprint: hex digest of the content of this split: of a folder the
      names and sizes of its images, of TFDS the version and the lengths of the
      shards.
    remedy: str, what to do about an image that cannot be read.
  """

  labels = None

  def __init__(self, *, name, location, num_images, class_names, content):
    if not num_images:
      raise dataset_folder.DatasetError(f'{location} has no images.')
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
      DatasetError: if it cannot be read; UnansweredError, if it may be sound.
    """
    raise NotImplementedError

  def close(self):
    """Closes the files."""

  def _checked(self, index):
    if not 0 <= index < self.num_images:
      raise IndexError(f'image {index} is not in [0, {self.num_images}).')
    return int(index)
