"""Reads and decodes the clips of a batch in processes beside this one.

They share memory with it, so that no pixel is copied, and are told by sockets
which rows of which batch to make. What a process has not made, because of
damage or because it was killed, is made here: a batch is the same with any
number of them.
"""

import collections
import concurrent.futures
import contextlib
import functools
import queue
import threading
import weakref

import numpy as np
from absl import logging

from vie_jax.input_pipeline import (
  dataset_folder,
  decode_threads,
  decode_worker,
  shared_arrays,
  worker_process,
)

# How long a process may take for its share of a batch, in seconds. Backends of
# object stores try again for minutes.
_MAX_SILENCE, _MAX_REMOTE_SILENCE = 60.0, 600.0


class DecodeProcesses:
  """Makes clips, a batch at a time; several at once.

  To be used in a with-statement, as DecodeThreads.
  """

  def __init__(self, frames, num_frames, num_processes, num_rows, num_shares):
    """Starts nothing yet.

    Args:
      frames: SoundFrames.
      num_frames: T.
      num_processes: that read and decode.
      num_rows: of the largest batch.
      num_shares: of each batch, for a process each.

    Raises:
      ValueError: if this system has no memory to share.
    """
    if not shared_arrays.is_supported():
      raise ValueError(
        'this system gives no memory that processes could share (Linux does, '
        "if nothing forbids it): decode in 'threads'."
      )
    self._frames = frames
    self._is_remote = frames.store.is_remote
    self._num_processes = num_processes
    self._num_shares = num_shares
    store, options = frames.store, frames.window_options
    self._layout = decode_worker.batch_layout(
      num_rows, num_frames, options['window']
    )
    self._setup = {
      'directory': str(store.directory),
      'fingerprint': store.fingerprint,
      'split': store.split,
      'num_videos': store.num_videos,
      'num_rows': num_rows,
      'num_frames': num_frames,
      'window_options': options,
    }

  def __enter__(self):
    self._idle = queue.SimpleQueue()
    self._error = None
    with contextlib.ExitStack() as stack:
      self._memory = shared_arrays.SharedMemory()
      stack.callback(self._memory.close)
      self._batches = _Batches(self._memory, self._layout)
      self._share_table()
      workers = []
      stack.callback(worker_process.close_all, workers)
      for _ in range(self._num_processes):
        worker = worker_process.WorkerProcess(
          self._memory.file,
          self._setup,
          max_silence=_MAX_REMOTE_SILENCE if self._is_remote else _MAX_SILENCE,
          is_remote=self._is_remote,
        )
        workers.append(worker)
        self._idle.put(worker)
      self._pool = stack.enter_context(
        concurrent.futures.ThreadPoolExecutor(self._num_processes)
      )
      # Also if nobody ends the with-statement, before the interpreter ends.
      self._close = weakref.finalize(self, stack.pop_all().close)
    return self

  def __exit__(self, *unused_exception):
    self._close()
    # TensorFlow keeps a function of Python, and so what it calls, for ever.
    del self._memory, self._batches, self._error

  def read(self, video, frame_numbers, box):
    """Makes the clips of a batch; see DecodeThreads.read."""
    num_rows = len(video)
    batch = self._batches.take()
    for name, values in (
      ('video', video),
      ('frame_numbers', frame_numbers),
      ('box', box),
      ('is_done', False),
    ):
      batch.arrays[name][:num_rows] = values
    num_bad, lost = np.zeros(num_rows, np.int32), [''] * num_rows
    make = functools.partial(self._make, batch, num_bad, lost)
    shares = decode_threads.shares(num_rows, self._num_shares)
    # One each: while the last are made, others are at the next batch. Whatever
    # one of them raises comes out here.
    collections.deque(self._pool.map(make, shares), maxlen=0)
    return (
      batch.arrays['pixels'][:num_rows],
      batch.arrays['crop'][:num_rows].copy(),
      num_bad,
      lost,
    )

  def _make(self, batch, num_bad, lost, share):
    try:
      # What ends the batches is not tried again, which may take minutes.
      if self._error is not None:
        raise self._error
      self._make_all(batch, num_bad, lost, share)
    except dataset_folder.DatasetError as error:
      self._error = error
      raise

  def _make_all(self, batch, num_bad, lost, share):
    if batch.offset is not None:
      self._look_up(batch.arrays, share)
      worker = self._idle.get()
      try:
        worker.make(batch.offset, share)
      finally:
        self._idle.put(worker)
    arrays = batch.arrays
    for row in share:
      if not arrays['is_done'][row]:
        arrays['crop'][row], num_bad[row], lost[row] = self._frames.read(
          *(arrays[name][row] for name in ('video', 'frame_numbers', 'box')),
          arrays['pixels'][row],
        )

  def _look_up(self, arrays, share):
    """Finds out where the frames of rows lie, if that is behind a URL."""
    if not self._is_remote:
      return
    for row in share:
      # Without the index of a shard nothing of it can be read: that is said.
      arrays['places'][row] = self._frames.store.places(
        arrays['video'][row], arrays['frame_numbers'][row]
      )

  def _share_table(self):
    store = self._frames.store
    layout = decode_worker.table_layout(store.num_videos)
    # At offset 0, where workers look for it.
    _, memory = self._memory.add(layout.num_bytes)
    arrays = layout.arrays(np.frombuffer(memory, np.uint8))
    for name, array in arrays.items():
      array[:] = getattr(store, name)


class _Batch:
  """Memory of a batch.

  Attributes:
    offset: in the shared memory; None if it is not in there.
    arrays: of decode_worker.batch_layout.
  """

  def __init__(self, offset, arrays):
    self.offset = offset
    self.arrays = arrays


class _Batches:
  """Memory of batches that is used again when nobody has it any more."""

  def __init__(self, memory, layout):
    self._memory = memory
    self._layout = layout
    self._free = collections.deque()  # (offset, mmap)
    self._lock = threading.Lock()

  def take(self):
    """Gives a batch whose memory nobody has."""
    try:
      offset, piece = self._free.popleft()
    except IndexError:
      try:
        with self._lock:
          offset, piece = self._memory.add(self._layout.num_bytes)
      except OSError as error:
        logging.log_first_n(
          logging.WARNING,
          'The system gives no more memory to share (%s). Threads of the '
          'training decode some of the clips, which is slower.',
          1,
          error,
        )
        memory = np.empty(self._layout.num_bytes, np.uint8)
        return _Batch(None, self._layout.arrays(memory))
    # All arrays of this one keep it: it is the last that is not one.
    memory = np.frombuffer(piece, np.uint8)
    weakref.finalize(memory, self._free.append, (offset, piece)).atexit = False
    return _Batch(offset, self._layout.arrays(memory))
