"""Counts and distributions of a prepared data set, from its tables alone."""

import dataclasses
import math

import numpy as np
import unread
from errors import InputError
from untrusted import tables as untrusted_tables

from dataset.dataset_layout import SPLITS
from dataset.dataset_tables import read_videos

_NUM_BINS = 24
_NUM_TICKS = 5
# Values far beyond nearly all others share the last bar, so that the others
# are not all in the first.
_FAR = 2.0
_NEARLY_ALL = 99.5
_NUM_SIZES = 8
_READ = (
  'path',
  'num_frames',
  'height',
  'width',
  'source_fps',
  'duration_seconds',
  'source_sha256',
  'frames_sha256',
)


@dataclasses.dataclass(frozen=True)
class ClassCount:
  """A class of a label column: its name, and videos by split."""

  name: str
  videos: dict


@dataclasses.dataclass(frozen=True)
class Labels:
  """A label column.

  Attributes:
    column: its name.
    classes: list of ClassCount, the most frequent first.
    unknown: split -> videos without a label.
  """

  column: str
  classes: list
  unknown: dict

  def most(self, split):
    """Returns the number of videos in the largest class of a split."""
    return max((each.videos[split] for each in self.classes), default=0)

  def absent(self, split):
    """Returns names of the classes that a split has no video of."""
    return [each.name for each in self.classes if not each.videos[split]]


@dataclasses.dataclass(frozen=True)
class Histogram:
  """How a quantity is distributed.

  Attributes:
    title: of the quantity, with its unit.
    edges: list of float, one more than bars.
    counts: split -> list of int, of the bars; no split without a value.
    summary: split -> (lowest, median, highest).
    ticks: list of float, within the edges.
    beyond: values above the edges, which the last bar holds, too.
    unknown: videos without a value.
  """

  title: str
  edges: list
  counts: dict
  summary: dict
  ticks: list
  beyond: int
  unknown: int

  @property
  def tallest(self):
    """The largest share of its split that a bar has, above 0."""
    return max(
      (max(c) / max(sum(c), 1) for c in self.counts.values()), default=1
    )


def read_tables(directory, manifest):
  """Reads the tables of both splits.

  Args:
    directory: pathlib.Path or RemoteFolder of the data set.
    manifest: dict, the content of dataset.json.

  Returns:
    split -> pyarrow.Table.

  Raises:
    InputError: if a table is missing, damaged or not what dataset.json says, or
      cannot be read.
  """
  labels = [f'label_{column}' for column in sorted(manifest['labels'])]
  tables = {}
  for split in SPLITS:
    name = f'{split}/videos.parquet'
    path = directory / name
    try:
      table = read_videos(directory, name, manifest['labels'])
    except (OSError, untrusted_tables.TableError) as error:
      unread.check(path, error)
      raise InputError(f'{path} cannot be read: {error}') from error
    tables[split] = table.select([*_READ, *labels])
    for column, names in manifest['labels'].items():
      values = label_numbers(tables[split], column)
      if len(values) and not -1 <= values.min() <= values.max() < len(names):
        raise InputError(f'{path} has classes that dataset.json does not name')
  return tables


def label_numbers(table, column):
  """Returns the classes of a table's videos: int64 [N], -1 where unknown."""
  return np.asarray(table[f'label_{column}'].to_numpy(), np.int64)


def count_labels(tables, labels):
  """Counts the videos of each class.

  Args:
    tables: split -> table, as read_tables returns them.
    labels: column -> class names.

  Returns:
    list of Labels, by name of the column.
  """
  found = []
  for column in sorted(labels):
    names, counts, unknown = labels[column], {}, {}
    for split, table in tables.items():
      numbers = label_numbers(table, column)
      counts[split] = np.bincount(numbers[numbers >= 0], minlength=len(names))
      unknown[split] = int((numbers < 0).sum())
    classes = [
      ClassCount(name, {split: int(counts[split][k]) for split in counts})
      for k, name in enumerate(names)
    ]
    classes.sort(key=lambda each: (-sum(each.videos.values()), each.name))
    found.append(Labels(column, classes, unknown))
  return found


def column(tables, name):
  """Returns a column of all tables: split -> float64 [N]."""
  return {
    split: np.asarray(table[name].to_numpy(), np.float64)
    for split, table in tables.items()
  }


def histogram(title, values):
  """Puts values into bars.

  Args:
    title: of the quantity, with its unit.
    values: split -> float64 [N]; what is not finite is unknown.

  Returns:
    Histogram, or None where no value is known.
  """
  known = {split: all_[np.isfinite(all_)] for split, all_ in values.items()}
  known = {split: some for split, some in known.items() if len(some)}
  if not known:
    return None
  together = np.concatenate(list(known.values()))
  low, high = _range(together)
  edges = np.linspace(low, high, _NUM_BINS + 1)
  return Histogram(
    title=title,
    edges=edges.tolist(),
    counts={
      split: np.histogram(np.minimum(some, high), edges)[0].tolist()
      for split, some in known.items()
    },
    summary={
      split: (float(some.min()), float(np.median(some)), float(some.max()))
      for split, some in known.items()
    },
    ticks=_ticks(low, high),
    beyond=int((together > high).sum()),
    unknown=sum(map(len, values.values())) - len(together),
  )


def _range(values):
  """The first and last edge of the bars."""
  low, high = float(values.min()), float(values.max())
  if low == high:
    # One bar in the middle.
    half = abs(low) / 2 or 1.0
    return low - half, high + half
  usual = float(np.percentile(values, _NEARLY_ALL))
  if high - low > _FAR * (usual - low) > 0:
    high = usual
  return low, high


def _ticks(low, high):
  """About _NUM_TICKS round numbers in [low, high]."""
  exact = (high - low) / _NUM_TICKS
  power = 10.0 ** math.floor(math.log10(exact))
  step = next(power * k for k in (1, 2, 5, 10) if power * k >= exact)
  first, last = math.ceil(low / step), math.floor(high / step)
  return [step * number for number in range(first, last + 1)]


def stored_sizes(tables):
  """Counts the sizes of stored frames.

  Args:
    tables: split -> table, as read_tables returns them.

  Returns:
    (sizes, rest): the most frequent as (width, height, videos), and the
    number of videos of other sizes.
  """
  pairs = np.concatenate(
    [
      np.stack([table[name].to_numpy() for name in ('width', 'height')], axis=1)
      for table in tables.values()
    ]
  )
  sizes, counts = np.unique(pairs, axis=0, return_counts=True)
  order = np.argsort(-counts, kind='stable')
  rows = [(*map(int, sizes[k]), int(counts[k])) for k in order]
  return rows[:_NUM_SIZES], sum(row[2] for row in rows[_NUM_SIZES:])
