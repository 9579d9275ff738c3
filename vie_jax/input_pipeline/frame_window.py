"""Decodes of the frames of a clip no more than the network needs to see.

A window of fixed size around the crop, the same for all frames of a clip, goes
to the device as uint8. Of a frame stored with restart markers only what the
window meets is decoded, see `jpeg_cut`; of others all, by the decoder that is
fastest at that and knows no areas.
"""

import math
import re

import numpy as np
import simplejpeg

from vie_jax.input_pipeline import jpeg_cut


class JpegError(ValueError):
  """A frame is no JPEG file of the size it should have, or is damaged."""


class PartError(JpegError):
  """The part of a frame that a clip needs is damaged; another may not be."""


class FrameWindow:
  """Where the window of a clip lies, and how its frames are decoded.

  The window lies inside the frame. Where the frame is smaller, it is
  continued below and to the right. What the crop does not need of it is black.

  Attributes:
    crop: float32 [4], offset y, x, height, width of the box in the window's
      pixels.
  """

  def __init__(
    self, box, *, height, width, size, window, crops_before_resize=False
  ):
    """Places the window.

    Args:
      box: float64 [4], of the crop, see augmentation.
      height: int, of the stored frames, in pixels.
      width: int, likewise.
      size: side of the crop after resizing, in pixels.
      window: W, from augmentation.window_size or multiscale_window_size.
      crops_before_resize: whether nothing outside the box is needed.
    """
    self._shape = int(height), int(width)
    self._window = window
    # Plain numbers: with arrays this would take as long as a tenth of a frame.
    y, x, box_height, box_width = np.asarray(box, np.float64).tolist()
    self._scale = box_height / size, box_width / size
    start, self._area = zip(
      *(
        _place(*side, window, crops_before_resize)
        for side in zip(
          (y, x), (box_height, box_width), self._scale, self._shape, strict=True
        )
      ),
      strict=True,
    )
    self.crop = (box - [*start, 0, 0]).astype(np.float32)
    self._inside = tuple(
      slice(area.start - first, area.stop - first)
      for area, first in zip(self._area, start, strict=True)
    )
    self._cut = None
    # One for all frames: fresh memory would take a tenth of the time.
    self._decoded = np.empty((*self._shape, 3), np.uint8)

  def decode(self, jpeg, pixels):
    """Decodes the window from a frame; not from several threads at once.

    Args:
      jpeg: bytes.
      pixels: uint8 [W, W, 3], RGB, to write to.

    Raises:
      JpegError: if the frame is no JPEG file of this size, or is damaged
        where it must be decoded; PartError if only there, as far as is known.
    """
    rows, columns = self._inside
    pixels[rows, columns] = self._decode(jpeg)
    for outside in (slice(rows.start), slice(rows.stop, None)):
      pixels[outside] = 0
    for outside in (slice(columns.start), slice(columns.stop, None)):
      pixels[rows, outside] = 0
    height, width = self._shape
    if height < self._window:
      _continue(pixels, height, self._scale[0])
    if width < self._window:
      _continue(pixels.swapaxes(0, 1), width, self._scale[1])

  def check(self, jpeg):
    """Decodes a frame and takes nothing from it; raises as decode."""
    self._decode(jpeg)

  def _decode(self, jpeg):
    """Returns the pixels of the frame that the crop needs."""
    cut = self._cut_for(jpeg)
    if cut is None:
      decode_frame(jpeg, self._decoded)
      return self._decoded[self._area]
    try:
      part = cut.apply(jpeg)
    except jpeg_cut.CutError as error:
      raise JpegError(str(error)) from error
    pixels = self._decoded.reshape(-1)[: cut.height * cut.width * 3]
    pixels = pixels.reshape(cut.height, cut.width, 3)
    try:
      decode_frame(part, pixels)
    except JpegError as error:
      raise PartError(str(error)) from error
    rows, columns = self._area
    return pixels[
      rows.start - cut.top : rows.stop - cut.top,
      columns.start - cut.left : columns.stop - cut.left,
    ]

  def _cut_for(self, jpeg):
    """The Cut that fits a frame; None if it must be decoded as a whole."""
    if self._cut and jpeg.startswith(self._cut.layout.header):
      return self._cut
    # As a rule all frames of a video have the same header.
    layout = jpeg_cut.read_layout(jpeg)
    if layout is None:
      return None
    _check_size(jpeg, self._shape)
    height, width = self._shape
    self._cut = jpeg_cut.Cut(
      layout, height=height, width=width, area=self._area
    )
    return self._cut


def decode_frame(jpeg, pixels):
  """Decodes a whole frame.

  Args:
    jpeg: bytes.
    pixels: uint8 [height, width, 3], RGB, to write to.

  Raises:
    JpegError: if the frame is no JPEG file of this size or is damaged.
  """
  _check_size(jpeg, pixels.shape[:2])
  try:
    simplejpeg.decode_jpeg(jpeg, buffer=pixels)
  except ValueError as error:
    raise JpegError(_reason(error)) from error


def _check_size(jpeg, shape):
  """Looks at the header: a damaged or foreign file may ask for any memory.

  Args:
    jpeg: bytes.
    shape: (height, width) that the frame should have.

  Raises:
    JpegError: if it is no JPEG file of that size.
  """
  try:
    found = simplejpeg.decode_jpeg_header(jpeg)[:2]
  except ValueError as error:
    raise JpegError(_reason(error)) from error
  if found != tuple(shape):
    raise JpegError(
      f'the JPEG has {found[1]}x{found[0]} pixels, and the table of videos '
      f'says {shape[1]}x{shape[0]}'
    )


def _reason(error):
  """What the decoder says is wrong, without its own names: no full stop."""
  line = ' '.join(str(error).split())
  return re.sub(r'^tj\w+\(\): ', '', line).rstrip('.')


def _place(offset, length, scale, side, window, crops_before_resize):
  """Places the window along an axis.

  Returns:
    (first pixel of the window, slice of the frame's pixels that the crop
    needs).
  """
  # How far the filter reads over the border of the box.
  reach = 0.0 if crops_before_resize else max(scale, 1.0) - scale / 2
  first = math.floor(offset - reach + 0.5)
  end = math.ceil(offset + length + reach - 0.5)
  start = min(max(first, 0), max(side - window, 0))
  return start, slice(max(first, 0), min(end, side, start + window))


def _continue(pixels, side, scale):
  """Fills uint8 [W, ...] from `side` on, behind the border of the frame.

  The device takes the window's border for the frame's. Behind the border that
  lies inside the window it must read nothing new: only the last output pixel
  of a crop that ends there reaches it, and the filling is what the filter
  gives for that pixel without it. When enlarging that is the border pixel.
  """
  support = max(scale, 1.0)
  count = min(side, math.ceil(scale / 2 + support))
  behind = np.arange(count, 0, -1) - 0.5
  weights = np.maximum(1.0 - np.abs(behind - scale / 2) / support, 0.0)
  weights = (weights / weights.sum()).astype(np.float32)
  last = pixels[side - count : side].astype(np.float32)
  pixels[side:] = np.rint(np.tensordot(weights, last, 1)).astype(np.uint8)
