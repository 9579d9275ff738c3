"""The paper's tables with our figures beside them, as HTML and Markdown.

  python -m vie_jax.evaluation.report W1 W2 ... --out report.html
  python -m vie_jax.evaluation.report --list

A W is a workdir or a folder of workdirs. `--out report.html` writes report.md
beside it. `--list` prints the name of every cell and the command that fills
it. Where other data sets stand for the paper's, say which, with the label
column if there are several, and the frames of a bin:

  python -m vie_jax.evaluation.report W --out report.html \
      --role kinetics=demo:motion --role imagenet=stills --bins 5bin=10
"""

import argparse
import dataclasses
import datetime
import importlib.resources
import math
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from vie_jax.evaluation import (
  cell_results,
  curve_plots,
  found_results,
  gallery_plot,
  paper_orderings,
  paper_roles,
  paper_tables,
  result_words,
)
from vie_jax.evaluation.found_results import Found, Result, part
from vie_jax.evaluation.paper_tables import Cell
from vie_jax.evaluation.result_words import percent, signed
from vie_jax.untrusted.text import printable

TITLE = 'The tables of the paper, and ours'
COMMAND = 'python launch/reproduce.py --plan=paper'


@dataclasses.dataclass(frozen=True)
class Options:
  """What a report needs to know besides the results.

  Attributes:
    roles: what stands for the data sets of the paper; without a name, nothing
      does.
    bins: frames of a bin, by row of table 3.
    command: what a cell's name is put behind to fill it.
    title: the headline.
    notes: paragraphs of plain text under it.
  """

  roles: Mapping[str, paper_roles.Role] = dataclasses.field(
    default_factory=lambda: dict(paper_roles.ROLES)
  )
  bins: Mapping[str, int] = dataclasses.field(
    default_factory=lambda: dict(paper_roles.BINS)
  )
  command: str = COMMAND
  title: str = TITLE
  notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Filling:
  """A figure of ours in a cell.

  Attributes:
    result: that it is from.
    accuracy: `top1` and others, as fractions, and how many were `judged`.
    chance: accuracy without looking, as a fraction; None if not known.
  """

  result: Result
  accuracy: Mapping[str, float]
  chance: float | None

  @property
  def top1(self) -> float:
    """Of videos, in percent."""
    return 100 * self.accuracy['top1']

  @property
  def error(self) -> float | None:
    """A standard error of `top1`, in percent: that of a share of V videos."""
    num_videos = self._num_judged()
    if num_videos is None:
      return None
    share = self.accuracy['top1']
    return 100 * math.sqrt(share * (1 - share) / num_videos)

  def _num_judged(self) -> int | None:
    """V: the videos or images that have a label and were not left out."""
    if 'judged' in self.accuracy:
      judged = self.accuracy['judged']
      return judged if _is_count(judged) and judged else None
    # Results of before do not say how many videos had no label.
    facts = self.result.facts
    val = facts['dataset'].get('val')
    left_out = part(facts, 'left_out').get('val', 0)
    is_known = _is_count(val) and _is_count(left_out) and val > left_out
    return val - left_out if is_known else None


def _is_count(value: Any) -> bool:
  """Whether it is a number of videos; an integer may have any size."""
  return type(value) is int and 0 <= value < 2**53


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
  """A report before it is written down.

  Attributes:
    options: what it was made with.
    fillings: cell name -> our figures, the newest first; cells without any are
      left out.
    found: everything that was read.
  """

  options: Options
  fillings: Mapping[str, list[Filling]]
  found: Found

  def newest(self, name: str) -> Filling | None:
    """The newest figure in a cell."""
    return self.fillings[name][0] if name in self.fillings else None


def make(found: Found, options: Options) -> Report:
  """Puts every result into the cells that it is a result of."""
  fillings = {}
  for cell in paper_tables.CELLS.values():
    inside = []
    for result in found.results:
      accuracy = cell_results.find(
        cell, result.facts, roles=options.roles, bins=options.bins
      )
      if accuracy is not None:
        inside.append(Filling(result, accuracy, _chance(cell, result, options)))
    if inside:
      inside.sort(key=lambda filling: _date(filling.result), reverse=True)
      fillings[cell.name] = inside
  return Report(options, fillings, found)


def _chance(cell: Cell, result: Result, options: Options) -> float | None:
  role = options.roles[cell.wanted.role]
  column = paper_roles.column_of(role, result.facts['accuracy'])
  chance = part(result.facts, 'chance').get(column)
  return chance if isinstance(chance, int | float) else None


def _date(result: Result) -> str:
  return str(result.facts.get('date') or '')


# What a reader sees of a figure.


def paper_text(cell: Cell) -> str:
  """The paper's figure: as printed, with '~' where it is restored."""
  if cell.paper is None:
    return 'illegible'
  decimals = 1 if cell.name.startswith('table2') else 2
  return f'{"~" if cell.note else ""}{cell.paper:.{decimals}f}'


