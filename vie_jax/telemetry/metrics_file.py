"""The figures of a run, `metrics.jsonl`: its name and its readers.

Each line is {"step": int, name: float, ...}, null standing for what is not
finite.
"""

import array
import errno
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence

from vie_jax.untrusted import json_text

NAME = 'metrics.jsonl'
# Of a file of anybody: twice what a run of 275,000 steps has that writes a
# kilobyte each, and more lines than the longest run of the paper has steps.
MAX_BYTES = 2**29
MAX_LINES = 2**21
MAX_LINE_BYTES = 2**21
MAX_FIGURES = 10_000
MAX_NAME = 1000
# Of lines that are no figures; each counts for some more, as it takes time.
MAX_USELESS_BYTES = 2**25
_LINE_COST = 64
# Steps are counted in int32 and are below this, see `train_state`.
_MOST_STEPS = 2**31
# A figure beyond it is none, and an integer may have any number of digits.
_HUGE = 1e300
_NUMBERS = (int, float)

Curves = dict[str, tuple[Sequence[int], Sequence[float]]]


class MetricsError(ValueError):
  """A file of figures is larger than one may be; one line."""


def read(workdir: str | os.PathLike) -> Iterator[dict]:
  """Yields {'step': int, name: float, ...} for each line of a run's figures.

  Left out is a last line that a kill cut short, and every other one that is
  no record of a step.

  Raises:
    OSError: if the file is there and cannot be read.
  """
  for line in _lines(pathlib.Path(workdir) / NAME):
    record = _record(line)
    if record is not None:
      yield record


def _lines(path):
  """Yields lines as bytes; for one that is too long, zeros in pieces."""
  if not path.exists():
    return
  _check_kind(path)
  with path.open('rb') as file:
    is_begun = False
    while line := file.readline(MAX_LINE_BYTES):
      is_whole = line.endswith(b'\n') or len(line) < MAX_LINE_BYTES
      yield line if is_whole and not is_begun else bytes(len(line))
      is_begun = not line.endswith(b'\n')


def _check_kind(path):
  mode = path.stat().st_mode
  # A pipe would be waited for.
  if not stat.S_ISREG(mode):
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, 'It is no regular file', str(path))


def _record(line):
  """What a line says; None if it is no record of a step."""
  if not line.lstrip().startswith(b'{'):
    return None
  try:
    record = json_text.loads(line.decode('utf-8', 'replace'))
  except ValueError:
    return None
  return record if _is_step(record.get('step')) else None


def _is_step(value):
  return type(value) is int and 0 <= value < _MOST_STEPS


def curve(
  workdir: str | pathlib.Path, name: str
) -> tuple[list[int], list[float]]:
  """One figure over time: (steps, values); empty lists if never written."""
  points = [
    (record['step'], record[name]) for record in read(workdir) if name in record
  ]
  return [step for step, _ in points], [value for _, value in points]


def curves(workdir: str | os.PathLike) -> Curves:
  """All figures over time of anybody's run; {} if there are none.

  Figures that were not finite are left out.

  Returns:
    Name -> (steps, values), arrays of numbers.

  Raises:
    OSError: if the file is there and cannot be read.
    MetricsError: if it is too large, or much of it is no figures.
  """
  path = pathlib.Path(workdir) / NAME
  if path.exists() and path.stat().st_size > MAX_BYTES:
    raise MetricsError(
      f'it has {path.stat().st_size} bytes, more than {MAX_BYTES}'
    )
  found: Curves = {}
  useless = 0
  for number, line in enumerate(_lines(path)):
    if number == MAX_LINES:
      raise MetricsError(f'it has more than {MAX_LINES} lines')
    record = _record(line)
    if record is None or not _take(record, found):
      useless += len(line) + _LINE_COST
      if useless > MAX_USELESS_BYTES:
        raise MetricsError('most of it is no figures of a run')
  return found


def _take(record, found):
  """Adds a record to curves; False if it has no figures, or more than these."""
  step = record.pop('step')
  has_figures, has_more = False, False
  for name, value in record.items():
    if not isinstance(value, _NUMBERS):
      has_more = has_more or value is not None
    elif -_HUGE < value < _HUGE:
      curve = found.get(name)
      if curve is None:
        if len(found) == MAX_FIGURES or len(name) > MAX_NAME:
          has_more = True
          continue
        curve = found[name] = (array.array('i'), array.array('d'))
      curve[0].append(step)
      curve[1].append(value)
      has_figures = True
  return has_figures and not has_more
