"""Turns the pictures of a video into upright JPEG frames at a fixed rate."""

import collections
import dataclasses
import fractions
import io
import math

import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from media import deinterlacing, picture_colors
from media.open_video import open_video
from media.timeline import MOST_PICTURES_HZ, Timeline
from media.video_errors import VideoError, video_errors

_LARGEST_PIXEL_ASPECT = 8
_MOST_SIZES_NAMED = 3
# What libjpeg writes at most.
_LONGEST_JPEG_SIDE = 65_500
# A window for the network is some 250 pixels wide, of 427 or 569. With shorter
# intervals fewer pixels beside it are decoded: 3 in place of 6 saves 6 % of the
# time for 1 % more bytes, and below 3 the markers cost what they save.
_MAX_RESTART_INTERVAL = 3


# Of the code of this folder: another one where the frames of some video come out
# otherwise than before.
FRAMES_VERSION = '3'


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
    on_picture: called after each decoded picture, shown or not, and for each
      packet that is only looked at.

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
    shapes = collections.Counter()
    matrices = set()
    frames = video.frames(looks_ahead=segment is not None, on_packet=on_picture)
    frames = _counted(path, frames, options, on_picture)
    # A picture at the border of a segment needs its neighbour beyond, too.
    frames = deinterlacing.deinterlaced(path, frames)
    if segment is not None:
      frames = segment.cut(frames, path)
    frames = _measured(frames, facts, timeline, shapes, matrices)
    shown = at_fixed_rate(
      frames, fps=options.fps, shows_single_once=segment is None
    )
    for frame, count in shown:
      if facts.num_frames + count > options.max_seconds * options.fps:
        raise VideoError(
          path, f'longer than {options.max_seconds} s (--max-seconds)'
        )
      jpeg = renderer.jpeg(frame)
      for _ in range(count):
        write_jpeg(jpeg)
      facts.num_frames += count
    facts.height, facts.width = renderer.size
    facts.warnings = [
      *timeline.warnings(video, segment),
      *_other_shapes(shapes, renderer.shape),
      *_unknown_matrices(matrices),
    ]
  return facts


def at_fixed_rate(timed_frames, *, fps, shows_single_once=True):
  """Repeats and drops frames as FFmpeg's fps filter does, by their times.

  Output frame n is the last picture whose time, rounded to the grid of
  1/fps seconds, is at most n. The first output frame is the first picture's.

  Args:
    timed_frames: iterable of objects with `time` and `duration`, Fractions
      in seconds.
    fps: int, output frames in a second.
    shows_single_once: whether a single picture is shown once, however long it
      lasts: how long a file of one says little, but a part has its length.

  Yields:
    (frame, count): a frame of the input and how often it is shown, at least
    1. Frames that are not shown are left out. At least one frame is.
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
  if num_pictures == 1 and shows_single_once:
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
    self.shape = None
    self._path = video.path
    self._options = options
    self._display_matrix = None
    self._is_turned = False
    self._scaled_size = None
    # Kept from frame to frame: setting one up takes longer than its use.
    self._reformatter = VideoReformatter()

  def jpeg(self, frame):
    """Returns the JPEG of a TimedFrame, as bytes."""
    picture = frame.picture
    if self._scaled_size is None:
      self._display_matrix = _display_matrix(picture)
      self._is_turned = not _is_upright(self._display_matrix)
      self._scaled_size = output_size(
        picture.width,
        picture.height,
        pixel_aspect=frame.pixel_aspect,
        short_side=self._options.short_side,
      )
      self._check_size(*self._scaled_size)
      self.shape = _shape(frame)
    with video_errors(self._path):
      if self._is_turned or not picture_colors.is_opaque_ycbcr(picture.format):
        image = picture_colors.scaled_rgb(
          self._reformatter, picture, *self._scaled_size
        )
        image = Image.fromarray(turned_upright(image, self._display_matrix))
      else:
        # Most videos come this way, which takes a third of the time.
        planes = picture_colors.scaled_ycbcr(
          self._reformatter, picture, *self._scaled_size
        )
        image = _image_of(*planes)
      self.size = image.height, image.width
      return _encode(image, self._options.jpeg_quality)

  def _check_size(self, width, height):
    if max(width, height) > _LONGEST_JPEG_SIDE:
      raise VideoError(
        self._path,
        f'its frames would be {width} x {height}; a side of a JPEG has at most '
        f'{_LONGEST_JPEG_SIDE} pixels',
      )


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


def _display_matrix(picture):
  side_data = picture.side_data.get('DISPLAYMATRIX')
  if side_data is None:
    return None
  return np.frombuffer(bytes(side_data), np.int32)


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


def _measured(timed_frames, facts, timeline, shapes, matrices):
  """Passes frames on; notes shapes, duration and odd colours of the source."""
  start = None
  for frame in timed_frames:
    if start is None:
      start = frame.time
      facts.source_width = frame.picture.width
      facts.source_height = frame.picture.height
    facts.duration_seconds = float(frame.time + frame.duration - start)
    timeline.add(frame)
    shapes[_shape(frame)] += 1
    if picture_colors.is_of_unknown_matrix(frame.picture):
      matrices.add(frame.picture.colorspace)
    yield frame


def _shape(frame):
  """(width, height, pixel aspect) of a TimedFrame."""
  return frame.picture.width, frame.picture.height, frame.pixel_aspect


def _other_shapes(shapes, first):
  """Warns of pictures that are brought to the shape of the first shown.

  Args:
    shapes: Counter of `_shape`, of all pictures.
    first: that of the first which is shown.
  """
  others = [shape for shape in shapes if shape != first]
  if not others:
    return []
  has_one_aspect = len({aspect for _, _, aspect in shapes}) == 1

  def name(shape):
    width, height, aspect = shape
    pixels = f' of pixels {aspect.numerator}:{aspect.denominator}'
    return f'{width} x {height}{"" if has_one_aspect else pixels}'

  names = [name(shape) for shape in others]
  if len(names) > _MOST_SIZES_NAMED:
    names[_MOST_SIZES_NAMED:] = ['others']
  total = shapes.total()
  num_others = total - shapes[first]
  verb = 'is' if num_others == 1 else 'are'
  return [
    f'sizes: {num_others} of {total} pictures {verb} {", ".join(names)}, and '
    f'stretched to the size of the first, {name(first)}'
  ]


def _unknown_matrices(matrices):
  """Warns of colours that come out wrong."""
  return [
    f'colors: the matrix {number} of ITU-T H.273 is not known here, and taken for '
    'BT.601 or BT.709'
    for number in sorted(matrices)
  ]


def _round_half_up(value):
  return math.floor(value + fractions.Fraction(1, 2))
