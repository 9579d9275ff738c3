"""Reads records of ArrayRecord files out of object stores, by ranges of bytes.

Any URL that fsspec knows will do: s3:// (extra `s3`), gs:// (extra `gcs`),
memory:// and others. `array_record`'s own reader opens local files only, so
what is fetched is read by `array_record_format`.
"""

import bisect
import contextlib
import itertools
import os
import threading

import fsspec
import numpy as np

from vie_jax.input_pipeline import array_record_format, remote_errors
from vie_jax.input_pipeline.array_record_format import (
  DamagedError,
  DamagedIndexError,
)
from vie_jax.untrusted import urls

# Share of bytes nobody asked for that fewer requests may cost.
_MAX_GAP_SHARE = 0.05

# As many as gcsfs has.
_CONNECTIONS = 100

# Protocol of a URL -> the package that is its backend.
_PACKAGES = {'s3': 's3fs', 's3a': 's3fs', 'gs': 'gcsfs', 'gcs': 'gcsfs'}


class RemoteError(Exception):
  """A remote place cannot be reached or read now; one line."""


class AwayError(RemoteError):
  """It does not answer, but may later; see `remote_errors.may_pass`."""


def is_remote(path):
  """Tells whether a path is a URL, of whatever protocol."""
  return '://' in os.fspath(path)


class RemoteFolder:
  """The files below a URL.

  Requests that fail for a moment are tried again by the backend itself. How
  often is set where fsspec is configured: in `~/.config/fsspec/*.json` or the
  environment, as `FSSPEC_S3='{"config_kwargs": {"retries": {"max_attempts":
  10}}}'`. gcsfs tries six times.

  Attributes:
    url: str, without '/' at the end.
  """

  def __init__(self, url):
    """Finds the backend; nothing is requested yet.

    Args:
      url: str, such as 's3://bucket/dataset'.

    Raises:
      RemoteError: if no backend for it is installed, or it has a password.
    """
    problem = urls.problem(url)
    if problem:
      raise RemoteError(problem)
    self.url = url.rstrip('/')
    try:
      # What lies there is asked for, not remembered.
      self._fs, self._root = fsspec.url_to_fs(
        self.url, use_listings_cache=False, **_connections(self.url)
      )
    except (ImportError, ValueError) as error:
      raise RemoteError(_no_backend(self.url, error)) from error
    self._root = self._root.rstrip('/')

  def __str__(self):
    return self.url

  def __truediv__(self, name):
    return f'{self.url}/{name}'

  def sizes(self, below=''):
    """Lists what is there.

    Args:
      below: name of a folder within, or ''.

    Returns:
      dict from name, relative to the URL, to bytes.

    Raises:
      RemoteError: if it cannot be listed; AwayError, if that may pass.
    """
    found = {}
    # A bucket that is not there holds nothing.
    with contextlib.suppress(FileNotFoundError), _errors(self / below):
      found = self._fs.find(f'{self._root}/{below}'.rstrip('/'), detail=True)
    return {
      path.removeprefix(f'{self._root}/'): facts['size']
      for path, facts in found.items()
    }

  def read(self, name):
    """Reads a file whole.

    Args:
      name: relative to the URL.

    Returns:
      bytes.

    Raises:
      FileNotFoundError: if it is not there.
      RemoteError: if it cannot be read; AwayError, if that may pass.
    """
    with _errors(self / name):
      return self._fs.cat_file(f'{self._root}/{name}')

  def version(self, name):
    """Tells a file from another one of the same name: any text.

    Args:
      name: relative to the URL.

    Raises:
      FileNotFoundError: if it is not there.
      RemoteError: if that cannot be said; AwayError, if that may pass.
    """
    with _errors(self / name):
      return self._fs.ukey(f'{self._root}/{name}')

  def shard(self, name, *, num_bytes, num_records):
    """Returns a RemoteShard; nothing is read yet."""
    return RemoteShard(
      self._fs,
      f'{self._root}/{name}',
      url=self / name,
      num_bytes=num_bytes,
      num_records=num_records,
    )


