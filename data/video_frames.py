"""Turns the pictures of a video into upright JPEG frames at a fixed rate."""

import dataclasses
import fractions
import io
import math

import av
import numpy as np
from av.video.reformatter import (
  ColorRange,
  Colorspace,
  Interpolation,
  VideoReformatter,
)
from open_video import VideoError, open_video, video_errors
from PIL import Image
from timeline import MOST_PICTURES_HZ, Timeline

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

# The smallest picture that FFmpeg's bwdif takes.
_DEINTERLACE_MIN_WIDTH = 3
_DEINTERLACE_MIN_HEIGHT = 4

_LARGEST_PIXEL_ASPECT = 8
# A window for the network is some 250 pixels wide, of 427 or 569. With shorter
# intervals fewer pixels beside it are decoded: 3 in place of 6 saves 6 % of the
# time for 1 % more bytes, and below 3 the markers cost what they save.
_MAX_RESTART_INTERVAL = 3


@dataclasses.dataclass(frozen=True)
class FrameOptions:
  """How frames are made.

  Attributes:
    fps: frames in a second of video.
    short_side: pixels; a larger picture is shrunk to it, none is enlarged.
    jpeg_quality: 1 to 95.
    max_seconds: longest video that is taken, by its header or by its frames.
    max_pixels: largest width times height of a source picture.
  """

  fps: int = 25
  short_side: int = 320
  jpeg_quality: int = 90
  max_seconds: int = 3600
  max_pixels: int = 2**25


@dataclasses.dataclass
class VideoFacts:
  """What `write_frames` found out about a video.

  Attributes:
    num_frames: JPEG frames written.
    height: of the JPEG frames.
    width: of the JPEG frames.
    source_fps: by the container's account.
    source_height: as coded, before rotation.
    source_width: as coded, before rotation.
    duration_seconds: from the first picture to the end of the last one.
    warnings: list of str, what is odd about the file.
  """

  num_frames: int = 0
  height: int = 0
  width: int = 0
  source_fps: float = 0.0
  source_height: int = 0
  source_width: int = 0
  duration_seconds: float = 0.0
  warnings: list = dataclasses.field(default_factory=list)


def write_frames(
  path, options, write_jpeg, *, segment=None, on_picture=lambda: None
):
  """Decodes a video file and hands over its frames one by one.

  Args:
    path: str or path of the video file.
    options: FrameOptions.
    write_jpeg: called with the bytes of each frame, in order.
    segment: Segment of the video, or None for all of it.
    on_picture: called after each decoded picture, shown or not.

  Returns:
    VideoFacts; the duration is that of the segment.

  Raises:
    VideoError: if the file gives no frames or exceeds a limit. A header that
      claims to exceed one is enough.
  """
  facts = VideoFacts()
  with open_video(path, max_pixels=options.max_pixels) as video:
    _check_claim(video, options, segment)
    facts.source_fps = float(video.rate_hz)
    renderer = _Renderer(video, options)
    timeline = Timeline()
    frames = _counted(path, video.frames(), options, on_picture)
    if segment is not None:
      frames = segment.cut(frames, path)
    frames = _deinterlaced(path, _measured(frames, facts, timeline))
    for frame, count in at_fixed_rate(frames, fps=options.fps):
      if facts.num_frames + count > options.max_seconds * options.fps:
        raise VideoError(
          path, f'longer than {options.max_seconds} s (--max-seconds)'
        )
      jpeg = renderer.jpeg(frame.picture)
      for _ in range(count):
        write_jpeg(jpeg)
      facts.num_frames += count
    facts.height, facts.width = renderer.size
    facts.warnings = timeline.warnings(video, segment)
  return facts


def at_fixed_rate(timed_frames, *, fps):
  """Repeats and drops frames as FFmpeg's fps filter does, by their times.

  Output frame n is the last picture whose time, rounded to the grid of
  1/fps seconds, is at most n. The first output frame is the first picture's.

  Args:
    timed_frames: iterable of objects with `time` and `duration`, Fractions
      in seconds.
    fps: int, output frames in a second.

  Yields:
    (frame, count): a frame of the input and how often it is shown, at least
    1. Frames that are not shown are left out. At least one frame is, and a
    single picture is shown once, however long it lasts.
  """
  held = None
  next_number = 0
  num_pictures = 0
  is_empty = True
  for frame in timed_frames:
    num_pictures += 1
    number = _round_half_up(frame.time * fps)
    if held is None:
      next_number = number
    elif number > next_number:
      yield held, number - next_number
      is_empty = False
      next_number = number
    held = frame
  if held is None:
    return
  count = _round_half_up((held.time + held.duration) * fps) - next_number
  if num_pictures == 1:
    count = 1
  if count > 0 or is_empty:
    yield held, max(count, 1)


