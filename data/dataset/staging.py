"""Finished videos on their way into a prepared data set.

Each video becomes two files in OUT/.staging, written aside and renamed into
place: the frames, then a small record. A video with a record is finished; a
kill at any moment leaves others as if they had never been started.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import struct

DIRECTORY_NAME = '.staging'

_LENGTH = struct.Struct('<I')


class OutputError(Exception):
  """The output cannot be written; one line for the user."""


@contextlib.contextmanager
def output_errors(path):
  """Turns a failed write into OutputError that names the place."""
  try:
    yield
  except OSError as error:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno == errno.ENOSPC:
      reason += '; free some space and run the same command again'
    raise OutputError(f'cannot write {path}: {reason}') from error


@contextlib.contextmanager
def read_errors(path):
  """Turns a failed read into OutputError that names the file, if it is there."""
  try:
    yield
  except FileNotFoundError:
    raise
  except OSError as error:
    raise OutputError(
      f'cannot read {path}: {error.strerror}; run the same command again when '
      'it can be read, or remove it to have its video decoded again'
    ) from error


def write_json(path, value, *, aside, indent=1):
  """Writes a value as JSON text, the same bytes for the same value.

  Args:
    path: the file, afterwards either complete or not there at all.
    value: what to write.
    aside: directory in the same file system where a kill may leave a
      temporary file.
    indent: int, of its lines; None for one line, which takes a fraction of the
      time and memory.
  """
  path = pathlib.Path(path)
  text = json.dumps(value, indent=indent, sort_keys=True)
  temporary = pathlib.Path(aside) / f'{path.name}.{os.getpid()}.tmp'
  with output_errors(path):
    with open(temporary, 'w', encoding='utf-8') as file:
      file.write(f'{text}\n')
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)


def sync(path):
  """Makes a file, or the renames in a directory, survive a power cut."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def frames_digest(frames):
  """Hashes frames so that their borders count, too.

  Args:
    frames: iterable of bytes.

  Returns:
    str, sha256 in hex of each frame's length (uint32, little endian) and
    bytes, in order.
  """
  digest = hashlib.sha256()
  for frame in frames:
    digest.update(_LENGTH.pack(len(frame)))
    digest.update(frame)
  return digest.hexdigest()


class FramesFile:
  """Writes the frames of one video; a context manager.

  Leaving it normally renames the file into place, leaving it with an
  exception removes it.

  Attributes:
    num_bytes: size of the file so far.
    digest: hashlib object, as in `frames_digest`.
  """

  def __init__(self, path):
    self._path = pathlib.Path(path)
    self._temporary = self._path.with_name(
      f'{self._path.name}.{os.getpid()}.tmp'
    )
    self.num_bytes = 0
    self.digest = hashlib.sha256()

  def __enter__(self):
    with output_errors(self._path):
      self._file = open(self._temporary, 'wb')
    return self

  def write(self, frame):
    """Appends one frame, as bytes."""
    length = _LENGTH.pack(len(frame))
    with output_errors(self._path):
      self._file.write(length)
      self._file.write(frame)
    self.digest.update(length)
    self.digest.update(frame)
    self.num_bytes += len(length) + len(frame)

  def __exit__(self, exception_type, exception, traceback):
    if exception_type is not None:
      with contextlib.suppress(OSError):
        self._file.close()
      self._temporary.unlink(missing_ok=True)
      return
    with output_errors(self._path):
      self._file.flush()
      os.fsync(self._file.fileno())
      self._file.close()
      os.replace(self._temporary, self._path)


def read_frames_file(path, digest):
  """Yields the frames of a file that `FramesFile` wrote, as bytes.

  Those of a damaged file are others; so is the digest then.

  Args:
    path: of the file.
    digest: hashlib object; it is given what is read, as in `frames_digest`.
  """
  with open(path, 'rb') as file:
    num_bytes = os.fstat(file.fileno()).st_size
    while length := file.read(_LENGTH.size):
      frame = file.read(min(int.from_bytes(length, 'little'), num_bytes))
      digest.update(length)
      digest.update(frame)
      yield frame


class Staging:
  """The .staging directory of one output directory."""

  def __init__(self, out):
    self.directory = pathlib.Path(out) / DIRECTORY_NAME
    self._setup_path = self.directory / 'setup.json'

  def frames_path(self, video_id):
    """Returns where the frames of a finished video are."""
    return self.directory / f'{video_id}.frames'

  def record_path(self, video_id):
    """Returns where the record of a finished video is."""
    return self.directory / f'{video_id}.json'

  def exists(self):
    """Tells whether there is such a directory."""
    return self.directory.is_dir()

  def setup(self):
    """Returns what `start` was given, or None before that."""
    return read_json(self._setup_path)

  def has_videos(self):
    """Tells whether videos are finished, or were before shards held them."""
    return any(
      path != self._setup_path for path in self.directory.glob('*.json')
    )

  def start(self, setup):
    """Creates the directory and notes with which settings it is filled."""
    with output_errors(self.directory):
      self.directory.mkdir(parents=True, exist_ok=True)
    write_json(self._setup_path, setup, aside=self.directory)

  def remove_leftovers(self):
    """Removes files that a killed run was in the middle of writing."""
    for path in self.directory.glob('*.tmp'):
      path.unlink(missing_ok=True)

  def record(self, video_id):
    """Returns the record of a finished video, or None."""
    return read_json(self.record_path(video_id))

  def has_frames(self, row):
    """Tells whether there are as many bytes of frames as a row says."""
    path = self.frames_path(row['id'])
    try:
      with read_errors(path):
        size = path.stat().st_size
    except FileNotFoundError:
      return False
    return size == row['num_bytes']

  def forget(self, row):
    """Removes a finished video, so that the next run decodes it again."""
    for path in (self.record_path(row['id']), self.frames_path(row['id'])):
      with output_errors(path):
        path.unlink(missing_ok=True)

  def clear(self):
    """Removes all files, the settings last."""
    for path in self.directory.iterdir():
      if path != self._setup_path:
        path.unlink(missing_ok=True)
    self._setup_path.unlink(missing_ok=True)

  def remove(self):
    """Removes the directory, if it is there."""
    if self.exists():
      with output_errors(self.directory):
        self.clear()
        self.directory.rmdir()


def read_json(path):
  """Reads a JSON file; None where it is missing or damaged."""
  try:
    return json.loads(pathlib.Path(path).read_text('utf-8'))
  except (FileNotFoundError, ValueError, RecursionError):
    return None
