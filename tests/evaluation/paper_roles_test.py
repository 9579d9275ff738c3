"""What stands for the paper's data sets: as written, and its column."""

import pytest

from vie_jax.evaluation import paper_roles
from vie_jax.evaluation.paper_roles import Role


def test_roles_and_bins_are_read():
  assert paper_roles.parse_role('kinetics=demo') == ('kinetics', Role('demo'))
  assert paper_roles.parse_role('imagenet=tfds-x:label') == (
    'imagenet',
    Role('tfds-x', 'label'),
  )
  assert paper_roles.parse_bins('5bin=10') == ('5bin', 10)


@pytest.mark.parametrize('text', ['kinetics', 'kinetic=demo', 'kinetics=', '='])
def test_a_wrong_role_is_named(text):
  with pytest.raises(ValueError, match='is no role; write'):
    paper_roles.parse_role(text)


@pytest.mark.parametrize('text', ['3bin=4', '2bin', '2bin=x', '2bin=0'])
def test_wrong_bins_are_named(text):
  with pytest.raises(ValueError, match='write 2bin='):
    paper_roles.parse_bins(text)


def test_without_a_column_several_are_left_open():
  role = Role('demo')
  assert paper_roles.column_of(role, {'motion': {}}) == 'motion'
  assert paper_roles.column_of(role, {'motion': {}, 'label': {}}) == 'label'
  assert paper_roles.column_of(role, {'motion': {}, 'colour': {}}) is None
  assert paper_roles.column_of(Role('demo', 'size'), {'motion': {}}) is None
