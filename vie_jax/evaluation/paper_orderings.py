"""What the paper's tables say about which network is better than which.

Each ordering is a claim with pairs of cells of `paper_tables`; the report says
of each pair whether it holds in our figures.

Source: as `paper_tables`.
"""

import dataclasses

from vie_jax.evaluation import paper_roles


@dataclasses.dataclass(frozen=True)
class Ordering:
  """Something that the paper's tables say about the order of networks.

  Attributes:
    key: its letter.
    claim: in words.
    pairs: names of (higher, lower) cells.
  """

  key: str
  claim: str
  pairs: tuple[tuple[str, str], ...]


def _conv5(table: str, row: str, role: str) -> str:
  return f'{table}.{row}.{role}.conv5'


_KINETICS_SINGLE = _conv5('table1', 'vie_single', 'kinetics')
_IMAGENET_SINGLE = _conv5('table1', 'vie_single', 'imagenet')
_BOTH = ('kinetics', 'imagenet')
ORDERINGS = (
  Ordering(
    'a',
    'On videos, networks that see several frames beat VIE-Single.',
    tuple(
      (_conv5('table1', row, 'kinetics'), _KINETICS_SINGLE)
      for row in ('vie_trn', 'vie_slow', 'vie_slowfast')
    ),
  ),
  Ordering(
    'b',
    'More frames as input do not explain it: Input-Single falls behind.',
    tuple(
      (
        _conv5('table1', f'vie_{clips}', 'kinetics'),
        _conv5('table4', f'{clips}_input_single', 'kinetics'),
      )
      for clips in ('trn', 'slow', 'slowfast')
    ),
  ),
  Ordering(
    'c',
    'On static images, VIE-Single beats networks that see several frames.',
    tuple(
      (_IMAGENET_SINGLE, _conv5('table1', row, 'imagenet'))
      for row in ('vie_trn', 'vie_3dresnet', 'vie_slow', 'vie_slowfast')
    ),
  ),
  Ordering(
    'd',
    'Two streams are better than either of them, on videos and on images.',
    (
      *(
        (
          _conv5('table1', f'vie_twostream_{end}', 'kinetics'),
          _conv5('table1', row, 'kinetics'),
        )
        for end, row in (('s', 'vie_slow'), ('sf', 'vie_slowfast'))
      ),
      *(
        (_conv5('table1', f'vie_twostream_{end}', 'imagenet'), _IMAGENET_SINGLE)
        for end in ('s', 'sf')
      ),
    ),
  ),
  Ordering(
    'e',
    'Local Aggregation is at least as good as Instance Recognition.',
    tuple(
      (
        _conv5('table1', 'vie_single', role),
        _conv5('table1', 'vie_single_ir', role),
      )
      for role in _BOTH
    ),
  ),
  Ordering(
    'f',
    'More videos help.',
    tuple(
      (_conv5('table3', more, role), _conv5('table3', less, role))
      for role in _BOTH
      for more, less in (
        ('vie_single', 'vie_single_70'),
        ('vie_single_70', 'vie_single_30'),
      )
    ),
  ),
  Ordering(
    'g',
    'Whole videos as instances beat bins of videos.',
    tuple(
      (
        _conv5('table3', 'vie_single', role),
        _conv5('table3', f'vie_single_{bins}', role),
      )
      for role in _BOTH
      for bins in paper_roles.BINS
    ),
  ),
)
