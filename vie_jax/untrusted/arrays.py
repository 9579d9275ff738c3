"""NumPy files from anybody: plain numbers and texts, no Python objects.

Nothing is allocated before the file was seen to hold it. A header of some
bytes can claim an array of any size, and a compressed member of an .npz can
become a thousand times as large.
"""

import math
import os
import pathlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

# Bytes in memory for each byte of the file; nothing below the second limit is
# too much.
MAX_RATIO = 100
SMALL_BYTES = 2**26

_CHUNK = 2**20
_MAX_SIDE = 2**48
_SUFFIX = '.npy'
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


class ArraysError(ValueError):
  """A NumPy file is damaged, or not one of plain arrays; one line."""


def read_npz(
  path: str | os.PathLike[str],
  is_wanted: Callable[[str], bool] = lambda name: True,
) -> dict[str, np.ndarray]:
  """Reads arrays of an .npz file, as `numpy.savez` writes it.

  Args:
    path: of the file.
    is_wanted: name of an array -> whether to read it.

  Returns:
    Name -> array, of those that are wanted.

  Raises:
    FileNotFoundError: if there is no such file.
    ArraysError: in one line, without the name of the file.
  """
  packed = _regular_size(path)
  try:
    with zipfile.ZipFile(path) as archive:
      members = _members(archive, is_wanted)
      total = sum(info.file_size for info in members.values())
      if total > max(MAX_RATIO * packed, SMALL_BYTES):
        raise ArraysError(
          f'its {packed} bytes would become {total}; write it with numpy.savez, '
          'which does not compress'
        )
      return {
        name: _read_member(archive, name, info)
        for name, info in members.items()
      }
  except ArraysError:
    raise
  except (
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    raise ArraysError(_one_line(error)) from error


def open_npy(path: str | os.PathLike[str]) -> np.memmap | np.ndarray:
  """Opens an .npy file without reading its array into memory.

  Args:
    path: of the file.

  Raises:
    FileNotFoundError: if there is no such file.
    ArraysError: in one line, without the name of the file.
  """
  size = _regular_size(path)
  try:
    with open(path, 'rb') as file:
      _read_header(file, size)
    return np.load(path, mmap_mode='r', allow_pickle=False)
  except ArraysError:
    raise
  except (EOFError, OSError, ValueError) as error:
    raise ArraysError(_one_line(error)) from error


def _regular_size(path):
  try:
    status = pathlib.Path(path).stat()
  except FileNotFoundError:
    raise
  except (OSError, ValueError) as error:
    raise ArraysError(_one_line(error)) from error
  # A pipe would be waited for.
  if not stat.S_ISREG(status.st_mode):
    raise ArraysError('it is no regular file')
  return status.st_size


def _members(archive, is_wanted):
  """Name of an array -> its member, of those that are wanted."""
  members = {}
  for info in archive.infolist():
    name = info.filename.removesuffix(_SUFFIX)
    if name == info.filename or not is_wanted(name):
      continue
    if name in members:
      raise ArraysError(f'it has two arrays named {name!r}')
    if info.compress_type not in _METHODS or info.flag_bits & _ENCRYPTED:
      raise ArraysError(f'{name!r} is compressed in a way that NumPy is not')
    members[name] = info
  return members


def _read_member(archive, name, info):
  with archive.open(info) as file:
    try:
      shape, is_fortran, dtype = _read_header(file, info.file_size)
    except ArraysError as error:
      raise ArraysError(f'{name!r}: {error}') from error
    flat = np.empty(math.prod(shape), dtype)
    target = memoryview(flat.view(np.uint8)) if flat.nbytes else b''
    start = 0
    while chunk := file.read(_CHUNK):
      target[start : start + len(chunk)] = chunk
      start += len(chunk)
  return flat.reshape(shape, order='F' if is_fortran else 'C')


def _read_header(file, num_bytes):
  """Reads the header of an array; refuses what does not fit to the bytes.

  Returns:
    (shape, is_fortran, dtype).
  """
  try:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
      raise ArraysError(f'it has the version {version} of the format')
    shape, is_fortran, dtype = _HEADERS[version](file)
  except ArraysError:
    raise
  # The header is a Python literal: of its parser TokenError, RecursionError ...
  except Exception as error:
    raise ArraysError(_one_line(error)) from error
  if dtype.hasobject:
    raise ArraysError('it holds Python objects, which are not loaded')
  # Elements of no bytes could be any number.
  if not dtype.itemsize or not _is_shape(shape):
    raise ArraysError(f'its header claims {str(shape)[:100]} of {dtype}')
  claimed = math.prod(shape) * dtype.itemsize
  found = num_bytes - file.tell()
  if claimed != found:
    raise ArraysError(f'its header claims {claimed} bytes, it has {found}')
  return shape, is_fortran, dtype


def _is_shape(shape):
  # A side of True is an int, too. NumPy refuses sides beyond any memory also
  # where another one is 0.
  return len(shape) <= 32 and all(
    type(side) is int and 0 <= side < _MAX_SIDE for side in shape
  )


def _one_line(error):
  text = ' '.join(str(error).split())[:200].rstrip('.')
  return text or type(error).__name__
