"""What a container says of its video: how long it is, how many pictures.

None of it is believed: damage can make it anything.
"""

import fractions
import itertools
import re

# Streams in these containers are often cut together; their clock may jump.
_SPLICED_FORMATS = frozenset(['mpeg', 'mpegts'])

# FFmpeg makes up the timestamps of these streams, of the first picture another
# one than of those that follow. Those of decoding are regular.
_UNTIMED_FORMATS = frozenset(['mpegvideo'])

# Containers whose header says how long the video is, or whose last piece does
# (NUT and Ogg; where it is missing, `problem_at_end` says so). For others FFmpeg
# makes a guess from the rest of the file.
_FORMATS_WITH_DURATION = frozenset(
  ['asf', 'avi', 'flv', 'matroska', 'mov', 'mxf', 'nut', 'ogg', 'rm']
)
# Of these, those whose duration may begin when the first picture is decoded.
_FORMATS_OF_DECODING = frozenset(['asf'])
# Of these, those whose tag of the duration is of the file itself.
_FORMATS_WITH_TAGS = frozenset(['matroska'])
# Of these, those whose clock begins at 0.
_FORMATS_FROM_ZERO = frozenset(['matroska', 'nut'])
_LATEST_START_SECONDS = 0.1
_DURATION_TAG = re.compile(r'(\d+):(\d\d):(\d\d(?:\.\d+)?)')

# Of these, which have no clock, FFmpeg takes 25 frames a second for the average;
# its guess is what the pictures say.
# Nor have they a shape of pixels beside that of the pictures.
_FORMATS_WITHOUT_CLOCK = frozenset(['h264', 'hevc', 'm4v', 'mpegvideo'])

_FALLBACK_RATE_HZ = fractions.Fraction(25)
# Above this a container gives the ticks of its clock for a rate.
_HIGHEST_RATE_HZ = 1000


def is_spliced(container):
  """Whether such streams are often cut together."""
  return _is_one_of(container, _SPLICED_FORMATS)


def has_pixel_aspect(container):
  """Whether it has one shape of pixels for all pictures."""
  return not _is_one_of(container, _SPLICED_FORMATS | _FORMATS_WITHOUT_CLOCK)


def is_untimed(container):
  """Whether FFmpeg makes up the timestamps of pictures."""
  return _is_one_of(container, _UNTIMED_FORMATS)


def counts_from_decoding(container):
  """Whether the duration may begin when the first picture is decoded."""
  return _is_one_of(container, _FORMATS_OF_DECODING)


def rate_hz(container, stream):
  """Returns frames in a second, a Fraction."""
  rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
  if _is_one_of(container, _FORMATS_WITHOUT_CLOCK):
    rates.insert(0, stream.guessed_rate)
  for rate in rates:
    if rate and rate <= _HIGHEST_RATE_HZ:
      return rate
  return _FALLBACK_RATE_HZ


def claimed_seconds(container, stream):
  """Returns (seconds, whether they are the pictures' own), or (None, False)."""
  if not _is_one_of(container, _FORMATS_WITH_DURATION):
    return None, False
  if stream.duration and stream.duration > 0 and stream.time_base:
    return float(stream.duration * stream.time_base), True
  seconds, is_of_pictures = _tagged_seconds(container, stream), True
  if seconds is None:
    seconds = max(container.duration or 0, 0) / 1_000_000
    is_of_pictures = _is_alone(container)
  if not seconds:
    return None, False
  # Matroska and NUT count from time 0, and not from the first picture.
  start = _start_seconds(container)
  return seconds - start if start < seconds else seconds, is_of_pictures


def _tagged_seconds(container, stream):
  """Reads the tag of Matroska; elsewhere it may be that of another file."""
  tag = _DURATION_TAG.match(stream.metadata.get('DURATION', ''))
  if not tag or not _is_one_of(container, _FORMATS_WITH_TAGS):
    return None
  hours, minutes, seconds = map(float, tag.groups())
  return hours * 3600 + minutes * 60 + seconds


def late_start_seconds(container, frame_rate_hz, num_ahead):
  """Returns the seconds before the first picture, or 0 if that is usual.

  Where there is sound, pictures may begin later on purpose.
  """
  start = _start_seconds(container)
  is_late = start > max(_LATEST_START_SECONDS, (num_ahead + 1) / frame_rate_hz)
  is_from_zero = _is_one_of(container, _FORMATS_FROM_ZERO)
  has_sound = bool(container.streams.audio)
  return start if is_late and is_from_zero and not has_sound else 0.0


def _start_seconds(container):
  return max(container.start_time or 0, 0) / 1_000_000


def _is_alone(container):
  streams = container.streams
  return len(streams.video) == 1 and not streams.audio


def num_empty(container, stream):
  """Counts the empty places of an AVI, by its index, which leaves them out.

  Where a picture is shown for several places, those behind it are empty: behind
  the last one as many as behind another at most.
  """
  entries = stream.index_entries
  if container.format.name != 'avi' or not entries:
    return 0
  places = (entry.timestamp for entry in entries)
  longest = max((b - a for a, b in itertools.pairwise(places)), default=1)
  last = entries[-1].timestamp
  num_places = max(last + 1, min(last + longest, stream.frames))
  return num_places - len(entries)


def _is_one_of(container, formats):
  return not formats.isdisjoint(container.format.name.split(','))
