"""Result pages: tables, curves, and clips beside their nearest videos.

Plain arrays and numbers in, one HTML file or one picture out. Nothing here
knows how they were computed, so that the page of the demo and the retrieval
page of several runs on real videos are the same code.
"""

import base64
import dataclasses
import hashlib
import importlib.resources
import io
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import jinja2
import numpy as np
from PIL import Image

from vie_jax.evaluation import gallery_plot
from vie_jax.files import disk

KNN_CAPTION = (
  'kNN accuracy: a test video is given the label that its nearest training '
  'videos in the embedding carry, nearer ones counting more; the figure is '
  'how often that is right, in percent. Training saw no label.'
)
CURVE_CAPTION = (
  'The same networks while they train, from the first step to the last.'
)
QUERY_CAPTION = (
  'Each entry starts from a clip that no network trained on. Below it, for '
  'each network, are the three training videos it places nearest, the nearest '
  'first, with the cosine similarity of the two embeddings (1 is identical).'
)

# Frame height and JPEG quality of the film strips, tried in this order until
# the pictures fit the budget.
_ENCODINGS = (
  (128, 88),
  (128, 75),
  (96, 75),
  (96, 60),
  (80, 60),
  (72, 60),
  (64, 50),
  (56, 45),
  (48, 40),
)
# Strips that tell what an encoding would take, before all are encoded.
_SAMPLE = 24


@dataclasses.dataclass(frozen=True, eq=False)
class FilmStrip:
  """Some frames of a video, in order.

  Attributes:
    frames: uint8 [T, H, W, 3] RGB; T about 8, at least 1.
    caption: what to call the video, for example its path.
    labels: class name by label column; a column not known is left out.
  """

  frames: np.ndarray
  caption: str
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    """Refuses frames that are not what the attributes say."""
    shape = np.shape(self.frames)
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
      raise ValueError(
        f'frames of {self.caption!r} must be [T, H, W, 3] with no empty '
        f'axis, got {list(shape)}.'
      )
    if self.frames.dtype != np.uint8:
      raise ValueError(
        f'frames of {self.caption!r} must be uint8, got {self.frames.dtype}.'
      )


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbor:
  """A training video near a query, and its cosine similarity in [-1, 1]."""

  strip: FilmStrip
  similarity: float


