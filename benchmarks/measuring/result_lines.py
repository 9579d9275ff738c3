"""Figures of a benchmark as JSON lines, with what they were measured on."""

import collections
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import time

_CLOSING_FIELDS = {'benchmark', 'figures', 'is_complete'}
_TEXTS = ('benchmark', 'case', 'variant', 'metric', 'machine')
_FIELDS = {
  *('benchmark', 'case', 'variant', 'metric', 'value', 'ratio_to', 'ratio'),
  *('rounds', 'machine', 'versions'),
}


class Report:
  """Prints one JSON object per figure, and at the end how many there are.

  Args:
    benchmark: name of the script.
    rounds: how often each variant was run.
    packages: names of those whose versions matter, where installed.
    versions: of what else matters, dict of name to version.

  Attributes:
    rounds: likewise.
  """

  def __init__(self, benchmark, *, rounds, packages, versions=None):
    self.rounds = rounds
    self._benchmark = benchmark
    self._num_figures = 0
    self._about = {
      'rounds': rounds,
      'machine': _processor(),
      'versions': _versions(packages) | (versions or {}),
    }

  def add(self, case, variant, metric, value, *, ratio=None, ratio_to=None):
    """Prints one figure.

    Args:
      case: what was done, the same for all variants that are compared.
      variant: by whom, or how.
      metric: what was measured, with its unit.
      value: float, the median of the rounds.
      ratio: float, to the variant `ratio_to`; None if it has none.
      ratio_to: name of that variant, or of what else it is a ratio to; of no
        account without a ratio.
    """
    line = {
      'benchmark': self._benchmark,
      'case': case,
      'variant': variant,
      'metric': metric,
      'value': float(f'{value:.4g}'),
      'ratio_to': None if ratio is None else ratio_to,
      'ratio': None if ratio is None else round(ratio, 3),
    }
    self._num_figures += 1
    print(json.dumps(line | self._about), flush=True)

  def finish(self):
    """Prints that all figures are there; a run that broke off does not."""
    line = {
      'benchmark': self._benchmark,
      'figures': self._num_figures,
      'is_complete': True,
    }
    print(json.dumps(line), flush=True)


def figures(text):
  """Reads what a benchmark has printed, or several have.

  Args:
    text: str, one JSON object a line.

  Returns:
    (lines, is_complete): list of dict, one for each figure, and whether the
    closing lines say that nothing is missing.

  Raises:
    ValueError: if the last line is cut off or does not close a run, or one
      lacks a field, has something else in it than `Report` writes, or does not
      fit the figures before it.
  """
  lines, is_complete, num_open = [], True, 0
  for number, row in enumerate(text.splitlines(), 1):
    try:
      line = json.loads(row)
    except ValueError:
      raise ValueError(f'line {number} is cut off') from None
    _check_fields(line, number)
    if 'is_complete' not in line:
      _check_values(line, number)
      lines.append(line)
      num_open += 1
      continue
    if line['figures'] != num_open:
      raise ValueError(
        f'line {number} closes a run of {line["figures"]} figures, and '
        f'{num_open} are there'
      )
    is_complete, num_open = is_complete and line['is_complete'], 0
  if num_open or not lines:
    raise ValueError('its last line does not say that it is complete')
  return lines, is_complete


def _check_fields(line, number):
  wanted = _FIELDS
  if isinstance(line, dict) and 'is_complete' in line:
    wanted = _CLOSING_FIELDS
  if not isinstance(line, dict) or not wanted <= set(line):
    raise ValueError(
      f'line {number} is no object with {", ".join(sorted(wanted))}'
    )


def _check_values(line, number):
  for kind, is_kind, fields in (
    ('text of one line', _is_text, _TEXTS),
    ('number', _is_number, ('value', 'rounds')),
    ('number or null', _is_number_or_none, ('ratio',)),
    ('object of texts', _is_of_texts, ('versions',)),
  ):
    for field in fields:
      if not is_kind(line[field]):
        raise ValueError(f'line {number}: {field} is no {kind}')
  if line['ratio'] is not None and not _is_text(line['ratio_to']):
    raise ValueError(f'line {number}: ratio_to is no text of one line')


def _is_text(value):
  return isinstance(value, str) and value != '' and value.isprintable()


def _is_number(value):
  is_of_numbers = isinstance(value, (int, float))
  return is_of_numbers and math.isfinite(value)


def _is_number_or_none(value):
  return value is None or _is_number(value)


def _is_of_texts(value):
  return isinstance(value, dict) and all(map(_is_text, value.values()))


def ratio(values, others):
  """The median of the rounds' ratios.

  Args:
    values: floats, one of each round.
    others: likewise, what they are compared with.
  """
  return statistics.median(
    value / other for value, other in zip(values, others, strict=True)
  )


def cpu_seconds(run, is_done=lambda: True):
  """Returns the time of the processor, until no thread works any more.

  Args:
    run: function of nothing.
    is_done: function of nothing, whether what `run` has left to threads is done;
      on a machine in use, threads that stand still may be waiting for their turn.

  Returns:
    float, user and system time of all threads.
  """
  before = time.process_time()
  run()
  while not is_done():
    time.sleep(0.003)
  while True:
    now = time.process_time()
    time.sleep(0.03)
    if time.process_time() - now < 2e-3:
      return time.process_time() - before


def _versions(packages):
  versions = {'python': platform.python_version()}
  for name in packages:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return versions


def _processor():
  name = platform.machine()
  if os.path.exists('/proc/cpuinfo'):
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    models = [line for line in lines if line.startswith('model name')]
    name = models[0].partition(':')[2].strip() if models else name
  return f'{name}, {len(os.sched_getaffinity(0))} cores{_graphics()}'


def _graphics():
  """Names of the GPUs, without opening them as JAX would."""
  try:
    found = subprocess.run(
      ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader'],
      capture_output=True,
      text=True,
      timeout=60,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ''
  if found.returncode:
    return ''
  names = collections.Counter(found.stdout.split('\n'))
  return ''.join(f', {count} x {name}' for name, count in names.items() if name)
