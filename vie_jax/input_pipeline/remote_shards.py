"""Reads records of ArrayRecord files out of object stores, by ranges of bytes.

Any URL that fsspec knows will do: s3:// (extra `s3`), gs:// (extra `gcs`),
memory:// and others. `array_record`'s own reader opens local files only, so
the few parts of its format that `data/prepare.py` writes ('group_size:1,
uncompressed': one record in one chunk) are read here:

* Blocks of 64 KiB, each beginning with a header of 24 bytes, wherever in a
  chunk that is: 8 bytes of hash, the distance back to where the chunk began,
  and on to where it ends.
* Chunks: a header of 40 bytes (hash; size of the data; hash of the data; type,
  1 byte; number of records, 7 bytes; decoded size) and the data.
* The data of a chunk of records: compression (0 is none), size of the sizes,
  the size of each record, the records. Sizes are varints.
* The last block holds a postscript, which says where the footer is: a chunk
  whose first record is about the file, and the others about one chunk each.

Source: riegeli, doc/riegeli_records_file_format.md, and array_record,
cpp/layout.proto, both of Google. A test compares every record with what
`array_record` itself reads.

Checked are sizes, counts and types, and the distances in the headers of
blocks. Not checked are the hashes: they are HighwayHash, and no kept library
has it for Python. So bytes that changed within a picture show only where it
can no longer be decoded. `python data/prepare.py check URL` checks them all.
"""

import bisect
import contextlib
import itertools
import os
import struct
import threading

import fsspec
import numpy as np

from vie_jax.input_pipeline import remote_errors
from vie_jax.untrusted import urls

_BLOCK_BYTES = 2**16
_BLOCK_HEADER = struct.Struct('<8xQQ')
_CHUNK_HEADER = struct.Struct('<8xQ8xB7sQ')
_RECORDS_CHUNK = ord('r')
_UNCOMPRESSED = 0
_MAX_VARINT_BYTES = 10

# Before each number of a protocol buffer: which field it is.
_TAG_1, _TAG_2, _TAG_3 = 0x08, 0x10, 0x18
# The second number of the postscript.
_MAGIC = 0x71930E704FDAE05E

# Share of bytes nobody asked for that fewer requests may cost.
_MAX_GAP_SHARE = 0.05

# Protocol of a URL -> the extra that brings its backend.
_EXTRAS = {'s3': 's3', 's3a': 's3', 'gs': 'gcs', 'gcs': 'gcs'}


