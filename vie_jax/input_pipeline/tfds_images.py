"""Labelled images of a TFDS data set, read from its shards by index."""

import os
import re

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from vie_jax.input_pipeline import dataset_folder, image_source, record_shards

TFDS_PREFIX = 'tfds:'

# What each split is called, the first that is there being taken.
_TFDS_SPLITS = {'train': ('train',), 'val': ('validation', 'test')}

_SHARDS = {
  'tfrecord': record_shards.TfRecordShards,
  'array_record': record_shards.ArrayRecordShards,
}

# Of a data set without a test split, one image in so many is held out.
_HELD_OUT = 10


class TfdsImages(image_source.ImageSource):
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
      raise dataset_folder.DatasetError(
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
    record = self._shards.read(self._first + self._checked(index))
    try:
      values = tf.train.Example.FromString(record).features.feature
      encoded = values[self._image_key].bytes_list.value[0]
      label = values[self._label_key].int64_list.value[0]
    except Exception as error:  # of protobuf, or there is no such value
      raise dataset_folder.DatasetError(
        f'Record {self.names(index)} of {self.location} is damaged: it holds '
        f'no {self._image_key} and {self._label_key}. {self.remedy}'
      ) from error
    return encoded, label

  def close(self):
    """Closes the shards."""
    self._shards.close()


def open_split(spec, split, data_dir):
  """Opens one split of a data set that was prepared before.

  Args:
    spec: what `tfds.builder` takes, such as 'imagenet2012:5.1.0'.
    split: 'train' or 'val'; see `labelled_images.open_images`.
    data_dir: where TFDS keeps its data sets; empty for where it looks itself.

  Returns:
    TfdsImages, to be used in a with-statement.

  Raises:
    DatasetError: if there are no such images.
  """
  builder = _builder(spec, data_dir)
  if not builder.info.splits:
    where = f', data_dir={data_dir!r}' if data_dir else ''
    raise dataset_folder.DatasetError(
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
    raise dataset_folder.DatasetError(
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
    raise dataset_folder.DatasetError(
      f'{TFDS_PREFIX}{spec} is no data set of TFDS itself; images can also be '
      'read from a folder with train/ and val/.'
    )
  try:
    return tfds.builder(spec, data_dir=data_dir or None)
  except Exception as error:  # TFDS raises whatever it comes across
    dataset_folder.check_answers(f'{TFDS_PREFIX}{spec}', error)
    reason = str(error).strip().split('\n')[0].rstrip('.')
    raise dataset_folder.DatasetError(
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
  raise dataset_folder.DatasetError(
    f'{TFDS_PREFIX}{spec} is no image classification: it needs one image and '
    f'one class label, and has the images {sorted(images)} and the labels '
    f'{sorted(labels)}.'
  )
