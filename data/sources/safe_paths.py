"""Paths that come out of files: none may lead out of its folder."""

import os
import pathlib
import posixpath
import stat


class RefusedPathError(Exception):
  """A path that is not followed; the message says why, in one line."""


def regular_file(root, path):
  """Finds the regular file that a path names, below a folder.

  Args:
    root: str, the folder, without symlinks.
    path: str, relative to it, or absolute and below it.

  Returns:
    (relative, status): str, the path of the file relative to `root`, without
    '..', and os.stat_result; None in place of it where there is no file.

  Raises:
    RefusedPathError: if the path leads out of the folder, by '..', as an absolute
      path or by a symlink, or to something that is not a regular file, or
      cannot be written down.
  """
  if not path.strip():
    raise RefusedPathError('an empty path')
  if '\0' in path:
    raise RefusedPathError('its name holds a zero byte')
  try:
    path.encode()
  except UnicodeEncodeError:
    raise RefusedPathError('its name is not UTF-8') from None
  target = os.path.realpath(os.path.join(root, path))
  if not pathlib.Path(target).is_relative_to(root):
    raise RefusedPathError('leads out of the folder')
  try:
    status = os.stat(target)
  except (FileNotFoundError, NotADirectoryError):
    status = None
  except OSError as error:
    raise RefusedPathError(f'cannot be read: {error.strerror}') from error
  if status is not None and not stat.S_ISREG(status.st_mode):
    raise RefusedPathError('not a regular file')
  if path.startswith('/') or '..' in path.split('/'):
    return os.path.relpath(target, root), status
  return posixpath.normpath(path), status


def escaped(path):
  """Returns a path as text: bytes that are not UTF-8 are written as \\xNN."""
  try:
    return os.fsencode(path).decode('utf-8', 'backslashreplace')
  except UnicodeEncodeError:  # half a character, as JSON can have it
    return path.encode('utf-8', 'backslashreplace').decode()
