"""Unpacks archives: zip, tar and, with the extra `rar`, rar.

An archive is untrusted input. All names, kinds and sizes are looked at before
the first byte is written: names that lead out of the folder, links, devices,
repeated names and contents far larger than the archive are refused. Whatever
is written is written by this module, never by the library of the format.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import posixpath
import shutil
import stat
import zipfile

from error_words import words_of
from labels_and_splits import InputError
from progress import progress_bar
from staging import OutputError, output_errors, read_json, write_json
from tar_stream import open_tar

# In lower case.
ARCHIVE_SUFFIXES = ('.zip', '.rar', '.tar', '.tgz', '.tar.gz', '.tar.xz')

_MARK = '.extracted.json'
_TEMPORARY = '.extracting.part'
_CHUNK = 2**20
# Videos are compressed already; lists of names shrink to a tenth.
_MAX_RATIO = 100
_SMALL_BYTES = 2**26
_MAX_MEMBERS = 1_000_000
_MAX_TEXT_BYTES = 2**26
_RAR_END = 10
_RAR_ENCRYPTED = 0x04
_RAR_ON_UNIX = 3


@dataclasses.dataclass(frozen=True)
class Member:
  """A member of an archive.

  Attributes:
    name: str, with '/'.
    size: bytes, unpacked.
    is_folder: bool.
    problem: str, why it must not be unpacked, or None.
  """

  name: str
  size: int
  is_folder: bool
  problem: str | None


def is_archive(path):
  """Tells by its name whether a path is that of an archive."""
  return os.fspath(path).lower().endswith(ARCHIVE_SUFFIXES)


def extract_archive(archive, folder):
  """Unpacks an archive and the archives in it; goes on after a kill.

  Args:
    archive: path.
    folder: path of a new or empty folder, or of one that this function was
      given before with the same archive.

  Raises:
    InputError: if the archive is not safe, damaged or of an unknown format,
      or if the folder holds something else.
    OutputError: if the folder cannot be written.
  """
  archive, folder = pathlib.Path(archive), pathlib.Path(folder)
  mark = _mark(archive)
  if read_json(folder / _MARK) == mark | {'complete': True}:
    return
  members = _checked_members(archive)
  with output_errors(folder):
    folder.mkdir(parents=True, exist_ok=True)
    found = read_json(folder / _MARK)
    is_empty = not any(folder.iterdir())
  if found != mark and not is_empty:
    raise InputError(
      f'{folder} is not empty and was not unpacked from {archive}; name '
      'another folder with --extract-to'
    )
  write_json(folder / _MARK, mark, aside=folder)
  _unpack(archive, members, folder)
  inner = {
    name: _checked_members(folder / name)
    for name in sorted(_files(members))
    if is_archive(name)
  }
  _check_apart(archive, members, inner)
  for name, inner_members in inner.items():
    path = folder / name
    _unpack(path, inner_members, path.parent)
  for path in map(folder.joinpath, inner):
    with output_errors(path):
      path.unlink()
  write_json(folder / _MARK, mark | {'complete': True}, aside=folder)


def _files(members):
  return [name for name, member in members.items() if not member.is_folder]


def _check_apart(archive, members, inner):
  """Refuses archives inside of which one would overwrite another's file."""
  owners = {posixpath.normpath(name): archive.name for name in _files(members)}
  for name, inner_members in inner.items():
    for member in _files(inner_members):
      path = posixpath.join(posixpath.dirname(name), member)
      path = posixpath.normpath(path)
      owner = owners.setdefault(path, name)
      if owner != name:
        raise InputError(
          f'{archive} is not unpacked: {owner} and {name} in it both hold '
          f'{path!r}; unpack it yourself and name the folder instead'
        )


def read_texts(place):
  """Reads the .txt files of a folder or an archive, at any depth.

  Args:
    place: path.

  Returns:
    dict from the name of the file, without folders, to str.

  Raises:
    InputError: if they cannot be read, or are no UTF-8.
  """
  place = pathlib.Path(place)
  if place.is_dir():
    with _input_errors(place):
      contents = {
        path.name: path.read_bytes()
        for path in sorted(place.rglob('*.txt'))
        if path.is_file() and not path.name.startswith('.')
      }
  elif is_archive(place):
    contents = _texts_in_archive(place)
  else:
    raise InputError(f'{place} is neither a folder nor an archive')
  texts = {}
  for name, content in contents.items():
    try:
      texts[name] = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
      raise InputError(f'{name} in {place} is not UTF-8') from error
  return texts


