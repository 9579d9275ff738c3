"""The frames of a clip straight from its video file, by three libraries.

Each gives uint8 [T, height, width, 3], RGB, at the size of the stored frames,
with one thread. The file is opened anew for each clip, as a training on many
videos has to. Frames are those shown in the middle of each 25th of a second.
"""

import importlib.util
import sys

import av
import numpy as np

_RATE_HZ = 25


def installed():
  """Returns the libraries that are there: dict of name to function.

  Names the others on standard error.
  """
  found = {'PyAV': _pyav}
  for name, decode in {'decord': _decord, 'torchcodec': _torchcodec}.items():
    if importlib.util.find_spec(name):
      found[name] = decode
    else:
      print(f'{name} is not installed, and left out.', file=sys.stderr)
  return found


def whole_frames(path, frame_numbers):
  """Returns the frames as large as they are in the video."""
  with av.open(path) as container:
    stream = container.streams.video[0]
    height, width = stream.height, stream.width
  return _pyav(path, frame_numbers, height, width)


def _seconds(frame_numbers):
  return (np.asarray(frame_numbers) + 0.5) / _RATE_HZ


def _pyav(path, frame_numbers, height, width):
  times = _seconds(frame_numbers)
  frames = np.empty((len(times), height, width, 3), np.uint8)
  with av.open(path) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    start = stream.start_time or 0
    container.seek(start + int(times.min() / stream.time_base), stream=stream)
    shown = None
    left = np.ones(len(times), bool)
    for frame in container.decode(stream):
      time = float((frame.pts - start) * stream.time_base)
      _show(shown, left & (times < time), frames, left)
      if not left.any():
        break
      shown = frame
    _show(shown, left, frames, left)
  return frames


def _show(frame, rows, frames, left):
  """Writes a frame to the rows that show it."""
  if rows.any():
    _, height, width, _ = frames.shape
    frames[rows] = frame.to_ndarray(format='rgb24', width=width, height=height)
    left[rows] = False


def _decord(path, frame_numbers, height, width):
  import decord

  reader = decord.VideoReader(path, width=width, height=height, num_threads=1)
  numbers = _seconds(frame_numbers) * reader.get_avg_fps()
  last = len(reader) - 1
  return reader.get_batch(np.minimum(numbers.astype(int), last)).asnumpy()


def _torchcodec(path, frame_numbers, height, width):
  from torchcodec import decoders, transforms

  decoder = decoders.VideoDecoder(
    path,
    num_ffmpeg_threads=1,
    dimension_order='NHWC',
    seek_mode='approximate',
    transforms=[transforms.Resize((height, width))],
  )
  times = _seconds(frame_numbers)
  return decoder.get_frames_played_at(times.tolist()).data.numpy()
