"""What the processes of tests do; they import it by name."""

import dataclasses
import os
import sys
import time

import memory_use
from media import timeline, video_errors, video_frames


def obey(task, report_progress):
  """Carries out (verb, argument)."""
  verb, argument = task
  if verb == 'kill':
    os.kill(os.getpid(), argument)
  if verb == 'exit':
    sys.stdout.flush()
    os._exit(argument)
  if verb == 'sleep':
    time.sleep(argument)
  if verb == 'stall':
    report_progress()
    time.sleep(argument)
  if verb == 'go on':
    end = time.monotonic() + argument
    while time.monotonic() < end:
      report_progress()
      time.sleep(0.05)
  if verb == 'take':
    return len(bytearray(argument))
  return os.getpid() if verb == 'pid' else argument


def wait(unused_number):
  """Takes longer than starting a process."""
  time.sleep(3)


@dataclasses.dataclass(frozen=True)
class Decoded:
  """What became of a video file.

  Attributes:
    num_pictures: that were decoded.
    num_frames: that were made of them.
    warnings: list of str.
    reason: str, why it cannot be used, or None.
    processor_seconds: that it took of the processor.
    risen_bytes: how much more memory the process has had at once than before.
  """

  num_pictures: int
  num_frames: int
  warnings: list
  reason: str | None
  processor_seconds: float
  risen_bytes: int


class _CountingTimeline(timeline.Timeline):
  count = 0

  def add(self, frame):
    _CountingTimeline.count += 1
    super().add(frame)


def decode(task, report_progress):
  """Decodes (path, FrameOptions) as a preparation does."""
  path, options = task
  video_frames.Timeline = _CountingTimeline
  _CountingTimeline.count = 0
  memory_use.forget_most_bytes()
  most_before = memory_use.most_bytes()
  start = time.process_time()
  frames, warnings, reason = [], [], None
  try:
    warnings = video_frames.write_frames(
      path, options, frames.append, on_picture=report_progress
    ).warnings
  except video_errors.VideoError as error:
    reason = error.reason
  return Decoded(
    _CountingTimeline.count,
    len(frames),
    warnings,
    reason,
    time.process_time() - start,
    memory_use.most_bytes() - most_before,
  )