def difference(filling: Filling, cell: Cell) -> str:
  """Ours less the paper's, in points; '' where the paper's is not known."""
  if cell.paper is None:
    return ''
  return signed(filling.top1 - cell.paper)


def others(fillings: Sequence[Filling]) -> str:
  """Says so where a cell has several results; the newest is shown."""
  if len(fillings) < 2:
    return ''
  tops = ', '.join(f'{filling.top1:.1f}' for filling in fillings[1:])
  return f'newest of {len(fillings)}; the others: {tops}'


def notes(table: paper_tables.Table) -> dict[str, list[Cell]]:
  """What is to be known about figures of the paper: note -> its cells."""
  found: dict[str, list[Cell]] = {}
  for cell in table.cells:
    if cell.note:
      found.setdefault(cell.note, []).append(cell)
  return found


def has_data(cell: Cell, options: Options) -> bool:
  """Whether any data set stands for the one that a cell is about."""
  return bool(options.roles[cell.wanted.role].dataset)


def missing(report: Report) -> list[tuple[list[str], str]]:
  """The cells that no result fills: (names, command that fills them all)."""
  groups: dict[Any, list[str]] = {}
  for cell in paper_tables.CELLS.values():
    is_open = cell.name not in report.fillings
    if is_open and has_data(cell, report.options):
      key = (cell.name.split('.')[0], paper_tables.evaluation_of(cell))
      groups.setdefault(key, []).append(cell.name)
  return [
    (names, f'{report.options.command} {names[0]}') for names in groups.values()
  ]


def shortened(names: Sequence[str]) -> list[str]:
  """Names of cells, without what they have in common with the first."""
  first = names[0].rpartition('.')[0]
  return [names[0], *(name.removeprefix(f'{first}.') for name in names[1:])]


def unused(report: Report) -> list[Result]:
  """Results that stand in no cell, such as kNN accuracies."""
  used = {id(filling.result) for filling in _all_fillings(report)}
  return [r for r in report.found.results if id(r) not in used]


def unused_figures(report: Report) -> list[tuple[Result, list]]:
  """Figures that stand in no cell, as `result_words.figures_of`, by result.

  Of a result that stands in some, those of the same label column: other
  columns are none of the paper's.
  """
  used = {id(filling.accuracy) for filling in _all_fillings(report)}
  found = []
  for result in report.found.results:
    columns = {
      column
      for column, by_name in result.facts['accuracy'].items()
      if any(id(figure) in used for figure in by_name.values())
    }
    rows = result_words.figures_of(
      result,
      lambda column, figure, columns=columns: (
        id(figure) not in used and (not columns or column in columns)
      ),
    )
    if rows:
      found.append((result, rows))
  return found


def _all_fillings(report):
  return [it for inside in report.fillings.values() for it in inside]


