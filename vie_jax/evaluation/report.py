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
import datetime
import importlib.resources
import os
import pathlib
import re
import stat
import sys
from collections.abc import Sequence
from typing import Any

import jinja2

from vie_jax import option_parser
from vie_jax.evaluation import (
  comparisons,
  curve_plots,
  filled_tables,
  found_results,
  gallery_plot,
  paper_orderings,
  paper_roles,
  paper_tables,
  result_words,
)
from vie_jax.evaluation.filled_tables import FilledTables, Filling
from vie_jax.evaluation.paper_tables import Cell
from vie_jax.evaluation.result_words import percent, signed
from vie_jax.standard_output import say
from vie_jax.untrusted import urls
from vie_jax.untrusted.text import printable
from vie_jax.wording import chosen, counted

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


def shortened(names: Sequence[str]) -> list[str]:
  """Names of cells, without what they have in common with the first."""
  first = names[0].rpartition('.')[0]
  return [names[0], *(name.removeprefix(f'{first}.') for name in names[1:])]


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
  environment.filters['counted'] = counted
  environment.filters['chosen'] = chosen
  environment.filters['printable'] = printable
  return environment


def _markdown(value: Any) -> str:
  """Text for a cell of a Markdown table: nothing in it is markup."""
  line = printable(' '.join(str(value).split()))
  return re.sub(r'([\\`*_{}\[\]<>#|~])', r'\\\1', line)


def render(filled: FilledTables, template: str) -> str:
  """Fills a template of this folder, HTML if its name says so."""
  source = importlib.resources.files('vie_jax.evaluation').joinpath(template)
  environment = _environment(is_html='.html.' in template)
  numbers = {
    id(result): number
    for number, result in enumerate(filled.found.results, start=1)
  }
  unused_figures = filled_tables.unused_figures(filled)
  now = datetime.datetime.now(datetime.UTC)
  return environment.from_string(source.read_text('utf-8')).render(
    filled=filled,
    options=filled.options,
    tables=paper_tables.TABLES,
    cells=paper_tables.CELLS,
    number_of=lambda result: numbers[id(result)],
    role_titles=paper_roles.ROLE_TITLES,
    is_replaced=dict(filled.options.roles) != paper_roles.ROLES,
    notes=notes,
    has_data=lambda cell: filled_tables.has_data(cell, filled.options),
    missing=filled_tables.missing(filled),
    unused=filled_tables.unused(filled),
    unused_figures=unused_figures,
    without_figures=filled_tables.without_figures(filled),
    has_recall=any(row[-1] for _, rows in unused_figures for row in rows),
    orderings=[
      (ordering, [comparisons.compare(filled, pair) for pair in ordering.pairs])
      for ordering in paper_orderings.ORDERINGS
    ],
    plots=curve_plots.plots(filled.found.runs),
    layout=gallery_plot.layout,
    paper_text=paper_text,
    difference=difference,
    others=others,
    shortened=shortened,
    result_facts=result_words.result_facts,
    summary=comparisons.summary,
    date=now.isoformat(timespec='seconds'),
  )


def write(
  filled: FilledTables, path: str | pathlib.Path
) -> tuple[pathlib.Path, ...]:
  """Writes the page, and the same as Markdown beside it.

  Args:
    filled: to write.
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
    file.write_text(render(filled, template), encoding='utf-8', newline='\n')
  return page, plain


# The command line.


def _parser() -> option_parser.OptionParser:
  parser = option_parser.OptionParser(
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
    default=filled_tables.COMMAND,
    help='what fills a cell whose name is put behind it '
    f'({filled_tables.COMMAND})',
  )
  add('--title', default=filled_tables.TITLE, help='the headline')
  add('--note', action='append', default=[], help='a paragraph under it')
  return parser


def list_cells(command: str) -> None:
  """Prints every cell's name and the command that fills it."""
  width = max(map(len, paper_tables.CELLS))
  for cell in paper_tables.CELLS.values():
    say(f'{cell.name:{width}}  {command} {cell.name}')


def _is_folder(path: str) -> bool:
  """Whether there is such a folder; one in a closed folder may be there."""
  try:
    return stat.S_ISDIR(os.stat(path).st_mode)
  except PermissionError:
    return True
  except OSError:
    return False


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
  missing = [path for path in options.workdirs if not _is_folder(path)]
  for path in missing:
    print(
      f'{printable(urls.redacted(path))}: there is no such folder.',
      file=sys.stderr,
    )
  if missing:
    return 2
  found = found_results.collect(options.workdirs)
  closed = {folder.name: folder.reason for folder in found.unread}
  for name, reason in closed.items():
    print(
      f'{printable(urls.redacted(name))} cannot be read: {reason}. Give the user '
      'of the report access to it, if there are results in it.',
      file=sys.stderr,
    )
  if closed.keys() & {*options.workdirs}:
    return 2
  filled = filled_tables.fill(
    found,
    filled_tables.Options(
      roles=paper_roles.ROLES | roles,
      bins=paper_roles.BINS | bins,
      command=options.command,
      title=options.title,
      notes=options.note,
    ),
  )
  try:
    files = write(filled, options.out)
  except OSError as error:
    print(
      f'{options.out} cannot be written: {error.strerror}.', file=sys.stderr
    )
    return 2
  for skipped in found.skipped:
    print(f'{skipped.name} {skipped.reason}.', file=sys.stderr)
  for it in filled.left_out:
    print(
      f'{it.result.name} is in no cell, for what its weights started from: '
      f'{printable(it.reason)}.',
      file=sys.stderr,
    )
  num_filled = len(filled.fillings)
  num_unused = len(filled_tables.unused(filled))
  say(
    f'{num_filled} of {len(paper_tables.CELLS)} cells '
    f'{chosen(num_filled, "has", "have")} a result. '
    f'Of {counted(len(found.results), "evaluation")} {num_unused} '
    f'{chosen(num_unused, "is", "are")} in no cell. '
    f'Written: {files[0]} and {files[1]}'
  )
  return 0


if __name__ == '__main__':
  sys.exit(main())
