"""Lays out line plots: which points, which range, which ticks."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

# The size of a plot in SVG user units: CSS pixels on a wide screen.
_WIDTH, _HEIGHT = 420, 250
_TOP, _RIGHT, _BOTTOM = 10, 412, 222
_DIGIT_WIDTH = 7
_MAX_POINTS = 600


def finite_points(
  series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> dict[str, np.ndarray]:
  """Returns float64 [points, 2] (step, value) by the name of the series."""
  points = {}
  for name, (steps, values) in series.items():
    pairs = np.stack(
      [np.asarray(steps, np.float64), np.asarray(values, np.float64)], axis=1
    )
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) > _MAX_POINTS:
      keep = np.linspace(0, len(pairs) - 1, _MAX_POINTS).round().astype(int)
      pairs = pairs[keep]
    points[name] = pairs
  return points


def value_range(
  points: Mapping[str, np.ndarray], references: Mapping[str, float]
) -> tuple[float, float]:
  """Picks an axis that holds all values, from 0 where that is not far."""
  values = [v for pairs in points.values() for v in pairs[:, 1]]
  values += [v for v in references.values() if math.isfinite(v)]
  low, high = (min(values), max(values)) if values else (0.0, 1.0)
  if 0 <= low < 0.4 * high:
    low = 0.0
  margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
  return (low if low == 0 else low - margin), high + margin


def short_number(value: float) -> str:
  """Writes a value with three digits, or in full from 1,000."""
  return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
  """Returns about `count` round numbers in [low, high]."""
  raw = (high - low) / count
  unit = 10.0 ** math.floor(math.log10(raw))
  step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= raw * 0.999)
  first = math.ceil(low / step - 1e-9)
  last = math.floor(high / step + 1e-9)
  return [float(f'{i * step:.10g}') for i in range(first, last + 1)]


def layout(
  series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  references: Mapping[str, float],
  *,
  y_range: tuple[float, float] | None = None,
) -> dict:
  """Places lines, ticks and references in SVG user units.

  Args:
    series: (steps, values) by name.
    references: heights of horizontal lines by name.
    y_range: of the axis, for plots that are to be compared; None fits it to
      the values.

  Returns:
    box (left, top, right, bottom of the axes), size (width, height), x_ticks
    and y_ticks as (position, text), and lines and references by name with
    positions and the text of the last value.
  """
  points = finite_points(series)
  steps = [s for pairs in points.values() for s in pairs[:, 0]] or [0.0]
  first, last = min(steps), max(steps)
  last = last if last > first else first + 1
  low, high = y_range or value_range(points, references)
  # There is no half a step.
  x_ticks = [tick for tick in ticks(first, last) if tick.is_integer()]
  x_texts = {tick: f'{tick:,.10g}' for tick in x_ticks}
  y_texts = {tick: f'{tick:,.10g}' for tick in ticks(low, high)}
  left = 14 + _DIGIT_WIDTH * max(map(len, y_texts.values()))

  def x(step):
    return left + (step - first) / (last - first) * (_RIGHT - left)

  def y(value):
    return _BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP)

  return {
    'box': (left, _TOP, _RIGHT, _BOTTOM),
    'size': (_WIDTH, _HEIGHT),
    'x_ticks': [(x(tick), text) for tick, text in x_texts.items()],
    'y_ticks': [(y(tick), text) for tick, text in y_texts.items()],
    'lines': [
      {
        'name': name,
        'points': [(x(step), y(value)) for step, value in pairs],
        'last': short_number(pairs[-1, 1]) if len(pairs) else 'no value',
      }
      for name, pairs in points.items()
    ],
    'references': [
      {'name': name, 'y': y(value), 'last': short_number(value)}
      for name, value in references.items()
      if math.isfinite(value)
    ],
  }
