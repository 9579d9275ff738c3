"""Batches of still images, cropped and resized: the transfer test's input.

A still image is a clip of one frame. It is decoded, cropped and resized here;
`vie_jax.device_augment` mirrors and recolours it, with `grey_first`, and the
network's clip is filled with copies of it.

The batch at step t is a pure function of (seed, t), as in `pipeline`. In
training an image that cannot be read or decoded is replaced, with its label, by
the nearest one in the order of the data set that can, the earlier one of two.
In a test it can be left out.

Source: preprocessing_inst in tf_model/model/resnet_th_preprocessing.py of the
official code (neuroailab/VIE). Deviations: the area resize rounds to the
nearest grey level, as all else here, where the official one truncates; a grey
image that is taken whole is cropped to a square like any other; JPEG files are
decoded by the exact transform. As there, the orientation that a camera noted is
not looked at.
"""

import contextlib
import io
import re

import numpy as np
import tensorflow as tf
from PIL import Image

from vie_jax.input_pipeline import (
  batch_iterator,
  batch_order,
  damage_count,
  dataset_folder,
  image_crops,
)

# An image that says it is larger is refused before it is decoded: a file of
# some kilobytes can claim any size.
MAX_PIXELS = 100_000_000

# How far from a damaged image another one is looked for.
_MAX_DISTANCE = 100
# With more suspects than these each image is one: beginning anew for each of
# them would take longer than to decode all of them twice.
_MAX_SUSPECTS = 16

_FORMATS = ('JPEG', 'PNG', 'BMP', 'GIF')
# Ways to decode.
_JPEG, _PNG, _DECODED = range(3)


@contextlib.contextmanager
def train_batches(
  source,
  *,
  size,
  batch_size,
  seed,
  start_step=0,
  host_index=0,
  host_count=1,
  num_threads=None,
  num_prefetched=2,
  damage=None,
):
  """Gives an endless iterator over training batches of randomly cropped images.

  Epochs are as in `pipeline.train_batches`: an epoch visits no image twice.

  To be used in a with-statement, at the end of which reading stops.

  Args:
    source: ImageSource of N images.
    size: side of the result, in pixels.
    batch_size: B, images in a global batch, at most N.
    seed: int >= 0, decides everything that is random.
    start_step: step of the first batch.
    host_index: which share of each global batch this host reads.
    host_count: number of hosts, a divisor of batch_size.
    num_threads: for reading and decoding; None for one per core.
    num_prefetched: batches made ahead of time.
    damage: BadFrames that counts and names damaged images; None for one of its
      own.

  Yields:
    An iterator over dicts of NumPy arrays, b = B / host_count rows each:
      window: uint8 [b, 1, size, size, 3], RGB.
      crop: float32 [b, 4], (0, 0, size, size) in each row: nothing is left to
        crop.
      instance_index: int32 [b], index in `source` of the image that was asked
        for, no value twice in a global batch.
      label: int32 [b], of the image that is shown, -1 where unknown.
      bad_frames: int32 [b], 1 where another image is shown: the one asked for
        cannot be read or decoded, or has more than MAX_PIXELS. A JPEG that is
        damaged outside of its crop is not noticed.
    It raises dataset_folder.DatasetError when too many images are damaged, see
    BadFrames.check, or all, and its UnansweredError when one may be sound, but
    cannot be read.

  Raises:
    ValueError: if a number does not fit the others or the data set.
  """
  rows = batch_order.host_rows(batch_size, host_index, host_count)
  steps = batch_order.training_steps(start_step=start_step, seed=seed)
  if batch_size > source.num_images:
    raise ValueError(
      f'a batch of {batch_size} different images cannot be made from the '
      f'{source.num_images} of {source.location}: lower the batch size or add '
      'images.'
    )
  _check_size(size)
  batch_iterator.hide_accelerators()

  def choose(position):
    """Which image stands at a global position, and the seed of its crop."""
    index = batch_order.visited(
      position, source.num_images, batch_size=batch_size, seed=seed
    )
    return index, batch_order.seed_at(position, seed=seed), {}

  def place(shape, seed):
    return image_crops.train_area(shape, seed=seed)

  epoch_size = source.num_images // batch_size * batch_size
  counted = damage_count.TrainingCount(
    damage, num_rows=epoch_size, **_named(source)
  )
  with batch_iterator.open_batches(
    _Images(source, choose, place, size, counted, replaces=True),
    steps=steps,
    batch_size=batch_size,
    rows=rows,
    num_threads=num_threads,
    num_prefetched=num_prefetched,
  ) as batches:
    yield batches


