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

from vie_jax.evaluation import found_results, gallery_plot, paper_tables
from vie_jax.evaluation.found_results import Found, Result, Run
from vie_jax.evaluation.paper_tables import Cell, part
from vie_jax.untrusted import urls
from vie_jax.untrusted.text import printable

TITLE = 'The tables of the paper, and ours'
COMMAND = 'python launch/reproduce.py --plan=paper'
# Enough for the eye, and a page of a hundred plots stays small.
_MOST_POINTS = 160
_MINUS = '\N{MINUS SIGN}'


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

  roles: Mapping[str, paper_tables.Role] = dataclasses.field(
    default_factory=lambda: dict(paper_tables.ROLES)
  )
  bins: Mapping[str, int] = dataclasses.field(
    default_factory=lambda: dict(paper_tables.BINS)
  )
  command: str = COMMAND
  title: str = TITLE
  notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Filling:
  """A figure of ours in a cell.

  Attributes:
    result: that it is from.
    accuracy: `top1` and others, as fractions.
    chance: of always naming one class, as a fraction; None if not known.
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
    num_videos = self.result.facts['dataset'].get('val')
    if not isinstance(num_videos, int) or num_videos < 1:
      return None
    share = self.accuracy['top1']
    return 100 * math.sqrt(share * (1 - share) / num_videos)


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
      accuracy = paper_tables.find(
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
  column = paper_tables.column_of(role, result.facts['accuracy'])
  chance = part(result.facts, 'chance').get(column)
  return chance if isinstance(chance, int | float) else None


def _date(result: Result) -> str:
  return str(result.facts.get('date') or '')


# What a reader sees of a figure.


def percent(value: Any) -> str:
  """A share as percent with one decimal; '' if there is none."""
  is_number = isinstance(value, int | float) and math.isfinite(value)
  return f'{100 * value:.1f}' if is_number else ''


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
  return f'{filling.top1 - cell.paper:+.1f}'.replace('-', _MINUS)


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


def text(value: Any) -> str:
  """Any value of a result in words; '' for nothing."""
  if value is None:
    return ''
  if isinstance(value, Mapping):
    return ', '.join(f'{name} {text(v)}' for name, v in value.items())
  if isinstance(value, list | tuple):
    return ', '.join(map(text, value))
  return f'{value:,}' if type(value) is int and value > 9999 else str(value)


def result_facts(result: Result) -> dict[str, str]:
  """What is to be known about a result, besides its figures."""
  facts = result.facts
  network, dataset = facts['network'], facts['dataset']
  views, hardware = part(facts, 'views'), part(facts, 'hardware')
  clip, trained_on = part(network, 'input'), part(network, 'trained_on')
  on = [
    trained_on.get('name') or urls.shown(text(trained_on.get('path'))),
    f'{100 * trained_on["share"]:.0f} %'
    if isinstance(trained_on.get('share'), int | float)
    and trained_on['share'] != 1
    else '',
    f'bins of {trained_on["bin_frames"]} frames'
    if trained_on.get('bin_frames')
    else '',
  ]
  counts = f'{text(dataset.get("train"))} / {text(dataset.get("val"))}'
  return {
    'folder': result.name,
    'mode': text(facts['mode']),
    'network': text(network.get('name')),
    'training': text(network.get('training')).replace('_', ' '),
    'trained on': ', '.join(filter(None, map(text, on))),
    'checkpoint step': text(network.get('step')),
    'input': (
      f'{text(clip.get("sampler"))}, {text(clip.get("num_frames"))} x '
      f'{text(clip.get("size"))} px'
    ),
    'data set': text(dataset.get('name')),
    'train / val': counts,
    'split': text(dataset.get('split') or 'val'),
    'views': (
      f'{text(views.get("clips"))} clips, {text(views.get("crop"))} crop, '
      f'mean {text(views.get("average"))}'
      if views
      else ''
    ),
    'augmentation': text(part(facts, 'settings').get('augmentation')).replace(
      '_', ' '
    ),
    'steps': text(facts.get('steps')),
    'seed': text(facts.get('seed')),
    'seconds': text(facts.get('seconds')),
    'hardware': ', '.join(
      filter(
        None,
        (
          text(hardware.get('devices')),
          f'{hardware["cores"]} cores' if 'cores' in hardware else '',
          text(hardware.get('machine')),
        ),
      )
    ),
    'commit': text(facts.get('commit')),
    # To the minute; dates are in UTC.
    'date': text(facts.get('date'))[:16].replace('T', ' '),
  }


def unused(report: Report) -> list[Result]:
  """Results that stand in no cell, such as kNN accuracies."""
  used = {
    id(filling.result)
    for inside in report.fillings.values()
    for filling in inside
  }
  return [r for r in report.found.results if id(r) not in used]


def all_figures(result: Result) -> list[tuple[str, str, str, str]]:
  """(what, top-1, top-5, clip top-1) of everything in a result."""
  return [
    (
      f'{column}, {name}',
      percent(figures['top1']),
      percent(figures.get('top5')),
      percent(figures.get('clip_top1')),
    )
    for column, by_name in result.facts['accuracy'].items()
    for name, figures in by_name.items()
  ]


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


def signed(value: float) -> str:
  """A difference in points with its sign."""
  return f'{value:+.1f}'.replace('-', _MINUS)


def summary(comparisons: Sequence[Comparison]) -> str:
  """Counts verdicts in words."""
  verdicts = [comparison.verdict for comparison in comparisons]
  return ', '.join(
    f'{verdicts.count(verdict)} {verdict}'
    for verdict in ('holds', 'does not hold', 'undecided', 'not run')
    if verdict in verdicts
  )


# Curves.


@dataclasses.dataclass(frozen=True, eq=False)
class Plot:
  """One small plot of a run.

  Attributes:
    title: name of the run.
    y_label: the quantity and its unit.
    series: name -> (steps, values).
    references: heights of horizontal lines by name.
    y_range: shared with the plots beside it.
  """

  title: str
  y_label: str
  series: Mapping[str, tuple[list[float], list[float]]]
  references: Mapping[str, float]
  y_range: tuple[float, float]


def _thinned(curve, scale):
  steps, values = curve
  count = len(steps)
  if count > _MOST_POINTS:
    keep = [
      round(i * (count - 1) / (_MOST_POINTS - 1)) for i in range(_MOST_POINTS)
    ]
  else:
    keep = range(count)
  return [steps[i] for i in keep], [scale * values[i] for i in keep]


def _kind(run: Run) -> str:
  """What a run is, to put its curves beside those of its like."""
  if run.result:
    name = text(run.result.facts['dataset'].get('name'))
    return f'{run.result.facts["mode"].replace("_", " ")} on {name}'
  if any(name.startswith('val/') for name in run.curves):
    return 'not finished'
  return 'pretraining'


def _quantities(run: Run) -> dict[str, dict[str, tuple]]:
  """y label -> series of one run."""
  found: dict[str, dict[str, tuple]] = {}
  if 'train/loss' in run.curves:
    found['training loss, nats'] = {
      'loss': _thinned(run.curves['train/loss'], 1)
    }
  for name, curve in run.curves.items():
    knn = re.fullmatch(r'knn/(.+)_top1', name)
    val = re.fullmatch(r'val/(.+)_([^_]+)_top1', name)
    if knn and not name.endswith('_clip_top1'):
      label = 'kNN accuracy, %'
      found.setdefault(label, {})[knn[1]] = _thinned(curve, 100)
    elif val and not name.endswith('_clip_top1'):
      label = f'accuracy on {val[1]}, %'
      found.setdefault(label, {})[val[2]] = _thinned(curve, 100)
  return found


def plots(runs: Sequence[Run]) -> dict[str, dict[str, list[Plot]]]:
  """Plots of all runs: kind of run -> quantity -> one plot for each run.

  Plots of one quantity and kind have one y axis, so that runs compare.
  """
  grouped: dict[str, dict[str, list[tuple[Run, dict]]]] = {}
  for run in runs:
    for label, series in _quantities(run).items():
      grouped.setdefault(_kind(run), {}).setdefault(label, []).append(
        (run, series)
      )
  order = ('pretraining', 'supervised', 'linear', 'finetune')

  def position(kind):
    begins = [kind.startswith(name) for name in order]
    return (begins.index(True) if any(begins) else len(order), kind)

  return {
    kind: {
      label: _plots(label, members) for label, members in grouped[kind].items()
    }
    for kind in sorted(grouped, key=position)
  }


def _plots(label: str, members: Sequence[tuple[Run, dict]]) -> list[Plot]:
  is_accuracy = label.endswith('%')
  references = [_references(run, label) for run, _ in members]
  points = gallery_plot.finite_points(
    {
      f'{number} {name}': curve
      for number, (_, series) in enumerate(members)
      for name, curve in series.items()
    }
  )
  heights = {
    f'{number} {name}': value
    for number, lines in enumerate(references)
    for name, value in lines.items()
  }
  low, high = gallery_plot.value_range(points, heights)
  y_range = (0.0, min(high, 100.0)) if is_accuracy else (low, high)
  return [
    Plot(run.name, label, series, lines, y_range)
    for (run, series), lines in zip(members, references, strict=True)
  ]


def _references(run: Run, label: str) -> dict[str, float]:
  if not run.result or not label.endswith('%'):
    return {}
  column = label.removeprefix('accuracy on ').removesuffix(', %')
  chance = part(run.result.facts, 'chance').get(column)
  return {'chance': 100 * chance} if isinstance(chance, int | float) else {}


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
    role_titles=paper_tables.ROLE_TITLES,
    is_replaced=dict(report.options.roles) != paper_tables.ROLES,
    notes=notes,
    has_data=lambda cell: has_data(cell, report.options),
    missing=missing(report),
    unused=unused(report),
    orderings=[
      (ordering, [compare(report, pair) for pair in ordering.pairs])
      for ordering in paper_tables.ORDERINGS
    ],
    plots=plots(report.found.runs),
    layout=gallery_plot.layout,
    paper_text=paper_text,
    difference=difference,
    others=others,
    shortened=shortened,
    result_facts=result_facts,
    all_figures=all_figures,
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
    roles = dict(map(paper_tables.parse_role, options.role))
    bins = dict(map(paper_tables.parse_bins, options.bins))
  except ValueError as error:
    parser.error(str(error))
  found = found_results.collect(options.workdirs)
  report = make(
    found,
    Options(
      roles=paper_tables.ROLES | roles,
      bins=paper_tables.BINS | bins,
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
    f'Written: {files[0]} and {files[1]}'
  )
  return 0


if __name__ == '__main__':
  sys.exit(main())