class RemoteShard:
  """One ArrayRecord file, readable record by record; str() is its URL."""

  def __init__(self, filesystem, path, *, url, num_bytes, num_records):
    """Notes what to read; the index is read when it is first asked for.

    Args:
      filesystem: of fsspec.
      path: of the file, as the filesystem has it.
      url: the same for messages.
      num_bytes: of the file.
      num_records: in it.
    """
    self._fs = filesystem
    self._path = path
    self._url = url
    self._num_bytes = num_bytes
    self._num_records = num_records
    self._offsets = None
    self._lock = threading.Lock()

  def __str__(self):
    return self._url

  def places(self, records):
    """Looks up where records lie; may be called from several threads.

    Args:
      records: list of int, in [0, num_records), repeats allowed.

    Returns:
      int64 [n, 2], where in the file each begins and ends.

    Raises:
      DamagedIndexError: if the index is not what it should be.
      RemoteError: if the file cannot be reached.
    """
    offsets, records = self._index(), np.asarray(records, np.int64)
    return np.stack([offsets[records], offsets[records + 1]], axis=1)

  def read(self, records, places=None):
    """Reads records; may be called from several threads.

    All are requested at once, as far as the backend can. What lies close
    together is one request, for at most 5% more bytes.

    Args:
      records: as in `places`.
      places: what `places` returns for them, where that is known; else the
        index is asked, which is read with the first records.

    Returns:
      list of bytes.

    Raises:
      DamagedError: if they, or the index, are not what they should be;
        DamagedIndexError of the index.
      RemoteError: if the file cannot be reached.
    """
    if places is None:
      places = self.places(records)
    spans = dict(sorted(zip(records, map(tuple, places.tolist()), strict=True)))
    ranges = _merged(list(spans.values()))
    firsts = [first for first, _ in ranges]
    content = dict(zip(firsts, self._fetch(ranges), strict=True))
    found = {}
    for record, (begin, end) in spans.items():
      first = firsts[bisect.bisect_right(firsts, begin) - 1]
      data = content[first][begin - first : end - first]
      found[record] = array_record_format.only_record(
        data, begin, f'record {record}'
      )
    return [found[record] for record in records]

  def _index(self):
    """Where the records begin, and the last one ends: int64 [records + 1]."""
    with self._lock:
      if self._offsets is None:
        try:
          self._offsets = self._read_index()
        except DamagedError as error:
          raise DamagedIndexError(str(error)) from error
      return self._offsets

  def _read_index(self):
    tail = self._num_bytes - array_record_format.BLOCK_BYTES
    if (
      tail < array_record_format.BLOCK_BYTES
      or tail % array_record_format.BLOCK_BYTES
    ):
      raise DamagedError('it has not the size of an ArrayRecord file')
    (block,) = self._fetch([(tail, self._num_bytes)])
    footer = array_record_format.footer_offset(block, tail)
    if not 0 < footer < tail:
      raise DamagedError('its postscript names no place of a footer')
    (block,) = self._fetch([(footer, tail)])
    return array_record_format.chunk_offsets(block, footer, self._num_records)

  def _fetch(self, ranges):
    """Requests ranges of bytes, all at once; a list of bytes."""
    if not ranges:
      return []
    begins, ends = (list(side) for side in zip(*ranges, strict=True))
    try:
      found = self._fs.cat_ranges(
        [self._path] * len(ranges), begins, ends, on_error='return'
      )
    # Each backend has its own errors, not all of them OSError.
    except Exception as error:
      raise self._explained(error) from error
    for (begin, end), data in zip(ranges, found, strict=True):
      if isinstance(data, BaseException):
        raise self._explained(data) from data
      if len(data) != end - begin:
        raise DamagedError(
          f'it is cut short: bytes {begin} to {end} have become {len(data)}'
        )
    return found

  def _explained(self, error):
    """What a failed request means: damage, or that we cannot get there."""
    try:
      size = self._fs.info(self._path)['size']
    except FileNotFoundError:
      return DamagedError('it is gone')
    except Exception:
      size = self._num_bytes  # Whatever keeps us from it is in `error`.
    if size != self._num_bytes:
      return DamagedError(f'it has {size} bytes instead of {self._num_bytes}')
    return RemoteError(_sentence(error))


def _merged(spans):
  """Joins neighbours whose gaps cost little, the smallest gaps first.

  Args:
    spans: list of (begin, end), in order.

  Returns:
    list of (begin, end), which together hold all spans.
  """
  budget = _MAX_GAP_SHARE * sum(end - begin for begin, end in spans)
  gaps = [later[0] - early[1] for early, later in itertools.pairwise(spans)]
  is_joined = [False] * len(gaps)
  for position in sorted(range(len(gaps)), key=gaps.__getitem__):
    budget -= gaps[position]
    if budget < 0:
      break
    is_joined[position] = True
  ranges = spans[:1]
  for joined, (begin, end) in zip(is_joined, spans[1:], strict=True):
    if joined:
      begin = ranges.pop()[0]
    ranges.append((begin, end))
  return ranges


@contextlib.contextmanager
def _errors(url):
  """Makes what a backend raises a RemoteError, but for a missing file."""
  try:
    yield
  except FileNotFoundError:
    raise
  # Each backend has its own errors, not all of them OSError.
  except Exception as error:
    kind = AwayError if remote_errors.may_pass(error) else RemoteError
    raise kind(f'{url} cannot be read: {_sentence(error)}') from error


def _connections(url):
  """What lets a backend have many requests on their way: keywords of it."""
  protocol = url.partition('://')[0]
  if _PACKAGES.get(protocol) != 's3fs':
    return {}
  configured = {
    name: value
    for known in ('s3', 's3a')
    for name, value in fsspec.config.conf.get(known, {}).items()
  }.get('config_kwargs', {})
  # Its own number is 10, for all threads together.
  return {'config_kwargs': {'max_pool_connections': _CONNECTIONS, **configured}}


def _sentence(error):
  """One line without a full stop."""
  text = urls.redacted(' '.join(str(error).split()).rstrip('.'))
  kind = type(error).__name__
  return f'{text} ({kind})' if text else kind


def _no_backend(url, error):
  protocol = url.partition('://')[0]
  if protocol in _PACKAGES:
    package = _PACKAGES[protocol]
    return (
      f'{url} needs the package {package}: pip install {package} '
      f'({_sentence(error)})'
    )
  return f'{url} cannot be opened: {_sentence(error)}'
