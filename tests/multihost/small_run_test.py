"""A run has the same figures on one device, on eight, and on processes."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from multihost import small_run

from vie_jax.models import batch_norm
from vie_jax.objective import nearest_neighbors


@pytest.fixture(scope='module')
def alone():
  """The figures of one device."""
  return small_run.figures(1)


def assert_same(found, expected):
  assert len(found['losses']) == 40
  assert np.ptp(expected['losses'][:20]) > 0.1  # something happens
  for name in ('losses', 'objectives'):
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)
  assert found['neighbors'] == expected['neighbors']


@pytest.mark.slow
def test_eight_devices_give_what_one_gives(alone):
  assert_same(small_run.figures(8), alone)


def test_two_processes_give_what_one_device_gives(alone, tmp_path):
  out = tmp_path / 'figures.json'
  command = [sys.executable, small_run.__file__, str(out)]
  environs = [{'PYTHONPATH': '.:tests'}] * 2
  processes.run([command] * 2, tmp_path, num_devices=2, environs=environs)
  assert_same(json.loads(out.read_text()), alone)


def statistics_of_each_device(monkeypatch):
  """Batch norm over an eighth of the batch, as one device would see it."""

  def mean(x, axes):
    parts = x.reshape(8, -1, *x.shape[1:])
    own = jnp.mean(parts, tuple(axis + 1 for axis in axes))
    return own[0]

  stand_in = type('Numpy', (), {**vars(jnp), 'mean': staticmethod(mean)})
  monkeypatch.setattr(batch_norm, 'jnp', stand_in)


def neighbors_of_each_device(monkeypatch):
  """The nearest rows of the first device only."""
  whole = nearest_neighbors.top_k

  def top_k(bank, query, *, num_videos, **settings):
    own = min(num_videos, bank.shape[0] // 8)
    return whole(bank, query, num_videos=own, **settings)

  monkeypatch.setattr(nearest_neighbors, 'top_k', top_k)


@pytest.mark.slow
@pytest.mark.parametrize(
  'mistake', [statistics_of_each_device, neighbors_of_each_device]
)
def test_mistakes_of_several_devices_would_be_seen(alone, monkeypatch, mistake):
  with monkeypatch.context() as patched:
    mistake(patched)
    jax.clear_caches()
    found = small_run.figures(8)
  jax.clear_caches()
  with pytest.raises(AssertionError):
    assert_same(found, alone)
