"""Parquet tables from anybody: what they claim is checked before it is read.

A few bytes of Parquet can stand for any number of equal values.
"""

import contextlib
import io
import itertools
import os
import pathlib
import stat

import pyarrow
import pyarrow.compute
import pyarrow.parquet

# Bytes in memory for each byte of the file; nothing below the second limit is
# too much. Tables shrink to a tenth, embeddings hardly.
MAX_RATIO = 100
SMALL_BYTES = 2**26
# Of one text, such as a path.
MAX_TEXT_BYTES = 2**16
MAX_COLUMNS = 10_000
# Columns of all row groups; 50,000 take some seconds to look at.
MAX_CHUNKS = 50_000

_BYTES_OF = {
  'BOOLEAN': 1,
  'INT32': 4,
  'FLOAT': 4,
  'INT64': 8,
  'DOUBLE': 8,
  'INT96': 12,
  # Texts are read as numbers of a dictionary first.
  'BYTE_ARRAY': 4,
}


class TableError(ValueError):
  """A table is damaged, or claims more than it can hold; one line."""


def open_table(source):
  """Opens a Parquet file, and refuses one that would take too much memory.

  Args:
    source: path of the file, or its bytes as io.BytesIO.

  Returns:
    pyarrow.parquet.ParquetFile. Its columns of text come as dictionaries.

  Raises:
    TableError: in one line, without the name of the file.
  """
  num_bytes = _size(source)
  if not isinstance(source, io.BytesIO):
    source = os.path.abspath(source)  # Arrow takes 'a:b' for a URL.
  try:
    _check_columns(source)
    schema = pyarrow.parquet.read_schema(source)
    texts = [field.name for field in schema if _is_text(field.type)]
    file = pyarrow.parquet.ParquetFile(source, read_dictionary=texts)
  # A damaged footer shows as any of these.
  except (
    pyarrow.ArrowException,
    OSError,
    LookupError,
    OverflowError,
    UnicodeDecodeError,
  ) as error:
    raise TableError(_one_line(error)) from error
  problem = _problem(file.metadata, max(MAX_RATIO * num_bytes, SMALL_BYTES))
  if problem:
    raise TableError(f'{problem}, and the file has {num_bytes} bytes')
  return file


class _DataError(Exception):
  """Data were asked for."""


class _Footer:
  """A file whose data cannot be read once `is_read`."""

  def __init__(self, file):
    self._file = file
    self.is_read = False

  def __getattr__(self, name):
    return getattr(self._file, name)

  def read(self, size=-1):
    if self.is_read:
      raise _DataError
    return self._file.read(size)


def _check_columns(source):
  """Raises if the footer describes a column in a way that Arrow refuses.

  pyarrow ends the process if such a description is looked at, but raises if
  the column is read: so each of them is, up to its data.
  """
  with contextlib.ExitStack() as stack:
    if not isinstance(source, io.BytesIO):
      source = stack.enter_context(open(source, 'rb'))
    footer = _Footer(source)
    file = pyarrow.parquet.ParquetFile(pyarrow.PythonFile(footer, mode='r'))
    footer.is_read = True
    columns = range(file.metadata.num_columns)
    groups = range(file.metadata.num_row_groups)
    if len(columns) > MAX_COLUMNS or len(columns) * len(groups) > MAX_CHUNKS:
      raise TableError(
        f'it claims {len(columns)} columns in {len(groups)} row groups'
      )
    for group, column in itertools.product(groups, columns):
      try:
        next(
          file.reader.iter_batches(
            1, row_groups=[group], column_indices=[column]
          ),
          None,
        )
      except _DataError as error:
        # The file keeps it, and its frames the file, and all that callers
        # have at hand: a cycle through Arrow that nothing would collect.
        error.__traceback__ = None


def read_table(source, columns=None):
  """Reads columns of a Parquet file whole.

  Args:
    source: as in `open_table`.
    columns: names of those that are wanted, as far as they are there; None for
      all.

  Returns:
    pyarrow.Table; texts are valid UTF-8.

  Raises:
    TableError: in one line, without the name of the file.
  """
  file = open_table(source)
  names = [
    name
    for name in file.schema_arrow.names
    if columns is None or name in columns
  ]
  try:
    table = file.read(columns=names)
    for position, name in enumerate(table.column_names):
      plain = plain_text(table.column(position))
      table = table.set_column(position, name, plain)
    table.validate(full=True)
  except (pyarrow.ArrowException, OSError, OverflowError) as error:
    raise TableError(_one_line(error)) from error
  return table


def plain_text(column):
  """Turns texts that came as a dictionary into plain ones.

  Args:
    column: pyarrow.ChunkedArray or Array; other types are returned as they are.

  Raises:
    TableError: if they are too long, or damaged.
  """
  if not pyarrow.types.is_dictionary(column.type):
    return column
  try:
    _check_lengths(column)
    return column.cast(column.type.value_type)
  except pyarrow.ArrowException as error:
    raise TableError(_one_line(error)) from error


def _check_lengths(column):
  total = 0
  for chunk in getattr(column, 'chunks', [column]):
    lengths = pyarrow.compute.binary_length(chunk.dictionary)
    longest = pyarrow.compute.max(lengths).as_py() or 0
    if longest > MAX_TEXT_BYTES:
      raise TableError(f'it has a text of {longest} bytes')
    # Long texts that are repeated take more than short ones that are not.
    if longest * len(chunk) > SMALL_BYTES:
      total += pyarrow.compute.sum(lengths.take(chunk.indices)).as_py() or 0
      if total > MAX_RATIO * SMALL_BYTES:
        raise TableError(f'it has {total} bytes of text')


def _is_text(kind):
  return pyarrow.types.is_string(kind) or pyarrow.types.is_binary(kind)


def _size(source):
  if isinstance(source, io.BytesIO):
    return len(source.getbuffer())
  try:
    status = os.stat(pathlib.Path(source))
  except OSError as error:
    raise TableError(error.strerror or str(error)) from error
  # A pipe would be waited for.
  if not stat.S_ISREG(status.st_mode):
    raise TableError('it is no regular file')
  return status.st_size


def _problem(metadata, max_bytes):
  """Says in which way a table is larger than it may be, or None."""
  claimed = packed = 0
  for number in range(metadata.num_row_groups):
    group = metadata.row_group(number)
    for position in range(metadata.num_columns):
      chunk = group.column(position)
      width = _BYTES_OF.get(chunk.physical_type)
      if width is None:
        width = metadata.schema.column(position).length
      claimed += max(chunk.num_values, group.num_rows) * width
      packed += chunk.total_uncompressed_size
  if max(claimed, packed, metadata.num_rows) > max_bytes:
    return (
      f'it claims {metadata.num_rows} rows and {max(claimed, packed)} bytes'
    )
  return None


def _one_line(error):
  text = ' '.join(str(error).split())[:200].rstrip('.')
  return text or type(error).__name__
