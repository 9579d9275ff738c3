"""Makes whole pictures of interlaced ones, by FFmpeg's bwdif."""

import dataclasses
import fractions

import av

from media.video_errors import video_errors

# The smallest plane that FFmpeg's bwdif takes, those of colour included.
_DEINTERLACE_MIN_WIDTH = 3
_DEINTERLACE_MIN_HEIGHT = 4


def deinterlaced(path, timed_frames):
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
  width = picture.format.chroma_width(picture.width)
  height = picture.format.chroma_height(picture.height)
  return (
    picture.interlaced_frame
    and width >= _DEINTERLACE_MIN_WIDTH
    and height >= _DEINTERLACE_MIN_HEIGHT
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