def _texts_in_archive(archive):
  members = _checked_members(archive)
  wanted = {
    name: member.size
    for name, member in members.items()
    if name.endswith('.txt') and not _base(name).startswith('.')
  }
  if sum(wanted.values()) > _MAX_TEXT_BYTES:
    raise InputError(f'{archive}: its lists are too large to be lists')
  contents = {}

  @contextlib.contextmanager
  def keep(name, unused_size):
    buffer = io.BytesIO()
    yield buffer.write
    contents[_base(name)] = buffer.getvalue()

  with _input_errors(archive):
    _format(archive).unpack(archive, wanted, keep)
  return contents


def _base(name):
  return name.rpartition('/')[2]


def _mark(archive):
  with _input_errors(archive):
    return {'archive': archive.name, 'bytes': archive.stat().st_size}


def _unpack(archive, members, folder):
  """Writes the members that are not yet there."""
  wanted = {
    name: member.size
    for name, member in members.items()
    if not member.is_folder and not _is_there(folder / name, member.size)
  }
  _check_space(folder, sum(wanted.values()))
  text = f'unpacking {archive.name}'
  with progress_bar(
    text, 'file', len(members), len(members) - len(wanted)
  ) as bar:

    @contextlib.contextmanager
    def write_file(name, size):
      path, temporary = folder / name, folder / _TEMPORARY
      with contextlib.ExitStack() as stack:
        with output_errors(path):
          path.parent.mkdir(parents=True, exist_ok=True)
          file = stack.enter_context(open(temporary, 'wb'))
        yield _Bounded(file, path, size).write
        with output_errors(path):
          file.flush()
      if temporary.stat().st_size != size:
        raise InputError(f'{archive}: {name!r} has not the size it claims')
      with output_errors(path):
        os.replace(temporary, path)
      bar.update()

    with _input_errors(archive):
      _format(archive).unpack(archive, wanted, write_file)


def _is_there(path, size):
  try:
    status = path.lstat()
  except OSError:
    return False
  return stat.S_ISREG(status.st_mode) and status.st_size == size


def _check_space(folder, needed):
  free = shutil.disk_usage(folder).free
  if needed > free:
    raise OutputError(
      f'{folder} needs {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB free'
    )


class _Bounded:
  """A file that takes no more bytes than a member claims to have."""

  def __init__(self, file, path, size):
    self._file = file
    self._path = path
    self._left = size

  def write(self, chunk):
    self._left -= len(chunk)
    if self._left < 0:
      raise InputError(f'{self._path}: larger than the archive says')
    with output_errors(self._path):
      self._file.write(chunk)


def _checked_members(archive):
  """Lists the members of an archive by name; refuses what is not safe."""
  with _input_errors(archive):
    packed_bytes = os.stat(archive).st_size
    listed = _format(archive).members(archive)
  members, total, paths = {}, 0, set()
  for member in listed:
    problem = member.problem or _name_problem(member.name)
    path = posixpath.normpath(member.name)
    if problem is None and path in paths and not member.is_folder:
      problem = 'is there twice'
    paths.add(path)
    if problem:
      raise InputError(
        f'{archive} is not unpacked: its member {member.name!r} {problem}'
      )
    members[member.name] = member
    total += member.size
  if len(members) > _MAX_MEMBERS:
    raise InputError(
      f'{archive} is not unpacked: more than {_MAX_MEMBERS} files'
    )
  if total > _max_bytes(packed_bytes):
    raise InputError(
      f'{archive} is not unpacked: {packed_bytes} bytes would become {total}'
    )
  return members


def _max_bytes(packed_bytes):
  return max(_MAX_RATIO * packed_bytes, _SMALL_BYTES)


def _name_problem(name):
  """Says what is wrong with the name of a member, or None."""
  parts = name.rstrip('/').split('/')
  if not name or name.startswith('/') or ':' in parts[0]:
    return 'has an absolute path'
  if '..' in parts or '\\' in name:
    return 'leads out of the folder'
  if '' in parts or '\0' in name or parts[-1] in (_MARK, _TEMPORARY):
    return 'has a name that cannot be'
  try:
    name.encode()
  except UnicodeEncodeError:
    return 'has a name that is not UTF-8'
  return None


