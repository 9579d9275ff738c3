"""Unpacks archives of the kinds that `archive_formats` knows.

An archive is untrusted input. All names, kinds and sizes are looked at before
the first byte is written: names that lead out of the folder, links, devices,
repeated names and contents far larger than the archive are refused. Whatever
is written is written by this module, never by the library of the format.
"""

import contextlib
import io
import os
import pathlib
import posixpath
import shutil
import stat
import sys

from dataset.folder_lock import TOKEN, locked_in_turn, remove_leftovers
from dataset.staging import OutputError, output_errors, read_json, write_json
from errors import InputError, words_of
from progress import progress_bar

from sources import archive_formats

# In lower case.
ARCHIVE_SUFFIXES = ('.zip', '.rar', '.tar', '.tgz', '.tar.gz', '.tar.xz')

_MARK = '.extracted.json'
# With the token of the process between them.
_TEMPORARY = '.extracting', '.part'
# Folders of a member, and letters of each: file systems take no more of these.
_MAX_DEPTH, _MAX_NAME = 64, 255
_MAX_MEMBERS = 1_000_000
_MAX_TEXT_BYTES = 2**26


def is_archive(path):
  """Tells by its name whether a path is that of an archive."""
  return os.fspath(path).lower().endswith(ARCHIVE_SUFFIXES)


def extract_archive(archive, folder):
  """Unpacks an archive and the archives in it; goes on after a kill.

  What was unpacked before is kept, and that is printed.

  Args:
    archive: path.
    folder: path of a new or empty folder, or of one that this function was
      given before with the same archive.

  Raises:
    InputError: if the archive is not safe, damaged or of an unknown format, if
      the folder holds something else, or what another archive of that name
      held, by its size or the time of its last change.
    OutputError: if the folder cannot be written.
  """
  archive, folder = pathlib.Path(archive), pathlib.Path(folder)
  mark = _mark(archive)
  if _is_unpacked(archive, folder, mark):
    return
  members = _checked_members(archive)
  with locked_in_turn(folder) as is_alone:
    # By the run that was waited for.
    if _is_unpacked(archive, folder, mark):
      return
    if is_alone:
      remove_leftovers(folder, '*'.join(_TEMPORARY), f'{_MARK}.*.tmp')
    _extract(archive, members, folder, mark)


def _is_unpacked(archive, folder, mark):
  """Tells whether nothing is left to do, and prints it."""
  if _found_mark(folder, mark) != mark | {'complete': True}:
    return False
  print(
    f'Note: {folder} was unpacked from {archive} before and is used as it '
    'is; to have it unpacked again, remove that folder.',
    file=sys.stderr,
  )
  return True


def _extract(archive, members, folder, mark):
  """Unpacks into a folder that is locked."""
  with output_errors(folder):
    found = _found_mark(folder, mark)
    is_empty = not any(folder.iterdir())
  if found != mark and not is_empty:
    raise InputError(_mismatch(folder, found, archive))
  write_json(folder / _MARK, mark, aside=folder)
  _unpack(archive, members, folder, folder)
  inner = {
    name: _checked_members(folder / name)
    for name in sorted(_files(members))
    if is_archive(name)
  }
  _check_apart(archive, members, inner)
  for name, inner_members in inner.items():
    path = folder / name
    _unpack(path, inner_members, path.parent, folder)
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
  if path := _file_and_folder(owners):
    raise InputError(
      f'{archive} is not unpacked: in it {path!r} is a file of {owners[path]}, '
      'and a folder; unpack it yourself and name the folder instead'
    )


