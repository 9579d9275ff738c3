"""A process that reads and decodes clips for another one.

`worker_process` starts it, with the number of a socket as its last argument.
What to do comes from there: a line of JSON, then requests. The line, and each
request when it is done, is answered by a byte; pixels and crops are in shared
memory by then. The end of what comes ends the process.

A clip that is not in order is left to the other process, which has the words
for what is wrong with it. Of a data set behind a URL it also has the indexes,
and says where the frames lie; several clips are on their way here at a time.
"""

import concurrent.futures
import contextlib
import functools
import json
import mmap
import os
import select
import socket
import struct
import sys
import threading

import numpy as np

from vie_jax.input_pipeline import (
  dataset_folder,
  frame_records,
  remote_shards,
  shared_arrays,
  sound_frames,
)

# Clips of a data set behind a URL that are on their way at a time.
_FETCHES = 16

REQUEST = struct.Struct('=qii')
"""Where a batch lies in the shared memory, and its rows: first and end."""
DONE = b'.'
NO_DATASET = 3
"""Exit code if the data set is not found, as one in memory is not, or if another
one is in its place."""
UNREACHABLE = 4
"""Exit code if what it lies on does not answer, but may later."""


def table_layout(num_videos):
  """What a worker needs of the table of videos: a Layout."""
  return shared_arrays.Layout(
    {
      'first_frame': (np.int64, (num_videos,)),
      'num_frames': (np.int32, (num_videos,)),
      'height': (np.int32, (num_videos,)),
      'width': (np.int32, (num_videos,)),
    }
  )


def batch_layout(num_rows, num_frames, window):
  """A batch: what is asked for, and what comes of it; a Layout."""
  return shared_arrays.Layout(
    {
      'pixels': (np.uint8, (num_rows, num_frames, window, window, 3)),
      'video': (np.int64, (num_rows,)),
      'frame_numbers': (np.int32, (num_rows, num_frames)),
      # Of a data set behind a URL.
      'places': (np.int64, (num_rows, num_frames, 2)),
      'box': (np.float64, (num_rows, 4)),
      'crop': (np.float32, (num_rows, 4)),
      'is_done': (np.bool_, (num_rows,)),
    }
  )


def main():
  """Answers requests until there are no more."""
  number = int(sys.argv[-1])
  threading.Thread(target=_end_with, args=(number,), daemon=True).start()
  with (
    socket.socket(fileno=number) as answers,
    answers.makefile('rb') as requests,
    # Nobody wants an answer any more.
    contextlib.suppress(ConnectionError),
  ):
    try:
      worker = _Worker(**json.loads(requests.readline()))
    except (dataset_folder.UnreachableError, remote_shards.AwayError):
      os._exit(UNREACHABLE)
    except (dataset_folder.DatasetError, remote_shards.RemoteError):
      os._exit(NO_DATASET)
    answers.sendall(DONE)
    while request := requests.read(REQUEST.size):
      worker.make(*REQUEST.unpack(request))
      answers.sendall(DONE)


def _end_with(number):
  """Ends this process, whatever it does, when the other one is gone.

  Its signals are blocked, and what it waits for may never come.
  """
  poll = select.poll()
  poll.register(number, select.POLLRDHUP)
  poll.poll()
  os._exit(0)


class _Worker:
  """Makes clips.

  The arguments are those that `decode_processes` sends.
  """

  def __init__(
    self,
    *,
    file,
    directory,
    fingerprint,
    split,
    num_videos,
    num_rows,
    num_frames,
    window_options,
  ):
    self._file = file
    self._window_options = window_options
    table = table_layout(num_videos)
    folder = dataset_folder.find(directory)
    manifest = dataset_folder.read_manifest(folder)
    if manifest['fingerprint'] != fingerprint:
      os._exit(NO_DATASET)
    shards = dataset_folder.shards_of(folder, split, manifest)
    self._records = _Records(
      folder,
      shards,
      fingerprint=fingerprint,
      **table.arrays(self._map(0, table.num_bytes)),
    )
    self._layout = batch_layout(num_rows, num_frames, window_options['window'])
    self._batches = {}  # offset -> arrays
    self._map_rows = map
    if self._records.is_remote:
      pool = concurrent.futures.ThreadPoolExecutor(_FETCHES)
      self._map_rows = pool.map

  def make(self, offset, first, end):
    """Makes rows of the batch at an offset."""
    if offset not in self._batches:
      memory = self._map(offset, self._layout.num_bytes)
      self._batches[offset] = self._layout.arrays(memory)
    batch, rows = self._batches[offset], range(first, end)
    done = self._map_rows(functools.partial(self._make, batch), rows)
    for row, is_done in zip(rows, done, strict=True):
      batch['is_done'][row] = is_done

  def _make(self, batch, row):
    places = batch['places'][row] if self._records.is_remote else None
    try:
      window, left = sound_frames.decode_clip(
        self._records,
        int(batch['video'][row]),
        batch['frame_numbers'][row],
        batch['box'][row],
        batch['pixels'][row],
        places,
        **self._window_options,
      )
    except (dataset_folder.DatasetError, IndexError):
      return False
    batch['crop'][row] = window.crop
    return not left

  def _map(self, offset, num_bytes):
    return np.frombuffer(
      mmap.mmap(self._file, num_bytes, offset=offset), np.uint8
    )


class _Records(frame_records.FrameRecords):
  """Frames; those of a shard with a damaged index are for the other process.

  It scans the shard once, where each worker would, and warns of it. Behind a
  URL it also looks whether the data set is still the same.
  """

  def _look(self):
    return '' if self.is_remote else super()._look()

  def _reader_without_index(self, shard, unused_num_records):
    raise RuntimeError(f'the index of {shard} is damaged')
