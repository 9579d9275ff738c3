"""What of ours stands for the data sets of the paper, and for its bins."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Role:
  """What stands for a data set of the paper.

  Attributes:
    dataset: its name, as `dataset.name` in results.
    column: the label column; '' takes the only one, or the one called `label`.
    fingerprint: of a prepared data set; '' where it is not known.
    path: of the data set; '' where it is not known.
  """

  dataset: str
  column: str = ''
  fingerprint: str = dataclasses.field(default='', compare=False)
  path: str = dataclasses.field(default='', compare=False)

  def may_be(self, known: Mapping[str, Any]) -> bool:
    """Whether nothing speaks against a data set's being this one.

    Args:
      known: its `fingerprint`, `path` and `name`, as far as a result says them.
        A fingerprint decides: a data set may have been moved, or renamed.
    """
    fingerprint, path, name = map(known.get, ('fingerprint', 'path', 'name'))
    if fingerprint and self.fingerprint:
      return fingerprint == self.fingerprint
    if not (self.path and isinstance(path, str)):
      return not name or name == self.dataset
    is_there = os.path.abspath(path) == os.path.abspath(self.path)
    return is_there or name == self.dataset

  def is_of(self, known: Mapping[str, Any]) -> bool:
    """Whether a result on a data set counts as one on this.

    Args:
      known: as in `may_be`. Where no fingerprint tells, its name must be this.
    """
    if known.get('fingerprint') and self.fingerprint:
      return self.may_be(known)
    return known.get('name') == self.dataset and self.may_be(known)


ROLES = {
  'kinetics': Role('kinetics400'),
  'imagenet': Role('tfds-imagenet2012'),
  'ucf101': Role('ucf101'),
  'hmdb51': Role('hmdb51'),
}
ROLE_TITLES = {
  'kinetics': 'Kinetics',
  'imagenet': 'ImageNet',
  'ucf101': 'UCF101',
  'hmdb51': 'HMDB51',
}
# Frames of a bin in the rows 2bin and 5bin; the official settings.
BINS = {'2bin': 130, '5bin': 52}


def parse_role(text: str) -> tuple[str, Role]:
  """Reads 'kinetics=demo' or 'kinetics=demo:motion'.

  Raises:
    ValueError: naming what is wrong.
  """
  found = re.fullmatch(r'(\w+)=([^:=]+)(?::(.+))?', text)
  if not found or found[1] not in ROLES:
    raise ValueError(
      f'{text!r} is no role; write ROLE=NAME or ROLE=NAME:COLUMN, where ROLE is '
      f'one of {", ".join(ROLES)}.'
    )
  return found[1], Role(found[2], found[3] or '')


def parse_bins(text: str) -> tuple[str, int]:
  """Reads '2bin=24'.

  Raises:
    ValueError: naming what is wrong.
  """
  name, _, frames = text.partition('=')
  if name not in BINS or not frames.isdecimal() or not int(frames):
    raise ValueError(
      f'{text!r} does not say the frames of a bin; write 2bin=24 or 5bin=10.'
    )
  return name, int(frames)


def column_of(role: Role, accuracy: Mapping) -> str | None:
  """The label column of a result that a role is about; None if open."""
  if role.column:
    return role.column if role.column in accuracy else None
  if len(accuracy) == 1:
    return next(iter(accuracy))
  return 'label' if 'label' in accuracy else None
