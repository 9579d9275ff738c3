"""What it costs to read stored frames, and to decode them."""

import io
import statistics

from measuring import result_lines

import numpy as np
from peers import frame_decoders
from PIL import Image

# Frames that a video of the benchmark must have.
SHORTEST_VIDEO = 64
_AT_ONCE = '16 in one call'
_ONE_BY_ONE = 'one by one, as vie_jax does'


def compare_decoders(store, rounds, report):
  """Reports what decoding one frame costs, and what it does to its crop.

  Args:
    store: FrameStore, of videos of at least SHORTEST_VIDEO frames.
    rounds: how often each way is timed.
    report: result_lines.Report.
  """
  jpegs = [
    jpeg
    for video in range(min(store.num_videos, 8))
    for jpeg in store.read_frames(video, range(0, SHORTEST_VIDEO, 8))
  ]
  ways = frame_decoders.known()
  first = next(iter(ways))
  milliseconds = {way: [] for way in ways}
  for _ in range(rounds):
    for way, decode in ways.items():
      took = result_lines.cpu_seconds(
        lambda decode=decode: [decode(jpeg) for jpeg in jpegs]
      )
      milliseconds[way].append(1e3 * took / len(jpegs))
  case = 'decoding one stored frame'
  for way, values in milliseconds.items():
    report.add(
      *(case, way, 'CPU ms', statistics.median(values)),
      ratio=None
      if way == first
      else result_lines.ratio(values, milliseconds[first]),
      ratio_to=first,
    )
    for size, short_side in ((224, 288), (112, 144)):
      errors = [
        _crop_error(ways[way](jpeg), jpeg, size, short_side) for jpeg in jpegs
      ]
      mean, largest = np.mean(errors, axis=0)[0], np.max(errors, axis=0)[1]
      crop = f'{size} px'
      report.add(case, way, f'{crop}: mean difference', mean)
      report.add(case, way, f'{crop}: largest difference', largest)


def _crop_error(frame, jpeg, size, short_side):
  """Mean and largest difference from the crop that Pillow makes."""
  whole = Image.open(io.BytesIO(jpeg))
  scale = short_side / min(whole.size)
  resized = [int(side * scale) for side in whole.size]
  x, y = ((side - size) // 2 for side in resized)
  crops = [
    np.asarray(
      image.resize(resized, Image.BILINEAR).crop((x, y, x + size, y + size)),
      np.float32,
    )
    for image in (Image.fromarray(frame), whole)
  ]
  error = np.abs(crops[0] - crops[1])
  return error.mean(), error.max()


def compare_reads(store, rounds, report):
  """Reports what reading costs, frame by frame and 16 in one call.

  Args:
    store: as in compare_decoders.
    rounds: likewise.
    report: likewise.
  """
  starts = range(0, SHORTEST_VIDEO - 16, 2)

  def at_once():
    for start in starts:
      store.read_frames(0, range(start, start + 16))

  def one_by_one():
    for start in starts:
      for _ in store.each_frame(0, range(start, start + 16)):
        pass

  milliseconds = {_AT_ONCE: [], _ONE_BY_ONE: []}
  for _ in range(rounds):
    for (_, values), read in zip(
      milliseconds.items(), (at_once, one_by_one), strict=True
    ):
      values.append(1e3 * result_lines.cpu_seconds(read) / len(starts) / 16)
  for way, values in milliseconds.items():
    report.add(
      *('reading stored frames', way, 'CPU ms per frame'),
      statistics.median(values),
      ratio=None
      if way == _AT_ONCE
      else result_lines.ratio(values, milliseconds[_AT_ONCE]),
      ratio_to=_AT_ONCE,
    )
