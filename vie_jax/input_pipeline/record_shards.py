"""Random access to the records of a TFDS data set, in either of its formats.

ArrayRecord files have an index. TFRecord files have none: the headers of their
records are read once, when they are opened, and the offsets are kept, eight
bytes a record.
"""

import concurrent.futures
import functools
import os
import stat

import numpy as np
import tensorflow as tf
from array_record.python import array_record_module

from vie_jax.input_pipeline import dataset_folder, unanswered

# A TFRecord is its length, 8 bytes, and a checksum of that, 4; its bytes; and
# a checksum of them, 4.
_HEADER_BYTES = 12
_FOOTER_BYTES = 4

# Headers lie far apart: reading them waits for the disk most of the time.
_SCAN_THREADS = 16

# Open files of an ArrayRecord data set. A large one has more shards than a
# process may open files.
_MAX_OPEN_READERS = 256
# As in frame_store: one image is one small record.
_READER_OPTIONS = 'readahead_buffer_size:0,max_parallelism:0'
_READER_BUFFER_BYTES = 32768

_REMEDY = 'Copy the file again, or prepare the data set again.'


class _Shards:
  """Records by number, in the order of the shards.

  Attributes:
    num_records: in all.
  """

  def __init__(self, shards):
    self._paths = [path for path, _ in shards]
    self._counts = [count for _, count in shards]
    self._ends = np.cumsum(self._counts, dtype=np.int64)
    self.num_records = sum(self._counts)

  def find(self, index):
    """Says where a record lies.

    Args:
      index: int in [0, num_records).

    Returns:
      (path, record): its shard, and its number there.

    Raises:
      IndexError: if there is no such record.
    """
    shard, record = self._find(index)
    return self._paths[shard], record

  def read(self, index):
    """Reads a record; may be called from several threads.

    Args:
      index: int in [0, num_records).

    Returns:
      bytes.

    Raises:
      IndexError: if there is no such record.
      DatasetError: if it cannot be read.
    """
    return self._read(*self._find(index))

  def close(self):
    """Closes what is open."""

  def _find(self, index):
    if not 0 <= index < self.num_records:
      raise IndexError(f'record {index} is not in [0, {self.num_records}).')
    shard = int(np.searchsorted(self._ends, index, 'right'))
    first = self._ends[shard] - self._counts[shard]
    return shard, int(index - first)


class TfRecordShards(_Shards):
  """TFRecord files, on this machine or where `tf.io.gfile` reads.

  The checksums of records are not looked at: what is damaged within an image
  shows when it is decoded, or in its pixels.

  Files are opened for each record, so that any number of shards will do. From
  gs:// TensorFlow then fetches GCS_READ_CACHE_BLOCK_SIZE_MB, 64 if it is not
  set, for each record: set it to 1.
  """

  def __init__(self, shards):
    """Reads the headers of all records.

    Args:
      shards: list of (path, number of records).

    Raises:
      DatasetError: naming the shard, if it is missing, cut short, or has
        another number of records.
    """
    super().__init__(shards)
    with concurrent.futures.ThreadPoolExecutor(_SCAN_THREADS) as pool:
      self._offsets = list(pool.map(_offsets, self._paths, self._counts))

  def _read(self, shard, record):
    path = self._paths[shard]
    begin, end = self._offsets[shard][record : record + 2]
    try:
      with _open(path) as file:
        file.seek(int(begin))
        framed = file.read(int(end - begin))
    except (OSError, tf.errors.OpError) as error:
      raise _unreadable(path, error) from error
    if _framed_size(framed) != len(framed):
      raise dataset_folder.DatasetError(
        f'{path} was changed while it was in use, or is damaged. {_REMEDY}'
      )
    return framed[_HEADER_BYTES:-_FOOTER_BYTES]


class ArrayRecordShards(_Shards):
  """ArrayRecord files on this machine."""

  def __init__(self, shards):
    """Looks whether the files are there.

    Args:
      shards: list of (path, number of records).

    Raises:
      DatasetError: naming a shard that is missing.
    """
    super().__init__(shards)
    for path in self._paths:
      if not _is_file(path):
        raise dataset_folder.DatasetError(
          f'{path} is missing, or not on this machine. {_REMEDY}'
        )
    self._reader = functools.lru_cache(_MAX_OPEN_READERS)(self._open_reader)

  def close(self):
    """Closes the files that no thread is reading."""
    self._reader.cache_clear()

  def _read(self, shard, record):
    try:
      return self._reader(shard).read([record])[0]
    except (RuntimeError, IndexError) as error:
      path = self._paths[shard]
      reason = unanswered.reason_of_record(error, path)
      if reason:
        raise dataset_folder.unanswered_error(path, reason) from error
      raise _unreadable(path, error) from error

  def _open_reader(self, shard):
    path = self._paths[shard]
    reader = array_record_module.ArrayRecordReader(
      path,
      options=_READER_OPTIONS,
      file_reader_buffer_size=_READER_BUFFER_BYTES,
    )
    found = reader.num_records()
    reason = None if found else unanswered.reason_of_empty(reader, path)
    if reason:
      raise dataset_folder.unanswered_error(path, reason)
    if found != self._counts[shard]:
      raise dataset_folder.DatasetError(
        f'{path} holds {found} records instead of {self._counts[shard]}. '
        f'{_REMEDY}'
      )
    return reader


def _offsets(path, count):
  """int64 [count + 1]: where the records of a file begin, and its end."""
  offsets = np.empty(count + 1, np.int64)
  offset = 0
  try:
    size = _size(path)
    with _open(path) as file:
      for record in range(count):
        offsets[record] = offset
        file.seek(offset)
        offset += _framed_size(file.read(_HEADER_BYTES))
        if offset > size:
          raise dataset_folder.DatasetError(
            f'{path} is cut short or damaged: it has {size} bytes, and they '
            f'end within record {record} of {count}. {_REMEDY}'
          )
  except (OSError, tf.errors.OpError) as error:
    raise _unreadable(path, error) from error
  if offset != size:
    raise dataset_folder.DatasetError(
      f'{path} holds more than its {count} records: they end at byte {offset} '
      f'of {size}. {_REMEDY}'
    )
  offsets[count] = offset
  return offsets


def _framed_size(framed):
  """Bytes of a record with header and footer, as its header says."""
  length = int.from_bytes(framed[:8], 'little')
  return _HEADER_BYTES + length + _FOOTER_BYTES


def _is_file(path):
  try:
    return stat.S_ISREG(os.stat(path).st_mode)
  except OSError as error:
    dataset_folder.check_answers(path, error)
    return False


def _is_local(path):
  return '://' not in path


def _size(path):
  if _is_local(path):
    return os.stat(path).st_size
  return tf.io.gfile.stat(path).length


def _open(path):
  # gfile reads half a megabyte at least, most of it for nothing.
  if _is_local(path):
    return open(path, 'rb', buffering=0)
  return tf.io.gfile.GFile(path, 'rb')


def _unreadable(path, error):
  """The DatasetError for an error of reading a file."""
  dataset_folder.check_answers(path, error)
  reason = getattr(error, 'message', str(error)).strip().split('\n')[0]
  return dataset_folder.DatasetError(
    f'{path} cannot be read: {reason.rstrip(".")}. {_REMEDY}'
  )
