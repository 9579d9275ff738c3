"""Files behind a URL, of whatever store or file system fsspec has a backend for.

Requests that fail for a moment are tried again by the backend itself, as
fsspec's configuration says (data/README.md).
"""

import contextlib
import errno
import io
import json
import os
import pathlib
import posixpath
import tempfile

import fsspec
from errors import InputError, words_of
from untrusted import urls

from dataset.staging import OutputError, read_json

# Protocol of a URL -> the package that is its backend.
_PACKAGES = {'s3': 's3fs', 's3a': 's3fs', 'gs': 'gcsfs', 'gcs': 'gcsfs'}


def is_remote(path):
  """Tells whether a path is a URL, of whatever protocol."""
  return '://' in os.fspath(path)


class RemoteFolder:
  """The files below a URL.

  An object store has no folders: what holds nothing is not there.

  Attributes:
    url: str, without '/' at the end.
  """

  def __init__(self, url):
    """Finds the backend; nothing is requested yet.

    Args:
      url: str, such as 's3://bucket/dataset'.

    Raises:
      InputError: if no backend for it is installed, or it has a password.
    """
    problem = urls.problem(url)
    if problem:
      raise InputError(problem)
    self.url = url.rstrip('/')
    try:
      # What lies there is asked for, not remembered.
      self._fs, root = fsspec.url_to_fs(self.url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
      package = _PACKAGES.get(url.partition('://')[0])
      remedy = f'pip install {package}' if package else str(error)
      raise InputError(f'{url} cannot be opened: {remedy}') from error
    # Of what lies in an archive, the archive is opened at once.
    except OSError as error:
      raise InputError(f'{url} cannot be opened: {words_of(error)}') from error
    self._root = root.rstrip('/')

  def __str__(self):
    return self.url

  def __truediv__(self, name):
    return f'{self.url}/{name}'

  def facts(self):
    """Lists what is there.

    Returns:
      dict from name, relative to the URL, to what the backend knows of it,
      'size' in bytes among it.

    Raises:
      OutputError: if it cannot be listed.
    """
    found = {}
    # A bucket that is not there holds nothing.
    with contextlib.suppress(FileNotFoundError), _errors('list', self.url):
      found = self._fs.find(self._root, detail=True)
    prefix = f'{self._root}/'
    return {path.removeprefix(prefix): each for path, each in found.items()}

  def sizes(self):
    """Lists what is there: dict from name to bytes; raises as `facts`."""
    return {name: facts['size'] for name, facts in self.facts().items()}

  def read(self, name):
    """Reads a file whole, as bytes.

    Raises:
      FileNotFoundError: if it is not there.
      OutputError: if it cannot be read.
    """
    with _errors('read', self / name):
      return self._fs.cat_file(f'{self._root}/{name}')

  def read_json(self, name):
    """Reads a JSON file; None where it is missing or damaged."""
    try:
      return json.loads(self.read(name))
    except (FileNotFoundError, ValueError, RecursionError):
      return None

  def write_json(self, name, value):
    """Writes a value as JSON text."""
    text = json.dumps(value, indent=1, sort_keys=True)
    content = f'{text}\n'.encode()
    with _errors('write', self / name):
      self._write(name, lambda file: self._fs.pipe_file(file, content))

  def modified_ns(self, name):
    """Returns when a file was written, by the clock of the store."""
    with _errors('read', self / name):
      time = self._fs.modified(f'{self._root}/{name}')
    return int(time.timestamp() * 1e9)

  def download(self, name, path):
    """Copies a file here.

    Raises:
      FileNotFoundError: if it is not there.
      OutputError: if it cannot be read.
    """
    with _errors('read', self / name):
      self._fs.get_file(f'{self._root}/{name}', os.fspath(path))

  def upload(self, path, name):
    """Copies a file there; it is there whole afterwards, or not at all.

    Raises:
      OutputError: if it cannot be written, or arrives with another size.
    """
    with _errors('write', self / name):
      self._write(name, lambda file: self._fs.put_file(os.fspath(path), file))
      size = self._fs.info(f'{self._root}/{name}')['size']
    expected = os.path.getsize(path)
    if size != expected:
      raise OutputError(
        f'cannot write {self / name}: it has {size} bytes there instead of '
        f'{expected}; run the same command again'
      )

  def _write(self, name, write):
    """Calls `write` with a file; where its folder is missing, makes that.

    An object store needs no folders, but file systems (file, sftp, smb) do.
    """
    file = f'{self._root}/{name}'
    try:
      write(file)
    except OSError as error:
      if not _is_not_there(error):
        raise
      self._make_folders(posixpath.dirname(file))
      write(file)

  def _make_folders(self, folder):
    """Makes a folder and those above it, but never a bucket."""
    parts = folder.split('/')
    # Without '/' in front, the first part is a bucket: 'bucket/sets'.
    for count in range(2, len(parts) + 1):
      above = '/'.join(parts[:count])
      if not self._fs.isdir(above):
        # Another process may have made it meanwhile.
        with contextlib.suppress(FileExistsError):
          self._fs.mkdir(above, create_parents=False)

  def remove(self, names):
    """Removes files, one after the other; those that are gone are gone."""
    for name in names:
      with (
        contextlib.suppress(FileNotFoundError),
        _errors('remove', self / name),
      ):
        self._fs.rm_file(f'{self._root}/{name}')


def place_of(directory):
  """Returns what `/` finds files in: a pathlib.Path or a RemoteFolder."""
  if is_remote(directory):
    return RemoteFolder(directory)
  return pathlib.Path(directory)


def read_json_at(place, name):
  """Reads a JSON file of a place; None where it is missing or damaged."""
  if isinstance(place, RemoteFolder):
    return place.read_json(name)
  return read_json(place / name)


def file_at(place, name):
  """Returns what pyarrow reads a file of a place from; may raise OSError."""
  if isinstance(place, RemoteFolder):
    return io.BytesIO(place.read(name))
  return place / name


@contextlib.contextmanager
def local_file(place, name):
  """Yields the path of a file of a place, or of a copy that goes afterwards.

  Where the file is not there, the path is not, either.
  """
  if not isinstance(place, RemoteFolder):
    yield place / name
    return
  with tempfile.TemporaryDirectory(prefix='vie_jax-') as folder:
    path = pathlib.Path(folder) / 'copy'
    with contextlib.suppress(FileNotFoundError):
      place.download(name, path)
    yield path


def _is_not_there(error):
  # Not all backends raise the class that belongs to the number.
  return isinstance(error, FileNotFoundError) or error.errno == errno.ENOENT


@contextlib.contextmanager
def _errors(what, url):
  """Makes what a backend raises an OutputError.

  A file that is not there is left to the caller; but where something is
  written, it is the bucket that is not there.
  """
  try:
    yield
  # Each backend has its own errors, not all of them OSError.
  except Exception as error:
    if isinstance(error, FileNotFoundError) and what != 'write':
      raise
    raise OutputError(
      f'cannot {what} {url}: {urls.redacted(words_of(error))}'
    ) from error
