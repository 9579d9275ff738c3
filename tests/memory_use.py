"""How much memory this process has had, on Linux."""

import pathlib


def most_bytes():
  """The most memory that this process has had since it was forgotten."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  (most,) = (line for line in lines if line.startswith('VmHWM:'))
  return int(most.split()[1]) * 1024


def forget_most_bytes():
  """Lets `most_bytes` begin anew with what the process has now."""
  pathlib.Path('/proc/self/clear_refs').write_text('5')
