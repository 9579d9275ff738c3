"""Whether the paper's orderings hold in our figures."""

import dataclasses
import math
from collections.abc import Sequence

from vie_jax.evaluation import paper_tables
from vie_jax.evaluation.filled_tables import FilledTables


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


def compare(filled: FilledTables, pair: tuple[str, str]) -> Comparison:
  """Compares the newest figures of two cells."""
  high, low = (paper_tables.CELLS[name] for name in pair)
  fillings = filled.newest(high.name), filled.newest(low.name)
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
