"""Reads and decodes the clips of a batch in threads of this process.

Python runs in one of them at a time: past a few threads, each waits for the
others more than it decodes. `decode_processes` does not.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import math
import weakref

import numpy as np

# Shares of a batch for each thread: enough that none waits long for the last
# one, and few, as to hand one over takes as long as to read a frame.
_SHARES_PER_THREAD = 4
# Of memory that TensorFlow need not copy, in bytes.
_ALIGNMENT = 64


class DecodeThreads:
  """Makes clips, a batch at a time.

  To be used in a with-statement.
  """

  def __init__(self, frames, num_frames, num_threads):
    """Starts nothing yet.

    Args:
      frames: SoundFrames.
      num_frames: T.
      num_threads: that read and decode.
    """
    window = frames.window_options['window']
    self._frames = frames
    self._shape = num_frames, window, window, 3
    self._num_threads = num_threads

  def __enter__(self):
    self._memory = _Memory()
    self._pool = concurrent.futures.ThreadPoolExecutor(self._num_threads)
    return self

  def __exit__(self, *unused_exception):
    self._pool.shutdown()
    # TensorFlow keeps a function of Python, and so what it calls, for ever.
    del self._memory

  def read(self, video, frame_numbers, box):
    """Makes the clips of a batch.

    Args:
      video: int [n], rows of the store.
      frame_numbers: int32 [n, T].
      box: float64 [n, 4], of the crops.

    Returns:
      (pixels, crop, num_bad, lost): uint8 [n, T, W, W, 3], RGB, in memory that
      is used again when nobody has it any more; float32 [n, 4], in pixels of
      the window; int32 [n], how many frames stand for others; n strings, see
      SoundFrames.read: where one says that a video is lost, its pixels are
      any.

    Raises:
      DatasetError: as SoundFrames.read.
    """
    num_rows = len(video)
    pixels = self._memory.empty((num_rows, *self._shape))

    def read(row):
      return self._frames.read(
        video[row], frame_numbers[row], box[row], pixels[row]
      )

    done = self._pool.map(
      lambda share: [read(row) for row in share],
      shares(num_rows, _SHARES_PER_THREAD * self._num_threads),
    )
    crops, num_bad, lost = zip(*itertools.chain(*done), strict=True)
    return pixels, np.stack(crops), np.array(num_bad, np.int32), lost


def shares(num_rows, count):
  """Splits the rows of a batch: a list of ranges, `count` of them at most."""
  count = min(count, num_rows)
  ends = [num_rows * number // count for number in range(count + 1)]
  return [range(*ends[number : number + 2]) for number in range(count)]


class _Memory:
  """Arrays whose memory is used again when nobody has them any more.

  Fresh memory has to be cleared by the operating system, which takes longer
  than to copy what comes into it.
  """

  def __init__(self):
    self._free = collections.deque()

  def empty(self, shape):
    """An uint8 array that TensorFlow takes over as it is: without a copy."""
    size = math.prod(shape)
    memory = None
    with contextlib.suppress(IndexError):
      memory = self._free.popleft()
    if memory is None or len(memory) < size + _ALIGNMENT:
      memory = memoryview(np.empty(size + _ALIGNMENT, np.uint8))
    # All views of this array keep it: it is the last that is not one.
    array = np.frombuffer(memory, np.uint8)
    weakref.finalize(array, self._free.append, memory).atexit = False
    start = -array.ctypes.data % _ALIGNMENT
    return array[start : start + size].reshape(shape)
