"""The one place where a video file is opened and decoded.

A video file is untrusted input: its name could be taken for a URL, its text
for a playlist of other files, its header for a picture of any size. All of
that is refused, by `guarded_container`, and whatever else goes wrong ends as
one exception.
"""

import collections
import contextlib
import dataclasses
import fractions
import os

import av

from media import container_claims, stream_clock
from media.file_ends import problem_at_end
from media.guarded_container import (
  bounded_decoder,
  open_container,
  video_stream,
)
from media.picture_order import MOST_HELD, PictureOrder
from media.video_errors import (
  VideoError,
  reason_of,
  require_regular_file,
  video_errors,
)

# How a picture begins in MPEG-4, and the most bytes of one that says no more
# than that the picture before it stays.
_MPEG4_PICTURE = bytes.fromhex('000001b6')
_LARGEST_NOT_CODED_BYTES = 8


@dataclasses.dataclass(frozen=True)
class TimedFrame:
  """A decoded picture and when it is shown.

  Attributes:
    picture: av.VideoFrame.
    time: Fraction, seconds since the start of the file, but for `skipped`.
    duration: Fraction, seconds, above 0.
    skipped: Fraction, seconds by which the clock jumped ahead before it, which
      `time` leaves out; only in streams that are often cut together.
    pixel_aspect: Fraction, width of a pixel over its height.
  """

  picture: av.VideoFrame
  time: fractions.Fraction
  duration: fractions.Fraction
  skipped: fractions.Fraction = fractions.Fraction(0)
  pixel_aspect: fractions.Fraction = fractions.Fraction(1)


