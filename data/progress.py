"""The progress bar of all commands, and lines beside it."""

import sys

import tqdm


def progress_bar(text, unit, total, initial=0, *, delay_seconds=0):
  """Shows progress and the time left, on stderr.

  Where stderr is no terminal, a line is written every ten seconds.

  Args:
    text: str, what is done.
    unit: str, the name of one piece of it.
    total: int, number of pieces.
    initial: int, number of pieces done before.
    delay_seconds: after which it is first shown; never, if all is done by then.

  Returns:
    tqdm.tqdm, a context manager with `update`.
  """
  is_terminal = sys.stderr.isatty()
  return tqdm.tqdm(
    desc=text,
    unit=f' {unit}s',
    total=total,
    initial=initial,
    delay=delay_seconds,
    dynamic_ncols=is_terminal,
    mininterval=0.2 if is_terminal else 10,
  )


def write_line(text):
  """Writes a line to stderr, on which a progress bar may be."""
  tqdm.tqdm.write(text, file=sys.stderr)
