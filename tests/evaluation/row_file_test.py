"""Arrays that are written row by row, and go on after a kill."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from vie_jax.evaluation import row_file

REPOSITORY = pathlib.Path(__file__).parents[2]
SHAPE = (6, 5, 3)
ROWS = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
IDENTITY = {'weights': 'abc', 'clip': {'num_frames': 4}}


def open_file(tmp_path, **identity):
  return row_file.RowFile(
    tmp_path / 'rows.npy', shape=SHAPE, identity=IDENTITY | identity
  )


def blocks(start=0, size=4):
  yield from (ROWS[i : min(i + size, 30)] for i in range(start, 30, size))


def stops(after):
  """Blocks until something goes wrong."""
  for number, block in enumerate(blocks()):
    if number == after:
      raise RuntimeError('stopped')
    yield block


def test_rows_are_where_they_belong(tmp_path):
  file = open_file(tmp_path)
  assert (file.num_rows, file.num_done, file.is_complete) == (30, 0, False)
  file.fill(blocks())
  assert file.is_complete
  found = np.load(tmp_path / 'rows.npy')
  assert found.dtype == np.float32
  assert found.flags.c_contiguous
  np.testing.assert_array_equal(found, ROWS.reshape(SHAPE))
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'rows.json',
    'rows.npy',
  ]


def test_no_half_of_a_file_has_its_name(tmp_path):
  with pytest.raises(RuntimeError):
    open_file(tmp_path).fill(stops(after=3))
  assert not (tmp_path / 'rows.npy').exists()


def test_an_unfinished_file_is_gone_on_with(tmp_path):
  with pytest.raises(RuntimeError):
    open_file(tmp_path).fill(stops(after=5))
  file = open_file(tmp_path)
  assert 0 < file.num_done <= 20
  file.fill(blocks(file.num_done))
  np.testing.assert_array_equal(
    np.load(tmp_path / 'rows.npy'), ROWS.reshape(SHAPE)
  )


def test_a_finished_file_is_used_again_and_not_one_of_another_identity(
  tmp_path, caplog
):
  open_file(tmp_path).fill(blocks())
  assert open_file(tmp_path).is_complete
  with caplog.at_level('INFO'):
    other = open_file(tmp_path, weights='def')
  assert 'weights changed' in caplog.text
  assert (other.num_done, other.is_complete) == (0, False)
  # The old rows are gone before the first new one.
  with pytest.raises(RuntimeError):
    other.fill(stops(after=0))
  assert not (tmp_path / 'rows.npy').exists()
  again = open_file(tmp_path)
  assert again.num_done == 0
  again.fill(blocks())
  np.testing.assert_array_equal(
    np.load(tmp_path / 'rows.npy'), ROWS.reshape(SHAPE)
  )


@pytest.mark.parametrize('moment', ['no rows yet', 'all rows, old name'])
def test_a_kill_between_two_files_loses_nothing(tmp_path, moment):
  open_file(tmp_path).fill(blocks())
  part = tmp_path / 'rows.npy.part'
  if moment == 'no rows yet':
    # The record of a finished file must not speak for an empty new one.
    (tmp_path / 'rows.json').unlink()
    np.save(tmp_path / 'empty.npy', np.zeros(SHAPE, np.float32))
    (tmp_path / 'empty.npy').rename(part)
    assert open_file(tmp_path).num_done == 0
  else:
    (tmp_path / 'rows.npy').rename(part)
    assert open_file(tmp_path).is_complete
    np.testing.assert_array_equal(
      np.load(tmp_path / 'rows.npy'), ROWS.reshape(SHAPE)
    )


@pytest.mark.parametrize('name', ['rows.json', 'rows.npy'])
@pytest.mark.parametrize('content', [b'', b'[]', b'\x93NUMPY'])
def test_damaged_files_are_made_anew(tmp_path, name, content):
  open_file(tmp_path).fill(blocks())
  (tmp_path / name).write_bytes(content)
  file = open_file(tmp_path)
  assert file.num_done == 0
  file.fill(blocks())
  np.testing.assert_array_equal(
    np.load(tmp_path / 'rows.npy'), ROWS.reshape(SHAPE)
  )


def test_too_few_and_too_many_rows_are_noticed(tmp_path):
  wide = np.zeros((4, 2), np.float32)
  for name, rows, words in (
    ('few', blocks(4), 'only 26 came'),
    ('many', [ROWS, ROWS[:1]], 'more of them'),
    ('wide', [wide], 'do not fit'),
  ):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=words):
      open_file(tmp_path / name).fill(rows)


def test_an_array_of_nothing_is_written(tmp_path):
  path = tmp_path / 'rows.npy'
  file = row_file.RowFile(path, shape=(0, 5, 3), identity={})
  file.fill([])
  assert np.load(path).shape == (0, 5, 3)
  assert list(row_file.read_blocks(path)) == []


@pytest.mark.parametrize('block_bytes', [1, 12, 100, 10_000])
def test_blocks_read_are_the_rows_in_order(tmp_path, block_bytes):
  open_file(tmp_path).fill(blocks())
  found = list(
    row_file.read_blocks(tmp_path / 'rows.npy', block_bytes=block_bytes)
  )
  assert max(len(block) for block in found) == min(
    30, max(1, block_bytes // 12)
  )
  np.testing.assert_array_equal(np.concatenate(found), ROWS)


def test_no_more_than_a_block_is_in_memory(tmp_path):
  path = tmp_path / 'rows.npy'
  file = row_file.RowFile(path, shape=(16_384, 1024), identity={})
  tracemalloc.start()
  file.fill(np.full((64, 1024), i, np.float32) for i in range(256))
  for number, block in enumerate(row_file.read_blocks(path, block_bytes=2**18)):
    assert (block == number).all()
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert path.stat().st_size > 2**26
  assert peak < 2**21


# Row i of 2,000 is (i, i, i); takes ten seconds.
SLOW_WRITER = """
import sys, time
import numpy as np
from vie_jax.evaluation import row_file
file = row_file.RowFile(sys.argv[1], shape=(2000, 3), identity={'a': 1})
print(file.num_done, flush=True)
def blocks():
  for start in range(file.num_done, 2000, 10):
    time.sleep(float(sys.argv[2]))
    rows = np.arange(start, min(start + 10, 2000), dtype=np.float32)
    yield np.repeat(rows[:, None], 3, axis=1)
file.fill(blocks())
"""


def write_slowly(path, seconds):
  return subprocess.Popen(
    [sys.executable, '-c', SLOW_WRITER, str(path), str(seconds)],
    cwd=REPOSITORY,
    env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
    stdout=subprocess.PIPE,
    text=True,
  )


def rows_saved(record):
  try:
    return json.loads(record.read_text())['num_done']
  except FileNotFoundError:
    return 0


def test_killed_writers_leave_what_the_next_goes_on_with(tmp_path):
  path = tmp_path / 'rows.npy'
  record = tmp_path / 'rows.json'
  saved = 0
  for _ in range(3):
    process = write_slowly(path, 0.05)
    while rows_saved(record) <= saved and process.poll() is None:
      time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert int(process.communicate()[0].split()[0]) == saved
    assert process.returncode == -signal.SIGKILL
    saved = rows_saved(record)
    assert 0 < saved < 2000
    assert not path.exists()
  process = write_slowly(path, 0)
  assert int(process.communicate()[0]) == saved
  assert process.returncode == 0
  np.testing.assert_array_equal(np.load(path)[:, 1], np.arange(2000))
