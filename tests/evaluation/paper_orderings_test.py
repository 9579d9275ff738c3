"""What the paper says of its networks is what its tables say."""

from vie_jax.evaluation import paper_orderings
from vie_jax.evaluation.paper_tables import CELLS


def test_the_orderings_hold_in_the_paper():
  assert [ordering.key for ordering in paper_orderings.ORDERINGS] == list(
    'abcdefg'
  )
  for ordering in paper_orderings.ORDERINGS:
    for high, low in ordering.pairs:
      assert CELLS[high].paper > CELLS[low].paper, (high, low)
