"""Ways to decode one stored frame, the exact and the faster ones."""

import io

import numpy as np
import simplejpeg
import tensorflow as tf
from PIL import Image


def known():
  """Returns dict of name to function from JPEG bytes to uint8 [H, W, 3].

  The last two give half the sides, all others the whole frame.
  """
  return {
    'simplejpeg': simplejpeg.decode_jpeg,
    'TensorFlow': lambda jpeg: _tensorflow(jpeg, 'INTEGER_ACCURATE'),
    'Pillow': _pillow,
    'simplejpeg, fast DCT': lambda jpeg: simplejpeg.decode_jpeg(
      jpeg, fastdct=True
    ),
    'simplejpeg, fast DCT and fast upsampling': lambda jpeg: (
      simplejpeg.decode_jpeg(jpeg, fastdct=True, fastupsample=True)
    ),
    'TensorFlow, INTEGER_FAST': lambda jpeg: _tensorflow(jpeg, 'INTEGER_FAST'),
    'TensorFlow, ratio 2': lambda jpeg: _tensorflow(
      jpeg, 'INTEGER_ACCURATE', ratio=2
    ),
    'simplejpeg, half size': _half_size,
  }


def window_decoders():
  """Returns what decodes only a window of frames, from memory.

  dict of name to function (JPEG files, height, width, area) -> uint8
  [T, W, W, 3], area being offset y, x, height and width.
  """
  return {'simplejpeg': _simplejpeg_windows, 'TensorFlow': _tensorflow_windows}


def _simplejpeg_windows(jpegs, height, width, area):
  top, left, rows, columns = area
  whole = np.empty((height, width, 3), np.uint8)
  windows = np.empty((len(jpegs), rows, columns, 3), np.uint8)
  for jpeg, window in zip(jpegs, windows, strict=True):
    simplejpeg.decode_jpeg(jpeg, buffer=whole)
    window[:] = whole[top : top + rows, left : left + columns]
  return windows


def _tensorflow_windows(jpegs, height, width, area):
  del height, width
  return _crop_all(tf.constant(jpegs), tf.constant(area)).numpy()


@tf.function
def _crop_all(jpegs, area):
  return tf.stack(
    [
      tf.io.decode_and_crop_jpeg(jpeg, area, dct_method='INTEGER_ACCURATE')
      for jpeg in tf.unstack(jpegs)
    ]
  )


def _half_size(jpeg):
  height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
  return simplejpeg.decode_jpeg(
    jpeg, min_height=height // 2, min_width=width // 2, min_factor=2
  )


def _tensorflow(jpeg, dct_method, ratio=1):
  return tf.io.decode_jpeg(jpeg, ratio=ratio, dct_method=dct_method).numpy()


def _pillow(jpeg):
  return np.asarray(Image.open(io.BytesIO(jpeg)))
