"""Makes docs/benchmarks.md from the committed figures.

  python benchmarks/make_tables.py

Each file of benchmarks/results holds one JSON object per line: benchmark,
case, variant, metric, value, ratio_to, ratio, rounds, machine and versions.
Each pair of benchmark and case becomes a table, of variants by metrics. The
last line closes the run: benchmark, figures (their number) and is_complete. A
file without it was cut off and is refused. One that was cut off and is kept all
the same, until the benchmark is run again, says so: is_complete is false.
"""

import itertools
import pathlib
import sys

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from measuring import result_lines, script

_HERE = pathlib.Path(__file__).resolve().parent
_CUT_OFF = """**This run was cut off before its end.** What its last case lacks was not
measured.
"""
_HEAD = """# Benchmarks

Made by `python benchmarks/make_tables.py` from the files in
`benchmarks/results`. Each value is the median of the rounds of one run, in
which the variants took turns. In brackets: how many times as much as that of
the variant that is named. This is the median of the rounds' ratios, but the
ratio of the medians in `prepare`, for the clips of `input_pipeline` and where a
formula or the plan is named. On a GPU JAX takes memory as it needs it, not three
quarters of it at once, since its peers have some of it, too.

CPU times of calls of a few milliseconds are noise: of one, in `kmeans`, they are
more than all cores have in that time.

What else was timed on a GPU, by scripts of one use, is in
[performance.md](performance.md#on-an-h100).
"""


def page(files):
  """Returns the page of all results.

  Args:
    files: iterable of pathlib.Path of results.

  Returns:
    str, Markdown.

  Raises:
    ValueError: if a file was cut off or has no figures, naming it and the field.
  """
  parts, last_heading = [_HEAD], None
  for path in sorted(files):
    try:
      lines, is_complete = result_lines.figures(path.read_text())
    except ValueError as error:
      raise ValueError(f'{path}: {error}; run the benchmark again') from error
    cut_off = [] if is_complete else [_CUT_OFF]
    for heading, *tables in _sections(lines):
      # Parts of a benchmark that ran one by one have a file each.
      parts += [] if heading == last_heading else [heading]
      parts += [*cut_off, *tables]
      last_heading, cut_off = heading, []
  return '\n'.join(parts)


def _sections(lines):
  """Gives each run of a file a heading, and each case a table."""
  about = ('benchmark', 'machine', 'rounds', 'versions')
  for key, group in itertools.groupby(
    lines, lambda line: [*map(line.get, about)]
  ):
    benchmark, machine, rounds, versions = key
    listed = ', '.join(f'{name} {versions[name]}' for name in sorted(versions))
    heading = (
      f'## {benchmark}: {machine}\n\n'
      f'[benchmarks/{benchmark}.py](../benchmarks/{benchmark}.py) says what is '
      f'compared. {rounds} rounds; {listed}.\n'
    )
    cases = {}
    for line in group:
      cases.setdefault(line['case'], []).append(line)
    yield (
      heading,
      *(
        f'### {_heading(case)}\n\n{_table(of)}\n' for case, of in cases.items()
      ),
    )


def _heading(case):
  """A case with a large letter, unless it begins with the name of a config."""
  is_name = {'_', '/'} & {*case.partition(',')[0]}
  return case if is_name else case[0].upper() + case[1:]


def _table(lines):
  """Lays out the variants of a case as rows, and the metrics as columns."""
  metrics = list(dict.fromkeys(line['metric'] for line in lines))
  rows = {}
  for line in lines:
    rows.setdefault(line['variant'], {})[line['metric']] = _cell(line)
  return '\n'.join(
    [
      f'| | {" | ".join(map(_escaped, metrics))} |',
      f'|---|{"---|" * len(metrics)}',
      *(
        f'| {_escaped(variant)} | '
        f'{" | ".join(cells.get(metric, "") for metric in metrics)} |'
        for variant, cells in rows.items()
      ),
    ]
  )


def _cell(line):
  value = line['value']
  value = f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'
  if line['ratio'] is None:
    return value
  return f'{value} ({line["ratio"]:.2f} x {_escaped(line["ratio_to"])})'


def _escaped(text):
  """Text that does not end a cell of a table."""
  return text.replace('|', r'\|')


def main():
  """Writes the page."""
  script.parser(__doc__).parse_args()
  written = _HERE.parent / 'docs' / 'benchmarks.md'
  try:
    written.write_text(
      page((_HERE / 'results').glob('*.json')), encoding='utf-8'
    )
  except ValueError as error:
    sys.exit(f'Error: {error}.')
  except OSError as error:
    sys.exit(f'Error: {error.filename}: {error.strerror}')


if __name__ == '__main__':
  script.run(main)
