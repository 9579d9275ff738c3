"""What dataset.json and videos.parquet must say, if nobody can be trusted.

Both may come from anybody along with the frames. Names lead nowhere else, and
no number leads out of an array.
"""

import math
import re
from typing import Any

import numpy as np
import pyarrow

from vie_jax.untrusted import tables

_FILE_NAME = re.compile(
  r'((train|val)/)?(videos\.parquet|frames-\d+-of-\d+\.array_record|\w+\.json)'
)
_TYPES = {
  'name': str,
  'fingerprint': str,
  'files': dict,
  'labels': dict,
  'splits': dict,
  'options': dict,
}
_TEXTS = ('id', 'path')
_NUMBERS = ('num_frames', 'first_frame', 'height', 'width')
COLUMNS = (*_TEXTS, *_NUMBERS)


def manifest_problem(manifest: dict[str, Any]) -> str | None:
  """Says what dataset.json lacks or garbles, or None.

  Args:
    manifest: its content, of the right format version.
  """
  for key, kind in _TYPES.items():
    if not isinstance(manifest.get(key), kind):
      return f'{key} is missing or no {kind.__name__}'
  for key in ('max_short_side', 'max_long_side'):
    if not _is_count(manifest.get(key)):
      return f'{key} is missing or no number of pixels'
  fps = manifest['options'].get('fps')
  if not isinstance(fps, int | float) or not 0 < fps < math.inf:
    return 'options.fps is missing or no rate'
  for split, counts in manifest['splits'].items():
    if split not in ('train', 'val') or not _has_counts(
      counts, 'videos', 'frames'
    ):
      return f'splits has the garbled entry {split!r}'
  for column, names in manifest['labels'].items():
    if not isinstance(names, list) or not all(
      isinstance(name, str) for name in names
    ):
      return f'labels has the garbled entry {column!r}'
  for name, entry in manifest['files'].items():
    optional = ('records',) if _is_shard(name) else ()
    if not _FILE_NAME.fullmatch(name) or not _has_counts(
      entry, 'bytes', *optional
    ):
      return f'files has the garbled entry {name!r}'
  return None


def table_problem(table: pyarrow.Table, manifest: dict[str, Any]) -> str | None:
  """Says what is wrong with videos.parquet, or None.

  Args:
    table: with the columns of `COLUMNS` and those of the labels.
    manifest: that has no problem.
  """
  if not table.num_rows:
    # Nothing is in it, of whatever type.
    return None
  for name in _TEXTS:
    column = table[name]
    if not pyarrow.types.is_string(column.type) or column.null_count:
      return f'its column {name} is no text'
  columns = {}
  for name in (*_NUMBERS, *map(label_column, manifest['labels'])):
    column = table[name]
    if not pyarrow.types.is_integer(column.type) or column.null_count:
      return f'its column {name} has no whole numbers'
    columns[name] = np.asarray(column.to_numpy(), np.int64)
  for name in ('num_frames', 'height', 'width'):
    if not ((columns[name] > 0) & (columns[name] < 2**31)).all():
      return f'its column {name} has numbers that cannot be'
  ends = np.cumsum(columns['num_frames'])
  if (columns['first_frame'] != ends - columns['num_frames']).any():
    return 'the frames of a video do not follow those of the one before'
  for name, classes in manifest['labels'].items():
    numbers = columns[label_column(name)]
    if ((numbers < -1) | (numbers >= len(classes))).any():
      return f'its column {label_column(name)} has classes without a name'
  return None


def read_table(source: Any, manifest: dict[str, Any]) -> pyarrow.Table:
  """Reads the columns of videos.parquet that are needed.

  Raises:
    tables.TableError: in one line, without the name of the file.
  """
  wanted = [*COLUMNS, *map(label_column, manifest['labels'])]
  table = tables.read_table(source, wanted)
  missing = [name for name in wanted if name not in table.column_names]
  if missing:
    raise tables.TableError(f'it lacks the columns {", ".join(missing)}')
  problem = table_problem(table, manifest)
  if problem:
    raise tables.TableError(problem)
  return table


def label_column(name: str) -> str:
  """The column of videos.parquet that has the classes of a label column."""
  return f'label_{name}'


def _is_shard(name):
  return name.endswith('.array_record')


def _is_count(value):
  return type(value) is int and 0 <= value < 2**62


def _has_counts(entry, *names):
  return isinstance(entry, dict) and all(
    _is_count(entry.get(name)) for name in names
  )
