"""Numbers with what they count, and names in a row.

What counts is that of the package, vie_jax/wording: the one beside this folder,
whichever is installed.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from vie_jax.wording import chosen, counted

__all__ = ['chosen', 'counted', 'named', 'printable', 'quoted']


def named(names, most):
  """Writes the first of some names, each in quotes.

  Args:
    names: list of str.
    most: how many at most.

  Returns:
    str, such as "'ball', 'cup', ...".
  """
  return ', '.join(
    [quoted(name) for name in names[:most]] + ['...'] * (len(names) > most)
  )


def quoted(name):
  """Writes a name on one line, in the quotes that it does not hold itself."""
  text = printable(name)
  return f'"{text}"' if "'" in text else f"'{text}'"


def printable(text):
  """Escapes what would break a line of text.

  Args:
    text: str.

  Returns:
    str without control characters. Bytes of names that are not UTF-8 are
    as in a Python literal.
  """
  return ''.join(map(_escaped, text))


def _escaped(char):
  if char.isprintable():
    return char
  if '\udc80' <= char <= '\udcff':  # how Python holds such a byte
    return f'\\x{ord(char) - 0xDC00:02x}'
  return char.encode('unicode_escape').decode()
