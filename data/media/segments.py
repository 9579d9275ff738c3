"""A part of a video, given by its start and end in seconds."""

import dataclasses
import fractions
import re

from media.video_errors import VideoError

_MICROSECONDS = 1_000_000
# Seconds that are 0 to the microsecond, whatever their digits.
_NOTHING = 1e-9
_MAX_SHOWN = 40
_FRAGMENT = re.compile(r'#t=([0-9.]+)(?:,([0-9.]+))?', re.ASCII)


@dataclasses.dataclass(frozen=True)
class Segment:
  """What is shown from `start` until just before `end`.

  Attributes:
    start: Fraction, seconds since the start of the file, at least 0.
    end: Fraction, seconds, above `start`; None for the end of the file.
  """

  start: fractions.Fraction = fractions.Fraction(0)
  end: fractions.Fraction | None = None

  @property
  def fragment(self):
    """The part of a path that names it: '#t=1.5,4'.

    Source: Media Fragments URI 1.0, temporal dimension (W3C).
    """
    end = '' if self.end is None else f',{_decimal(self.end)}'
    return f'#t={_decimal(self.start)}{end}'

  def cut(self, timed_frames, path):
    """Passes on what is shown within the segment, by timestamps.

    A picture is shown until the next one is. One that is shown across a
    border is cut there: its time becomes the start, or its duration ends at
    the end. What the clock of a stream jumps ahead counts, and shows nothing.
    Nothing is decoded beyond the pictures after the end that tell where it is.

    Args:
      timed_frames: iterable of TimedFrame.
      path: str, of the file, for the error.

    Yields:
      TimedFrame.

    Raises:
      VideoError: if nothing is shown within the segment.
    """
    is_empty = True
    for frame, shown_until in _until_the_next(timed_frames):
      first, last = max(frame.time, self.start - frame.skipped), shown_until
      if self.end is not None:
        end = self.end - frame.skipped
        if frame.time >= end:
          break
        last = min(last, end)
      if last > first:
        is_empty = False
        yield dataclasses.replace(frame, time=first, duration=last - first)
    if is_empty:
      raise VideoError(path, f'no picture within {self.fragment}')

  def seconds_of(self, claimed_seconds):
    """Returns how long the segment of a file should be, or None.

    Args:
      claimed_seconds: float, duration of the file, or None.
    """
    if self.end is not None:
      return float(self.end - self.start)
    if claimed_seconds is None:
      return None
    return max(claimed_seconds - float(self.start), 0.0)


def parse_segment(start, end):
  """Makes a segment of two numbers.

  Args:
    start: str or number of seconds, or None or '' for 0.
    end: the same, or None or '' for the end of the file.

  Returns:
    Segment, to the microsecond; None where neither is given.

  Raises:
    ValueError: with a message for the user.
  """
  start, end = (_seconds(value) for value in (start, end))
  if start is None and end is None:
    return None
  start = start or fractions.Fraction(0)
  if end is not None and end <= start:
    raise ValueError(
      f'the end, {_decimal(end)} s, must be after the start, '
      f'{_decimal(start)} s'
    )
  return Segment(start, end)


def segment_of_path(path):
  """Returns the Segment that a path names at its end, or None."""
  found = _FRAGMENT.fullmatch(path, max(path.rfind('#'), 0))
  if found is None:
    return None
  try:
    return parse_segment(*found.groups())
  except ValueError:
    return None


def _seconds(value):
  text = '' if value is None else str(value).strip()
  if not text:
    return None
  try:
    # Python also reads 1_0, and digits of other scripts.
    if not text.isascii() or '_' in text:
      raise ValueError
    seconds = float(text)
    if not 0 <= seconds < _MICROSECONDS:
      raise ValueError
    # Fraction would write out a power of ten of so many digits.
    exact = 0 if seconds < _NOTHING else fractions.Fraction(text)
  except ValueError:
    shown = text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]}...'
    raise ValueError(
      f'{shown!r} is not a number of seconds from 0 on'
    ) from None
  return fractions.Fraction(round(exact * _MICROSECONDS), _MICROSECONDS)


def _decimal(seconds):
  return f'{float(seconds):.6f}'.rstrip('0').rstrip('.')


def _until_the_next(timed_frames):
  """Yields each frame with the time at which the next one is shown."""
  held = None
  for frame in timed_frames:
    if held is not None:
      yield held, frame.time
    held = frame
  if held is not None:
    yield held, held.time + held.duration
