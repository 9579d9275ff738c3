"""Random access to the JPEG frames of a prepared data set.

The layout is written by `data/prepare.py` and described in `data/README.md`.
Nothing is decoded here: a read returns JPEG bytes. Local files are read by
`array_record`, what lies behind a URL by `remote_shards`.
"""

import os
import threading

import numpy as np
from absl import logging
from array_record.python import array_record_module

from vie_jax.input_pipeline import (
  dataset_folder,
  remote_shards,
  scanned_shard,
)

# One frame is one small record: reading ahead would fetch frames nobody
# asked for, and the reader's own threads cost more than they save.
_READER_OPTIONS = 'readahead_buffer_size:0,max_parallelism:0'
_READER_BUFFER_BYTES = 32768


class FrameStore:
  """The videos of one split, readable one frame at a time by index.

  The row of a video in `videos.parquet` is its `instance_index`, in
  [0, num_videos). All attributes are fixed once the store is open.

  Attributes:
    directory: the prepared data set; where it is remote, as str() its URL.
    split: 'train' or 'val'.
    num_videos: N, may be 0.
    num_frames: int32 [N], frames in each video at `frame_rate_hz`.
    height: int32 [N], of the stored frames.
    width: int32 [N], of the stored frames.
    ids: N strings, unique, made from the paths.
    paths: N strings, relative to the folder that was prepared.
    name: of the data set, as it was prepared.
    fingerprint: hex digest of the content of the data set, all splits.
    frame_rate_hz: frames in a second of video.
    max_short_side: largest short side of a stored frame, all splits.
    max_long_side: largest long side of a stored frame, all splits.
  """

  def __init__(self, directory, split, manifest, table):
    self.directory = directory
    self.split = split
    self.name = manifest['name']
    self.fingerprint = manifest['fingerprint']
    self.frame_rate_hz = manifest['options']['fps']
    self.max_short_side = manifest['max_short_side']
    self.max_long_side = manifest['max_long_side']
    self.num_videos = table.num_rows
    self.ids = table['id'].to_pylist()
    self.paths = table['path'].to_pylist()
    self.num_frames = _column(table, 'num_frames', np.int32)
    self.height = _column(table, 'height', np.int32)
    self.width = _column(table, 'width', np.int32)
    self._first_frame = _column(table, 'first_frame', np.int64)
    self._class_names = manifest['labels']
    self._labels = {
      column: _column(table, f'label_{column}', np.int32)
      for column in self._class_names
    }
    self._shards = dataset_folder.shards_of(directory, split, manifest)
    ends = np.cumsum([records for _, records in self._shards], dtype=np.int64)
    self._shard_start = np.concatenate([np.zeros(1, np.int64), ends])
    self._readers = [None] * len(self._shards)
    self._lock = threading.Lock()
    self._is_closed = False

  @classmethod
  def open(cls, directory, split):
    """Opens one split of a prepared data set and checks its outer shape.

    Sizes of files are checked, their bytes are not: that is the work of
    `python data/prepare.py check`.

    Args:
      directory: str or path of the prepared data set, or the URL of one,
        such as 's3://bucket/dataset'.
      split: 'train' or 'val'.

    Returns:
      FrameStore.

    Raises:
      dataset_folder.DatasetError: if the directory is missing or incomplete, a
        file is missing or of the wrong size, the format version is unknown, or
        access to a URL is refused.
      dataset_folder.UnreachableError: if a URL does not answer.
    """
    try:
      return cls._open(dataset_folder.find(directory), split)
    except remote_shards.AwayError as error:
      raise dataset_folder.UnreachableError(
        f'{error}. When it can be, the same command goes on.'
      ) from error
    except remote_shards.RemoteError as error:
      raise dataset_folder.DatasetError(f'{error}.') from error

  @classmethod
  def _open(cls, directory, split):
    manifest = dataset_folder.read_manifest(directory)
    dataset_folder.check_split(directory, split, manifest)
    dataset_folder.check_sizes(directory, split, manifest)
    table = dataset_folder.read_table(
      directory, f'{split}/videos.parquet', manifest
    )
    store = cls(directory, split, manifest, table)
    store._check_counts(manifest['splits'][split])
    return store

  def __enter__(self):
    return self

  def __exit__(self, *unused_exception):
    self.close()

  @property
  def label_columns(self):
    """Names of the label columns, sorted."""
    return sorted(self._labels)

  def label(self, column):
    """Gives the labels of every video in one label column.

    Args:
      column: one of `label_columns`.

    Returns:
      (labels, class_names): int32 [N], -1 where unknown, and the list of
      str that the other values index.

    Raises:
      dataset_folder.DatasetError: if there is no such column.
    """
    if column not in self._labels:
      known = ', '.join(self.label_columns) or 'none'
      raise dataset_folder.DatasetError(
        f'{self.directory} has no label column {column!r}. '
        f'Label columns: {known}.'
      )
    return self._labels[column], list(self._class_names[column])

  def read_frames(self, instance_index, frame_numbers):
    """Reads frames of one video; may be called from several threads.

    Args:
      instance_index: int in [0, N).
      frame_numbers: int [T], each in [0, num_frames of the video), in any
        order, repeats allowed.

    Returns:
      list of T bytes, each one JPEG.

    Raises:
      IndexError: if the video or one of the frames does not exist.
      dataset_folder.UnreadableError: if one of the records cannot be read.
      dataset_folder.UnreachableError: if a URL cannot be reached.
      dataset_folder.DatasetError: if the store is closed.
    """
    shard, records = self._records(instance_index, frame_numbers)
    return self._read_records(shard, records) if records else []

  def each_frame(self, instance_index, frame_numbers):
    """Reads frames as they are asked for; may be called from several threads.

    That takes half the time of `read_frames`, which asks for new memory for
    all of them, and leaves each in the processor's cache for whoever decodes
    it. What is behind a URL is read at once, as waiting takes the time there.

    Args:
      instance_index: as in read_frames.
      frame_numbers: likewise.

    Yields:
      bytes, one JPEG, for each number; None in place of one that cannot be
      read, and of those that were to be read together with it.

    Raises:
      IndexError: as read_frames.
      dataset_folder.UnreachableError: if a URL cannot be reached.
      dataset_folder.DatasetError: if the store is closed.
    """
    shard, records = self._records(instance_index, frame_numbers)
    if records and isinstance(
      self._shards[shard][0], remote_shards.RemoteShard
    ):
      calls = [records]
    else:
      calls = [[record] for record in records]
    for call in calls:
      try:
        frames = self._read_records(shard, call)
      except dataset_folder.UnreadableError:
        frames = [None] * len(call)
      yield from frames

  def _records(self, instance_index, frame_numbers):
    """Returns the shard of a video, and the numbers of records in it."""
    instance_index = int(instance_index)
    if not 0 <= instance_index < self.num_videos:
      raise IndexError(
        f'instance_index {instance_index} is not in [0, {self.num_videos}).'
      )
    frame_numbers = np.asarray(frame_numbers, np.int64)
    first_frame = self._first_frame[instance_index]
    shard = int(np.searchsorted(self._shard_start, first_frame, 'right')) - 1
    if not frame_numbers.size:
      return shard, []
    num_frames = int(self.num_frames[instance_index])
    if frame_numbers.min() < 0 or frame_numbers.max() >= num_frames:
      raise IndexError(
        f'frames {frame_numbers.tolist()} are not all in [0, {num_frames}) '
        f'of video {self.paths[instance_index]!r}.'
      )
    records = frame_numbers + (first_frame - self._shard_start[shard])
    return shard, records.tolist()

  def close(self):
    """Closes the files; reading afterwards is an error."""
    with self._lock:
      self._is_closed = True
      # A reader that another thread is using closes when that is done.
      self._readers = [None] * len(self._shards)

  def _read_records(self, shard, records):
    reader = self._readers[shard]
    try:
      if reader is None:
        reader = self._open_reader(shard)
      frames = reader.read(records)
    except RuntimeError as error:
      if self._is_closed:
        raise dataset_folder.DatasetError(
          f'{self.directory} was closed.'
        ) from error
      raise self._unreadable(shard, error) from error
    except remote_shards.RemoteError as error:
      raise dataset_folder.UnreachableError(
        f'{self._shards[shard][0]} cannot be reached: {error}. When it can '
        'be, the same command goes on.'
      ) from error
    # What lies behind the end of a file that was cut short while it was open.
    if not all(frames):
      raise self._unreadable(shard, 'a record is empty')
    return frames

  def _unreadable(self, shard, reason):
    return dataset_folder.UnreadableError(
      f'{self._shards[shard][0]} cannot be read ({reason})',
      f'Run "python data/prepare.py check {self.directory}" and prepare the '
      'data set again where it is damaged.',
    )

  def _open_reader(self, shard):
    with self._lock:
      if self._is_closed:
        raise dataset_folder.DatasetError(f'{self.directory} was closed.')
      if self._readers[shard] is None:
        self._readers[shard] = _reader(*self._shards[shard])
      return self._readers[shard]

  def _check_counts(self, split):
    frames = int(self.num_frames.sum(dtype=np.int64))
    stored = int(self._shard_start[-1])
    if self.num_videos == split['videos'] and (
      frames == stored == split['frames']
    ):
      return
    raise dataset_folder.DatasetError(
      f'{self.directory}, split {self.split}: the table has '
      f'{self.num_videos} videos with {frames} frames, the shards hold '
      f'{stored}, dataset.json says {split["videos"]} and '
      f'{split["frames"]}. {dataset_folder.REMEDY}'
    )


def _reader(shard, num_records):
  """Opens a shard of `dataset_folder.shards_of`."""
  if isinstance(shard, remote_shards.RemoteShard):
    return shard
  reader = array_record_module.ArrayRecordReader(
    os.fspath(shard),
    options=_READER_OPTIONS,
    file_reader_buffer_size=_READER_BUFFER_BYTES,
  )
  if reader.num_records() == num_records:
    return reader
  # `array_record` takes a missing file for an empty one; this does not.
  scanned = scanned_shard.ScannedShard(shard, num_records)
  logging.warning(
    'The index of %s is damaged. Frames are found without it, and their '
    'checksums are not looked at; copy the file again where there is a sound '
    'one, or prepare the data set again.',
    shard,
  )
  return scanned


def _column(table, name, dtype):
  return np.asarray(table[name].to_numpy(), dtype)
