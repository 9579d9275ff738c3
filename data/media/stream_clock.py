"""The clock of a video stream, which may jump or stand still."""

import fractions

_LARGEST_JUMP_SECONDS = 10
_LARGEST_STEP_BACK_SECONDS = 1
# Half of what an MPEG clock counts to.
_LONGEST_GAP_SECONDS = 2**32 / 90_000
# In spliced streams: the first part, over which the clock steps back, may be
# short.
_LARGEST_STEP_BACK_PICTURES = 3


class StreamClock:
  """Turns timestamps of a stream into seconds, and bridges their gaps.

  Attributes:
    skipped: fractions.Fraction, seconds that it has jumped ahead so far, less
      those that it has stepped back. A jump counts from when the timestamp
      behind it fits it. One of half a day is FFmpeg's, which has taken a step
      back for the end of an MPEG clock.
  """

  def __init__(
    self, *, offset, time_base, frame_seconds, is_spliced, is_untimed
  ):
    """Makes a clock for the pictures of a stream, from the first one on.

    Args:
      offset: fractions.Fraction, seconds of the timestamps at the start, or
        None for those of the first picture.
      time_base: fractions.Fraction, seconds of a tick, or None.
      frame_seconds: of a picture that does not tell its duration.
      is_spliced: whether streams of this kind are often cut together.
      is_untimed: whether their pictures are taken at the times at which they
        are decoded.
    """
    self._offset = offset
    self._offset_before = None
    self._time_base = time_base
    self._frame_seconds = frame_seconds
    self._is_spliced = is_spliced
    self._is_untimed = is_untimed
    self._last = None
    self._expected = None
    self.skipped = fractions.Fraction(0)
    self._ahead = fractions.Fraction(0)
    self._has_fit = False

  def read(self, picture):
    """Returns (time, duration) in seconds of the next av.VideoFrame."""
    time_base = picture.time_base or self._time_base
    duration = self._frame_seconds
    if time_base and picture.duration and picture.duration > 0:
      duration = picture.duration * time_base
    timestamp = self._timestamp(picture)
    if timestamp is None or not time_base:
      time = self._expected or fractions.Fraction(0)
    else:
      time = self._bridged(timestamp * time_base)
    self._last = time
    self._expected = time + duration
    return time, duration

  def _bridged(self, clock):
    """Turns seconds of the stream's clock into those since its start."""
    if self._offset is None:
      self._offset = clock - (self._expected or 0)
    if self._offset_before is not None:
      # It was one wrong timestamp if the next one fits the clock before it.
      if self._surprise(clock - self._offset_before) < self._surprise(
        clock - self._offset
      ):
        self._offset = self._offset_before
      else:
        self.skipped += self._ahead
      self._offset_before = None
    time = clock - self._offset
    if self._jumps(time):
      ahead = time - self._expected
      # If none has fit so far, it is the first one that was wrong.
      counts = self._has_fit and ahead < _LONGEST_GAP_SECONDS
      self._ahead = ahead if counts else fractions.Fraction(0)
      self._offset_before = self._offset
      self._offset += ahead
      time = self._expected
    else:
      self._has_fit = self._expected is not None
    return time

  def _surprise(self, time):
    return abs(time - self._expected)

  def _timestamp(self, picture):
    if picture.pts is None or (self._is_untimed and picture.dts is not None):
      return picture.dts
    return picture.pts

  def _jumps(self, time):
    if self._expected is None:
      return False
    step_back = self._last - time
    if step_back > _LARGEST_STEP_BACK_SECONDS:
      return True
    return self._is_spliced and (
      step_back > _LARGEST_STEP_BACK_PICTURES * self._frame_seconds
      or time - self._expected > _LARGEST_JUMP_SECONDS
    )


class DecodingClock:
  """The timestamps of decoding, which rise but where streams are put together.

  Attributes:
    only_rises: whether they have never stepped back so far.
  """

  def __init__(self, *, time_base, frame_seconds):
    """Makes it for a stream.

    Args:
      time_base: fractions.Fraction, seconds of a tick, or None.
      frame_seconds: of a picture.
    """
    self.only_rises = True
    self._time_base = time_base or 0
    self._most_seconds = _LARGEST_STEP_BACK_PICTURES * frame_seconds
    self._latest = None

  def add(self, timestamp):
    """Notes that of the next packet, in ticks, or None."""
    if timestamp is None:
      return
    if self._latest is None:
      self._latest = timestamp
    step_back = (self._latest - timestamp) * self._time_base
    self.only_rises &= step_back <= self._most_seconds
    self._latest = max(self._latest, timestamp)
