"""Text from anybody, such as names of files, for terminals and logs."""


def printable(text: str) -> str:
  r"""Escapes what is no letter, digit or mark: a terminal might obey it.

  Args:
    text: one line; a newline in it becomes `\n`.
  """
  return ''.join(
    char if char.isprintable() else char.encode('unicode_escape').decode()
    for char in text
  )
