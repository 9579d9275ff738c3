"""Which of our figures stand in which cells of the paper's tables."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vie_jax.evaluation import (
  cell_results,
  paper_roles,
  paper_tables,
  result_words,
)
from vie_jax.evaluation.found_results import Found, Result, part
from vie_jax.evaluation.paper_tables import Cell

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
    column: of the labels.
  """

  result: Result
  accuracy: Mapping[str, float]
  chance: float | None
  column: str = ''

  @property
  def top1(self) -> float:
    """Of videos, in percent."""
    return 100 * self.accuracy['top1']

  @property
  def top5(self) -> str:
    """Of videos, in words, as `result_words.top5`."""
    return result_words.top5(self.result.facts, self.column, self.accuracy)

  @property
  def error(self) -> float | None:
    """A standard error of `top1`, in percent: that of a share of V videos.

    Of none or all of them it would be 0, whatever V is: there it is how far
    Wilson's interval of one standard error reaches, 1 / (V + 1).

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and
      Statistical Inference", at z = 1.
    """
    num_videos = self._num_judged()
    if num_videos is None:
      return None
    share = self.accuracy['top1']
    if share in (0, 1):
      return 100 / (num_videos + 1)
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


@dataclasses.dataclass(frozen=True, eq=False)
class LeftOut:
  """A result that is none for cells, for what its network started from.

  Attributes:
    result: which.
    reason: as from `cell_results.reason_against`.
    names: of the cells.
  """

  result: Result
  reason: str
  names: Sequence[str]


def _is_count(value: Any) -> bool:
  """Whether it is a number of videos; an integer may have any size."""
  return type(value) is int and 0 <= value < 2**53


@dataclasses.dataclass(frozen=True, eq=False)
class FilledTables:
  """The paper's tables with figures of ours.

  Attributes:
    options: what it was made with.
    fillings: cell name -> our figures, the newest first; cells without any are
      left out.
    found: everything that was read.
    left_out: results that have all that cells look at, but for what their
      networks started from.
  """

  options: Options
  fillings: Mapping[str, list[Filling]]
  found: Found
  left_out: Sequence[LeftOut] = ()

  def newest(self, name: str) -> Filling | None:
    """The newest figure in a cell."""
    return self.fillings[name][0] if name in self.fillings else None


def fill(found: Found, options: Options) -> FilledTables:
  """Puts every result into the cells that it is a result of."""
  fillings = {}
  for cell in paper_tables.CELLS.values():
    inside = []
    for result in found.results:
      accuracy = cell_results.find(
        cell, result.facts, roles=options.roles, bins=options.bins
      )
      if accuracy is not None:
        role = options.roles[cell.wanted.role]
        column = paper_roles.column_of(role, result.facts['accuracy'])
        chance = _chance(result, column)
        inside.append(Filling(result, accuracy, chance, column))
    if inside:
      inside.sort(key=lambda filling: _date(filling.result), reverse=True)
      fillings[cell.name] = inside
  return FilledTables(options, fillings, found, _left_out(found, options))


def _left_out(found: Found, options: Options) -> list[LeftOut]:
  """Results that cells do without, for what their networks started from."""
  left_out = []
  for result in found.results:
    names: dict[str, list[str]] = {}
    for cell in paper_tables.CELLS.values():
      reason = cell_results.reason_against(
        cell, result.facts, roles=options.roles, bins=options.bins
      )
      if reason:
        names.setdefault(reason, []).append(cell.name)
    left_out += [LeftOut(result, *item) for item in names.items()]
  return left_out


def _chance(result: Result, column: str) -> float | None:
  chance = part(result.facts, 'chance').get(column)
  return chance if isinstance(chance, int | float) else None


def _date(result: Result) -> str:
  return str(result.facts.get('date') or '')


def has_data(cell: Cell, options: Options) -> bool:
  """Whether any data set stands for the one that a cell is about."""
  return bool(options.roles[cell.wanted.role].dataset)


def missing(filled: FilledTables) -> list[tuple[list[str], str]]:
  """The cells that no result fills: (names, command that fills them all)."""
  groups: dict[Any, list[str]] = {}
  for cell in paper_tables.CELLS.values():
    is_open = cell.name not in filled.fillings
    if is_open and has_data(cell, filled.options):
      key = (cell.name.split('.')[0], paper_tables.evaluation_of(cell))
      groups.setdefault(key, []).append(cell.name)
  return [
    (names, f'{filled.options.command} {names[0]}') for names in groups.values()
  ]


def unused(filled: FilledTables) -> list[Result]:
  """Results that stand in no cell, such as kNN accuracies."""
  used = {id(filling.result) for filling in _all_fillings(filled)}
  return [r for r in filled.found.results if id(r) not in used]


def unused_figures(filled: FilledTables) -> list[tuple[Result, list]]:
  """Figures that stand in no cell, as `result_words.figures_of`, by result.

  Of a result that stands in some, those of the same label column: other
  columns are none of the paper's.
  """
  used = {id(filling.accuracy) for filling in _all_fillings(filled)}
  found = []
  for result in filled.found.results:
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


def without_figures(filled: FilledTables) -> list[Result]:
  """Results that stand in no cell, as they have no accuracy: embeddings."""
  return [r for r in unused(filled) if not any(r.facts['accuracy'].values())]


def _all_fillings(filled):
  return [it for inside in filled.fillings.values() for it in inside]