def output_size(width, height, *, pixel_aspect, short_side):
  """Gives the size of the stored frame, before rotation.

  Args:
    width: int, pixels of the source.
    height: int, pixels of the source.
    pixel_aspect: Fraction, width of a source pixel over its height.
    short_side: int, largest short side of the result.

  Returns:
    (width, height): ints with square pixels, each at least 1.
  """
  if not 1 / _LARGEST_PIXEL_ASPECT <= pixel_aspect <= _LARGEST_PIXEL_ASPECT:
    pixel_aspect = fractions.Fraction(1)
  shown_width = max(width * fractions.Fraction(pixel_aspect), 1)
  scale = min(
    fractions.Fraction(1),
    short_side / min(shown_width, fractions.Fraction(height)),
  )
  return (
    max(_round_half_up(shown_width * scale), 1),
    max(_round_half_up(height * scale), 1),
  )


def turned_upright(image, display_matrix):
  """Applies a display matrix to a picture, to the nearest quarter turn.

  Args:
    image: uint8 [H, W, 3].
    display_matrix: nine int32, row by row, as FFmpeg's display.h has it:
      (x, y) of the coded picture is shown at (a x + c y, b x + d y) with
      the matrix a b u / c d v / ...; y points down. Or None.

  Returns:
    uint8 [H, W, 3] or [W, H, 3].
  """
  if display_matrix is None:
    return image
  a, b, _, c, d = (int(value) for value in display_matrix[:5])
  if abs(a) + abs(d) >= abs(b) + abs(c):
    mirror_x, mirror_y = a < 0, d < 0
  else:
    image = image.transpose(1, 0, 2)
    mirror_x, mirror_y = c < 0, b < 0
  if mirror_x:
    image = image[:, ::-1]
  if mirror_y:
    image = image[::-1]
  return image


def _is_upright(display_matrix):
  """Tells whether `turned_upright` leaves a picture as it is."""
  corners = np.arange(12).reshape(2, 2, 3)
  return np.array_equal(turned_upright(corners, display_matrix), corners)


class _Renderer:
  """Makes the JPEG frames of one video, all of one size."""

  def __init__(self, video, options):
    self.size = None
    self._path = video.path
    self._pixel_aspect = video.sample_aspect_ratio
    self._options = options
    self._display_matrix = None
    self._is_turned = False
    self._scaled_size = None
    # Kept from frame to frame: setting one up takes longer than its use.
    self._reformatter = VideoReformatter()

  def jpeg(self, picture):
    """Returns the JPEG of a picture, as bytes."""
    if self._scaled_size is None:
      self._display_matrix = _display_matrix(picture)
      self._is_turned = not _is_upright(self._display_matrix)
      self._scaled_size = output_size(
        picture.width,
        picture.height,
        pixel_aspect=self._pixel_aspect,
        short_side=self._options.short_side,
      )
    with video_errors(self._path):
      if self._is_turned or not _is_opaque_ycbcr(picture.format):
        image = _to_rgb(self._reformatter, picture, *self._scaled_size)
        image = Image.fromarray(turned_upright(image, self._display_matrix))
      else:
        # Most videos come this way, which takes a third of the time.
        planes = _to_ycbcr(self._reformatter, picture, *self._scaled_size)
        image = _image_of(*planes)
      self.size = image.height, image.width
      return _encode(image, self._options.jpeg_quality)


def _image_of(luma, cb, cr):
  """Puts planes together; encoding takes the chroma apart as it was."""
  height, width = luma.shape
  doubled = [
    Image.fromarray(chroma)
    .resize((2 * chroma.shape[1], 2 * chroma.shape[0]), Image.NEAREST)
    .crop((0, 0, width, height))
    for chroma in (cb, cr)
  ]
  return Image.merge('YCbCr', [Image.fromarray(luma), *doubled])


def _encode(image, quality):
  """Encodes an image with restart markers, so that it can be cut.

  See `vie_jax.input_pipeline.jpeg_cut`. The markers are a few blocks apart.
  They make the file larger: of 16 real videos by 3 % in the median, and by up to
  10 % where there is little to encode.
  """
  buffer = io.BytesIO()
  image.save(
    buffer,
    'JPEG',
    quality=quality,
    subsampling='4:2:0',
    restart_marker_blocks=_restart_interval(image.width),
  )
  return buffer.getvalue()


