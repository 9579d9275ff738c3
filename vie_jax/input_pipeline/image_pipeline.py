"""Batches of still images, cropped and resized: the transfer test's input.

A still image is a clip of one frame. It is decoded, cropped and resized here;
`vie_jax.device_augment` mirrors and recolours it, with `grey_first`, and the
network's clip is filled with copies of it.

The batch at step t is a pure function of (seed, t), as in `pipeline`.

Source: preprocessing_inst in tf_model/model/resnet_th_preprocessing.py of the
official code (neuroailab/VIE). Deviations: the area resize rounds to the
nearest grey level, as all else here, where the official one truncates; a grey
image that is taken whole is cropped to a square like any other; JPEG files are
decoded by the exact transform. As there, the orientation that a camera noted is
not looked at.
"""

import contextlib
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from vie_jax.input_pipeline import batch_iterator, batch_order, frame_store

# An image that says it is larger is refused before it is decoded: a file of
# some kilobytes can claim any size.
MAX_PIXELS = 100_000_000

# Of the random crop; area and aspect (width to height) as ranges.
_MIN_COVERED = 0.1
_ASPECT_RANGE = (3 / 4, 4 / 3)
_AREA_RANGE = (0.2, 1.0)
_MAX_ATTEMPTS = 100

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

  Yields:
    An iterator over dicts of NumPy arrays, b = B / host_count rows each:
      window: uint8 [b, 1, size, size, 3], RGB.
      crop: float32 [b, 4], (0, 0, size, size) in each row: nothing is left to
        crop.
      instance_index: int32 [b], index in `source`, no value twice in a global
        batch.
      label: int32 [b], -1 where unknown.
    It raises frame_store.DatasetError, naming the image, when one cannot be
    read or decoded, or has more than MAX_PIXELS. A JPEG that is damaged outside
    of its crop is not noticed.

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
    """Which image stands at a global position, and what places its crop."""
    index = batch_order.visited(
      position, source.num_images, batch_size=batch_size, seed=seed
    )
    area_seed = batch_order.seed_at(position, seed=seed)
    return index, lambda shape: train_area(shape, seed=area_seed), {}

  with batch_iterator.open_batches(
    _Images(source, choose, size),
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

  Yields:
    An iterator over ceil(N / B) dicts of NumPy arrays from start_step on, the
    same number on each host. They are as in train_batches, and
      clip_index: int32 [b], 0.
      is_valid: bool [b], False for the copies of the last image that fill the
        last batch.

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
    """Which image stands at a global position, and what places its crop."""
    extra = {'clip_index': tf.constant(0), 'is_valid': position < total}
    index = tf.minimum(position, total - 1)

    def place(shape):
      return eval_area(shape, size=size, short_side=short_side)

    return index, place, extra

  with batch_iterator.open_batches(
    _Images(source, choose, size),
    steps=range(start_step, -(-total // batch_size)),
    batch_size=batch_size,
    rows=rows,
    num_threads=num_threads,
    num_prefetched=num_prefetched,
  ) as batches:
    yield batches


def train_area(shape, *, seed):
  """Draws a crop of random area and aspect at a random place of an image.

  Of 100 attempts the first that fits is taken. If that is the whole image, or
  none fits, the crop is a square of the short side at a random place.

  Args:
    shape: int32 [2], height and width of the image, in pixels.
    seed: integer [2], unique per crop.

  Returns:
    int32 [4], offset y, x, height, width in pixels.
  """
  area_seed, square_seed = tf.unstack(tf.random.split(seed, 2))
  begin, sides, _ = tf.image.stateless_sample_distorted_bounding_box(
    tf.concat([shape, [3]], axis=0),
    bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
    seed=area_seed,
    min_object_covered=_MIN_COVERED,
    aspect_ratio_range=_ASPECT_RANGE,
    area_range=_AREA_RANGE,
    max_attempts=_MAX_ATTEMPTS,
  )
  side = tf.reduce_min(shape)
  room = shape - side  # none along the short side
  drawn = tf.random.stateless_uniform(
    (), seed=square_seed, maxval=tf.reduce_max(room) + 1, dtype=tf.int32
  )
  square = tf.concat([tf.minimum(room, drawn), [side, side]], axis=0)
  area = tf.concat([begin[:2], sides[:2]], axis=0)
  return tf.where(tf.reduce_all(area[2:] == shape), square, area)


def eval_area(shape, *, size, short_side):
  """Places the square in the middle that becomes the middle crop.

  The crop of an image resized to a short side is the same as the resize of
  this square, but for fractions of a pixel.

  Args:
    shape: int32 [2], height and width of the image, in pixels.
    size: side of the crop, in pixels.
    short_side: of the resized image, at least size.

  Returns:
    int32 [4], offset y, x, height, width in pixels of the image.
  """
  side = tf.maximum(tf.reduce_min(shape) * size // short_side, 1)
  return tf.concat([(shape - side) // 2, [side, side]], axis=0)


class _Images:
  """Makes the image of a position: read, decode, crop, resize."""

  def __init__(self, source, choose, size):
    self._source = source
    self._choose = choose
    self._size = size

  def make(self, position):
    """Gives one row of the batch, in a graph.

    Args:
      position: int64 scalar tensor.

    Returns:
      dict of tensors.
    """
    index, place, extra = self._choose(position)
    *image, label = tf.numpy_function(
      self._read,
      [index],
      [tf.string, tf.uint8, tf.int32, tf.int32, tf.int32],
    )
    side = float(self._size)
    return {
      'window': self._crop(place, *image)[tf.newaxis],
      'crop': tf.constant([0.0, 0.0, side, side]),
      'instance_index': tf.cast(index, tf.int32),
      'label': tf.ensure_shape(label, ()),
      **extra,
    }

  def find_damage(self, position):
    """Makes an image and says what is wrong with it.

    Args:
      position: int64 scalar tensor.

    Raises:
      frame_store.DatasetError: if it cannot be read or decoded.
    """
    index, place, _ = self._choose(position)
    *image, _ = self._read(int(index))
    try:
      self._crop(place, *(tf.constant(part) for part in image))
    except tf.errors.OpError as error:
      reason = error.message.strip().split('\n')[0]
      raise self._error(int(index), f'cannot be decoded: {reason}') from error

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

  def _crop(self, place, encoded, pixels, shape, way):
    """Decodes and resizes an area: uint8 [size, size, 3]."""
    shape = tf.ensure_shape(shape, (2,))
    area = place(shape)
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
    return frame_store.DatasetError(
      f'{source.names(index)!r} of {source.location} {reason.rstrip(".")}. '
      f'{source.remedy}'
    )


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


def _check_size(size):
  if size < 1:
    raise ValueError(f'the size must be at least 1 pixel, got {size}.')
