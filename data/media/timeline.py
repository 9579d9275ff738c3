"""Tells from the times of its pictures whether a video is complete.

A damaged file often gives fewer pictures without any error. What is missing
shows where the container's account and what came out of it disagree.
"""

import collections

from wording import chosen, counted

# Pictures in a second that a camera may take.
MOST_PICTURES_HZ = 1000
# Below this, what is shown is more likely a damaged clock than a slide show.
_FEWEST_PICTURES_HZ = 0.5

# Of the nominal distance between pictures.
_TOLERANCE = 0.75
# Where the container knows the duration of picture and sound together only.
_TRUNCATED_BELOW = 0.9

# More pictures whose times have passed are no slip of the clock.
_MOST_PAST = 2

# A clock is regular if so many of its steps are of one length. Its resolution
# in some containers is a millisecond.
_REGULAR_SHARE = 0.75
_SAME_LENGTH = 0.1
_RESOLUTION_SECONDS = 0.0015


class Timeline:
  """The times of the pictures that a video gave."""

  def __init__(self):
    self._num_pictures = 0
    self._start = 0.0
    self._end = 0.0
    self._last = None
    self._latest = 0.0
    self._num_past = 0
    self._skipped_before = self._skipped = 0
    self._num_jumps = 0
    # Steps in tenths of a millisecond: few values, however long the video.
    self._steps = collections.Counter()

  def add(self, frame):
    """Notes a picture.

    Args:
      frame: TimedFrame, in the order of presentation.
    """
    time = float(frame.time)
    if self._last is None:
      self._start = self._latest = time
      self._skipped_before = self._skipped = frame.skipped
    else:
      self._steps[round((time - self._last) * 10_000)] += 1
    self._num_past += time < self._latest
    self._num_jumps += frame.skipped > self._skipped
    self._skipped = max(self._skipped, frame.skipped)
    self._latest = max(self._latest, time)
    self._last = time
    self._end = max(self._end, time + float(frame.duration))
    self._num_pictures += 1

  def warnings(self, video, segment=None):
    """Says what is missing or damaged, after the last picture.

    Args:
      video: OpenVideo, decoded to its end.
      segment: Segment that the pictures are of, or None for the whole video.
        What the file lists as a whole says nothing about a part of it.

    Returns:
      list of str; empty where nothing is known to be missing.
    """
    warnings = _damage(video)
    if segment is None:
      warnings += self._missing(video)
    else:
      warnings += self._missing_of(segment, video)
    if self._num_pictures > 1 and (self._is_rushed() or self._is_slow()):
      seconds = self._last - self._start
      num_decimals = 2 if seconds >= 1 else 6
      warnings.append(
        f'{self._num_pictures} pictures within {seconds:.{num_decimals}f} s: its '
        'clock may be damaged, unless it is a time lapse'
      )
    if self._num_past > _MOST_PAST:
      warnings.append(
        f'{self._num_past} pictures left out: their times are before that of an '
        'earlier one'
      )
    num_missing = self._num_missing() - video.num_empty
    if num_missing > 0:
      warnings.append(
        f'gaps: about {counted(num_missing, "picture")} missing, unless its rate '
        'varies'
      )
    if self._num_jumps and video.only_rises:
      warnings.append(
        f'gaps: its clock jumps ahead {counted(self._num_jumps, "time")}, by '
        f'{float(self._skipped - self._skipped_before):.2f} s in all, which are '
        'left out'
      )
    return warnings

  def _missing(self, video):
    """Compares with what the container says of the whole video."""
    warnings = []
    if self._is_truncated(video):
      warnings.append(self._truncated(video.claimed_seconds))
    if video.late_start_seconds:
      warnings.append(
        f'late start: its first picture is at {video.late_start_seconds:.2f} s; '
        'it is a clip that kept its times, or its beginning is lost'
      )
    if problem := video.problem_at_end():
      warnings.append(f'incomplete: {problem}')
    num_given = self._num_pictures + video.num_not_shown
    if num_given + video.num_empty < video.num_listed:
      warnings.append(
        f'incomplete: {num_given} of {video.num_listed} pictures that the file '
        'lists'
      )
    if video.num_not_shown > self._num_pictures:
      warnings.append(
        f'incomplete: {video.num_not_shown} of '
        f'{counted(num_given, "picture")} '
        f'{chosen(video.num_not_shown, "is", "are")} outside of what '
        'the file says to show'
      )
    return warnings

  def _missing_of(self, segment, video):
    claimed = segment.seconds_of(video.claimed_seconds)
    if claimed and self._end - self._start < _TRUNCATED_BELOW * claimed:
      return [self._truncated(claimed)]
    return []

  def _truncated(self, claimed_seconds):
    seconds = self._end - self._start
    return f'truncated: {seconds:.2f} s of {claimed_seconds:.2f} s are there'

  def _is_truncated(self, video):
    """Compares with the claimed duration.

    A container may count from its first picture or from time 0.
    """
    if not video.claimed_seconds:
      return False
    seen = max(self._end, self._end - self._start)
    if video.is_claim_of_pictures:
      tolerance = (_TOLERANCE + video.num_ahead) / float(video.rate_hz)
      return seen + tolerance < video.claimed_seconds
    return seen < _TRUNCATED_BELOW * video.claimed_seconds

  def _is_rushed(self):
    seconds = self._last - self._start
    return seconds * MOST_PICTURES_HZ < self._num_pictures - 1

  def _is_slow(self):
    seconds = self._last - self._start
    return seconds * _FEWEST_PICTURES_HZ > self._num_pictures - 1

  def _num_missing(self):
    """Counts the pictures that a regular clock leaves out."""
    if not self._steps:
      return 0
    step = self._steps.most_common(1)[0][0] / 10_000
    if step <= 0:
      return 0
    tolerance = max(_SAME_LENGTH * step, _RESOLUTION_SECONDS)
    num_regular = sum(
      count
      for length, count in self._steps.items()
      if abs(length / 10_000 - step) <= tolerance
    )
    if num_regular < _REGULAR_SHARE * self._steps.total():
      return 0
    return sum(
      count * (round(length / 10_000 / step) - 1)
      for length, count in self._steps.items()
      if length / 10_000 > (1 + _TOLERANCE) * step
    )


def _damage(video):
  warnings = []
  if video.num_damaged_packets:
    warnings.append(
      f'damaged packets: {video.num_damaged_packets} ({video.first_error})'
    )
  if video.num_damaged_pictures:
    warnings.append(f'damaged pictures: {video.num_damaged_pictures}')
  return warnings
