"""Numbers with what they count, and names in a row."""


def counted(number, one, several=None):
  """Writes a number and the noun that fits.

  Args:
    number: int.
    one: str, the noun of one.
    several: str, of any other number; None for `one` with an s.

  Returns:
    str, such as '1 video' or '1,200 classes'.
  """
  return f'{number:,} {chosen(number, one, several or f"{one}s")}'


def chosen(number, one, several):
  """Returns `one` for 1, else `several`."""
  return one if number == 1 else several


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
