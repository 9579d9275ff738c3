"""Text from anybody, such as names of files, for terminals and logs."""

import os

LOCALE_REMEDY = (
  'the locale is not UTF-8, which the path is: set PYTHONUTF8=1, or '
  'LC_ALL=C.UTF-8'
)


def printable(text: str) -> str:
  r"""Escapes what is no letter, digit or mark: a terminal might obey it.

  Args:
    text: one line; a newline in it becomes `\n`.
  """
  return ''.join(
    char if char.isprintable() else char.encode('unicode_escape').decode()
    for char in text
  )


def is_utf8(path: str) -> bool:
  """Whether the bytes of a path are UTF-8, whatever the locale takes them for.

  Args:
    path: as the system gave it, in the encoding of the locale.
  """
  try:
    os.fsencode(path).decode()
  except UnicodeError:
    return False
  return True
