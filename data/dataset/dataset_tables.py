"""Reads videos.parquet of a data set that anybody may have made."""

import pyarrow
from untrusted import tables

from dataset.dataset_layout import table_schema
from dataset.remote import file_at

_MAY_BE_EMPTY = {'source_fps', 'duration_seconds'}


def read_videos(place, name, labels):
  """Reads a table of videos.

  Args:
    place: pathlib.Path or RemoteFolder of the data set.
    name: of the table in it.
    labels: column -> class names, of dataset.json.

  Returns:
    pyarrow.Table of the columns and types that it should have.

  Raises:
    OSError, OutputError: if it cannot be read.
    tables.TableError: if it is damaged, or another table; one line.
  """
  table = tables.read_table(file_at(place, name))
  schema = pyarrow.schema(table_schema(labels))
  if table.column_names != schema.names:
    raise tables.TableError('it has other columns than it should')
  for field in schema:
    column = table[field.name]
    is_empty = column.null_count and field.name not in _MAY_BE_EMPTY
    if column.type != field.type or is_empty:
      raise tables.TableError(f'its column {field.name} is no {field.type}')
  return table