class DamagedError(RuntimeError):
  """What is stored is not what it should be, or gone; one line."""


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
        self.url, use_listings_cache=False
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
    """Notes what to read; the index is read with the first records.

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

  def read(self, records):
    """Reads records; may be called from several threads.

    All are requested at once, as far as the backend can. What lies close
    together is one request, for at most 5% more bytes.

    Args:
      records: list of int, in [0, num_records), repeats allowed.

    Returns:
      list of bytes.

    Raises:
      DamagedError: if they, or the index, are not what they should be.
      RemoteError: if the file cannot be reached.
    """
    offsets = self._index()
    spans = {
      record: (int(offsets[record]), int(offsets[record + 1]))
      for record in sorted(set(records))
    }
    ranges = _merged(list(spans.values()))
    firsts = [first for first, _ in ranges]
    content = dict(zip(firsts, self._fetch(ranges), strict=True))
    found = {}
    for record, (begin, end) in spans.items():
      first = firsts[bisect.bisect_right(firsts, begin) - 1]
      data = content[first][begin - first : end - first]
      found[record] = _only_record(data, begin, f'record {record}')
    return [found[record] for record in records]

  def _index(self):
    """Where the records begin, and the last one ends: int64 [records + 1]."""
    with self._lock:
      if self._offsets is None:
        self._offsets = self._read_index()
      return self._offsets

  def _read_index(self):
    tail = self._num_bytes - _BLOCK_BYTES
    if tail < _BLOCK_BYTES or tail % _BLOCK_BYTES:
      raise DamagedError('it has not the size of an ArrayRecord file')
    (block,) = self._fetch([(tail, self._num_bytes)])
    footer = _footer_offset(block, tail)
    if not 0 < footer < tail:
      raise DamagedError('its postscript names no place of a footer')
    (block,) = self._fetch([(footer, tail)])
    return _chunk_offsets(block, footer, self._num_records)

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


def _only_record(data, begin, what):
  """Takes the record out of a chunk that holds one, and nothing behind it."""
  plain = _without_block_headers(data, begin, what, ends_with_chunk=True)
  content, sizes = _records(plain, what)
  if len(plain) != _CHUNK_HEADER.size + _data_size(plain) or len(sizes) != 1:
    raise DamagedError(f'{what} is not where the index says')
  return content


def _footer_offset(data, begin):
  """Reads from the last block where the footer begins."""
  what = 'the postscript'
  content, sizes = _records(_without_block_headers(data, begin, what), what)
  values = _varints(content[: sizes[0]] if len(sizes) else b'')
  if values.tolist()[::2] != [_TAG_1, _TAG_2] or values[3] != _MAGIC:
    raise DamagedError('it does not end as an ArrayRecord file')
  return int(values[1])


def _chunk_offsets(data, begin, num_records):
  """Reads from the footer, at `begin`, where the records begin and end.

  Returns:
    int64 [num_records + 1].
  """
  what = 'the index'
  content, sizes = _records(_without_block_headers(data, begin, what), what)
  count = len(sizes) - 1
  if count != num_records:
    raise DamagedError(f'it has {count} records instead of {num_records}')
  # The first record of the footer is about the file.
  values = _varints(content[sizes[0] :])
  if len(values) != 6 * count:
    raise DamagedError(f'{what} is damaged')
  tag_1, offset, tag_2, _, tag_3, records = values.reshape(count, 6).T
  offsets = np.append(offset, begin)
  is_sound = (
    (tag_1 == _TAG_1).all()
    and (tag_2 == _TAG_2).all()
    and (tag_3 == _TAG_3).all()
    and (np.diff(offsets) > 0).all()
    and offsets[0] > 0
  )
  if not is_sound:
    raise DamagedError(f'{what} is damaged')
  if (records != 1).any():
    raise DamagedError("it was not written with 'group_size:1'")
  return offsets


def _without_block_headers(data, begin, what, *, ends_with_chunk=False):
  """Leaves out the headers of blocks, and checks what they say.

  Args:
    data: bytes, from the begin of a chunk on.
    begin: int, where in the file that is.
    what: it is, for messages.
    ends_with_chunk: whether the data ends where the chunk does; else it may
      end behind it, and later headers speak of other chunks.

  Returns:
    bytes.
  """
  pieces, start = [], 0
  for place in range(-begin % _BLOCK_BYTES, len(data), _BLOCK_BYTES):
    pieces.append(data[start:place])
    start = place + _BLOCK_HEADER.size
    if ends_with_chunk:
      header = data[place:start]
      distances = len(header) == _BLOCK_HEADER.size and _BLOCK_HEADER.unpack(
        header
      )
      if distances != (place, len(data) - place):
        raise DamagedError(f'{what} is not where the index says')
  pieces.append(data[start:])
  return b''.join(pieces)


def _data_size(plain):
  return _CHUNK_HEADER.unpack_from(plain)[0]


def _records(plain, what):
  """Takes the records out of a chunk without block headers.

  Args:
    plain: bytes; may hold more behind the chunk.
    what: it is, for messages.

  Returns:
    (content, sizes): bytes of the records, one behind the other, and int64
    [records].
  """
  if len(plain) <= _CHUNK_HEADER.size:
    raise DamagedError(f'{what} is cut short')
  data_size, kind, count, decoded_size = _CHUNK_HEADER.unpack_from(plain)
  payload = plain[_CHUNK_HEADER.size : _CHUNK_HEADER.size + data_size]
  if kind != _RECORDS_CHUNK or len(payload) != data_size or not payload:
    raise DamagedError(f'{what} is damaged')
  if payload[0] != _UNCOMPRESSED:
    raise DamagedError(f'{what} is damaged, or compressed')
  start = 1
  while start < min(len(payload), _MAX_VARINT_BYTES) and payload[start] > 127:
    start += 1
  start += 1
  values = _varints(payload[1:start])
  end = start + int(values[0] if len(values) else 0)
  sizes = _varints(payload[start:end])
  content = payload[end:]
  if (
    len(sizes) != int.from_bytes(count, 'little')
    or len(content) != decoded_size
    or int(sizes.sum()) != decoded_size
  ):
    raise DamagedError(f'{what} has another size than its header says')
  return content, sizes


def _varints(data):
  """Decodes varints, one behind the other, of at most 63 bits: int64 [n]."""
  octets = np.frombuffer(data, np.uint8)
  ends = np.flatnonzero(octets < 128)
  if not len(ends):
    return np.zeros(0, np.int64)
  begins = np.concatenate([[0], ends[:-1] + 1])
  octets = octets[: ends[-1] + 1]
  place = np.arange(len(octets)) - np.repeat(begins, ends - begins + 1)
  # What would not fit is damage; it gives some number, and no error.
  bits = (octets & 127).astype(np.int64) << np.minimum(7 * place, 62)
  return np.add.reduceat(bits, begins)


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


def _sentence(error):
  """One line without a full stop."""
  text = urls.redacted(' '.join(str(error).split()).rstrip('.'))
  kind = type(error).__name__
  return f'{text} ({kind})' if text else kind


def _no_backend(url, error):
  protocol = url.partition('://')[0]
  if protocol in _EXTRAS:
    extra = _EXTRAS[protocol]
    return (
      f'{url} needs the extra {extra!r}: pip install "vie_jax[{extra}]" '
      f'({_sentence(error)})'
    )
  return f'{url} cannot be opened: {_sentence(error)}'
