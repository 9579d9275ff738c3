"""Recall is shown where there are more training videos than neighbours."""

import pytest

from vie_jax.evaluation import recall_figures


@pytest.mark.parametrize(
  'num_videos, shown',
  [
    (0, ['1']),
    (1, ['1']),
    (2, ['1']),
    (5, ['1']),
    (6, ['1', '5']),
    (50, ['1', '5']),
    (51, ['1', '5', '50']),
    (None, ['1', '5', '50']),
  ],
)
def test_recall_among_all_training_videos_tells_nothing(num_videos, shown):
  assert recall_figures.telling(['1', '5', '50'], num_videos) == shown
  assert recall_figures.telling([], num_videos) == []


@pytest.mark.parametrize(
  'facts, number',
  [
    ({'dataset': {'train': 44}}, 44),
    ({'dataset': {'train': 44}, 'left_out': {'train': 4, 'val': 1}}, 40),
    ({'dataset': {}}, None),
    ({'dataset': {'train': True}}, None),
    ({'dataset': {'train': 44}, 'left_out': {'train': 'x'}}, None),
  ],
)
def test_videos_that_were_left_out_were_not_compared_with(facts, number):
  assert recall_figures.num_compared(facts) == number
