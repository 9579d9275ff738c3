"""The geometry of a clip: where in the stored frame its crop lies.

There are two ways to crop:

  short_side    the frame is resized to a short side drawn at random, then a
                square of fixed size is cropped; for evaluation from the middle
  multiscale    a square of a drawn share of the short side is cropped in the
                middle or a corner, then resized; for evaluation the largest
                one in the middle

Here either gives a box in the stored frame; `frame_window` takes the window
around it. Resizing is left to `vie_jax.pixels.antialiased_resize`, which must
know the order of the two: the filter of a resize before the crop reads beyond
the box.

A box is float64 [4]: offset y, x, height, width in pixels of the stored
frame. One box serves all frames of a clip. The functions give boxes for n clips
at once.

Source: pt_loader/transforms.py of the official code (neuroailab/VIE).
"""

import fractions
import math

import numpy as np

from vie_jax.input_pipeline import stateless_random

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


def eval_method(crop):
  """Says in which way evaluation crops.

  Args:
    crop: has method, of training, and for 'multiscale' multiscale_eval:
      'largest_square' or 'short_side'.

  Returns:
    One of CROP_METHODS.

  Source: get_val_cfg_transform of the official code, which evaluates all
    networks of 112 pixels as without multiscale crops.
  """
  if crop.method == 'multiscale' and crop.multiscale_eval == 'short_side':
    return 'short_side'
  return crop.method


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
  """Draws crops at random places of frames of random size.

  Args:
    height: integer [n], of the stored frames, in pixels.
    width: integer [n], likewise.
    size: side of the crop after resizing, in pixels.
    short_side_min: smallest short side after resizing, at least size.
    short_side_max: largest short side after resizing, inclusive.
    seed: int64 [n, 2], unique per clip.

  Returns:
    float64 [n, 4], boxes.

  Raises:
    ValueError: if the crop is larger than the resized frame.
  """
  if not 0 < size <= short_side_min <= short_side_max:
    raise ValueError(
      f'a crop of {size} pixels from frames resized to a short side between '
      f'{short_side_min} and {short_side_max} pixels does not exist: they '
      'must not decrease in this order.'
    )
  drawn = stateless_random.words(stateless_random.split(seed, 3))
  short_side = stateless_random.between(
    drawn[0], short_side_min, short_side_max + 1
  )
  resized = _resized(height, width, short_side)
  offset = [
    stateless_random.between(drawn[1 + axis], 0, side - size + 1)
    for axis, side in enumerate(resized)
  ]
  return _stored_box(height, width, resized, offset, size)


def eval_box(height, width, *, size, short_side):
  """Takes the crops in the middle of frames of fixed size.

  Args:
    height: integer [n], of the stored frames, in pixels.
    width: integer [n], likewise.
    size: side of the crop after resizing, in pixels.
    short_side: short side after resizing, at least size.

  Returns:
    float64 [n, 4], boxes.

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
  """Draws squares of random size in the middle or a corner of frames.

  Args:
    height: integer [n], of the stored frames, in pixels.
    width: integer [n], likewise.
    scales: shares of the short side to draw from, each as likely.
    seed: int64 [n, 2], unique per clip.

  Returns:
    float64 [n, 4], boxes of whole pixels.
  """
  drawn = stateless_random.words(stateless_random.split(seed, 2))
  scale = np.array(scales, np.float64)[
    stateless_random.between(drawn[0], 0, len(scales))
  ]
  position = stateless_random.between(drawn[1], 0, BOTTOM_RIGHT + 1)
  return corner_box(height, width, scale=scale, position=position)


def multiscale_eval_box(height, width):
  """Takes the largest squares in the middle of frames.

  Args:
    height: integer [n], of the stored frames, in pixels.
    width: integer [n], likewise.

  Returns:
    float64 [n, 4], boxes of whole pixels.

  Source: as corner_box, with the one scale and place of the official
    evaluation. Deviation: there half of the clips are flipped afterwards, as
    in training; here none is.
  """
  return corner_box(height, width, scale=1.0, position=CENTER)


def corner_box(height, width, *, scale, position):
  """Places squares in the middle or a corner of frames.

  Their side is the share of the short side, truncated; in the middle an odd
  side loses one pixel.

  Args:
    height: integer [n], of the stored frames, in pixels.
    width: integer [n], likewise.
    scale: float64 [n] or scalar, share of the short side, in (0, 1].
    position: integer [n] or scalar, CENTER, TOP_LEFT, ... or BOTTOM_RIGHT.

  Returns:
    float64 [n, 4], boxes of whole pixels.

  Source: GroupRandomCornerCrop of the official code. Deviation: a side of no
    pixel becomes one.
  """
  height, width = np.asarray(height), np.asarray(width)
  side = (np.minimum(height, width) * scale).astype(np.int64)
  position = np.broadcast_to(position, side.shape)
  is_center = position == CENTER
  side = np.maximum(np.where(is_center, side // 2 * 2, side), 1)
  is_low = np.isin(position, [BOTTOM_LEFT, BOTTOM_RIGHT])
  is_right = np.isin(position, [TOP_RIGHT, BOTTOM_RIGHT])

  def offset(whole, is_end):
    corner = np.where(is_end, whole - side, 0)
    return np.where(is_center, whole // 2 - side // 2, corner)

  box = [offset(height, is_low), offset(width, is_right), side, side]
  return np.stack(box, axis=-1).astype(np.float64)


def _resized(height, width, short_side):
  """Sides after resizing: the short one exact, the long one truncated."""
  height, width = np.asarray(height, np.int64), np.asarray(width, np.int64)
  shorter = np.minimum(height, width)
  return height * short_side // shorter, width * short_side // shorter


def _stored_box(height, width, resized, offset, size):
  scale = np.stack([height, width], axis=-1) / np.stack(resized, axis=-1)
  offset = np.stack(offset, axis=-1)
  return np.concatenate([offset * scale, size * scale], axis=-1)
