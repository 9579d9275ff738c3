"""What a command tells on its standard output."""

import os
import sys


def say(line: str = '') -> None:
  """Shows a line at once, also where output is collected.

  Where nobody reads any more, as behind `| head`, nothing is shown from then on.
  Where it cannot be written, as on a full disk, the command ends in one line.
  """
  try:
    print(line, flush=True)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except OSError as error:
    # Nor could what is left in it be written at the end of Python.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(f'Error: standard output: {error.strerror}')
