"""Files that would run code, or take far more memory than they have bytes."""

import io
import json
import pathlib
import time
import zipfile

import memory_use
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

TIB = 2**40
MAX_SECONDS = 5
MAX_BYTES = 200 * 10**6


def pickle_that_writes(path):
  """A pickle, as bytes, that makes a file when it is loaded."""
  return f"cos\nsystem\n(S'touch {path}'\ntR.".encode()


def npy(shape, descr='|u1', content=b'', *, is_fortran=False):
  """An .npy file whose header says what it likes."""
  file = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    file, {'descr': descr, 'fortran_order': is_fortran, 'shape': shape}
  )
  return file.getvalue() + content


def raw_header(text):
  """An .npy file with this text in place of a header."""
  header = text.encode()
  length = len(header).to_bytes(2, 'little')
  return np.lib.format.magic(1, 0) + length + header


def write_npz(path, members, *, method=zipfile.ZIP_DEFLATED):
  """Writes an .npz of members that are given as bytes."""
  with zipfile.ZipFile(path, 'w', method) as archive:
    for name, content in members:
      archive.writestr(f'{name}.npy', content)


def hostile_npz(folder, name, mark):
  """Yields (kind, path) of .npz files with an array of this name.

  Args:
    folder: to write them to.
    name: of the array.
    mark: path of the file that appears if code was run.
  """
  payload = pickle_that_writes(mark)
  zeros = bytes(10**6)
  cases = {
    'objects': [(name, npy((1,), '|O', payload))],
    'pickle': [(name, payload)],
    'claims a TiB': [(name, npy((TIB,)))],
    'claims 2^200': [(name, npy((2**100, 2**100)))],
    'negative sides': [(name, npy((-4, -4), content=bytes(16)))],
    'cut short': [(name, npy((100,), content=bytes(50)))],
    'more than claimed': [(name, npy((10,), content=bytes(5000)))],
    'elements of no bytes': [(name, npy((10**15,), '<U0'))],
    'void of no bytes': [(name, npy((5,), '|V0', bytes(5)))],
    'a side of True': [(name, npy((True,), content=b'1'))],
    'a side beyond memory': [(name, npy((0, 10**30)))],
    'deep header': [(name, raw_header('(' * 9000))],
    'header that calls': [(name, raw_header('__import__("os").abort()'))],
    'huge header': [(name, raw_header("{'descr': '" + ' ' * 60_000 + "'}"))],
    'twice': [
      (name, npy((1,), content=b'1')),
      (name, npy((2,), content=b'22')),
    ],
  }
  for kind, members in cases.items():
    path = folder / f'{kind.replace(" ", "_")}.npz'
    write_npz(path, members)
    yield kind, path
  bomb = folder / 'bomb.npz'
  with (
    zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as archive,
    archive.open(f'{name}.npy', 'w') as member,
  ):
    member.write(npy((300 * 10**6,)))
    for _ in range(300):
      member.write(zeros)
  yield 'bomb', bomb
  squeezed = folder / 'lzma.npz'
  write_npz(
    squeezed, [(name, npy((1,), content=b'1'))], method=zipfile.ZIP_LZMA
  )
  yield 'lzma', squeezed
  path = folder / 'name_not_utf8.npz'
  write_npz(path, [('ä', npy((1,), content=b'1'))])
  path.write_bytes(path.read_bytes().replace('ä'.encode(), b'\xff\xfe'))
  yield 'name not UTF-8', path
  for kind, content in (
    ('a pickle', payload),
    ('an array', npy((1,), content=b'1')),
    ('empty', b''),
    ('text', b'clips'),
    ('a torn archive', squeezed.read_bytes()[:-30]),
  ):
    path = folder / f'{kind.replace(" ", "_")}_itself.npz'
    path.write_bytes(content)
    yield kind, path


