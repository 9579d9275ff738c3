"""Distributions and counts, on values whose answer is plain."""

import numpy as np
import pytest
from dataset import dataset_facts


def test_bars_hold_every_value_once():
  rng = np.random.default_rng(0)
  values = {'train': rng.normal(10, 2, 500), 'val': rng.normal(11, 2, 50)}
  found = dataset_facts.histogram('x', values)
  assert {split: sum(c) for split, c in found.counts.items()} == {
    'train': 500,
    'val': 50,
  }
  assert (found.unknown, found.beyond) == (0, 0)
  assert found.summary['val'][1] == np.median(values['val'])
  assert found.edges[0] == min(values['train'].min(), values['val'].min())


def test_a_few_far_values_share_the_last_bar():
  values = np.concatenate([np.linspace(1, 10, 999), [3600.0]])
  found = dataset_facts.histogram('x', {'train': values})
  assert found.edges[-1] < 11
  assert found.beyond >= 1
  assert sum(found.counts['train']) == 1000
  assert found.summary['train'] == (1.0, np.median(values), 3600.0)


def test_unknown_values_are_counted_and_splits_without_values_left_out():
  values = {'train': np.array([25.0, np.nan, 25.0]), 'val': np.zeros(0)}
  found = dataset_facts.histogram('x', values)
  assert found.unknown == 1
  assert list(found.counts) == ['train']
  assert max(found.counts['train']) == 2
  assert dataset_facts.histogram('x', {'train': np.array([np.nan])}) is None


@pytest.mark.parametrize(
  'values', [[0.0], [25.0, 25.0], [0.1, 0.2], [1, 1e9], [-3.0, 5.0]]
)
def test_ticks_are_few_round_and_within_the_edges(values):
  found = dataset_facts.histogram('x', {'train': np.array(values)})
  assert 2 <= len(found.ticks) <= 7
  assert found.edges[0] <= found.ticks[0] < found.ticks[-1] <= found.edges[-1]
  steps = np.diff(found.ticks)
  assert steps == pytest.approx(steps[0])
  assert f'{steps[0]:.0e}'[0] in '125'