def read_texts(place):
  """Reads the .txt files of a folder or an archive, at any depth.

  Args:
    place: path.

  Returns:
    dict from the name of the file, without folders, to str.

  Raises:
    InputError: if they cannot be read, are no UTF-8, or two of one name differ.
  """
  place = pathlib.Path(place)
  if place.is_dir():
    with _input_errors(place):
      contents = {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in sorted(place.rglob('*.txt'))
        if path.is_file() and not path.name.startswith('.')
      }
  elif is_archive(place):
    contents = _texts_in_archive(place)
  elif place.suffix == '.txt' and place.is_file():
    raise InputError(
      f'{place} is one list, and all are needed; name their folder, '
      f'{place.parent}'
    )
  else:
    raise InputError(
      f'{place} is neither a folder nor an archive of a kind that is read '
      f'({" ".join(ARCHIVE_SUFFIXES)})'
    )
  texts, first = {}, {}
  for path, content in contents.items():
    name = _base(path)
    other = first.setdefault(name, path)
    is_list = 'readme' not in name.lower()
    if is_list and content != contents[other]:
      raise InputError(
        f'{place} holds two lists called {name} that differ, {other} and '
        f'{path}; name a folder with one of them'
      )
    try:
      texts[name] = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
      raise InputError(f'{path} in {place} is not UTF-8') from error
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
    contents[name] = buffer.getvalue()

  with _input_errors(archive):
    archive_formats.format_of(archive).unpack(archive, wanted, keep)
  return contents


def _base(name):
  return name.rpartition('/')[2]


def _mark(archive):
  with _input_errors(archive):
    status = archive.stat()
  # Archives of equal sizes are common: those of tar are rounded up.
  return {
    'archive': archive.name,
    'bytes': status.st_size,
    'mtime_ns': status.st_mtime_ns,
  }


def _found_mark(folder, mark):
  """Reads the mark of a folder; one of before has no time, and so any."""
  found = read_json(folder / _MARK)
  if not isinstance(found, dict):
    return found
  return {'mtime_ns': mark['mtime_ns']} | found


def _mismatch(folder, found, archive):
  """Says why a folder with some mark is not that of an archive."""
  if isinstance(found, dict) and found.get('archive') == archive.name:
    return (
      f'{archive} has another size or time than the one that {folder} was '
      'unpacked from; remove that folder to have it unpacked again, or name '
      'another with --extract-to'
    )
  return (
    f'{folder} is not empty and was not unpacked from {archive}; name another '
    'folder with --extract-to'
  )


def _unpack(archive, members, folder, aside):
  """Writes the members that are not yet there, each in `aside` first."""
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
      path = folder / name
      temporary = aside / f'.{TOKEN}'.join(_TEMPORARY)
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
      archive_formats.format_of(archive).unpack(archive, wanted, write_file)


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
    listed = archive_formats.format_of(archive).members(archive)
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
  if total > archive_formats.max_bytes(packed_bytes):
    raise InputError(
      f'{archive} is not unpacked: {packed_bytes} bytes would become {total}'
    )
  _check_tree(archive, members)
  return members


def _check_tree(archive, members):
  files = [posixpath.normpath(name) for name in _files(members)]
  if not files:
    raise InputError(
      f'{archive} is not unpacked: no file is found in it; if there should be '
      'some, it is damaged: copy or download it again'
    )
  folders = [
    posixpath.normpath(name) for name in {*members} - {*_files(members)}
  ]
  if path := _file_and_folder(files, folders):
    raise InputError(
      f'{archive} is not unpacked: {path!r} in it is a file and a folder'
    )


def _file_and_folder(files, folders=()):
  """The first path that is one of a file and of a folder, or None."""
  taken = {
    str(parent)
    for path in files
    for parent in pathlib.PurePosixPath(path).parents
  }
  return min(taken.union(folders).intersection(files), default=None)


def _name_problem(name):
  """Says what is wrong with the name of a member, or None."""
  parts = name.rstrip('/').split('/')
  if not name or name.startswith('/') or ':' in parts[0]:
    return 'has an absolute path'
  if '..' in parts or '\\' in name:
    return 'leads out of the folder'
  if '' in parts or '\0' in name or _is_own_name(parts[-1]):
    return 'has a name that cannot be'
  if len(parts) > _MAX_DEPTH or len(max(parts, key=len)) > _MAX_NAME:
    return 'has a name that is too long'
  try:
    name.encode()
  except UnicodeEncodeError:
    return 'has a name that is not UTF-8'
  return None


def _is_own_name(name):
  start, end = _TEMPORARY
  return name.startswith(_MARK) or (
    name.startswith(start) and name.endswith(end)
  )


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
  except NotImplementedError as error:
    raise InputError(
      f'{archive} is of a kind that is not read: {words_of(error)}; '
      f'{archive_formats.UNPACK_IT}'
    ) from error
  except Exception as error:  # of zlib, lzma, zipfile, tarfile and unrar
    raise InputError(f'{archive} is damaged: {words_of(error)}') from error
