"""The JPEG frames of the videos of a split, by number.

Nothing is decoded here: a read returns JPEG bytes. Local files are read by
`array_record`, what lies behind a URL by `remote_shards`.
"""

import os
import threading

import numpy as np
from absl import logging
from array_record.python import array_record_module

from vie_jax.input_pipeline import (
  array_record_format,
  dataset_folder,
  remote_shards,
  scanned_shard,
  unanswered,
)

# One frame is one small record: reading ahead would fetch frames nobody
# asked for, and the reader's own threads cost more than they save.
_READER_OPTIONS = 'readahead_buffer_size:0,max_parallelism:0'
_READER_BUFFER_BYTES = 32768


class FrameRecords:
  """The videos of one split, readable one frame at a time by index.

  Attributes:
    directory: the prepared data set; where it is remote, as str() its URL.
    fingerprint: hex digest of the content of the data set, all splits.
    num_videos: N, may be 0.
    num_frames: int32 [N], frames in each video.
    height: int32 [N], of the stored frames.
    width: int32 [N], of the stored frames.
    first_frame: int64 [N], the number of each video's first frame in the split.
  """

  def __init__(
    self,
    directory,
    shards,
    *,
    fingerprint,
    num_frames,
    height,
    width,
    first_frame,
  ):
    """Opens nothing yet.

    Args:
      directory: as `dataset_folder.find` gives it.
      shards: of dataset_folder.shards_of.
      fingerprint: see the attributes.
      num_frames: likewise.
      height: likewise.
      width: likewise.
      first_frame: likewise.
    """
    self.directory = directory
    self.fingerprint = fingerprint
    self.num_videos = len(num_frames)
    self.num_frames = num_frames
    self.height = height
    self.width = width
    self.first_frame = first_frame
    self._shards = shards
    self._version = self._look()
    ends = np.cumsum([records for _, records in shards], dtype=np.int64)
    self._shard_start = np.concatenate([np.zeros(1, np.int64), ends])
    self._readers = [None] * len(shards)
    self._lock = threading.Lock()
    self._is_closed = False

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
      dataset_folder.UnansweredError: if a shard may be sound, but cannot be
        read.
      dataset_folder.DatasetError: if the store is closed, the index of a
        shard behind a URL is damaged, or a shard has another number of
        records than dataset.json says.
    """
    shard, records = self._records(instance_index, frame_numbers)
    return self._read_records(shard, records) if records else []

  @property
  def is_remote(self):
    """Whether the frames are behind a URL."""
    return remote_shards.is_remote(str(self.directory))

  def places(self, instance_index, frame_numbers):
    """Looks up where frames behind a URL lie; see read_frames.

    Args:
      instance_index: as in read_frames.
      frame_numbers: likewise.

    Returns:
      int64 [T, 2], where in its shard each begins and ends.

    Raises:
      IndexError: as read_frames.
      dataset_folder.DatasetError: as read_frames.
      dataset_folder.UnreachableError: if a URL cannot be reached.
    """
    shard, records = self._records(instance_index, frame_numbers)
    try:
      return self._reader_of(shard).places(records)
    except (RuntimeError, remote_shards.RemoteError) as error:
      raise self._explained(shard, error) from error

  def each_frame(self, instance_index, frame_numbers, places=None):
    """Reads frames as they are asked for; may be called from several threads.

    That takes half the time of `read_frames`, which asks for new memory for
    all of them, and leaves each in the processor's cache for whoever decodes
    it. What is behind a URL is read at once, as waiting takes the time there.

    Args:
      instance_index: as in read_frames.
      frame_numbers: likewise.
      places: of frames behind a URL, what `places` returns for them; else the
        index is asked.

    Yields:
      bytes, one JPEG, for each number; None in place of one that cannot be
      read, and of those that were to be read together with it.

    Raises:
      IndexError: as read_frames.
      dataset_folder.UnansweredError: as read_frames.
      dataset_folder.DatasetError: as read_frames.
    """
    shard, records = self._records(instance_index, frame_numbers)
    if records and self.is_remote:
      calls = [records]
    else:
      calls = [[record] for record in records]
    for call in calls:
      try:
        frames = self._read_records(shard, call, places)
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
    first_frame = self.first_frame[instance_index]
    shard = int(np.searchsorted(self._shard_start, first_frame, 'right')) - 1
    if not frame_numbers.size:
      return shard, []
    num_frames = int(self.num_frames[instance_index])
    if frame_numbers.min() < 0 or frame_numbers.max() >= num_frames:
      raise IndexError(
        f'frames {frame_numbers.tolist()} are not all in [0, {num_frames}) '
        f'of video {instance_index}.'
      )
    records = frame_numbers + (first_frame - self._shard_start[shard])
    return shard, records.tolist()

  def close(self):
    """Closes the files; reading afterwards is an error."""
    # Without the lock: who has it opens a shard, which may hang.
    self._is_closed = True
    # A reader that another thread is using closes when that is done.
    self._readers = [None] * len(self._shards)

  def _read_records(self, shard, records, places=None):
    try:
      reader = self._reader_of(shard)
      frames = (
        reader.read(records) if places is None else reader.read(records, places)
      )
    except (RuntimeError, MemoryError, remote_shards.RemoteError) as error:
      raise self._explained(shard, error) from error
    # What lies behind the end of a file that was cut short while it was open.
    if not all(frames):
      raise self._unreadable(shard, 'a record is empty')
    return frames

  def _explained(self, shard, error):
    """Gives the DatasetError for what reading a shard has raised."""
    if isinstance(error, remote_shards.RemoteError):
      return self._unreachable(shard, error)
    if self._is_closed:
      return dataset_folder.DatasetError(f'{self.directory} was closed.')
    if not self.is_remote:
      place = self._shards[shard][0]
      reason = unanswered.reason_of_record(error, place)
      if reason:
        return dataset_folder.unanswered_error(place, reason)
    try:
      self._check_same()
    except remote_shards.RemoteError as away:
      return self._unreachable(shard, away)
    found = self._unreadable(shard, error)
    if isinstance(error, array_record_format.DamagedIndexError):
      # None of its frames is found: to try one after the other takes minutes.
      return dataset_folder.DatasetError(str(found))
    return found

  def _unreachable(self, shard, reason):
    return dataset_folder.UnreachableError.of(self._shards[shard][0], reason)

  def _unreadable(self, shard, reason):
    return dataset_folder.UnreadableError(
      f'{self._shards[shard][0]} cannot be read ({reason})',
      f'Run "python data/prepare.py check {self.directory}" and prepare the '
      'data set again where it is damaged.',
    )

  def _reader_of(self, shard):
    reader = self._readers[shard]
    return self._open_reader(shard) if reader is None else reader

  def _open_reader(self, shard):
    with self._lock:
      # Before the look at whether it is closed: `close` goes the other way.
      readers = self._readers
      if self._is_closed:
        raise dataset_folder.DatasetError(f'{self.directory} was closed.')
      if readers[shard] is None:
        readers[shard] = self._reader(*self._shards[shard])
      return readers[shard]

  def _reader(self, shard, num_records):
    """Opens a shard of `dataset_folder.shards_of`."""
    self._check_same()
    if isinstance(shard, remote_shards.RemoteShard):
      return shard
    reader = array_record_module.ArrayRecordReader(
      os.fspath(shard),
      options=_READER_OPTIONS,
      file_reader_buffer_size=_READER_BUFFER_BYTES,
    )
    found = reader.num_records()
    # `array_record` takes a missing file, one whose index is damaged, and one
    # that it cannot read, for an empty one; `_reader_without_index` does not.
    if not found:
      reason = unanswered.reason_of_empty(reader, shard)
      if reason:
        raise dataset_folder.unanswered_error(shard, reason)
      return self._reader_without_index(shard, num_records)
    if found != num_records:
      raise array_record_format.DamagedIndexError(
        f'it has {found} records instead of {num_records}'
      )
    return reader

  def _look(self):
    """Which file dataset.json is; None if there is none."""
    try:
      if self.is_remote:
        return self.directory.version('dataset.json')
      found = os.stat(self.directory / 'dataset.json')
    except OSError:
      return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

  def _check_same(self):
    """Opens no file of another data set that has come to where this one was."""
    version = self._look()
    if version is not None and version == self._version:
      return
    found = dataset_folder.read_manifest(self.directory)['fingerprint']
    if found != self.fingerprint:
      raise dataset_folder.DatasetError(
        f'The data set in {self.directory} is another one now: its fingerprint '
        f'is {found}, and was {self.fingerprint} when it was opened. Put that '
        'one back, or begin anew with another workdir.'
      )
    self._version = version

  def _reader_without_index(self, shard, num_records):
    scanned = scanned_shard.ScannedShard(shard, num_records)
    logging.warning(
      'The index of %s is damaged. Frames are found without it, and their '
      'checksums are not looked at; copy the file again where there is a sound '
      'one, or prepare the data set again.',
      shard,
    )
    return scanned
