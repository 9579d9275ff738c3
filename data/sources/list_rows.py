"""Reads the rows of a list of videos: CSV, JSON lines or Parquet."""

import codecs
import csv
import dataclasses
import decimal
import io
import json
import math
import pathlib

from errors import InputError
from untrusted import tables
from wording import counted

_MAX_DIGITS = 1000
_PACKED = {
  'gzip': b'\x1f\x8b',
  'zip': b'PK\x03\x04',
  'bzip2': b'BZh91AY',
  'xz': b'\xfd7zXZ',
  'zstd': b'\x28\xb5\x2f\xfd',
}
_FORMATS = 'a list is a .csv, .jsonl or .parquet file'


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
  """One row of a list.

  Attributes:
    place: str, the file and the line, for messages.
    cells: dict from column that is used to str; '' where the list has nothing.
      Bytes that are not UTF-8 are surrogates, as in names of files.
  """

  place: str
  cells: dict


def read_rows(file, is_used):
  """Reads a list, by the suffix of its name.

  Args:
    file: path of a CSV file with a header, of a file with one JSON object a
      line, or of a Parquet table.
    is_used: function of the name of a column, whether its cells are wanted;
      what the others hold does not matter.

  Returns:
    (columns, rows): list of str, all columns, and list of Row.

  Raises:
    InputError: naming the line.
  """
  suffix = pathlib.Path(file).suffix.lower()
  if suffix == '.csv':
    return _csv_rows(file, is_used)
  if suffix in ('.jsonl', '.ndjson'):
    return _json_rows(file, is_used)
  if suffix == '.parquet':
    return _parquet_rows(file, is_used)
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


def _csv_rows(file, is_used):
  reader = csv.reader(io.StringIO(_text(file), newline=''), strict=True)
  columns, rows, line = None, [], 1
  try:
    for cells in reader:
      place = f'{file}, line {line}'
      line = reader.line_num + 1
      if not any(map(str.strip, cells)):
        continue
      if columns is None:
        columns = [cell.strip() for cell in cells]
      elif len(cells) != len(columns):
        raise InputError(
          f'{place}: {counted(len(cells), "cell")}, not {len(columns)}'
        )
      else:
        values = zip(columns, cells, strict=True)
        rows.append(Row(place, {k: v for k, v in values if is_used(k)}))
  except csv.Error as error:
    raise InputError(f'{file}, line {reader.line_num}: {error}') from error
  if columns is None:
    raise InputError(f'{file} is empty; its first line must name the columns')
  _check_columns(f'{file}, line 1', columns)
  return columns, rows


def _check_columns(place, columns):
  # Spreadsheets end lines with commas: columns without a name, and unused.
  named = [name for name in columns if name]
  repeated = sorted({name for name in named if named.count(name) > 1})
  if repeated:
    raise InputError(f'{place}: two columns are called {repeated[0]!r}')


def _json_rows(file, is_used):
  columns, rows = {}, []
  # Not splitlines: it would also part lines at characters inside of names.
  for number, line in enumerate(_text(file).split('\n'), 1):
    if not line.strip():
      continue
    place = f'{file}, line {number}'
    try:
      values = json.loads(
        line, object_pairs_hook=_object, parse_int=_whole_number
      )
    except (ValueError, RecursionError) as error:
      raise InputError(f'{place}: not JSON: {error}') from error
    if not isinstance(values, dict):
      raise InputError(f'{place}: must be an object, such as {{"path": ...}}')
    columns |= dict.fromkeys(values)
    rows.append(_row(place, values, is_used))
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


def _whole_number(digits):
  """Reads a whole number; Python refuses long ones, in words of its own."""
  if len(digits) > _MAX_DIGITS:
    raise ValueError(f'a number of {len(digits)} digits')
  return int(digits)


def _parquet_rows(file, is_used):
  try:
    columns = tables.open_table(file).schema_arrow.names
    _check_columns(file, columns)
    table = tables.read_table(file, [name for name in columns if is_used(name)])
  except tables.TableError as error:
    raise InputError(f'{file} cannot be read: {error}') from error
  rows = [
    _row(f'{file}, row {number}', values, is_used)
    for number, values in enumerate(table.to_pylist(), 1)
  ]
  return columns, rows


def _row(place, values, is_used):
  return Row(
    place,
    {k: _cell(v, f'{place}: {k}') for k, v in values.items() if is_used(k)},
  )


def _cell(value, place):
  """Writes a value as text, the way a CSV file would hold it."""
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return ''
  if isinstance(value, float) and value.is_integer():
    return str(int(value))
  if isinstance(value, bytes):
    return value.decode('utf-8', 'surrogateescape')
  if not isinstance(value, (str, int, float, decimal.Decimal)):
    kind = type(value).__name__
    raise InputError(f'{place} is a {kind}, neither text nor a number')
  return str(value)


def _text(file):
  try:
    content = pathlib.Path(file).read_bytes()
  except OSError as error:
    raise InputError(f'{file} cannot be read: {error.strerror}') from error
  for kind, beginning in _PACKED.items():
    if content.startswith(beginning):
      raise InputError(f'{file} is packed ({kind}); unpack it first')
  # Every list begins with ASCII: in UTF-16 and 32, a zero byte is beside it.
  if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or (
    b'\0' in content[:2]
  ):
    raise InputError(f'{file} is UTF-16 or UTF-32; save it as UTF-8')
  return content.decode('utf-8-sig', 'surrogateescape')
