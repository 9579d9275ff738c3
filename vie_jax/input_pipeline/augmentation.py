"""The geometry of a clip: where in the stored frame its crop lies.

There are two ways to crop:

  short_side    the frame is resized to a short side drawn at random, then a
                square of fixed size is cropped; for evaluation from the middle
  multiscale    a square of a drawn share of the short side is cropped in the
                middle or a corner, then resized; for evaluation the largest
                one in the middle

Here either gives a box in the stored frame; `frame_window` takes the window
around it. Resizing is left to `vie_jax.device_augment`, which must know the
order of the two: the filter of a resize before the crop reads beyond the box.

A box is float64 [4]: offset y, x, height, width in pixels of the stored
frame. One box serves all frames of a clip.

Source: pt_loader/transforms.py of the official code (neuroailab/VIE).
"""

import fractions
import math

import tensorflow as tf

CROP_METHODS = ('short_side', 'multiscale')

# Positions of a multiscale crop, in the order of the official code.
CENTER, TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = range(5)


def crops_before_resize(method):
  """Says whether a way to crop resizes nothing but the box.

  Args:
    method: one of CROP_METHODS.

  Returns:
    bool; `frame_window` and `vie_jax.device_augment` ask for it.

  Raises:
    ValueError: if there is no such way.
  """
  if method not in CROP_METHODS:
    raise ValueError(
      f'unknown crop method {method!r}: choose one of {CROP_METHODS}.'
    )
  return method == 'multiscale'


def window_size(*, size, short_side, max_short_side, max_long_side):
  """Side of the square window that holds every crop of a run.

  Args:
    size: side of the crop after resizing, in pixels.
    short_side: smallest short side that frames are resized to, in pixels, at
      least size.
    max_short_side: largest short side of a stored frame, in pixels.
    max_long_side: largest long side of a stored frame, in pixels.

  Returns:
    W: the largest crop and the reach of the resize filter around it, in
    pixels of the stored frame, but no more than the largest frame.

  Raises:
    ValueError: if the crop is larger than the resized frame.
  """
  if not 0 < size <= short_side:
    raise ValueError(
      f'a crop of {size} pixels does not fit into frames resized to a short '
      f'side of {short_side}: raise the short side or lower the crop size.'
    )
  # The long side is truncated to whole pixels when resizing, so that it
  # shrinks by slightly more than the short side.
  scale = fractions.Fraction(max_short_side, short_side)
  scale *= fractions.Fraction(short_side + 1, short_side)
  reach = max(scale, 1) - scale / 2
  return min(math.ceil(size * scale + 2 * reach), max_long_side)


def train_box(height, width, *, size, short_side_min, short_side_max, seed):
  """Draws a crop at a random place of a frame of random size.

  Args:
    height: int32 scalar tensor, of the stored frame, in pixels.
    width: int32 scalar tensor, likewise.
    size: side of the crop after resizing, in pixels.
    short_side_min: smallest short side after resizing, at least size.
    short_side_max: largest short side after resizing, inclusive.
    seed: integer [2], unique per clip.

  Returns:
    float64 [4], a box.

  Raises:
    ValueError: if the crop is larger than the resized frame.
  """
  if not 0 < size <= short_side_min <= short_side_max:
    raise ValueError(
      f'a crop of {size} pixels from frames resized to a short side between '
      f'{short_side_min} and {short_side_max} pixels does not exist: they '
      'must not decrease in this order.'
    )
  seeds = tf.unstack(tf.random.split(seed, 3))

  def uniform(index, low, high):
    return tf.random.stateless_uniform(
      (), seed=seeds[index], minval=low, maxval=high + 1, dtype=tf.int32
    )

  short_side = uniform(0, short_side_min, short_side_max)
  resized = _resized(height, width, short_side)
  offset = [
    uniform(1 + axis, 0, side - size) for axis, side in enumerate(resized)
  ]
  return _stored_box(height, width, resized, offset, size)


