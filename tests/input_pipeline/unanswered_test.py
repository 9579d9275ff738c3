"""A file system that does not answer is no damage: nothing stands for its files.

Where a system call is to fail, strace has it fail, in a process of its own: only
so is it known what comes of it behind `array_record`.
"""

import errno
import os
import pathlib
import shutil
import subprocess
import sys

import other_user
import pyarrow
import pytest
from array_record.python import array_record_module
from input_pipeline import (
  damaged_data_test,
  decode_processes_test,
  image_dataset,
  image_pipeline_test,
  tfds_images_test,
)

from vie_jax.input_pipeline import (
  bad_frames,
  dataset_folder,
  decode_worker,
  frame_store,
  image_folder,
  record_shards,
  unanswered,
  worker_process,
)
from vie_jax.processes import exit_codes
from vie_jax.program import run_errors

needs_strace = pytest.mark.skipif(
  not shutil.which('strace'), reason='strace is missing'
)
SHARD = 'train/frames-00000-of-00001.array_record'
AGAIN = 'the same command goes on'

READ = """
import sys
from vie_jax.input_pipeline import dataset_folder, frame_store
try:
  dataset_folder.check_is_there(sys.argv[1])
  with frame_store.FrameStore.open(sys.argv[1], 'train') as store:
    for video in range(store.num_videos):
      store.read_frames(video, [0])
except dataset_folder.DatasetError as error:
  print(type(error).__name__, error)
"""


def break_index(shard):
  """So that the shard is read by the headers of its records."""
  content = bytearray(shard.read_bytes())
  content[content.rindex(b'group_size')] ^= 1
  shard.write_bytes(content)


def read_with(folder, name, calls):
  """What reading a data set says whose file of this name fails in these calls."""
  command = ['strace', '-f', '-o', os.devnull, '-P', str(folder / name)]
  done = subprocess.run(
    [
      *(*command, '-e', f'inject={calls}'),
      *(sys.executable, '-c', READ, str(folder)),
    ],
    env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
    check=True,
    capture_output=True,
    text=True,
  )
  return done.stdout


@needs_strace
@pytest.mark.parametrize(
  'name, calls, expected',
  [
    ('', 'newfstatat,statx:error=ESTALE', 'UnreachableError'),
    ('dataset.json', 'newfstatat,statx:error=ENOTCONN', 'UnreachableError'),
    ('dataset.json', 'openat:error=ESTALE', 'UnreachableError'),
    ('dataset.json', 'read:error=ETIMEDOUT', 'UnreachableError'),
    ('dataset.json', 'read:error=EIO', 'DatasetError'),
    ('train/videos.parquet', 'openat:error=ESTALE', 'UnreachableError'),
    ('train/videos.parquet', 'read:error=ETIMEDOUT', 'UnreachableError'),
    ('train/videos.parquet', 'pread64:error=ETIMEDOUT', 'UnreachableError'),
    ('train/videos.parquet', 'pread64:error=EIO', 'DatasetError'),
    (SHARD, 'newfstatat,statx:error=ESTALE', 'UnreachableError'),
    (SHARD, 'openat:error=ESTALE', 'UnreachableError'),
    (SHARD, 'openat:error=ESTALE:when=1', 'UnreachableError'),
    (SHARD, 'lseek,openat:error=ESTALE:when=2+', 'UnreachableError'),
    (SHARD, 'read:error=EHOSTUNREACH:when=1', 'UnreachableError'),
    (SHARD, 'pread64:error=ETIMEDOUT:when=3', 'UnreachableError'),
    (SHARD, 'pread64:error=ENOTCONN', 'UnreachableError'),
    (SHARD, 'pread64:error=EIO:when=3', 'UnreadableError'),
    (SHARD, 'openat:error=EACCES', 'DeniedError'),
    (SHARD, 'pread64:error=EPERM', 'DeniedError'),
    (SHARD, 'openat:error=EMFILE', 'DeniedError'),
    (SHARD, 'openat:error=ENFILE', 'UnreachableError'),
    (SHARD, 'pread64:error=ENOMEM:when=3', 'UnreachableError'),
    ('dataset.json', 'openat:error=EACCES', 'DeniedError'),
    ('train/videos.parquet', 'openat:error=EACCES', 'DeniedError'),
    ('train/videos.parquet', 'pread64:error=ENOMEM', 'UnreachableError'),
  ],
)
def test_what_the_system_says_of_a_file_decides(
  tmp_path, name, calls, expected
):
  damaged_data_test.write(tmp_path)
  kind, _, message = read_with(tmp_path, name, calls).partition(' ')
  assert kind == expected
  assert str(tmp_path / name) in message
  assert (AGAIN in message) == (expected == 'UnreachableError')
  if expected in ('DeniedError', 'UnreachableError'):
    assert '--restart' not in message
    assert 'amage' not in message


