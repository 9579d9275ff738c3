"""Where still images are cropped: at random in training, else in the middle.

Source: as `image_pipeline`.
"""

import tensorflow as tf

# Of the random crop; area and aspect (width to height) as ranges.
_MIN_COVERED = 0.1
_ASPECT_RANGE = (3 / 4, 4 / 3)
_AREA_RANGE = (0.2, 1.0)
_MAX_ATTEMPTS = 100


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