# The paper's orderings.


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two cells of which the paper has the first higher.

  Attributes:
    pair: their names.
    paper: the paper's difference, in points.
    ours: ours; None while a cell is empty.
    error: a standard error of ours, in points; None where it is not known.
  """

  pair: tuple[str, str]
  paper: float
  ours: float | None = None
  error: float | None = None

  @property
  def verdict(self) -> str:
    """'holds', 'does not hold', 'undecided' or 'not run'."""
    if self.ours is None:
      return 'not run'
    if self.error is not None and abs(self.ours) <= 2 * self.error:
      return 'undecided'
    return 'holds' if self.ours > 0 else 'does not hold'


def compare(report: Report, pair: tuple[str, str]) -> Comparison:
  """Compares the newest figures of two cells."""
  high, low = (paper_tables.CELLS[name] for name in pair)
  fillings = report.newest(high.name), report.newest(low.name)
  paper = high.paper - low.paper
  if None in fillings:
    return Comparison(pair, paper)
  first, second = fillings
  error = None
  if first.error is not None and second.error is not None:
    error = math.hypot(first.error, second.error)
  return Comparison(pair, paper, first.top1 - second.top1, error)


def summary(comparisons: Sequence[Comparison]) -> str:
  """Counts verdicts in words."""
  verdicts = [comparison.verdict for comparison in comparisons]
  return ', '.join(
    f'{verdicts.count(verdict)} {verdict}'
    for verdict in ('holds', 'does not hold', 'undecided', 'not run')
    if verdict in verdicts
  )


# Writing.


def _environment(*, is_html: bool) -> jinja2.Environment:
  # In Markdown the filter md escapes.
  environment = jinja2.Environment(
    autoescape=is_html,  # noqa: S701
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['percent'] = percent
  environment.filters['signed'] = signed
  environment.filters['md'] = _markdown
  environment.filters['printable'] = printable
  return environment


def _markdown(value: Any) -> str:
  """Text for a cell of a Markdown table: nothing in it is markup."""
  line = printable(' '.join(str(value).split()))
  return re.sub(r'([\\`*_{}\[\]<>#|~])', r'\\\1', line)


def render(report: Report, template: str) -> str:
  """Fills a template of this folder, HTML if its name says so."""
  source = importlib.resources.files('vie_jax.evaluation').joinpath(template)
  environment = _environment(is_html='.html.' in template)
  numbers = {
    id(result): number
    for number, result in enumerate(report.found.results, start=1)
  }
  now = datetime.datetime.now(datetime.UTC)
  return environment.from_string(source.read_text('utf-8')).render(
    report=report,
    options=report.options,
    tables=paper_tables.TABLES,
    cells=paper_tables.CELLS,
    number_of=lambda result: numbers[id(result)],
    role_titles=paper_roles.ROLE_TITLES,
    is_replaced=dict(report.options.roles) != paper_roles.ROLES,
    notes=notes,
    has_data=lambda cell: has_data(cell, report.options),
    missing=missing(report),
    unused=unused(report),
    unused_figures=unused_figures(report),
    orderings=[
      (ordering, [compare(report, pair) for pair in ordering.pairs])
      for ordering in paper_orderings.ORDERINGS
    ],
    plots=curve_plots.plots(report.found.runs),
    layout=gallery_plot.layout,
    paper_text=paper_text,
    difference=difference,
    others=others,
    shortened=shortened,
    result_facts=result_words.result_facts,
    summary=summary,
    date=now.isoformat(timespec='seconds'),
  )


def write(report: Report, path: str | pathlib.Path) -> tuple[pathlib.Path, ...]:
  """Writes the page, and the same as Markdown beside it.

  Args:
    report: to write.
    path: of the HTML file; its folder is made if it is missing.

  Returns:
    The two files.
  """
  page = pathlib.Path(path)
  page.parent.mkdir(parents=True, exist_ok=True)
  plain = page.with_suffix('.md')
  for file, template in (
    (page, 'report.html.jinja'),
    (plain, 'report.md.jinja'),
  ):
    file.write_text(render(report, template), encoding='utf-8', newline='\n')
  return page, plain


# The command line.


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m vie_jax.evaluation.report',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('workdirs', nargs='*', metavar='W', help='workdirs, or folders of them')
  add('--out', metavar='FILE.html', help='the page to write')
  add('--list', action='store_true', help='print all cells and leave')
  add(
    '--role',
    action='append',
    default=[],
    metavar='ROLE=NAME[:COLUMN]',
    help='the data set that stands for kinetics, imagenet, ucf101 or hmdb51',
  )
  add(
    '--bins',
    action='append',
    default=[],
    metavar='2bin=FRAMES',
    help='frames of a bin in a row of table 3 (2bin=130, 5bin=52)',
  )
  add(
    '--command',
    default=COMMAND,
    help=f'what fills a cell whose name is put behind it ({COMMAND})',
  )
  add('--title', default=TITLE, help='the headline')
  add('--note', action='append', default=[], help='a paragraph under it')
  return parser


def list_cells(command: str) -> None:
  """Prints every cell's name and the command that fills it."""
  width = max(map(len, paper_tables.CELLS))
  for cell in paper_tables.CELLS.values():
    print(f'{cell.name:{width}}  {command} {cell.name}')


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = _parser()
  options = parser.parse_args(arguments)
  if options.list:
    list_cells(options.command)
    return 0
  if not options.workdirs or not options.out:
    parser.error('name workdirs and --out FILE.html, or --list')
  if not options.out.endswith('.html'):
    parser.error(f'--out is {options.out}; its name must end in .html')
  try:
    roles = dict(map(paper_roles.parse_role, options.role))
    bins = dict(map(paper_roles.parse_bins, options.bins))
  except ValueError as error:
    parser.error(str(error))
  found = found_results.collect(options.workdirs)
  report = make(
    found,
    Options(
      roles=paper_roles.ROLES | roles,
      bins=paper_roles.BINS | bins,
      command=options.command,
      title=options.title,
      notes=options.note,
    ),
  )
  try:
    files = write(report, options.out)
  except OSError as error:
    print(
      f'{options.out} cannot be written: {error.strerror}.', file=sys.stderr
    )
    return 2
  for skipped in found.skipped:
    print(f'{skipped.name} {skipped.reason}.', file=sys.stderr)
  print(
    f'{len(report.fillings)} of {len(paper_tables.CELLS)} cells have a result. '
    f'{len(unused(report))} of {len(found.results)} evaluations are in no cell. '
    f'Written: {files[0]} and {files[1]}'
  )
  return 0


if __name__ == '__main__':
  sys.exit(main())
