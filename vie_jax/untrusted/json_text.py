"""JSON from anybody, of bounded size and depth."""

import contextlib
import gc
import json
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 50
# A list of empty lists takes 21 times as much memory as its text.
MAX_BYTES = 2**22
_MOST_DIGITS = 19


def loads(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> Any:
  """Parses JSON.

  Args:
    text: to parse; bytes are UTF-8.
    max_bytes: it may have.

  Raises:
    ValueError: if it is none, too large, nested deeper than `MAX_DEPTH`, or has a whole
      number of more than 64 bits.
  """
  if len(text) > max_bytes:
    raise ValueError(f'it has {len(text)} bytes, more than {max_bytes}')
  if isinstance(text, bytes):
    text = text.decode('utf-8')
  # Quick, as there may be millions of lines.
  if text.count('[') + text.count('{') <= MAX_DEPTH:
    return _DECODER.decode(text)
  try:
    with _no_garbage_collection():
      value = _DECODER.decode(text)
      is_deep = _is_deep(value)
  except RecursionError:
    is_deep = True
  if is_deep:
    raise ValueError(f'it is nested deeper than {MAX_DEPTH} levels')
  return value


def read(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Any:
  """Reads a file of JSON.

  Args:
    path: of the file.
    max_bytes: it may have.

  Raises:
    OSError: if it cannot be read.
    ValueError: if it is no regular file, too large, or not JSON.
  """
  path = pathlib.Path(path)
  status = path.stat()
  # A pipe would be waited for.
  if not stat.S_ISREG(status.st_mode):
    raise ValueError('it is no regular file')
  if status.st_size > max_bytes:
    raise ValueError(f'it has {status.st_size} bytes, more than {max_bytes}')
  return loads(path.read_bytes(), max_bytes=max_bytes)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
  """Parsed JSON has no cycles; looking for them takes most of the time."""
  was_enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was_enabled:
      gc.enable()


def _number(text):
  # Of any length they are no numbers for anything but Python.
  if len(text) > _MOST_DIGITS:
    raise ValueError(f'it has a number of {len(text)} digits')
  return int(text)


_DECODER = json.JSONDecoder(parse_int=_number)


def _is_deep(value):
  level = [value]
  for _ in range(MAX_DEPTH):
    level = [
      inner
      for outer in level
      if isinstance(outer, dict | list)
      for inner in (outer.values() if isinstance(outer, dict) else outer)
      if isinstance(inner, dict | list)
    ]
    if not level:
      return False
  return True