@needs_strace
@pytest.mark.parametrize(
  'calls, expected',
  [
    ('pread64:error=ESTALE:when=1', 'UnreachableError'),
    ('pread64:error=ESTALE:when=10', 'UnreachableError'),
    ('pread64:error=EIO:when=10', 'UnreadableError'),
  ],
)
def test_a_shard_without_its_index_may_be_away_too(tmp_path, calls, expected):
  damaged_data_test.write(tmp_path)
  break_index(tmp_path / SHARD)
  said = read_with(tmp_path, SHARD, calls)
  assert said.startswith(f'{expected} {tmp_path / SHARD}')


WORDS = 'pread() failed: {}; reading /a/shard; at byte 7; Could not read'


@pytest.mark.parametrize(
  'message, expected',
  [
    (WORDS.format(os.strerror(errno.ESTALE)), os.strerror(errno.ESTALE)),
    (WORDS.format(os.strerror(errno.EIO)), ''),
    ('open() failed: Connection timed out', 'Connection timed out'),
    ('hash mismatch; reading /x() failed: Connection timed out', ''),
    ('open() failed: Permission denied; x', 'Permission denied'),
  ],
)
def test_array_record_names_an_error_by_its_words(tmp_path, message, expected):
  path = tmp_path / 'shard'
  path.touch()
  error = RuntimeError(message)
  found = unanswered.reason_of_record(error, path)
  assert (found.words if found else '') == expected


@pytest.mark.parametrize(
  'error',
  [
    # What starting a thread raises in array_record, in Arrow, and no memory.
    RuntimeError(os.strerror(errno.EAGAIN)),
    pyarrow.ArrowException(
      f'Unknown error: Failed to launch: {os.strerror(errno.EAGAIN)}'
    ),
    pyarrow.ArrowMemoryError('malloc of size 64 failed'),
    MemoryError(),
  ],
)
def test_too_little_memory_or_too_many_threads_is_no_damage(tmp_path, error):
  path = tmp_path / 'shard'
  path.touch()
  for found in (
    unanswered.reason(error),
    unanswered.reason_of_record(error, path),
  ):
    assert 'memory' in found.words
    assert not found.remedy
    raised = dataset_folder.unanswered_error(path, found)
    assert run_errors.code_of(raised) == exit_codes.RETRY
  assert unanswered.reason(pyarrow.ArrowInvalid('Not a Parquet file')) is None


def test_a_shard_that_nobody_may_read_is_refused_at_the_start(tmp_path):
  damaged_data_test.write(tmp_path)
  (tmp_path / SHARD).chmod(0)
  with (
    other_user.running(tmp_path),
    pytest.raises(dataset_folder.DeniedError) as raised,
  ):
    frame_store.FrameStore.open(tmp_path, 'train')
  message = str(raised.value)
  assert message.startswith(f'{tmp_path / SHARD} cannot be read: Permission')
  assert 'access' in message
  assert '--restart' not in message
  assert run_errors.code_of(raised.value) == exit_codes.REFUSED


def test_no_image_stands_for_one_that_nobody_may_read(tmp_path):
  files = {f'{number}.png': image_dataset.plain(number) for number in range(9)}
  source = image_pipeline_test.open_files(tmp_path, files)
  (closed,) = tmp_path.rglob('4.png')
  closed.chmod(0)
  with (
    other_user.running(tmp_path),
    pytest.raises(dataset_folder.DeniedError, match=r'4\.png .*access'),
  ):
    image_pipeline_test.train(source, 3)


@pytest.fixture
def failing(monkeypatch):
  """Record -> the error of the system that reading it is to meet."""
  errors = {}

  class Reader(array_record_module.ArrayRecordReader):
    def read(self, records):
      for record in errors.keys() & records:
        raise RuntimeError(WORDS.format(os.strerror(errors[record])))
      return super().read(records)

  monkeypatch.setattr(array_record_module, 'ArrayRecordReader', Reader)
  return errors


@pytest.mark.parametrize(
  'load',
  [
    damaged_data_test.evaluate,
    lambda folder: damaged_data_test.train(folder, 9),
  ],
  ids=['evaluation', 'training'],
)
def test_no_frame_stands_for_one_that_is_away(tmp_path, failing, load, caplog):
  damaged_data_test.write(tmp_path)
  failing[4] = errno.ETIMEDOUT
  with pytest.raises(dataset_folder.UnreachableError, match=AGAIN):
    load(tmp_path)
  assert not caplog.messages
  failing[4] = errno.EACCES
  with pytest.raises(dataset_folder.DeniedError, match='access'):
    load(tmp_path)
  assert not caplog.messages
  # A bad sector, that does not heal.
  failing[4] = errno.EIO
  assert sum(batch['bad_frames'].sum() for batch in load(tmp_path))