def hostile_npy(folder, mark):
  """Yields (kind, path) of .npy files; see `hostile_npz`."""
  payload = pickle_that_writes(mark)
  cases = {
    'objects': npy((1, 1), '|O', payload),
    'a pickle': payload,
    'claims TiB': npy((TIB, 128), '<f4', bytes(512)),
    'negative': npy((-8, -16), '<f4', bytes(512)),
    'cut short': npy((10, 128), '<f4', bytes(512)),
    'no bytes': npy((10**15, 1), '<U0'),
    'a side of True': npy((True, 4), '<f4', bytes(16)),
    'a side beyond memory': npy((0, 10**30), '<f4'),
    'deep header': raw_header('[' * 9000),
    'empty': b'',
  }
  for kind, content in cases.items():
    path = folder / f'{kind.replace(" ", "_")}.npy'
    path.write_bytes(content)
    yield kind, path


def hostile_json(folder, name):
  """Yields (kind, path) of JSON files, each in a folder of its own."""
  cases = {
    'deep lists': '[' * 100_000,
    'deep and closed': '[' * 900 + ']' * 900,
    'deep objects': '{"a":' * 5000 + '1' + '}' * 5000,
    'a number of a million digits': '9' * 10**6,
    'no number': '{"format_version": 1e999}',
    'a list': '[]',
    'text': '"format_version"',
    'not UTF-8': '\udcff',
    'large': '[' + '[],' * 1_500_000 + '0]',
    'empty': '',
  }
  for kind, text in cases.items():
    path = folder / kind.replace(' ', '_') / name
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode('utf-8', 'surrogateescape'))
    yield kind, path


def hostile_parquet(folder, columns, *, long='path', many='id'):
  """Yields (kind, path) of Parquet files that stand for far more.

  Args:
    folder: to write them to.
    columns: name -> values of a sound table of a few rows.
    long: column of texts to make long.
    many: column of texts to repeat.
  """
  sound = pyarrow.table(columns)

  def write(kind, table, **options):
    path = folder / f'{kind.replace(" ", "_")}.parquet'
    pyarrow.parquet.write_table(table, path, **options)
    return kind, path

  count = 30_000_000
  repeated = {
    name: pyarrow.DictionaryArray.from_arrays(
      pyarrow.array(np.zeros(count, np.int8)), pyarrow.array(['x'])
    )
    if name in (long, many)
    else pyarrow.nulls(count, sound.schema.field(name).type)
    for name in sound.column_names
  }
  yield write('many rows', pyarrow.table(repeated))
  del repeated
  text = 'x' * 10**7
  texts = pyarrow.DictionaryArray.from_arrays(
    pyarrow.array(np.zeros(sound.num_rows, np.int32)), pyarrow.array([text])
  )
  position = sound.column_names.index(long)
  yield write('long texts', sound.set_column(position, long, texts))
  broken = pyarrow.Array.from_buffers(
    pyarrow.string(),
    sound.num_rows,
    pyarrow.array([b'\xff\xfe'] * sound.num_rows).buffers(),
  )
  yield write('not UTF-8', sound.set_column(position, long, broken))
  for kind, column in (
    ('nulls', pyarrow.nulls(sound.num_rows, pyarrow.string())),
    ('lists', pyarrow.array([[1]] * sound.num_rows)),
  ):
    yield write(kind, sound.set_column(position, long, column))
  path = folder / 'torn.parquet'
  path.write_bytes(write('sound', sound)[1].read_bytes()[:-20])
  yield 'torn', path
  path = folder / 'text.parquet'
  path.write_text(json.dumps(columns, default=str))
  yield 'text', path


def refused(call, error_type):
  """Calls what must refuse; gives its message, how long and how much memory.

  Returns:
    (message, seconds, bytes).
  """
  memory_use.forget_most_bytes()
  before = memory_use.most_bytes()
  # Not by the clock: other work may take the processor away.
  started = time.thread_time()
  with pytest.raises(error_type) as error:
    call()
  seconds = time.thread_time() - started
  return str(error.value), seconds, memory_use.most_bytes() - before


def check_refused(call, error_type, path):
  """Checks that a file is refused in one line that names it, in bounds."""
  message, seconds, num_bytes = refused(call, error_type)
  name = pathlib.Path(path).name
  assert name in message, (name, message)
  assert '\n' not in message, message
  assert len(message) < 1500, message
  assert seconds < MAX_SECONDS, (name, seconds)
  assert num_bytes < MAX_BYTES, (name, num_bytes)
  return message
