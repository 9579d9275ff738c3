"""Scales decoded pictures, to the colours of a JPEG file or to RGB."""

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

# Bicubic in swscale widens its kernel when it shrinks, so nothing aliases.
_SCALING = (
  Interpolation.BICUBIC
  | Interpolation.ACCURATE_RND
  | Interpolation.FULL_CHR_H_INT
)

# AVColorSpace of a frame (ITU-T H.273 matrix coefficients) to swscale's name.
_COLORSPACES = {
  1: Colorspace.ITU709,
  4: Colorspace.FCC,
  5: Colorspace.ITU601,
  6: Colorspace.ITU601,
  7: Colorspace.SMPTE240M,
  9: Colorspace.BT2020,
  10: Colorspace.BT2020,
}
_UNSPECIFIED = 2
# Shares of red and blue in luma (ITU-T H.273, table 4).
_LUMA_SHARES = {
  Colorspace.ITU709: (0.2126, 0.0722),
  Colorspace.FCC: (0.30, 0.11),
  Colorspace.ITU601: (0.299, 0.114),
  Colorspace.SMPTE240M: (0.212, 0.087),
  Colorspace.BT2020: (0.2627, 0.0593),
}
_HD_HEIGHT = 720
_HD_WIDTH = 1280


def scaled_ycbcr(reformatter, picture, width, height):
  """Scales a picture and converts it to what a JPEG file holds.

  Matrix and range are left as they are while it is scaled: swscale takes
  three times as long to change the one, and is off by half a level of chroma
  after the other.

  Returns:
    (Y, Cb, Cr), as `to_jpeg_colors` returns them.
  """
  colorspace = _colorspace(picture)
  color_range = _color_range(picture)
  frame = reformatter.reformat(
    picture,
    width,
    height,
    format='yuv420p',
    interpolation=_SCALING,
    src_colorspace=colorspace,
    dst_colorspace=colorspace,
    src_color_range=color_range,
    dst_color_range=color_range,
    threads=1,
  )
  planes = [
    np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[
      : plane.height, : plane.width
    ]
    for plane in frame.planes
  ]
  return to_jpeg_colors(
    *planes,
    luma_shares=_LUMA_SHARES[colorspace],
    is_full_range=color_range == ColorRange.JPEG,
  )


def to_jpeg_colors(luma, cb, cr, *, luma_shares, is_full_range):
  """Converts a picture to BT.601 in full range.

  Args:
    luma: uint8 [H, W].
    cb: uint8 [ceil(H / 2), ceil(W / 2)].
    cr: likewise.
    luma_shares: (red, blue), their shares in the luma of its matrix.
    is_full_range: False if black is 16, white 235 and chroma 16 to 240.

  Returns:
    (luma, cb, cr), likewise. Each pixel is converted with the chroma sample
    that covers it.
  """
  if not is_full_range:
    luma = _FULL_LUMA.take(luma)
    cb, cr = _FULL_CHROMA.take(cb), _FULL_CHROMA.take(cr)
  if luma_shares == _LUMA_SHARES[Colorspace.ITU601]:
    return luma, cb, cr
  to_rgb = np.linalg.inv(_from_rgb(*luma_shares))
  matrix = _from_rgb(*_LUMA_SHARES[Colorspace.ITU601]) @ to_rgb
  # The first column is (1, 0, 0): grey stays as it is.
  more, to_cb, to_cr = matrix[:, 1:].astype(np.float32)
  cb, cr = cb.astype(np.float32) - 128, cr.astype(np.float32) - 128
  height, width = luma.shape
  difference = np.rint(more[0] * cb + more[1] * cr).astype(np.int16)
  difference = difference.repeat(2, 0).repeat(2, 1)[:height, :width]
  return (
    np.clip(luma + difference, 0, 255).astype(np.uint8),
    _level(to_cb[0] * cb + to_cb[1] * cr + 128),
    _level(to_cr[0] * cb + to_cr[1] * cr + 128),
  )


def _from_rgb(red, blue):
  """Returns the matrix from RGB to Y, Cb and Cr, float64 [3, 3]."""
  luma = np.array([red, 1 - red - blue, blue])
  return np.stack(
    [
      luma,
      ([0, 0, 1] - luma) / (2 * (1 - blue)),
      ([1, 0, 0] - luma) / (2 * (1 - red)),
    ]
  )


def _level(values):
  return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# Levels of limited range to those of full range.
_FULL_LUMA = _level((np.arange(256) - 16) * 255 / 219)
_FULL_CHROMA = _level((np.arange(256) - 128) * 255 / 224 + 128)


def scaled_rgb(reformatter, picture, width, height):
  """Scales a picture and converts it to full-range RGB, [H, W, 3] uint8."""
  colors = {'src_colorspace': _colorspace(picture)}
  if _has_alpha(picture.format):
    picture, colors = _on_black(picture, colors), {}
  frame = reformatter.reformat(
    picture,
    width,
    height,
    format='rgb24',
    interpolation=_SCALING,
    dst_color_range=ColorRange.JPEG,
    threads=1,
    **colors,
  )
  return frame.to_ndarray()


def _colorspace(picture):
  """Tells the colour matrix; where the file does not, by the usual rule."""
  if _has_no_matrix(picture.format):
    return None
  known = _COLORSPACES.get(picture.colorspace)
  if known is not None:
    return known
  if picture.height >= _HD_HEIGHT or picture.width >= _HD_WIDTH:
    return Colorspace.ITU709
  return Colorspace.ITU601


def _has_no_matrix(pixel_format):
  return pixel_format.is_rgb or len(pixel_format.components) < 3


def is_of_unknown_matrix(picture):
  """Tells whether the file names a colour matrix that is not known here."""
  return not (
    _has_no_matrix(picture.format)
    or picture.colorspace in (*_COLORSPACES, _UNSPECIFIED)
  )


def _color_range(picture):
  is_full = picture.color_range == ColorRange.JPEG
  if is_full or picture.format.name.startswith('yuvj'):
    return ColorRange.JPEG
  return ColorRange.MPEG


def is_opaque_ycbcr(pixel_format):
  """Tells whether pixels are luma and chroma, and hide what is behind them."""
  return (
    not pixel_format.is_rgb
    and len(pixel_format.components) == 3
    and not _has_alpha(pixel_format)
  )


def _has_alpha(pixel_format):
  return pixel_format.has_palette or any(
    component.is_alpha for component in pixel_format.components
  )


def _on_black(picture, colors):
  """Puts a picture with transparency on black, before it is scaled."""
  rgba = picture.reformat(
    format='rgba', interpolation=_SCALING, threads=1, **colors
  ).to_ndarray()
  opaque = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
  rgb = ((opaque + 127) // 255).astype(np.uint8)
  return av.VideoFrame.from_ndarray(rgb, format='rgb24')
