"""The result page as one picture, for a README or a slide."""

import io
import pathlib
import warnings

import numpy as np
from PIL import Image

from vie_jax.evaluation import gallery, gallery_plot

_WIDTH, _MARGIN, _GAP = 1400, 40, 36
_INK, _SOFT, _LINE, _BAR = '#16181c', '#54585f', '#d5d7db', '#b6b9be'
_VERDICTS = {
  'right': ('✓ ', '#00568f'),
  'wrong': ('✗ ', '#a03c00'),
  'unknown': ('', _SOFT),
}
# Not blue and orange, which mean right and wrong on these pages.
_SERIES_COLOURS = ('#117733', '#882255', '#332288', '#8a7a00')
_MARKERS = 'osD^'
_DASHES = ((0, (1.5, 3)), (0, (7, 3)), (0, (8, 2, 2, 2)), (0, (4, 1.5)))
_QUERY_WIDTH, _VERDICT_WIDTH = 224, 164
_FRAME_HEIGHT, _LINE_HEIGHT = 46, 17
_CURVE_HEIGHT = 250


class _Sheet:
  """A figure that is drawn on in pixels, from the top left corner down."""

  def __init__(self, height: int):
    # Not pyplot: it would keep the figure and pick a backend for everyone.
    from matplotlib import figure
    from matplotlib.backends import backend_agg

    self.height = height
    self.figure = figure.Figure(figsize=(_WIDTH / 100, height / 100), dpi=100)
    backend_agg.FigureCanvasAgg(self.figure)

  def text(self, x, y, text, *, size=13, width=None, **style) -> float:
    """Writes one line with its top at y, shortened to fit; returns its end."""
    text = ' '.join(str(text).split())[:200]
    style.setdefault('color', _INK)
    artist = self.figure.text(
      x / _WIDTH,
      1 - y / self.height,
      text,
      size=size * 0.72,
      va='top',
      parse_math=False,
      **style,
    )
    renderer = self.figure.canvas.get_renderer()
    extent = artist.get_window_extent(renderer)
    while width and len(text) > 1 and extent.width > width:
      # In steps of what is too wide: each look at the extent takes time.
      text = text[: min(len(text) - 1, int(len(text) * width / extent.width))]
      artist.set_text(text.rstrip() + '…')
      extent = artist.get_window_extent(renderer)
    return extent.x1

  def rule(self, x0, x1, y, *, color=_LINE, width=1.0) -> None:
    from matplotlib import lines

    self.figure.add_artist(
      lines.Line2D(
        (x0 / _WIDTH, x1 / _WIDTH),
        (1 - y / self.height,) * 2,
        color=color,
        linewidth=width * 0.72,
        solid_capstyle='butt',
      )
    )

  def key(self, x, y, *, marker='', **style) -> None:
    """Draws the piece of a line that stands for it in a legend."""
    from matplotlib import lines

    self.figure.add_artist(
      lines.Line2D(
        np.array((x, x + 14, x + 28)) / _WIDTH,
        (1 - y / self.height,) * 3,
        marker=marker,
        markevery=[1],
        markersize=6,
        **style,
      )
    )

  def axes(self, x0, y0, x1, y1):
    return self.figure.add_axes(
      (
        x0 / _WIDTH,
        1 - y1 / self.height,
        (x1 - x0) / _WIDTH,
        (y1 - y0) / self.height,
      )
    )

  def strip(self, strip, x, y, width, height) -> None:
    """Sets evenly spaced frames of a strip, as many as fit, side by side."""
    count, rows, columns = strip.frames.shape[:3]
    scale = min(height / rows, width / columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    count = min(count, max(1, (width + 2) // (size[0] + 2)))
    chosen = np.linspace(0, len(strip.frames) - 1, count).round().astype(int)
    for place, frame in enumerate(strip.frames[chosen]):
      picture = Image.fromarray(frame).resize(size, Image.LANCZOS)
      self.figure.figimage(
        np.asarray(picture),
        x + place * (size[0] + 2),
        self.height - y - size[1],
      )


def write_png(
  path: str | pathlib.Path,
  page: gallery.Page,
  *,
  num_queries: int = 6,
  max_bytes: int = 700_000,
) -> None:
  """Writes tables, curves and the first queries as one picture, 1400 px wide.

  Args:
    path: the file to write; its folder must exist.
    page: what to show; legible with up to four models.
    num_queries: how many of the page's queries, at most.
    max_bytes: a larger file is written with fewer colours, down to 64.
  """
  models = gallery.model_names(page)
  queries = page.queries[:num_queries]
  table_height = sum(95 + 34 * len(t.rows) for t in page.tables)
  curve_rows = -(-len(page.curves) // 3)
  curve_width = (_WIDTH - 2 * _MARGIN - 2 * _GAP) // 3
  legend_height = 20 * max(
    (len(_legend(c, curve_width)) for c in page.curves), default=0
  )
  curve_step = _CURVE_HEIGHT + legend_height + 24
  query_rows = max(
    (len(near) for q in queries for near in q.neighbors.values()), default=1
  )
  query_height = 44 + max(query_rows, 2) * _row_height(page)
  height = 110 + table_height + 20 + curve_rows * curve_step
  if queries:
    height += 70 + len(queries) * query_height
  sheet = _Sheet(height)
  with warnings.catch_warnings():
    # A caption may hold letters the font lacks; they come out as boxes.
    warnings.filterwarnings('ignore', 'Glyph', UserWarning)
    sheet.text(
      _MARGIN,
      36,
      page.title,
      size=30,
      family='serif',
      weight='bold',
      width=_WIDTH - 2 * _MARGIN,
    )
    y = 100
    for table in page.tables:
      y = _draw_table(sheet, table, y)
    y += 20
    for index, curve in enumerate(page.curves):
      row, column = divmod(index, 3)
      x = _MARGIN + column * (curve_width + _GAP)
      top = y + row * curve_step
      _draw_curve(sheet, curve, x, top, curve_width, legend_height)
    y += curve_rows * curve_step
    if queries:
      sheet.rule(_MARGIN, _WIDTH - _MARGIN, y, color=_INK, width=2)
      _draw_heading(sheet, page, y + 12)
      y += 60
    for query in queries:
      _draw_query(sheet, page, query, models, y)
      y += query_height
    data = io.BytesIO()
    sheet.figure.savefig(data, format='png', facecolor='white')
  picture = Image.open(data).convert('RGB')
  for colours in (256, 192, 128, 96, 64):
    if data.tell() <= max_bytes:
      break
    data = io.BytesIO()
    _with_fewer_colours(picture, colours).save(data, 'PNG', optimize=True)
  pathlib.Path(path).write_bytes(data.getvalue())


def _with_fewer_colours(picture: Image.Image, count: int) -> Image.Image:
  """Lets film strips share few colours but keeps those that carry meaning."""
  colours = (_INK, *(c for _, c in _VERDICTS.values()), *_SERIES_COLOURS)
  kept = [[255, 255, 255]]
  for colour in colours:
    red_green_blue = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    for share in (1.0, 0.75, 0.5, 0.25):
      kept.append((255 - share * (255 - red_green_blue)).round().astype(int))
  shared = picture.quantize(count - len(kept), dither=Image.Dither.NONE)
  shared = np.reshape(shared.getpalette('RGB'), (-1, 3))
  # Pillow takes about the nearest colour. Where a shared one is next to a kept
  # one it would win at times, and white paper would turn grey.
  kept = np.array(kept)
  distance = np.abs(shared[:, None] - kept).max(axis=2)
  is_near = distance.min(axis=1) < 10
  shared[is_near] = kept[distance.argmin(axis=1)[is_near]]
  palette = Image.new('P', (1, 1))
  palette.putpalette(np.concatenate([kept, shared]).ravel().tolist())
  return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def _draw_table(sheet, table, y) -> int:
  left, right = _MARGIN, _WIDTH - _MARGIN
  sheet.text(left, y, table.title, size=16, weight='bold', width=right - left)
  y += 34
  cells = gallery.table_cells(table)
  first = 0.34 * (right - left)
  step = (right - left - first) / max(1, len(table.header) - 1)
  starts = [left] + [
    left + first + i * step for i in range(len(table.header) - 1)
  ]
  for x, name in zip(starts, table.header, strict=True):
    sheet.text(x, y, name, color=_SOFT, size=14, width=step - 20)
  y += 25
  sheet.rule(left, right, y, color=_INK)
  for row in cells:
    for column, (x, cell) in enumerate(zip(starts, row, strict=True)):
      weight = 'bold' if cell['is_best'] else 'normal'
      width = (step if column else first) - 20
      sheet.text(x, y + 9, cell['text'], size=15, weight=weight, width=width)
      if cell['bar'] is not None:
        start, end = x + 70, x + step - 30
        middle = y + 17
        sheet.rule(start, end, middle, color='#f0f0ee', width=10)
        sheet.rule(
          start,
          start + (end - start) * cell['bar'] / 100,
          middle,
          color=_INK if cell['is_best'] else _BAR,
          width=10,
        )
    y += 34
    sheet.rule(left, right, y, color=_INK if row is cells[-1] else _LINE)
  sheet.text(left, y + 8, table.note, color=_SOFT, width=right - left)
  return y + 36


def _legend(curve, width) -> list[list[str]]:
  """Breaks the names of a curve's lines into rows of about this width."""
  rows, used = [], width
  for name in [*curve.series, *curve.references]:
    needed = 56 + 8 * len(name)
    if used + needed > width + 20:
      rows.append([])
      used = 0
    rows[-1].append(name)
    used += needed
  return rows


def _draw_curve(sheet, curve, x, y, width, legend_height) -> None:
  sheet.text(x, y, curve.title, size=15, weight='bold', width=width)
  sheet.text(x, y + 22, curve.y_label, color=_SOFT, width=width)
  points = gallery_plot.finite_points(curve.series)
  styles = {}
  axes = sheet.axes(
    x + 38, y + 56 + legend_height, x + width, y + 205 + legend_height
  )
  for index, (name, pairs) in enumerate(points.items()):
    styles[name] = {
      'color': _SERIES_COLOURS[index % 4],
      'marker': _MARKERS[index % 4],
      'linewidth': 1.5,
    }
    if len(pairs):
      axes.plot(
        *pairs.T, markevery=[-1], markersize=6, clip_on=False, **styles[name]
      )
  for index, (name, value) in enumerate(curve.references.items()):
    styles[name] = {
      'color': '#85898f',
      'linestyle': _DASHES[index % 4],
      'linewidth': 1.2,
    }
    axes.axhline(value, **styles[name])
  for row, names in enumerate(_legend(curve, width)):
    end = x
    for name in names:
      sheet.key(end, y + 54 + 20 * row, **styles[name])
      end = sheet.text(
        end + 36, y + 46 + 20 * row, name, width=max(60, x + width - end - 36)
      )
      end += 18
  axes.set_ylim(gallery_plot.value_range(points, curve.references))
  axes.margins(x=0)
  axes.spines[['top', 'right', 'left']].set_visible(False)
  axes.tick_params(labelsize=9, colors=_SOFT, length=3)
  axes.tick_params(axis='y', length=0)
  axes.yaxis.grid(visible=True, color=_LINE, linewidth=0.7)
  axes.set_axisbelow(True)
  axes.locator_params(nbins=5)
  axes.xaxis.set_major_formatter('{x:,.10g}')
  axes.yaxis.set_major_formatter('{x:,.10g}')
  axes.set_xlabel('training step', size=9, color=_SOFT, loc='right')


def _row_height(page) -> int:
  """The height of a neighbour: its frames, or its verdicts if higher."""
  lines = len(page.label_columns) + 1
  return max(_FRAME_HEIGHT, _LINE_HEIGHT * lines) + 9


def _draw_heading(sheet, page, y) -> None:
  x = sheet.text(_MARGIN, y, 'Nearest training videos', size=16, weight='bold')
  if not page.label_columns:
    return
  x = sheet.text(x + 30, y + 2, '✓ same', color=_VERDICTS['right'][1])
  x = sheet.text(x + 5, y + 2, 'or', color=_SOFT)
  x = sheet.text(
    x + 5, y + 2, '✗ other', color=_VERDICTS['wrong'][1], weight='bold'
  )
  names = ' or '.join(page.label_columns)
  sheet.text(
    x + 5,
    y + 2,
    f'{names} than the query; the number is the cosine similarity',
    color=_SOFT,
    width=_WIDTH - _MARGIN - x,
  )


def _draw_query(sheet, page, query, models, y) -> None:
  sheet.rule(_MARGIN, _WIDTH - _MARGIN, y)
  y += 12
  strip = query.strip
  labels = [strip.labels.get(c, 'not labelled') for c in page.label_columns]
  sheet.text(_MARGIN, y, 'query', weight='bold')
  sheet.strip(strip, _MARGIN, y + 22, _QUERY_WIDTH, _FRAME_HEIGHT)
  below = y + 22 + _FRAME_HEIGHT + 6
  sheet.text(_MARGIN, below, ', '.join(labels), width=_QUERY_WIDTH)
  sheet.text(
    _MARGIN,
    below + (20 if labels else 0),
    strip.caption,
    color=_SOFT,
    size=12,
    width=_QUERY_WIDTH,
  )
  start = _MARGIN + _QUERY_WIDTH + _GAP
  step = (_WIDTH - _MARGIN - start + _GAP) // max(1, len(models))
  for index, model in enumerate(models):
    x, top = start + index * step, y + 22
    width = step - _GAP
    end = sheet.text(x, y, model, weight='bold', width=width)
    _draw_predictions(sheet, page, query, model, (end, y), x + width)
    for neighbor in query.neighbors.get(model, ()):
      room = width - _VERDICT_WIDTH
      sheet.strip(neighbor.strip, x, top, room, _FRAME_HEIGHT)
      line = top
      for column in page.label_columns:
        kind = gallery.verdict(strip, neighbor.strip, column)
        mark, color = _VERDICTS[kind]
        sheet.text(
          x + room + 8,
          line,
          mark + neighbor.strip.labels.get(column, 'not labelled'),
          color=color,
          weight='bold' if kind == 'wrong' else 'normal',
          width=_VERDICT_WIDTH - 8,
        )
        line += _LINE_HEIGHT
      similarity = f'{neighbor.similarity:.2f}'
      sheet.text(x + room + 8, line, similarity, color=_SOFT, size=12)
      top += _row_height(page)


def _draw_predictions(sheet, page, query, model, place, limit) -> None:
  """Writes what a model predicts behind its name, as far as there is room."""
  words = 'predicts'
  x, y = place
  for column in page.label_columns:
    predicted = gallery.prediction(query, model, column)
    if not predicted or x > limit - 60:
      return
    if words:
      x = sheet.text(x + 12, y, words, color=_SOFT)
      words = ''
    kind, label = predicted
    mark, color = _VERDICTS[kind]
    x = sheet.text(
      x + 8,
      y,
      mark + label,
      color=color,
      weight='bold' if kind == 'wrong' else 'normal',
      width=max(20, limit - x - 8),
    )
