"""A shard whose index is damaged: records are found by their own headers."""

import functools
import os
import pathlib

from vie_jax.input_pipeline import array_record_format


class ScannedShard:
  """Reads a local shard that `array_record` finds no records in.

  The headers of all records are read once; one that is damaged, too, hides the
  records behind it. Hashes are not checked, as of remote shards.
  """

  def __init__(self, path: pathlib.Path, num_records: int):
    """Looks for the records.

    Args:
      path: of the shard.
      num_records: that it should hold.

    Raises:
      array_record_format.DamagedError: if it cannot be read, or all of its
        records are found and are not so many.
    """
    self._path = path
    with self._open() as file:
      self._offsets = array_record_format.scanned_offsets(
        functools.partial(_at, file),
        os.fstat(file.fileno()).st_size,
        num_records,
      )

  def read(self, records: list[int]) -> list[bytes]:
    """Reads records; may be called from several threads.

    Args:
      records: from 0 on, repeats allowed.

    Returns:
      Their bytes.

    Raises:
      array_record_format.DamagedError: if one is not found, or cannot be read.
    """
    return [self._record(record) for record in records]

  def _record(self, record):
    what = f'record {record}'
    if record + 1 >= len(self._offsets):
      raise array_record_format.DamagedError(
        f'the index is damaged, and {what} is not found without it'
      )
    begin, end = self._offsets[record : record + 2]
    with self._open() as file:
      data = _at(file, begin, end)
    return array_record_format.only_record(data, begin, what)

  def _open(self):
    try:
      return open(self._path, 'rb', buffering=0)
    except FileNotFoundError as error:
      raise array_record_format.DamagedError('it is gone') from error
    except OSError as error:
      raise array_record_format.DamagedError(error.strerror) from error


def _at(file, begin, end):
  try:
    return os.pread(file.fileno(), end - begin, begin)
  except OSError as error:
    raise array_record_format.DamagedError(error.strerror) from error