@contextlib.contextmanager
def _input_errors(archive):
  """Turns what goes wrong while reading into one line that names it."""
  try:
    yield
  except (InputError, OutputError):
    raise
  except OSError as error:
    reason = error.strerror or str(error)
    raise InputError(f'{archive} cannot be read: {reason}') from error
  except Exception as error:  # of zlib, lzma, zipfile, tarfile and unrar
    raise InputError(f'{archive} is damaged: {words_of(error)}') from error


def _format(archive):
  name = os.fspath(archive).lower()
  if name.endswith('.zip'):
    return _Zip
  return _Rar if name.endswith('.rar') else _Tar


class _Zip:
  """Zip archives."""

  @staticmethod
  def members(archive):
    with zipfile.ZipFile(archive) as file:
      return [
        Member(info.filename, info.file_size, info.is_dir(), _zip_problem(info))
        for info in file.infolist()
      ]

  @staticmethod
  def unpack(archive, wanted, opened):
    with zipfile.ZipFile(archive) as file:
      for name, size in wanted.items():
        with opened(name, size) as write, file.open(name) as content:
          _copy(content, write)


def _zip_problem(info):
  kind = stat.S_IFMT(info.external_attr >> 16)
  if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
    return 'is a link or a device'
  return 'is encrypted' if info.flag_bits & 1 else None


class _Tar:
  """Tar archives, compressed or not."""

  @staticmethod
  def members(archive):
    with _opened_tar(archive) as file:
      return [
        Member(
          info.name,
          info.size,
          info.isdir(),
          None if info.isreg() or info.isdir() else 'is a link or a device',
        )
        for info in file
        if info.name != '.'
      ]

  @staticmethod
  def unpack(archive, wanted, opened):
    with _opened_tar(archive) as file:
      for info in file:
        if info.name in wanted:
          with opened(info.name, info.size) as write:
            _copy(file.extractfile(info), write)


def _opened_tar(archive):
  # Each member has up to three blocks more than its size, and names.
  return open_tar(archive, max_bytes=2 * _max_bytes(os.stat(archive).st_size))


class _Rar:
  """Rar archives, by the UnRAR library."""

  @staticmethod
  def members(archive):
    return [_rar_member(header) for header in _rar_headers(archive)]

  @staticmethod
  def unpack(archive, wanted, opened):
    for header in _rar_headers(archive, wanted):
      name = header.FileNameW
      with opened(name, wanted[name]) as write:
        errors = []

        def keep(chunk, write=write, errors=errors):
          # An exception would be lost inside of the library.
          try:
            if not errors:
              write(chunk)
          except (InputError, OutputError) as error:
            errors.append(error)

        header.test(keep)
        if errors:
          raise errors[0]


def _rar_headers(archive, wanted=None):
  """Yields the headers of a rar archive, all or those of some names.

  The library's own loop takes a damaged header for the end.
  """
  unrarlib = _unrarlib(archive)
  with unrarlib.RarArchive.open_for_processing(os.fspath(archive)) as opened:
    while True:
      data = unrarlib.RARHeaderDataEx()
      code = unrarlib.RARReadHeaderEx(opened.handle, data)
      if code == _RAR_END:
        return
      if code:
        raise InputError(f'{archive} is damaged, or a part of it is missing')
      header = unrarlib.RarHeader(opened, data)
      if wanted is None:
        yield header
        header.skip()
      elif header.FileNameW in wanted:
        yield header
      else:
        header.skip()


def _unrarlib(archive):
  try:
    from unrar.cffi import unrarlib
  except ImportError:
    raise InputError(
      f'{archive} needs a program for rar archives: "pip install unrar2-cffi", '
      f'or unpack it yourself, with "unrar x {archive}" or "bsdtar -xf '
      f'{archive}", and name the folder instead'
    ) from None
  return unrarlib


def _rar_member(header):
  data = header.headerDataEx
  is_folder = bool(header.Flags & 0x20)
  is_link = bool(data.RedirType) or (
    header.HostOS == _RAR_ON_UNIX and stat.S_ISLNK(data.FileAttr)
  )
  problem = 'is a link' if is_link else None
  if header.Flags & _RAR_ENCRYPTED:
    problem = 'is encrypted'
  size = header.UnpSize + (header.UnpSizeHigh << 32)
  return Member(header.FileNameW, size, is_folder, problem)


def _copy(content, write):
  while chunk := content.read(_CHUNK):
    write(chunk)
