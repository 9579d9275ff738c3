"""Numbers with what they count."""


def counted(number: int, one: str, several: str | None = None) -> str:
  """Writes a number and the noun that fits.

  Args:
    number: how many.
    one: the noun of one.
    several: of any other number; None for `one` with an s.

  Returns:
    Such as '1 video' or '1,200 classes'.
  """
  return f'{number:,} {chosen(number, one, several or f"{one}s")}'


def chosen(number: int, one: str, several: str) -> str:
  """Returns `one` for 1, else `several`."""
  return one if number == 1 else several