def _restart_interval(width):
  """Blocks of 16 pixels between two markers, which divide a row's."""
  blocks = -(-width // 16)
  return max(n for n in range(1, _MAX_RESTART_INTERVAL + 1) if not blocks % n)


def _to_ycbcr(reformatter, picture, width, height):
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


def _to_rgb(reformatter, picture, width, height):
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
  if picture.format.is_rgb or len(picture.format.components) < 3:
    return None
  known = _COLORSPACES.get(picture.colorspace)
  if known is not None:
    return known
  if picture.height >= _HD_HEIGHT or picture.width >= _HD_WIDTH:
    return Colorspace.ITU709
  return Colorspace.ITU601


def _color_range(picture):
  is_full = picture.color_range == ColorRange.JPEG
  if is_full or picture.format.name.startswith('yuvj'):
    return ColorRange.JPEG
  return ColorRange.MPEG


def _is_opaque_ycbcr(pixel_format):
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


def _display_matrix(picture):
  side_data = picture.side_data.get('DISPLAYMATRIX')
  if side_data is None:
    return None
  return np.frombuffer(bytes(side_data), np.int32)


def _deinterlaced(path, timed_frames):
  """Passes frames on; from the first interlaced one on, through bwdif."""
  deinterlacer = None
  with video_errors(path):
    for frame in timed_frames:
      picture = frame.picture
      if deinterlacer is not None and not deinterlacer.takes(picture):
        yield from deinterlacer.flush()
        deinterlacer = None
      if deinterlacer is None and _needs_deinterlacing(picture):
        deinterlacer = _Deinterlacer(picture)
      if deinterlacer is None:
        yield frame
      else:
        yield from deinterlacer.push(frame)
    if deinterlacer is not None:
      yield from deinterlacer.flush()


def _needs_deinterlacing(picture):
  return (
    picture.interlaced_frame
    and picture.width >= _DEINTERLACE_MIN_WIDTH
    and picture.height >= _DEINTERLACE_MIN_HEIGHT
  )


class _Deinterlacer:
  """FFmpeg's bwdif, one picture out for each one in.

  Pictures travel through the filter with their number as timestamp; the
  time and the colour tags are put back when they come out.
  """

  _TIME_BASE = fractions.Fraction(1, 25)

  def __init__(self, picture):
    self._geometry = _geometry(picture)
    self._waiting = {}
    self._count = 0
    self._graph = av.filter.Graph()
    source = self._graph.add_buffer(
      width=picture.width,
      height=picture.height,
      format=picture.format,
      time_base=self._TIME_BASE,
    )
    bwdif = self._graph.add('bwdif', 'mode=send_frame:deint=interlaced')
    sink = self._graph.add('buffersink')
    self._graph.link_nodes(source, bwdif, sink).configure()

  def takes(self, picture):
    """Tells whether a picture has the size and format of the first."""
    return _geometry(picture) == self._geometry

  def push(self, frame):
    """Puts a frame in and returns those that are finished."""
    picture = frame.picture
    picture.pts = self._count
    picture.time_base = self._TIME_BASE
    self._waiting[self._count] = frame, picture.colorspace, picture.color_range
    self._count += 1
    self._graph.vpush(picture)
    return self._finished()

  def flush(self):
    """Returns the frames that are still inside."""
    self._graph.vpush(None)
    return self._finished()

  def _finished(self):
    frames = []
    while True:
      try:
        picture = self._graph.vpull()
      except (av.error.BlockingIOError, av.error.EOFError):
        return frames
      number = round(picture.pts * picture.time_base / self._TIME_BASE)
      if number not in self._waiting:
        continue
      frame, colorspace, color_range = self._waiting.pop(number)
      picture.colorspace = colorspace
      picture.color_range = color_range
      frames.append(dataclasses.replace(frame, picture=picture))


def _geometry(picture):
  return picture.width, picture.height, picture.format.name


def _check_claim(video, options, segment):
  """Refuses what its header says is too long, before anything is decoded."""
  claimed = video.claimed_seconds
  if segment is not None:
    claimed = segment.seconds_of(claimed)
  if claimed and claimed > options.max_seconds:
    raise VideoError(
      video.path,
      f'its header claims {claimed:.0f} s, longer than {options.max_seconds} s '
      '(--max-seconds)',
    )


def _counted(path, timed_frames, options, on_picture):
  """Passes frames on, up to as many as a video of the longest kind has."""
  most = options.max_seconds * MOST_PICTURES_HZ
  for number, frame in enumerate(timed_frames):
    if number == most:
      raise VideoError(
        path,
        f'more than {most} pictures, {MOST_PICTURES_HZ} for each of '
        f'{options.max_seconds} s (--max-seconds)',
      )
    on_picture()
    yield frame


def _measured(timed_frames, facts, timeline):
  """Passes frames on and notes size and duration of the source."""
  start = None
  for frame in timed_frames:
    if start is None:
      start = frame.time
      facts.source_width = frame.picture.width
      facts.source_height = frame.picture.height
    facts.duration_seconds = float(frame.time + frame.duration - start)
    timeline.add(frame)
    yield frame


def _round_half_up(value):
  return math.floor(value + fractions.Fraction(1, 2))
