"""Embeddings made elsewhere: of any encoder, in Parquet or NumPy files.

Each vector belongs to a video of a prepared data set, which it names by the
`id` or the `path` of `videos.parquet`. docs/embeddings.md has the formats.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow
import pyarrow.compute

from vie_jax.untrusted import arrays, tables
from vie_jax.wording import chosen, counted

IDS_SUFFIX = '.ids.txt'
_ROWS_AT_A_TIME = 1024
_NAMED = 5
_FLOATS = ('float16', 'float32', 'float64')
_NO_CLIP = -1


class EmbeddingsError(ValueError):
  """A file of embeddings is missing, damaged, or of other videos."""


def read(
  path: str | pathlib.Path, videos: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, int]:
  """Reads the vectors of some videos.

  Args:
    path: `X.parquet` with a column `id` or `path`, a column `embedding` and
      perhaps `clip`; or `X.npy`, [n, D], with the ids in `X.ids.txt`.
    videos: (id, path) of each of V videos.

  Returns:
    (vectors, num_extra): float32 [V, G, D], unit vectors in the order of the
    videos, G being the clips of a video, 1 if the file does not number them;
    and how many vectors of the file are of none of these videos.

  Raises:
    EmbeddingsError: in one line, if the file cannot be read, a video is missing
      or comes twice, or a vector is not finite, zero, or of another length.
  """
  path = pathlib.Path(os.path.expanduser(path))
  if not path.is_file():
    raise EmbeddingsError(f'There is no file {path} (config.embeddings).')
  kinds = {'.parquet': _ParquetFile, '.npy': _NumpyFile}
  if path.suffix not in kinds:
    raise EmbeddingsError(
      f'{path} (config.embeddings) is neither a .parquet nor an .npy file.'
    )
  file = kinds[path.suffix](path)
  names, clips = file.names()
  row_of = {name: row for row, (_, name) in enumerate(videos)}
  # An id wins over a path, should some file be named like an id.
  row_of |= {name: row for row, (name, _) in enumerate(videos)}
  rows = np.array([row_of.get(name, -1) for name in names], np.int64)
  place, num_clips = _places(path, rows, np.array(clips, np.int64), videos)
  vectors = None
  start = 0
  for block in file.vectors():
    here = place[start : start + len(block)]
    wanted = np.flatnonzero(here >= 0)
    _check(path, block[wanted], [names[start + i] for i in wanted])
    if vectors is None:
      vectors = np.empty((len(videos) * num_clips, block.shape[1]), np.float32)
    elif block.shape[1] != vectors.shape[1]:
      raise _error(
        path,
        f'has vectors of {vectors.shape[1]} and of {block.shape[1]} dimensions',
      )
    vectors[here[wanted]] = _unit(block[wanted])
    start += len(block)
  num_extra = int((rows < 0).sum())
  return vectors.reshape(len(videos), num_clips, -1), num_extra


def _places(path, rows, clips, videos):
  """Checks that every video has the same clips, each of them once.

  Args:
    path: of the file.
    rows: int64 [n], the video of each vector, -1 for none.
    clips: int64 [n], its clip, or `_NO_CLIP`.
    videos: (id, path) of each.

  Returns:
    (place, num_clips): int64 [n], row * G + clip, -1 for none; and G.
  """
  is_wanted = rows >= 0
  counts = np.bincount(rows[is_wanted], minlength=len(videos))
  missing = [videos[row] for row in np.flatnonzero(counts == 0)]
  if missing:
    listing = ', '.join(f'{i} ({p})' for i, p in missing[:_NAMED])
    more = ' and so on' if len(missing) > _NAMED else ''
    raise _error(
      path,
      f'{len(missing)} of {counted(len(videos), "video")} '
      f'{chosen(len(missing), "has", "have")} no vector: '
      f'{listing}{more}; add them under these ids or paths',
    )
  is_numbered = (clips[is_wanted] != _NO_CLIP).any()
  num_clips = int(counts.max()) if is_numbered else 1
  place = np.where(is_wanted, rows * num_clips + clips * is_numbered, -1)
  found, first, times = np.unique(
    place[is_wanted], return_index=True, return_counts=True
  )
  if (times > 1).any():
    vector = np.flatnonzero(is_wanted)[first[times.argmax()]]
    name = ' or '.join(videos[rows[vector]])
    which = f', clip {clips[vector]},' if is_numbered else ''
    raise _error(path, f'the video {name}{which} comes twice')
  is_inside = (clips[is_wanted] >= 0) & (clips[is_wanted] < num_clips)
  if is_numbered and (
    not is_inside.all() or len(found) < len(videos) * num_clips
  ):
    raise _error(
      path,
      'not every video has the same clips, numbered from 0 without gaps',
    )
  return place, num_clips


def _check(path, vectors, names):
  """Refuses vectors that are no direction, by the names of their videos."""
  for is_bad, words in (
    (~np.isfinite(vectors).all(axis=1), 'is not finite'),
    (~vectors.any(axis=1), 'is zero, and has no direction'),
  ):
    if is_bad.any():
      raise _error(path, f'the vector of {names[is_bad.argmax()]} {words}')


def _unit(vectors):
  """Brings vectors to length 1, without overflow on the way."""
  vectors = vectors.astype(np.float64)
  vectors /= np.abs(vectors).max(axis=1, keepdims=True)
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors.astype(np.float32)


def _whole(number):
  """A number, or a text of one, as int; ValueError if it is no whole one."""
  whole = int(number)
  if not isinstance(number, str) and whole != number:
    raise ValueError(f'{number} is no whole number')
  return whole


def _error(path, words):
  return EmbeddingsError(f'{path} (config.embeddings): {words}.')


def _unreadable(path, error):
  reason = ' '.join(str(error).split())[:200].rstrip('.')
  return _error(path, f'it cannot be read: {reason}')


class _ParquetFile:
  """Names and vectors of a Parquet file."""

  def __init__(self, path):
    self._path = path
    try:
      self._file = tables.open_table(path)
      schema = self._file.schema_arrow
    except tables.TableError as error:
      raise _unreadable(path, error) from error
    self._key = next((key for key in ('id', 'path') if key in schema.names), '')
    if not self._key or 'embedding' not in schema.names:
      raise _error(
        path,
        f'it has the columns {", ".join(schema.names)}; needed are id or path, '
        'and embedding',
      )
    self._has_clips = 'clip' in schema.names
    kind = schema.field('embedding').type
    is_list = hasattr(kind, 'value_type')
    if not is_list or not pyarrow.types.is_floating(kind.value_type):
      raise _error(
        path,
        f'its column embedding is {kind}; it must be lists of floating-point '
        'numbers',
      )

  def names(self) -> tuple[list[str], list[int]]:
    """The video and the clip of each vector."""
    names, clips = [], []
    for batch in self._batches(self._key, *['clip'] * self._has_clips):
      names += map(str, self._texts(batch[self._key]))
      numbers = batch['clip'].to_pylist() if self._has_clips else []
      clips += numbers or [None] * len(batch)
    try:
      numbers = [_NO_CLIP if clip is None else _whole(clip) for clip in clips]
      return names, np.array(numbers, np.int64).tolist()
    except (TypeError, ValueError, OverflowError):
      raise _error(self._path, 'its column clip has no whole numbers') from None

  def _texts(self, column):
    try:
      return tables.plain_text(column).to_pylist()
    except ValueError as error:  # also of texts that are not UTF-8
      raise _unreadable(self._path, error) from error

  def vectors(self) -> Iterator[np.ndarray]:
    """Yields [b, D], in the order of the names."""
    for batch in self._batches('embedding'):
      lists = batch['embedding']
      values = lists.flatten()
      if lists.null_count or values.null_count:
        raise _error(self._path, 'its column embedding has empty cells')
      lengths = pyarrow.compute.list_value_length(lists).unique().to_pylist()
      if len(lengths) > 1 or not lengths[0]:
        sizes = ' and of '.join(map(str, sorted(lengths)[:2]))
        raise _error(self._path, f'it has vectors of {sizes} dimensions')
      values = values.to_numpy(zero_copy_only=False)
      yield values.reshape(len(lists), lengths[0])

  def _batches(self, *columns):
    try:
      batches = self._file.iter_batches(_ROWS_AT_A_TIME, columns=list(columns))
      yield from (batch for batch in batches if len(batch))
    except (OSError, pyarrow.ArrowException) as error:
      raise _unreadable(self._path, error) from error


class _NumpyFile:
  """Vectors of a NumPy file, and the names beside it."""

  def __init__(self, path):
    self._path = path
    try:
      self._array = arrays.open_npy(path)
    except (OSError, arrays.ArraysError) as error:
      raise _unreadable(path, error) from error
    array = self._array
    if array.dtype.name not in _FLOATS or array.ndim != 2 or not array.size:
      raise _error(
        path,
        f'it is {array.dtype} {list(array.shape)}; it must be [n, D] of '
        f'{" or ".join(_FLOATS)}',
      )

  def names(self) -> tuple[list[str], list[int]]:
    """The video and the clip of each vector."""
    path = self._path.with_suffix(IDS_SUFFIX)
    try:
      lines = path.read_text('utf-8').removesuffix('\n').split('\n')
    except (OSError, ValueError):
      raise _error(
        path,
        'it cannot be read, and must name the video of each row of the .npy '
        'file by its id or path, one on a line',
      ) from None
    if len(lines) != len(self._array):
      raise _error(
        path,
        f'it has {counted(len(lines), "line")}, and the .npy file has '
        f'{counted(len(self._array), "row")}; they must be equally many',
      )
    parts = [line.rstrip('\r').partition('\t') for line in lines]
    clips = [
      int(c) if c.isdecimal() and len(c) < 10 else _NO_CLIP for *_, c in parts
    ]
    return [name for name, *_ in parts], clips

  def vectors(self) -> Iterator[np.ndarray]:
    """Yields [b, D], in the order of the names."""
    for start in range(0, len(self._array), _ROWS_AT_A_TIME):
      yield np.asarray(self._array[start : start + _ROWS_AT_A_TIME])