def test_what_a_process_does_not_reach_is_asked_for_once_more(
  tmp_path, monkeypatch, caplog
):
  """The processes meet an outage, and it is over for the training."""
  damaged_data_test.write(tmp_path)
  expected = damaged_data_test.train(
    tmp_path, 9, **decode_processes_test.THREADS
  )
  command = f"""
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from vie_jax.input_pipeline import decode_worker
def read(*unused):
  raise RuntimeError({WORDS.format(os.strerror(errno.ESTALE))!r})
decode_worker.frame_records.FrameRecords._reader_of = read
decode_worker.main()
"""
  monkeypatch.setattr(worker_process, '_COMMAND', command)
  found = damaged_data_test.train(
    tmp_path, 9, **decode_processes_test.PROCESSES
  )
  damaged_data_test.assert_equal(found, expected)
  assert not caplog.messages


def test_a_process_that_starts_in_an_outage_is_replaced(
  tmp_path, monkeypatch, caplog
):
  folder, marker = tmp_path / 'set', tmp_path / 'was_away'
  damaged_data_test.write(folder)
  command = f"""
import json, os, pathlib, sys
sys.path[:] = json.loads(sys.argv[1])
from vie_jax.input_pipeline import dataset_folder, decode_worker
def away(place, **unused):
  raise OSError({errno.ESTALE}, os.strerror({errno.ESTALE}), str(place))
marker = pathlib.Path({str(marker)!r})
if not marker.exists():
  marker.touch()
  dataset_folder.json_text.read = away
decode_worker.main()
"""
  monkeypatch.setattr(worker_process, '_COMMAND', command)
  settings = {'decode_in': 'processes', 'num_threads': 1}
  damaged_data_test.train(folder, 12, **settings)
  (line,) = caplog.messages
  assert 'ended (the data set does not answer); another one' in line
  assert decode_worker.UNREACHABLE != decode_worker.NO_DATASET


def away(*unused, **unused_options):
  raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_a_data_set_in_an_outage_is_not_another_one(tmp_path, monkeypatch):
  damaged_data_test.write(tmp_path)
  with frame_store.FrameStore.open(tmp_path, 'train') as store:
    monkeypatch.setattr(os, 'stat', away)
    with pytest.raises(dataset_folder.UnreachableError) as raised:
      store.read_frames(0, [0])
  assert str(tmp_path) in str(raised.value)


def test_no_image_stands_for_one_that_is_away(tmp_path, monkeypatch):
  files = {f'{number}.png': image_dataset.plain(number) for number in range(9)}
  source = image_pipeline_test.open_files(tmp_path, files)
  read, asked = pathlib.Path.read_bytes, []

  def read_bytes(path):
    if path.name == '4.png':
      asked.append(path)
      # The outage is over when the reason is looked for.
      if len(asked) == 1:
        away()
    return read(path)

  monkeypatch.setattr(pathlib.Path, 'read_bytes', read_bytes)
  for load, settings in (
    (lambda **options: image_pipeline_test.train(source, 3, **options), {}),
    (
      lambda **options: image_pipeline_test.evaluate(source, **options),
      {'leaves_out': True},
    ),
  ):
    asked.clear()
    damage = bad_frames.BadFrames(1.0)
    with pytest.raises(
      dataset_folder.UnreachableError, match=rf'4\.png .*{AGAIN}'
    ):
      load(damage=damage, **settings)
    assert not damage.num_bad


@pytest.mark.parametrize('place', ['scandir', 'stat'])
def test_images_that_are_away_are_not_passed_over(tmp_path, monkeypatch, place):
  image_dataset.write_folder(tmp_path, {'a/b.png': image_dataset.plain(1)})
  scandir = os.scandir

  class Entry:
    def __init__(self, entry):
      self._entry = entry

    def __getattr__(self, name):
      return away if name == 'stat' else getattr(self._entry, name)

  class Entries:
    def __init__(self, folder):
      self._entries = scandir(folder)

    def __enter__(self):
      return map(Entry, self._entries)

    def __exit__(self, *unused):
      self._entries.close()

  monkeypatch.setattr(os, 'scandir', away if place == 'scandir' else Entries)
  with pytest.raises(dataset_folder.UnreachableError, match=AGAIN):
    image_folder.open_flat(str(tmp_path))


def test_records_of_tfds_may_be_away(tmp_path, monkeypatch, failing):
  kinds = tfds_images_test.FORMATS
  for kind in kinds:
    image_dataset.prepare(image_dataset.TinyPictures, tmp_path / kind, kind)
  sources = {
    kind: tfds_images_test.open_tiny(tmp_path / kind) for kind in kinds
  }
  failing[0] = errno.ENOTCONN
  with pytest.raises(dataset_folder.UnreachableError, match=AGAIN):
    sources['array_record'].read(0)
  monkeypatch.setattr(record_shards, '_open', away)
  with pytest.raises(dataset_folder.UnreachableError, match=AGAIN):
    sources['tfrecord'].read(0)
  with pytest.raises(dataset_folder.UnreachableError, match=AGAIN):
    tfds_images_test.open_tiny(tmp_path / 'tfrecord')
  monkeypatch.setattr(record_shards.os, 'stat', away)
  with pytest.raises(dataset_folder.UnreachableError, match=AGAIN):
    record_shards.ArrayRecordShards([('/a/shard', 3)])
