"""Reads the rows of a list of videos: CSV, JSON lines or Parquet."""

import csv
import dataclasses
import decimal
import io
import json
import math
import pathlib

from labels_and_splits import InputError
from untrusted_tables import TableError, read_table

_FORMATS = 'a list is a .csv, .jsonl or .parquet file'


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of a list.

  Attributes:
    place: str, the file and the line, for messages.
    cells: dict from column to str; '' where the list has nothing. Bytes that
      are not UTF-8 are surrogates, as in names of files.
  """

  place: str
  cells: dict


def read_rows(file):
  """Reads a list, by the suffix of its name.

  Args:
    file: path of a CSV file with a header, of a file with one JSON object a
      line, or of a Parquet table.

  Returns:
    (columns, rows): list of str and list of Row.

  Raises:
    InputError: naming the line.
  """
  suffix = pathlib.Path(file).suffix.lower()
  if suffix == '.csv':
    return _csv_rows(file)
  if suffix in ('.jsonl', '.ndjson'):
    return _json_rows(file)
  if suffix == '.parquet':
    return _parquet_rows(file)
  raise InputError(f'{file}: {_FORMATS}')


def name_in(row, column):
  """Returns a cell of a row that is a name, such as of a class.

  Args:
    row: Row.
    column: str.

  Returns:
    str, without space around it, '' where there is none.

  Raises:
    InputError: if it is not UTF-8, naming the line.
  """
  name = row.cells.get(column, '').strip()
  try:
    name.encode()
  except UnicodeEncodeError:
    raise InputError(f'{row.place}: {column} is not UTF-8') from None
  return name


def _csv_rows(file):
  reader = csv.reader(io.StringIO(_text(file), newline=''), strict=True)
  columns, rows, line = None, [], 1
  try:
    for cells in reader:
      place = f'{file}, line {line}'
      line = reader.line_num + 1
      if not cells:
        continue
      if columns is None:
        columns = [cell.strip() for cell in cells]
      elif len(cells) != len(columns):
        raise InputError(f'{place}: {len(cells)} cells, not {len(columns)}')
      else:
        rows.append(Row(place, dict(zip(columns, cells, strict=True))))
  except csv.Error as error:
    raise InputError(f'{file}, line {reader.line_num}: {error}') from error
  if columns is None:
    raise InputError(f'{file} is empty; its first line must name the columns')
  repeated = sorted({name for name in columns if columns.count(name) > 1})
  if repeated:
    raise InputError(f'{file}, line 1: two columns are called {repeated[0]!r}')
  return columns, rows


def _json_rows(file):
  columns, rows = {}, []
  # Not splitlines: it would also part lines at characters inside of names.
  for number, line in enumerate(_text(file).split('\n'), 1):
    if not line.strip():
      continue
    place = f'{file}, line {number}'
    try:
      values = json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
      raise InputError(f'{place}: not JSON: {error}') from error
    if not isinstance(values, dict):
      raise InputError(f'{place}: must be an object, such as {{"path": ...}}')
    columns |= dict.fromkeys(values)
    rows.append(Row(place, {k: _cell(v, place) for k, v in values.items()}))
  if not rows:
    raise InputError(f'{file} is empty')
  return list(columns), rows


def _object(pairs):
  """Refuses an object that has a key twice: JSON takes the last silently."""
  values = dict(pairs)
  if len(values) < len(pairs):
    keys = [key for key, _ in pairs]
    repeated = next(key for key in keys if keys.count(key) > 1)
    raise ValueError(f'it has {repeated!r} twice')
  return values


def _parquet_rows(file):
  try:
    table = read_table(file)
  except TableError as error:
    raise InputError(f'{file} cannot be read: {error}') from error
  rows = []
  for number, values in enumerate(table.to_pylist(), 1):
    place = f'{file}, row {number}'
    rows.append(Row(place, {k: _cell(v, place) for k, v in values.items()}))
  return table.column_names, rows


def _cell(value, place):
  """Writes a value as text, the way a CSV file would hold it."""
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ''
  if isinstance(value, float) and value.is_integer():
    return str(int(value))
  if isinstance(value, bytes):
    return value.decode('utf-8', 'surrogateescape')
  if not isinstance(value, (str, int, float, decimal.Decimal)):
    raise InputError(f'{place}: {value!r} is neither text nor a number')
  return str(value)


def _text(file):
  try:
    content = pathlib.Path(file).read_bytes()
  except OSError as error:
    raise InputError(f'{file} cannot be read: {error.strerror}') from error
  return content.decode('utf-8-sig', 'surrogateescape')
