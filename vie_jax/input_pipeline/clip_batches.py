"""Makes batches of clips: what is chosen is read, decoded and put together.

Several threads share a batch, and write into memory that is used again. Which
clips there are, and which frames and crops make them, is the business of
`pipeline`.
"""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import math
import types
import weakref

import numpy as np
import tensorflow as tf

from vie_jax.input_pipeline import augmentation, batch_iterator, sound_frames

# Shares of a batch for each thread: enough that none waits long for the last
# one, and few, as to hand one over takes as long as to read a frame.
_SHARES_PER_THREAD = 4
# Of memory that TensorFlow need not copy, in bytes.
_ALIGNMENT = 64


class Clips:
  """Makes the clips of a batch: choose, then read and decode.

  Args:
    store: FrameStore.
    table: has video(instance_index) and label(instance_index), int32 [n] both.
    visit: function from positions, an int64 tensor [n], to what stands there.
    choose: function of both, as arrays, to the instances, their frame numbers,
      their boxes, and a dict of what else the batch has, of each a number.
    num_frames: T.
    crop: has size and method, see augmentation.
    window: W, in pixels.
    counted: of damage_count: its BadFrames, and its count, are those of the
      clips.
    extra: dict of the names of what else the batch has to their types.
  """

  def __init__(
    self,
    store,
    table,
    visit,
    choose,
    num_frames,
    crop,
    window,
    counted,
    extra=types.MappingProxyType({}),
  ):
    self._table = table
    self._visit = visit
    self._choose = choose
    self._shape = num_frames, window, window, 3
    self._types = {
      'instance_index': (tf.int32, ()),
      'frame_numbers': (tf.int32, (num_frames,)),
      'label': (tf.int32, ()),
      'window': (tf.uint8, self._shape),
      'crop': (tf.float32, (4,)),
      'bad_frames': (tf.int32, ()),
      **{name: (dtype, ()) for name, dtype in extra.items()},
    }
    self._memory = _Memory()
    self._frames = sound_frames.SoundFrames(
      store,
      counted.damage,
      size=crop.size,
      window=window,
      crops_before_resize=augmentation.crops_before_resize(crop.method),
    )
    self.count = counted.count

  def make_batch(self, pool, num_threads, positions):
    """Gives a batch, in a graph.

    Args:
      pool: ThreadPoolExecutor, to make several clips at once.
      num_threads: of the pool.
      positions: int64 tensor [n].

    Returns:
      dict of tensors.
    """

    def make(positions, visited):
      rows, *choice = self._rows(positions, visited)
      pixels = self._memory.empty((len(positions), *self._shape))
      num_shares = min(_SHARES_PER_THREAD * num_threads, len(positions))
      done = pool.map(
        functools.partial(self._read, *choice, pixels),
        np.array_split(np.arange(len(positions)), num_shares),
      )
      crops, num_bad = zip(*itertools.chain(*done), strict=True)
      rows['window'] = pixels
      rows['crop'] = np.stack(crops)
      rows['bad_frames'] = np.array(num_bad, np.int32)
      return [rows[name] for name in self._types]

    dtypes, shapes = zip(*self._types.values(), strict=True)
    made = tf.numpy_function(make, [positions, self._visit(positions)], dtypes)
    return {
      name: tf.ensure_shape(column, (*positions.shape, *shape))
      for name, column, shape in zip(self._types, made, shapes, strict=True)
    }

  def find_damage(self, position):
    """Raises what ended the graph as what it is; see open_batches.

    Args:
      position: int64 scalar tensor.

    Returns:
      False: what can be replaced has been.

    Raises:
      dataset_folder.DatasetError: if the clip cannot be made.
    """
    positions = position[tf.newaxis]
    _, *choice = self._rows(positions.numpy(), self._visit(positions).numpy())
    self._read(*choice, np.empty((1, *self._shape), np.uint8), [0])
    return False

  def _rows(self, positions, visited):
    """Chooses: columns of the batch, videos, frame numbers and boxes."""
    instance_index, frame_numbers, box, extra = self._choose(positions, visited)
    rows = {
      'instance_index': instance_index.astype(np.int32),
      'frame_numbers': frame_numbers,
      'label': self._table.label(instance_index),
      **extra,
    }
    return rows, self._table.video(instance_index), frame_numbers, box

  def _read(self, video, frame_numbers, box, pixels, share):
    """Reads some clips of a batch: a list of (crop, bad frames)."""
    return [
      self._frames.read(video[row], frame_numbers[row], box[row], pixels[row])
      for row in share
    ]


@contextlib.contextmanager
def open_batches(clips, *, num_threads, **options):
  """Gives the iterator over batches of clips; see batch_iterator.

  Args:
    clips: Clips.
    num_threads: that read and decode; None for one per core.
    **options: of batch_iterator.open_batches.

  Yields:
    The iterator.
  """
  num_threads = num_threads or batch_iterator.num_cores()
  with (
    concurrent.futures.ThreadPoolExecutor(num_threads) as pool,
    batch_iterator.open_batches(
      clips,
      make_batch=functools.partial(clips.make_batch, pool, num_threads),
      num_threads=num_threads,
      **options,
    ) as batches,
  ):
    yield batches


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
