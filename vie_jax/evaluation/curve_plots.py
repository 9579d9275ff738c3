"""Plots of the curves that runs have written, like beside like.

A curve that is longer than a plot is wide is thinned; `gallery_plot` lays a
plot out.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from vie_jax.evaluation import gallery_plot
from vie_jax.evaluation.found_results import Run, part
from vie_jax.evaluation.result_words import text

# Enough for the eye, and a page of a hundred plots stays small.
_MOST_POINTS = 160


@dataclasses.dataclass(frozen=True, eq=False)
class Plot:
  """One small plot of a run.

  Attributes:
    title: name of the run.
    y_label: the quantity and its unit.
    series: name -> (steps, values).
    references: heights of horizontal lines by name.
    y_range: shared with the plots beside it.
  """

  title: str
  y_label: str
  series: Mapping[str, tuple[list[float], list[float]]]
  references: Mapping[str, float]
  y_range: tuple[float, float]


def _thinned(curve, scale):
  steps, values = curve
  count = len(steps)
  if count > _MOST_POINTS:
    keep = [
      round(i * (count - 1) / (_MOST_POINTS - 1)) for i in range(_MOST_POINTS)
    ]
  else:
    keep = range(count)
  return [steps[i] for i in keep], [scale * values[i] for i in keep]


def _kind(run: Run) -> str:
  """What a run is, to put its curves beside those of its like."""
  if run.result:
    name = text(run.result.facts['dataset'].get('name'))
    return f'{run.result.facts["mode"].replace("_", " ")} on {name}'
  if any(name.startswith('val/') for name in run.curves):
    return 'not finished'
  return 'pretraining'


def _quantities(run: Run) -> dict[str, dict[str, tuple]]:
  """y label -> series of one run."""
  found: dict[str, dict[str, tuple]] = {}
  if 'train/loss' in run.curves:
    found['training loss, nats'] = {
      'loss': _thinned(run.curves['train/loss'], 1)
    }
  for name, curve in run.curves.items():
    knn = re.fullmatch(r'knn/(.+)_top1', name)
    val = re.fullmatch(r'val/(.+)_([^_]+)_top1', name)
    if knn and not name.endswith('_clip_top1'):
      label = 'kNN accuracy, %'
      found.setdefault(label, {})[knn[1]] = _thinned(curve, 100)
    elif val and not name.endswith('_clip_top1'):
      label = f'accuracy on {val[1]}, %'
      found.setdefault(label, {})[val[2]] = _thinned(curve, 100)
  return found


def plots(runs: Sequence[Run]) -> dict[str, dict[str, list[Plot]]]:
  """Plots of all runs: kind of run -> quantity -> one plot for each run.

  Plots of one quantity and kind have one y axis, so that runs compare.
  """
  grouped: dict[str, dict[str, list[tuple[Run, dict]]]] = {}
  for run in runs:
    for label, series in _quantities(run).items():
      grouped.setdefault(_kind(run), {}).setdefault(label, []).append(
        (run, series)
      )
  order = ('pretraining', 'supervised', 'linear', 'finetune')

  def position(kind):
    begins = [kind.startswith(name) for name in order]
    return (begins.index(True) if any(begins) else len(order), kind)

  return {
    kind: {
      label: _plots(label, members) for label, members in grouped[kind].items()
    }
    for kind in sorted(grouped, key=position)
  }


def _plots(label: str, members: Sequence[tuple[Run, dict]]) -> list[Plot]:
  is_accuracy = label.endswith('%')
  references = [_references(run, label) for run, _ in members]
  points = gallery_plot.finite_points(
    {
      f'{number} {name}': curve
      for number, (_, series) in enumerate(members)
      for name, curve in series.items()
    }
  )
  heights = {
    f'{number} {name}': value
    for number, lines in enumerate(references)
    for name, value in lines.items()
  }
  low, high = gallery_plot.value_range(points, heights)
  y_range = (0.0, min(high, 100.0)) if is_accuracy else (low, high)
  return [
    Plot(run.name, label, series, lines, y_range)
    for (run, series), lines in zip(members, references, strict=True)
  ]


def _references(run: Run, label: str) -> dict[str, float]:
  if not run.result or not label.endswith('%'):
    return {}
  column = label.removeprefix('accuracy on ').removesuffix(', %')
  chance = part(run.result.facts, 'chance').get(column)
  return {'chance': 100 * chance} if isinstance(chance, int | float) else {}
