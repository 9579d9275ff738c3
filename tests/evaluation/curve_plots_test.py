"""Plots of the curves of runs: what is in them, and their axes."""

import json

import fake_results
import pytest

from vie_jax.evaluation import curve_plots, found_results, gallery_plot


def test_plots_of_a_kind_have_one_axis(tmp_path):
  for number, cells in enumerate(fake_results.evaluations()):
    facts = fake_results.facts_of(
      cells[0], {cell.wanted.figure: (cell.paper or 30) / 100 for cell in cells}
    )
    curve = 1000 if number % 2 else None
    fake_results.write(tmp_path / f'run{number}', facts, curve=curve)
  by_kind = curve_plots.plots(found_results.collect([tmp_path]).runs)
  assert by_kind
  for by_label in by_kind.values():
    for members in by_label.values():
      assert len({plot.y_range for plot in members}) == 1
      for plot in members:
        for _, values in plot.series.values():
          assert plot.y_range[0] <= min(values)
          assert max(values) <= plot.y_range[1]


def test_long_curves_are_thinned_and_keep_both_ends():
  steps, values = curve_plots._thinned(
    (list(range(10_000)), [1.0] * 10_000), 100
  )
  assert len(steps) == len(values) == curve_plots._MOST_POINTS
  assert (steps[0], steps[-1], values[0]) == (0, 9999, 100.0)


def test_figures_of_pretraining_are_plotted(tmp_path):
  (tmp_path / 'a').mkdir(parents=True)
  lines = [
    {
      'step': step,
      'train/loss': 3.0,
      'knn/motion_top1': 0.5,
      'knn/motion_clip_top1': 0.4,
    }
    for step in (0, 10)
  ]
  (tmp_path / 'a' / 'metrics.jsonl').write_text(
    ''.join(json.dumps(line) + '\n' for line in lines)
  )
  found = found_results.collect([tmp_path])
  plots = curve_plots.plots(found.runs)['pretraining']
  assert set(plots) == {'training loss, nats', 'kNN accuracy, %'}
  (knn,) = plots['kNN accuracy, %']
  assert knn.series == {'motion': ([0, 10], [50.0, 50.0])}


@pytest.mark.parametrize(
  'steps, texts', [([20], ['20', '21']), ([0, 3], ['0', '1', '2', '3'])]
)
def test_ticks_are_whole_steps(steps, texts):
  view = gallery_plot.layout({'loss': (steps, [1.0] * len(steps))}, {})
  assert [text for _, text in view['x_ticks']] == texts
