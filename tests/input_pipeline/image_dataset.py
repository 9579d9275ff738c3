"""Small data sets of still images: files of all kinds, and TFDS ones."""

import io
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vie_jax.input_pipeline import dataset_folder

NUM_TRAIN, NUM_TEST = 23, 5
CLASSES = ['cat', 'dog', 'emu']


def textured(height, width, seed=0):
  """uint8 [H, W, 3]: smooth shapes, edges and a little noise."""
  rng = np.random.default_rng([height, width, seed])
  y, x = np.mgrid[:height, :width]
  waves = rng.uniform(0.02, 0.3, (2, 3))
  phase = waves[0] * y[..., np.newaxis] + waves[1] * x[..., np.newaxis]
  picture = 128 + 80 * np.sign(np.sin(phase)) * np.cos(phase / 3)
  picture += rng.normal(0, 5, picture.shape)
  return np.clip(picture, 0, 255).astype(np.uint8)


def encode(picture, file_format='PNG', **options):
  """The file of a picture: an array or a Pillow image."""
  if not isinstance(picture, Image.Image):
    picture = Image.fromarray(picture)
  file = io.BytesIO()
  picture.save(file, file_format, **options)
  return file.getvalue()


def plain(number):
  """A PNG file of one colour, which says its number."""
  return encode(np.full((6 + number, 9, 3), (10 * number, 7, 9), np.uint8))


# Files of a folder with classes, and what is passed over there.
FOLDER = {
  'train/dog/b.JPEG': plain(4),
  'train/dog/a.png': plain(3),
  'train/cat/deeper/c.Gif': plain(1),
  'train/cat/d.bmp': plain(2),
  'train/cat/notes.txt': b'no image',
  'train/cat/.hidden.png': plain(1),
  'train/.thumbnails/e.png': plain(1),
  'train/README.md': b'no class',
  'val/dog/f.jpg': plain(5),
}


def number_of(window):
  """What plain wrote, from uint8 [..., H, W, 3]."""
  return np.round(window[..., 0].mean(axis=(-2, -1)) / 10).astype(int)


def write_folder(folder, files):
  """Writes files, given as {path: bytes}."""
  for path, content in files.items():
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
  return folder


class TinyPictures(tfds.core.GeneratorBasedBuilder):
  """Some images of odd feature names, in several shards."""

  VERSION = tfds.core.Version('1.2.0')
  SPLITS = types.MappingProxyType({'train': NUM_TRAIN, 'test': NUM_TEST})
  FEATURES = types.MappingProxyType(
    {
      'file': tfds.features.Text(),
      'kind': tfds.features.ClassLabel(names=CLASSES),
      'picture': tfds.features.Image(),
    }
  )
  SUPERVISED_KEYS = None
  NUM_SHARDS = 3

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict({**self.FEATURES}),
      supervised_keys=self.SUPERVISED_KEYS,
    )

  def _split_generators(self, unused_manager):
    return {
      split: self._generate_examples(count)
      for split, count in self.SPLITS.items()
    }

  def _generate_examples(self, count):
    for number in range(count):
      values = {}
      for key, feature in self.FEATURES.items():
        if isinstance(feature, tfds.features.ClassLabel):
          values[key] = number % len(CLASSES)
        elif isinstance(feature, tfds.features.Text):
          values[key] = f'{number}.png'
        elif feature.dtype == np.float32:
          values[key] = np.zeros((2, 2, 1), np.float32)
        else:
          values[key] = io.BytesIO(plain(number))
      yield number, values


class ThreeSplits(TinyPictures):
  """A validation split beside the test split."""

  NUM_SHARDS = 1
  SPLITS = types.MappingProxyType({'test': 3, 'train': 4, 'validation': 2})


class TrainOnly(TinyPictures):
  """No split to test on."""

  NUM_SHARDS = 2
  SPLITS = types.MappingProxyType({'train': 23, 'extra': 2})


class NoTrain(TinyPictures):
  """No split to train on."""

  NUM_SHARDS = 1
  SPLITS = types.MappingProxyType({'test': 2, 'extra': 2})


class TwoLabels(TinyPictures):
  """Coarse and fine labels, as CIFAR-100 has; the keys say which is meant."""

  SPLITS = types.MappingProxyType({'train': 4})
  FEATURES = types.MappingProxyType(
    {
      'coarse': tfds.features.ClassLabel(names=CLASSES),
      'fine': tfds.features.ClassLabel(num_classes=7),
      'image': tfds.features.Image(),
    }
  )
  SUPERVISED_KEYS = ('image', 'fine')


class TwoImages(TinyPictures):
  """Nothing says which image is meant."""

  SPLITS = types.MappingProxyType({'train': 4})
  FEATURES = types.MappingProxyType(
    {
      'label': tfds.features.ClassLabel(names=CLASSES),
      'left': tfds.features.Image(),
      'right': tfds.features.Image(),
    }
  )


class FloatImages(TinyPictures):
  """Depth maps, which are no pictures."""

  SPLITS = types.MappingProxyType({'train': 4})
  FEATURES = types.MappingProxyType(
    {
      'depth': tfds.features.Image(shape=(None, None, 1), dtype=np.float32),
      'label': tfds.features.ClassLabel(names=CLASSES),
    }
  )


def prepare(builder_class, data_dir, file_format='tfrecord'):
  """Writes one of the above below data_dir, without a network."""
  builder = builder_class(data_dir=str(data_dir), file_format=file_format)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(
      num_shards=builder.NUM_SHARDS, try_download_gcs=False
    )
  )
  return builder


def content_of(source):
  """All images as {name: (encoded, label)}."""
  indices = range(source.num_images)
  return {source.names(index): source.read(index) for index in indices}


def message_of(call, *arguments, **options):
  """The one line that a mistake ends in."""
  with pytest.raises(dataset_folder.DatasetError) as caught:
    call(*arguments, **options)
  message = str(caught.value)
  assert '\n' not in message
  assert message.endswith('.')
  return message