def eval_box(height, width, *, size, short_side):
  """Takes the crop in the middle of a frame of fixed size.

  Args:
    height: int32 scalar tensor, of the stored frame, in pixels.
    width: int32 scalar tensor, likewise.
    size: side of the crop after resizing, in pixels.
    short_side: short side after resizing, at least size.

  Returns:
    float64 [4], a box.

  Raises:
    ValueError: if the crop is larger than the resized frame.
  """
  if not 0 < size <= short_side:
    raise ValueError(
      f'a crop of {size} pixels does not fit into frames resized to a short '
      f'side of {short_side}: raise the short side or lower the crop size.'
    )
  resized = _resized(height, width, short_side)
  offset = []
  for side in resized:
    half, is_odd = (side - size) // 2, (side - size) % 2
    offset.append(half + is_odd * (half % 2))  # halves to the even neighbour
  return _stored_box(height, width, resized, offset, size)


def multiscale_window_size(*, scales, max_short_side):
  """Side of the square window that holds every multiscale crop of a run.

  Args:
    scales: shares of the short side, each in (0, 1].
    max_short_side: largest short side of a stored frame, in pixels.

  Returns:
    W: the largest crop, in pixels of the stored frame.

  Raises:
    ValueError: if there are no scales, or one is out of range.
  """
  if not scales or not all(0 < scale <= 1 for scale in scales):
    raise ValueError(
      'multiscale crops need scales, shares of the short side in (0, 1], '
      f'got {scales}.'
    )
  return max(1, int(max_short_side * max(scales)))


def multiscale_train_box(height, width, *, scales, seed):
  """Draws a square of random size in the middle or a corner of a frame.

  Args:
    height: int32 scalar tensor, of the stored frame, in pixels.
    width: int32 scalar tensor, likewise.
    scales: shares of the short side to draw from, each as likely.
    seed: integer [2], unique per clip.

  Returns:
    float64 [4], a box of whole pixels.
  """
  scale_seed, position_seed = tf.unstack(tf.random.split(seed, 2))

  def below(limit, seed):
    return tf.random.stateless_uniform(
      (), seed=seed, maxval=limit, dtype=tf.int32
    )

  scale = tf.constant(scales, tf.float64)[below(len(scales), scale_seed)]
  position = below(BOTTOM_RIGHT + 1, position_seed)
  return corner_box(height, width, scale=scale, position=position)


def multiscale_eval_box(height, width):
  """Takes the largest square in the middle of a frame.

  Args:
    height: int32 scalar tensor, of the stored frame, in pixels.
    width: int32 scalar tensor, likewise.

  Returns:
    float64 [4], a box of whole pixels.

  Source: as corner_box, with the one scale and place of the official
    evaluation. Deviation: there half of the clips are flipped afterwards, as
    in training; here none is.
  """
  one = tf.constant(1.0, tf.float64)
  return corner_box(height, width, scale=one, position=tf.constant(CENTER))


def corner_box(height, width, *, scale, position):
  """Places a square in the middle or a corner of a frame.

  Its side is the share of the short side, truncated; in the middle an odd side
  loses one pixel.

  Args:
    height: int32 scalar tensor, of the stored frame, in pixels.
    width: int32 scalar tensor, likewise.
    scale: float64 scalar tensor, share of the short side, in (0, 1].
    position: int32 scalar tensor, CENTER, TOP_LEFT, ... or BOTTOM_RIGHT.

  Returns:
    float64 [4], a box of whole pixels.

  Source: GroupRandomCornerCrop of the official code. Deviation: a side of no
    pixel becomes one.
  """
  shorter = tf.cast(tf.minimum(height, width), tf.float64)
  side = tf.cast(shorter * scale, tf.int32)
  is_center = position == CENTER
  side = tf.maximum(tf.where(is_center, side // 2 * 2, side), 1)
  is_low = (position == BOTTOM_LEFT) | (position == BOTTOM_RIGHT)
  is_right = (position == TOP_RIGHT) | (position == BOTTOM_RIGHT)

  def offset(whole, is_end):
    corner = tf.where(is_end, whole - side, 0)
    return tf.where(is_center, whole // 2 - side // 2, corner)

  box = [offset(height, is_low), offset(width, is_right), side, side]
  return tf.cast(tf.stack(box), tf.float64)


def _resized(height, width, short_side):
  """Sides after resizing: the short one exact, the long one truncated."""
  shorter = tf.minimum(height, width)
  return height * short_side // shorter, width * short_side // shorter


def _stored_box(height, width, resized, offset, size):
  scale = tf.cast(tf.stack([height, width]), tf.float64)
  scale /= tf.cast(tf.stack(resized), tf.float64)
  offset = tf.cast(tf.stack(offset), tf.float64)
  return tf.concat([offset * scale, size * scale], axis=0)
