"""The figures of a run, `metrics.jsonl`: its name and its readers.

Each line is {"step": int, name: float, ...}, null standing for what is not
finite.
"""

import pathlib
from collections.abc import Iterator

from vie_jax.untrusted import json_text

NAME = 'metrics.jsonl'
# Steps are counted in int32 and are below this, see `train_state`.
_MOST_STEPS = 2**31
# A figure beyond it is none, and an integer may have any number of digits.
_HUGE = 1e300


def read(workdir: str | pathlib.Path) -> Iterator[dict]:
  """Yields {'step': int, name: float, ...} for each line of a run's figures.

  Left out is a last line that a kill cut short, and every other one that is
  no record of a step.
  """
  path = pathlib.Path(workdir) / NAME
  if not path.exists():
    return
  with path.open(encoding='utf-8', errors='replace') as lines:
    for line in lines:
      try:
        record = json_text.loads(line)
      except ValueError:
        continue
      if isinstance(record, dict) and _is_step(record.get('step')):
        yield record


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


def curves(
  workdir: str | pathlib.Path,
) -> dict[str, tuple[list[int], list[float]]]:
  """All figures over time: name -> (steps, values); {} if none can be read.

  Figures that were not finite are left out.
  """
  found: dict[str, tuple[list[int], list[float]]] = {}
  try:
    records = list(read(workdir))
  except OSError:
    return {}
  for record in records:
    step = record.pop('step')
    for name, value in record.items():
      if isinstance(value, int | float) and abs(value) < _HUGE:
        steps, values = found.setdefault(name, ([], []))
        steps.append(step)
        values.append(float(value))
  return found