class OpenVideo:
  """An open file with one video stream; make it with `open_video`.

  Attributes:
    path: str.
    rate_hz: Fraction, frames in a second by the container's account.
    claimed_seconds: float, duration that the container's header states, or
      None.
    is_claim_of_pictures: whether that duration is the pictures' own; else the
      sound may be longer.
    late_start_seconds: float, time of the first picture where such files begin
      at 0, else 0.
    num_listed: pictures by the container's account, or 0 where it keeps none.
      Damage can make it any number.
    num_ahead: pictures by which the header's duration may be too long, as it
      counts from the decoding of the first one.
    num_not_shown: pictures so far that the container says not to show.
    num_empty: pictures so far that are listed and hold nothing: the one before
      stays.
    num_damaged_packets: packets so far that were damaged.
    num_damaged_pictures: pictures so far that were decoded in part.
    first_error: str, what was wrong with the first damaged packet, or None.
  """

  def __init__(self, path, container, stream, decoder, *, max_pixels):
    self.path = path
    self.rate_hz = container_claims.rate_hz(container, stream)
    self.claimed_seconds, self.is_claim_of_pictures = (
      container_claims.claimed_seconds(container, stream)
    )
    self.late_start_seconds = container_claims.late_start_seconds(
      container, self.rate_hz, decoder.reorder_depth
    )
    self.num_listed = stream.frames
    self.num_ahead = 0
    if container_claims.counts_from_decoding(container):
      self.num_ahead = decoder.reorder_depth
    self.num_not_shown = 0
    self.num_empty = container_claims.num_empty(container, stream)
    self.num_damaged_packets = 0
    self.num_damaged_pictures = 0
    self.first_error = None
    self._container = container
    self._stream = stream
    self._decoder = decoder
    self._is_spliced = container_claims.is_spliced(container)
    self._has_pixel_aspect = container_claims.has_pixel_aspect(container)
    self._max_pixels = max_pixels
    self._decoding = self._decoding_clock()
    self._aspects = collections.deque(maxlen=2 * MOST_HELD)
    self._order = PictureOrder(self._longest_wait())

  @property
  def only_rises(self):
    """Whether timestamps of decoding have never stepped back so far."""
    return self._decoding.only_rises

  def frames(self, *, looks_ahead=False, on_packet=lambda: None):
    """Decodes the video stream from its start; to be called once.

    A damaged packet is passed over and counted. Times never fall back by
    more than a second, or some pictures where streams are often cut together:
    a clock that does is taken up where it broke off.

    Args:
      looks_ahead: whether `skipped` is 0 in all frames where the clock steps
        back anywhere in the file: what it jumps ahead may be undone then. The
        file is read to its end if it jumps.
      on_packet: called for each packet that is read for that.

    Yields:
      TimedFrame, in the order of presentation.

    Raises:
      VideoError: if there is no frame at all, or decoding breaks down.
    """
    count = 0
    with video_errors(self.path):
      for frame in self._timed_pictures(looks_ahead, on_packet):
        count += 1
        self.num_damaged_pictures += frame.picture.is_corrupt
        yield frame
    if not count:
      raise VideoError(self.path, self.first_error or 'no frame in it')

  def problem_at_end(self):
    """Tells whether the file was cut off or has lost a part, by its structure.

    Returns:
      str, what is wrong; None where nothing is known to be.

    Raises:
      VideoError: if it cannot be read any more.
    """
    with video_errors(self.path):
      return problem_at_end(
        self.path,
        self._container.format.name,
        picture_bytes=_picture_bytes(self._stream.codec_context),
      )

  def _timed_pictures(self, looks_ahead, on_packet):
    clock, held = self._clock(), None
    rises = None if looks_ahead else True

    def behind_gaps(frame):
      nonlocal rises
      if clock.skipped <= 0:
        return frame
      if rises is None:
        rises = self._rises_to_the_end(on_packet)
      skipped = clock.skipped if rises else fractions.Fraction(0)
      return dataclasses.replace(frame, skipped=skipped)

    for picture in self._ordered_pictures():
      time, duration = clock.read(picture)
      frame = TimedFrame(
        picture, time, duration, pixel_aspect=self._pixel_aspect(picture)
      )
      if not self._is_spliced:
        yield frame
        continue
      # The next timestamp tells whether the clock has jumped, or one was wrong.
      if held is not None:
        yield behind_gaps(held)
      held = frame
    if held is not None:
      yield behind_gaps(held)

  def _rises_to_the_end(self, on_packet):
    """Whether the clock never steps back, by all timestamps of the file."""
    decoding = self._decoding_clock()
    try:
      with contextlib.closing(
        open_container(self.path, self._max_pixels)
      ) as container:
        stream = container.streams[self._stream.index]
        for packet in container.demux(stream):
          decoding.add(packet.dts)
          on_packet()
    except av.error.FFmpegError:
      return False
    return decoding.only_rises

  def _decoding_clock(self):
    return stream_clock.DecodingClock(
      time_base=self._stream.time_base, frame_seconds=1 / self.rate_hz
    )

  def _pixel_aspect(self, picture):
    """The shape of a pixel; a container that has one has the last word."""
    aspect = None if self._has_pixel_aspect else picture.opaque
    return aspect or self._stream.sample_aspect_ratio or fractions.Fraction(1)

  def _clock(self):
    is_untimed = container_claims.is_untimed(self._container)
    return stream_clock.StreamClock(
      offset=None if is_untimed else self._start(),
      time_base=self._stream.time_base,
      frame_seconds=1 / self.rate_hz,
      is_spliced=self._is_spliced,
      is_untimed=is_untimed,
    )

  def _start(self):
    """Seconds of the first timestamp, in whole ticks as FFmpeg has them.

    The container has it in microseconds, which are between two ticks.
    """
    start = fractions.Fraction(self._container.start_time or 0, 1_000_000)
    time_base = self._stream.time_base
    return round(start / time_base) * time_base if time_base else start

  def _longest_wait(self):
    """Returns by how many ticks pictures may be out of order.

    In a spliced stream a step back is where two parts meet.
    """
    time_base = self._stream.time_base
    if not time_base or self._is_spliced:
      return 0
    return max(1, MOST_HELD / self.rate_hz) / time_base

  def _ordered_pictures(self):
    for picture in self._pictures():
      yield from self._order.push(picture)
    yield from self._order.flush()

  def _pictures(self):
    packets = self._container.demux(self._stream)
    while True:
      try:
        packet = next(packets)
      except StopIteration:
        return
      except av.error.FFmpegError as error:
        self._note_damage(error)
        packet = None  # Nothing more can be read: empty the decoder.
      if packet is not None:
        self._note(packet)
      pictures = []
      try:
        pictures = self._decoder.decode(packet)
        if not self._has_pixel_aspect:
          self._note_aspects(packet, pictures)
      except av.error.FFmpegError as error:
        if not isinstance(error, av.error.EOFError):
          self._note_damage(error)
      yield from pictures
      if packet is None:
        return
      self.num_empty += not pictures and self._is_not_coded(packet)

  def _note(self, packet):
    self._decoding.add(packet.dts)
    self.num_not_shown += packet.is_discard
    if not packet.is_discard:
      self._order.expect(packet.pts)
    if packet.is_corrupt:
      self._note_damage('the container says that a packet is damaged')

  def _note_aspects(self, packet, pictures):
    """Gives pictures the shape that the decoder read with their packets.

    Without timestamps, pictures that are still in the decoder at a change get
    that of the next ones.
    """
    now = self._decoder.sample_aspect_ratio
    if packet is not None and packet.pts is not None:
      self._aspects.append((packet.pts, now))
    for picture in pictures:
      # Parts of a spliced stream may have the same timestamps.
      noted = next((n for n in self._aspects if n[0] == picture.pts), None)
      if noted is not None:
        self._aspects.remove(noted)
      picture.opaque = now if noted is None else noted[1]

  def _is_not_coded(self, packet):
    return (
      self._decoder.name == 'mpeg4'
      and packet.size <= _LARGEST_NOT_CODED_BYTES
      and bytes(packet).startswith(_MPEG4_PICTURE)
    )

  def _note_damage(self, error):
    self.num_damaged_packets += 1
    if self.first_error is None:
      self.first_error = error if isinstance(error, str) else reason_of(error)


@contextlib.contextmanager
def open_video(path, *, max_pixels):
  """Opens a video file for decoding with one thread.

  Args:
    path: str or path of a file in the local file system, never a URL.
    max_pixels: largest width times height that is decoded.

  Yields:
    OpenVideo.

  Raises:
    VideoError: if it is no regular file, empty, cannot be opened, is a playlist
      or an unknown format, has no video stream, or has pictures above
      `max_pixels`.
  """
  path = os.fspath(path)
  require_regular_file(path)
  with video_errors(path):
    if not os.path.getsize(path):
      raise VideoError(path, 'the file is empty')
    container = open_container(path, max_pixels)
  with contextlib.closing(container):
    with video_errors(path):
      stream = video_stream(path, container, max_pixels)
      decoder = bounded_decoder(stream, max_pixels)
      video = OpenVideo(path, container, stream, decoder, max_pixels=max_pixels)
    yield video


def _picture_bytes(context):
  """Returns the bytes of an uncompressed picture; 0 where not known."""
  if context.format is None:
    return 0
  return sum(
    part.width * part.height * -(-part.bits // 8)
    for part in context.format.components
  )