@contextlib.contextmanager
def eval_batches(
  source,
  *,
  size,
  short_side,
  batch_size,
  start_step=0,
  host_index=0,
  host_count=1,
  num_threads=None,
  num_prefetched=2,
  leaves_out=False,
  damage=None,
):
  """Gives an iterator over the middles of all images, in order.

  To be used in a with-statement, at the end of which reading stops.

  Args:
    source: ImageSource of N images.
    size: side of the result, in pixels.
    short_side: that images are resized to before the crop, at least size.
    batch_size: B, images in a global batch.
    start_step: number of the first batch; those before are left out.
    host_index: which share of each global batch this host reads.
    host_count: number of hosts, a divisor of batch_size.
    num_threads: for reading and decoding; None for one per core.
    num_prefetched: batches made ahead of time.
    leaves_out: whether a damaged image is left out; else it is an error: where
      each image must have its row, nothing can stand for it.
    damage: as in train_batches.

  Yields:
    An iterator over ceil(N / B) dicts of NumPy arrays from start_step on, the
    same number on each host. They are as in train_batches, and
      clip_index: int32 [b], 0.
      is_valid: bool [b], False for the copies of the last image that fill the
        last batch, and for images that are left out; another one is in their
        place.
    It raises dataset_folder.DatasetError, naming the image, when one is damaged
    and not left out, and its UnansweredError as train_batches.

  Raises:
    ValueError: if a number does not fit the others.

  Source: as the module. Deviation: the official test leaves out the last,
  incomplete batch.
  """
  rows = batch_order.host_rows(batch_size, host_index, host_count)
  _check_size(size)
  if size > short_side:
    raise ValueError(
      f'a crop of {size} pixels does not fit into images resized to a short '
      f'side of {short_side}: raise the short side or lower the crop size.'
    )
  batch_iterator.hide_accelerators()
  total = source.num_images

  def choose(position):
    """Which image stands at a global position; its crop needs no seed."""
    extra = {'clip_index': tf.constant(0), 'is_valid': position < total}
    return tf.minimum(position, total - 1), tf.zeros(2, tf.int64), extra

  def place(shape, unused_seed):
    return image_crops.eval_area(shape, size=size, short_side=short_side)

  counted = damage_count.EvaluationCount(
    damage,
    num_rows=total,
    split='val',
    leaves_out=leaves_out,
    **_named(source),
  )
  with batch_iterator.open_batches(
    _Images(source, choose, place, size, counted, replaces=leaves_out),
    steps=range(start_step, -(-total // batch_size)),
    batch_size=batch_size,
    rows=rows,
    num_threads=num_threads,
    num_prefetched=num_prefetched,
  ) as batches:
    yield batches


def _named(source):
  """What damage_count needs to name the images of a source."""
  return {
    'num_frames': 1,
    'name_of': source.names,
    'location': source.location,
    'remedy': source.remedy,
  }


class _Images:
  """Makes the image of a position: read, decode, crop, resize.

  What cannot be decoded ends the graph; then the image is noted as suspect,
  and from there on tried before, as in `sound_frames`.
  """

  def __init__(self, source, choose, place, size, counted, *, replaces):
    self._source = source
    self._choose = choose
    self._place = place
    self._size = size
    self._replaces = replaces
    self._damage = counted.damage
    self.count = counted.count
    self._suspects = set()
    self._unanswered = None

  def make(self, position):
    """Gives one row of the batch, in a graph.

    Args:
      position: int64 scalar tensor.

    Returns:
      dict of tensors.
    """
    index, seed, extra = self._choose(position)
    *image, label, num_bad = tf.numpy_function(
      self._read_sound,
      [index, seed],
      [tf.string, tf.uint8, tf.int32, tf.int32, tf.int32, tf.int32],
    )
    num_bad = tf.ensure_shape(num_bad, ())
    if 'is_valid' in extra:
      # Copies of the last image do not count.
      num_bad = tf.where(extra['is_valid'], num_bad, 0)
      extra['is_valid'] &= num_bad == 0
    side = float(self._size)
    return {
      'window': self._crop(seed, *image)[tf.newaxis],
      'crop': tf.constant([0.0, 0.0, side, side]),
      'instance_index': tf.cast(index, tf.int32),
      'label': tf.ensure_shape(label, ()),
      'bad_frames': num_bad,
      **extra,
    }

  def find_damage(self, position):
    """Looks for why an image could not be made; see open_batches.

    Args:
      position: int64 scalar tensor.

    Raises:
      dataset_folder.DatasetError: if it never can be.
      dataset_folder.UnansweredError: if one could not be read, though it may be
        sound, even if it can be by now.
    """
    if self._unanswered is not None:
      kind, message = self._unanswered
      raise kind(message)
    index, seed, _ = self._choose(position)
    index = int(index)
    *image, _, _ = self._read_sound(index, seed)
    if self._is_suspect(index):
      return False
    try:
      self._check_crop(index, seed, image)
    except dataset_folder.DatasetError:
      if not self._replaces:
        raise
      self._suspects.add(index)
      return True
    return False

  def _is_suspect(self, index):
    return len(self._suspects) > _MAX_SUSPECTS or index in self._suspects

  def _read_sound(self, index, seed):
    """As `_read`, of the nearest image that is sound, and whether it is not."""
    index, error = int(index), None
    for candidate in _nearest(index, self._source.num_images):
      try:
        *image, label = self._read(candidate)
        if candidate != index or self._is_suspect(index):
          self._check_crop(candidate, seed, image)
      except dataset_folder.UnansweredError as unanswered:
        self._unanswered = type(unanswered), str(unanswered)
        raise
      except dataset_folder.DatasetError as found:
        if not self._replaces:
          raise
        error = error or found
        continue
      if candidate != index:
        self._damage.name(
          (self._source.location, index),
          f'{error} Until then {self._source.names(candidate)!r} stands for it '
          'in training, and it is left out of tests.',
        )
      return *image, label, np.int32(candidate != index)
    raise dataset_folder.DatasetError(
      f'{error} None of the {_MAX_DISTANCE} images before and after it can be '
      'read, either.'
    )

  def _check_crop(self, index, seed, image):
    """Raises DatasetError if the crop of an image cannot be decoded."""
    try:
      self._crop(seed, *(tf.constant(part) for part in image))
    except tf.errors.OpError as error:
      reason = _reason_of(error)
      raise self._error(index, f'cannot be decoded: {reason}') from error

  def _read(self, index):
    """Reads an image and looks at its header.

    Returns:
      (encoded, pixels, shape, way, label): the file, for TensorFlow to decode;
      or what it is decoded to, uint8 [H, W, 3], of formats that TensorFlow
      reads wrong; int32 [2], height and width; how to decode; the label.
    """
    encoded, label = self._source.read(index)
    pixels = np.zeros((0, 0, 3), np.uint8)
    try:
      with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
          raise Image.DecompressionBombError
        way = {'JPEG': _JPEG, 'MPO': _JPEG, 'PNG': _PNG}.get(
          image.format, _DECODED
        )
        if way == _DECODED:
          # TensorFlow takes BMP palettes for grey levels, and decodes all
          # frames of a GIF, of any number.
          pixels = np.asarray(image.convert('RGB'))
    except Image.DecompressionBombError:
      raise self._error(
        index, f'has more than {MAX_PIXELS // 10**6} megapixels'
      ) from None
    except Image.UnidentifiedImageError:
      raise self._error(
        index, f'is no {", ".join(_FORMATS[:-1])} or {_FORMATS[-1]}'
      ) from None
    except Exception as error:  # Pillow raises whatever it comes across
      raise self._error(index, f'cannot be decoded: {error}') from error
    return (
      np.array(encoded, dtype=object),
      pixels,
      np.array([height, width], np.int32),
      np.int32(way),
      np.int32(label),
    )

  def _crop(self, seed, encoded, pixels, shape, way):
    """Decodes and resizes an area: uint8 [size, size, 3]."""
    shape = tf.ensure_shape(shape, (2,))
    area = self._place(shape, seed)
    cropped = tf.switch_case(
      tf.ensure_shape(way, ()),
      {
        _JPEG: lambda: _decode_jpeg(encoded, area, shape),
        _PNG: lambda: _cut(tf.io.decode_png(encoded, channels=3), area),
        _DECODED: lambda: _cut(pixels, area),
      },
    )
    resized = tf.image.resize(
      cropped, (self._size, self._size), method=tf.image.ResizeMethod.AREA
    )
    resized = tf.cast(tf.floor(resized + 0.5), tf.uint8)
    return tf.ensure_shape(resized, (self._size, self._size, 3))

  def _error(self, index, reason):
    source = self._source
    return dataset_folder.DatasetError(
      f'{source.names(index)!r} of {source.location} {reason.rstrip(".")}. '
      f'{source.remedy}'
    )


def _nearest(index, count):
  """The numbers around one, it first, the earlier one of two first."""
  for distance in range(min(_MAX_DISTANCE + 1, count)):
    for candidate in dict.fromkeys((index - distance, index + distance)):
      if 0 <= candidate < count:
        yield candidate


def _decode_jpeg(encoded, area, shape):
  """Decodes an area exactly as it is in the whole image."""
  # Colour is stored at half the resolution; at the border of what is decoded
  # it lacks a neighbour to interpolate with. That pixel is cut off.
  begin = tf.maximum(area[:2] - 1, 0)
  end = tf.minimum(area[:2] + area[2:] + 1, shape)
  pixels = tf.io.decode_and_crop_jpeg(
    encoded,
    tf.concat([begin, end - begin], axis=0),
    channels=3,
    # The default is the fast transform, off by about one grey level.
    dct_method='INTEGER_ACCURATE',
  )
  return _cut(pixels, tf.concat([area[:2] - begin, area[2:]], axis=0))


def _cut(pixels, area):
  return tf.slice(
    tf.ensure_shape(pixels, (None, None, 3)),
    tf.concat([area[:2], [0]], axis=0),
    tf.concat([area[2:], [3]], axis=0),
  )


def _reason_of(error):
  """What TensorFlow says is wrong, without its own names: no full stop."""
  line = error.message.strip().split('\n')[0]
  line = re.sub(r'\{\{.*?\}\} *| *\[Op:.*', '', line)
  return line.rstrip('. ')


def _check_size(size):
  if size < 1:
    raise ValueError(f'the size must be at least 1 pixel, got {size}.')