@dataclasses.dataclass(frozen=True, eq=False)
class Query:
  """A clip, and what each model finds near it.

  Attributes:
    strip: the clip, with its true labels.
    neighbors: by model name, the nearest first.
    predictions: class name by label column, by model name: the label that the
      model would give the clip. What is not predicted is left out.
  """

  strip: FilmStrip
  neighbors: Mapping[str, Sequence[Neighbor]]
  predictions: Mapping[str, Mapping[str, str]] = dataclasses.field(
    default_factory=dict
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
  """One plot over training steps.

  Attributes:
    title: says what is plotted.
    y_label: the quantity and its unit.
    series: (steps, values) by name; a value that is not finite is left out,
      and of very long series evenly spaced points are drawn.
    references: heights of horizontal lines by name, for example chance.
  """

  title: str
  y_label: str
  series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
  references: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """A table whose first column names the rows.

  Attributes:
    title: says what the numbers are.
    header: one name per column.
    rows: cells; a float is formatted and compared, a string shown as it is.
    note: what a reader must know to read it; may be empty.
    number_format: how a float is written.
    emphasise_best: whether the highest float of each column is set bold.
    bar_maximum: the value of a full bar under a float; None draws no bars.
  """

  title: str
  header: Sequence[str]
  rows: Sequence[Sequence[str | float]]
  note: str = ''
  number_format: str = '{:.1f}'
  emphasise_best: bool = True
  bar_maximum: float | None = None

  def __post_init__(self):
    """Refuses rows that do not fit the header."""
    for row in self.rows:
      if len(row) != len(self.header):
        raise ValueError(
          f'table {self.title!r}: row {list(row)} has {len(row)} cells, the '
          f'header has {len(self.header)}.'
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Page:
  """Everything that is on a page, in the order in which it is shown.

  Attributes:
    title: the headline.
    introduction: paragraphs of plain text.
    tables: the results.
    curves: how they came about.
    queries: clips and their neighbours.
    label_columns: the label columns to judge neighbours by; may be empty.
    facts: what is needed to repeat it: data set, commit, device, seed ...
    table_caption: one sentence over the tables, for who knows nothing.
    curve_caption: the same for the curves.
    query_caption: the same for the neighbours; say here how the queries were
      chosen.
  """

  title: str
  introduction: Sequence[str] = ()
  tables: Sequence[Table] = ()
  curves: Sequence[Curve] = ()
  queries: Sequence[Query] = ()
  label_columns: Sequence[str] = ()
  facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  table_caption: str = KNN_CAPTION
  curve_caption: str = CURVE_CAPTION
  query_caption: str = QUERY_CAPTION


def write_html(
  path: str | pathlib.Path, page: Page, *, image_budget: int = 2_600_000
) -> None:
  """Writes the page as one file that needs nothing else, not even a network.

  Args:
    path: the file to write; its folder must exist.
    page: what to show. All text is escaped.
    image_budget: bytes that the film strips may take. Their size and quality
      are lowered to fit, as far as they stay recognisable.
  """
  # Named by their content: the same pictures are embedded once.
  distinct = {id(strip): strip for strip in _strips(page)}
  keys = {name: _strip_key(strip) for name, strip in distinct.items()}
  strips = {keys[name]: strip for name, strip in distinct.items()}
  environment = jinja2.Environment(
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  # The page's policy admits its one script by this hash, and no other.
  environment.filters['sha256'] = lambda text: base64.b64encode(
    hashlib.sha256(str(text).encode()).digest()
  ).decode()
  template = importlib.resources.files('vie_jax.evaluation').joinpath(
    'gallery.html.jinja'
  )
  html = environment.from_string(template.read_text('utf-8')).render(
    page=page,
    models=model_names(page),
    classes={c: _class_names(page, c) for c in page.label_columns},
    entries=[_entry(page, query) for query in page.queries],
    sprites=dict(
      zip(strips, _encode([*strips.values()], image_budget), strict=True)
    ),
    has_motion=any(len(strip.frames) > 1 for strip in strips.values()),
    is_judged=any(_class_names(page, c) for c in page.label_columns),
    has_predictions=any(query.predictions for query in page.queries),
    strip_key=lambda strip: keys[id(strip)],
    verdict=verdict,
    prediction=prediction,
    tally=lambda model, column: tally(page, model, column),
    cells=table_cells,
    plot=gallery_plot.layout,
  )
  # A file name may hold bytes that are no character; they become '?'.
  with disk.replacing(path) as fresh:
    fresh.write_text(html, encoding='utf-8', errors='replace', newline='\n')


def verdict(query: FilmStrip, neighbor: FilmStrip, column: str) -> str:
  """Returns 'right', 'wrong', or 'unknown' where either has no label."""
  return _compare(query.labels.get(column), neighbor.labels.get(column))


def prediction(query: Query, model: str, column: str) -> tuple[str, str] | None:
  """Returns a verdict as above and the predicted class name, if there is one.

  A model that predicts no column of a query predicts nothing: None.
  """
  found = query.predictions.get(model)
  if not found:
    return None
  name = found.get(column)
  kind = _compare(query.strip.labels.get(column), name)
  return kind, 'none' if name is None else name


def _compare(expected: str | None, found: str | None) -> str:
  if expected is None or found is None:
    return 'unknown'
  return 'right' if expected == found else 'wrong'


def tally(page: Page, model: str, column: str) -> tuple[int, int]:
  """Counts a model's neighbours on the page: right, and right or wrong."""
  verdicts = [
    verdict(query.strip, neighbor.strip, column)
    for query in page.queries
    for neighbor in query.neighbors.get(model, ())
  ]
  right = verdicts.count('right')
  return right, right + verdicts.count('wrong')


def model_names(page: Page) -> list[str]:
  """Returns the models that any query has neighbours of, in their order."""
  return list(dict.fromkeys(m for q in page.queries for m in q.neighbors))


def _class_names(page: Page, column: str) -> list[str]:
  names = {q.strip.labels.get(column) for q in page.queries}
  return sorted(names - {None})


def _entry(page: Page, query: Query) -> dict:
  """Adds to a query what the page's filters look for, as numbers only."""
  classes, errors = [], set()
  for index, column in enumerate(page.label_columns):
    name = query.strip.labels.get(column)
    names = _class_names(page, column)
    classes.append(str(-1 if name is None else names.index(name)))
    errors |= {f'{kind}.{index}' for kind in _errors(page, query, column)}
  if any(not error.startswith('only') for error in errors):
    errors.add('any')
  return {
    'query': query,
    'classes': ' '.join(classes),
    'errors': ' '.join(sorted(errors)),
  }


def _errors(page: Page, query: Query, column: str) -> Iterator[str]:
  """Yields who was wrong, and who alone was right, by the model's number."""
  right = []
  for index, model in enumerate(model_names(page)):
    if any(
      verdict(query.strip, neighbor.strip, column) == 'wrong'
      for neighbor in query.neighbors.get(model, ())
    ):
      yield f'near.{index}'
    predicted = prediction(query, model, column)
    kind = predicted[0] if predicted else 'unknown'
    if kind == 'wrong':
      yield f'predicted.{index}'
    elif kind == 'right':
      right.append(index)
  if len(right) == 1:
    yield f'only.{right[0]}'


def _strips(page: Page) -> Iterator[FilmStrip]:
  """All strips of a page, in order, some of them often."""
  for query in page.queries:
    yield query.strip
    for near in query.neighbors.values():
      yield from (neighbor.strip for neighbor in near)


def _strip_key(strip: FilmStrip) -> str:
  """Names a strip by its content."""
  digest = hashlib.sha256(repr(strip.frames.shape).encode())
  digest.update(np.ascontiguousarray(strip.frames).tobytes())
  return 's' + digest.hexdigest()[:16]


def _resize(frame: np.ndarray, height: int) -> Image.Image:
  width = max(1, round(frame.shape[1] * height / frame.shape[0]))
  return Image.fromarray(frame).resize((width, height), Image.LANCZOS)


def _encode(strips: Sequence[FilmStrip], budget: int) -> list[str]:
  """Encodes strips as data URIs, as well as the budget of bytes allows.

  Args:
    strips: to encode.
    budget: in bytes, of all together.
  """
  sample = np.random.default_rng(0).permutation(len(strips))[:_SAMPLE]
  uris = []
  for encoding in _ENCODINGS:
    expected = sum(len(_data_uri(strips[i], *encoding)) for i in sample)
    expected *= len(strips) / max(1, len(sample))
    # The sample is no more than a sample.
    if expected > 1.1 * budget and encoding != _ENCODINGS[-1]:
      continue
    uris = [_data_uri(strip, *encoding) for strip in strips]
    if sum(map(len, uris)) <= budget:
      break
  return uris


def _data_uri(strip: FilmStrip, height: int, quality: int) -> str:
  """Encodes a strip as a JPEG, its frames side by side."""
  frames = strip.frames
  if frames.shape[1] > height:
    frames = np.stack([np.asarray(_resize(f, height)) for f in frames])
  data = io.BytesIO()
  # No chroma subsampling: it would blur the border between two frames. Not
  # optimised: Pillow then fails where noise takes over a byte a pixel.
  Image.fromarray(np.concatenate(frames, axis=1)).save(
    data, 'JPEG', quality=quality, subsampling=0
  )
  uri = base64.b64encode(data.getvalue()).decode()
  return f'data:image/jpeg;base64,{uri}'


def table_cells(table: Table) -> list[list[dict]]:
  """Formats a table's cells and finds the best of each column."""
  best, columns = {}, set()
  for row in table.rows:
    for column, value in enumerate(row):
      if isinstance(value, float):
        columns.add(column)
      if isinstance(value, float) and math.isfinite(value):
        best.setdefault(column, []).append(value)
  cells = []
  for row in table.rows:
    cells.append([])
    for column, value in enumerate(row):
      is_number = isinstance(value, float)
      finite = is_number and math.isfinite(value)
      bar = None
      if table.bar_maximum and finite:
        bar = 100 * min(1.0, max(0.0, value / table.bar_maximum))
      cells[-1].append(
        {
          'text': table.number_format.format(value) if is_number else value,
          # A string among numbers stands where they do.
          'is_number': is_number or column in columns,
          'is_best': table.emphasise_best
          and finite
          and len(best[column]) > 1
          and value == max(best[column]),
          'bar': bar,
        }
      )
  return cells
