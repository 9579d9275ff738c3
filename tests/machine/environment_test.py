import json

import jax
import pytest

from vie_jax import sharding
from vie_jax.machine import environment


def described(**changes):
  return {**environment.describe(sharding.make_mesh(1)), **changes}


def test_it_says_what_numbers_depend_on(monkeypatch):
  monkeypatch.setenv('NPROC', '3')
  monkeypatch.setenv('XLA_FLAGS', '--xla_b=1 --xla_dump_to=/home/me --xla_a')
  found = json.loads(json.dumps(environment.describe(sharding.make_mesh(8))))
  assert found['jax'] == jax.__version__
  for package in ('jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy'):
    assert found[package][0].isdigit()
  assert found['XLA_FLAGS'] == '--xla_a --xla_b=1'
  assert (found['platform'], found['devices'], found['processes']) == (
    'cpu',
    8,
    1,
  )
  assert found['NPROC'] == '3'
  assert found['cores'] >= 1
  assert found['machine']


@pytest.mark.parametrize('name', sorted(described()))
def test_every_difference_is_named_in_one_line(name, caplog):
  old = described(NPROC=None)
  new = {**old, name: 'other'}
  environment.warn_of_changes(old, new)
  (line,) = caplog.messages
  assert f'{name}: {old[name]!r} -> {"other"!r}' in line
  assert 'restored state' in line


@pytest.mark.parametrize(
  'name, promise',
  [
    ('devices', 'numbers agree up to rounding'),
    ('jaxlib', 'to a tolerance only'),
    ('jax_threefry_partitionable', 'what is drawn on the devices'),
    (
      'TensorFlow',
      'the order of the videos, their crops and all numbers may',
    ),
  ],
)
def test_the_line_says_what_is_still_promised(name, promise, caplog):
  environment.warn_of_changes(described(), described(**{name: 'other'}))
  assert promise in caplog.text


def test_nothing_is_said_of_the_same_or_of_old_checkpoints(caplog):
  environment.warn_of_changes(described(), described())
  environment.warn_of_changes(None, described())
  assert not caplog.messages


def test_pinned_threads_make_the_number_of_cores_irrelevant():
  old = described(NPROC='2', cores=2)
  assert environment.differences(old, {**old, 'cores': 64}) == {}
  old['NPROC'] = None
  assert 'cores' in environment.differences(old, {**old, 'cores': 64})
