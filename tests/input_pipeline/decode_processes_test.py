"""Clips that processes make are those that threads make, whatever happens."""

import contextlib
import errno
import gc
import itertools
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import fsspec
import numpy as np
import psutil
import pytest
from absl import logging
from input_pipeline import damaged_data_test, frame_dataset, pipeline_test

from vie_jax.input_pipeline import (
  batch_iterator,
  clip_batches,
  dataset_folder,
  decode_processes,
  decode_threads,
  frame_store,
  instances,
  pipeline,
  shared_arrays,
  sound_frames,
  worker_process,
)

ROOT = pathlib.Path(__file__).parents[2]
CLIP, CROP = pipeline_test.CLIP, pipeline_test.CROP
PROCESSES = {'decode_in': 'processes', 'num_threads': 2}
THREADS = {'decode_in': 'threads', 'num_threads': 2}


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp('dataset')
  frame_dataset.write_training(directory)
  return directory


@contextlib.contextmanager
def open_train(directory, **settings):
  settings = {'clip': CLIP, 'crop': CROP, 'batch_size': 4, 'seed': 5} | settings
  with (
    frame_store.FrameStore.open(directory, 'train') as store,
    pipeline.train_batches(
      instances.all_videos(store), **PROCESSES | settings
    ) as batches,
  ):
    yield batches


def train(directory, count, **settings):
  with open_train(directory, **settings) as batches:
    return [next(batches) for _ in range(count)]


def evaluate(directory, **settings):
  settings = {'clip': CLIP, 'crop': CROP, 'batch_size': 4} | settings
  with (
    frame_store.FrameStore.open(directory, 'train') as store,
    pipeline.eval_batches(instances.all_videos(store), **settings) as batches,
  ):
    return list(batches)


def workers():
  """The processes that decode for this one."""
  return [
    child
    for child in psutil.Process().children()
    if not is_gone(child) and 'decode_worker' in ' '.join(child.cmdline())
  ]


def is_gone(process):
  try:
    return process.status() == psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return True


def left_by_killed(command):
  """Kills a program that has told its processes; they must end with it."""
  with subprocess.Popen(
    [sys.executable, '-c', command],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
  ) as process:
    pids = [int(pid) for pid in process.stdout.readline().split()]
    left = [psutil.Process(pid) for pid in pids]
    process.kill()
    wait_until(lambda: all(map(is_gone, left)))
  return pids


def wait_until(is_so, seconds=30):
  end = time.monotonic() + seconds
  while not is_so():
    assert time.monotonic() < end
    time.sleep(0.02)


@pytest.mark.parametrize('num_threads', [1, 3, 9])
def test_batches_are_those_of_threads(directory, num_threads):
  damaged_data_test.assert_equal(
    train(directory, 7, num_threads=num_threads),
    train(directory, 7, **THREADS),
  )
  damaged_data_test.assert_equal(
    evaluate(directory, decode_in='processes', num_threads=num_threads),
    evaluate(directory, **THREADS),
  )


def test_there_are_as_many_as_asked_for_but_no_more_than_rows(directory):
  with open_train(directory, num_threads=3) as batches:
    next(batches)
    assert len(workers()) == 3
  assert not workers()
  with open_train(directory, num_threads=9, batch_size=2) as batches:
    next(batches)
    assert len(workers()) == 2
  assert not workers()


def test_a_few_are_threads_unless_asked_otherwise(directory, monkeypatch):
  for num_cores, num_threads, expected in ((8, 3, 0), (8, 4, 4), (3, 9, 0)):
    monkeypatch.setattr(batch_iterator, 'num_cores', lambda n=num_cores: n)
    settings = {'num_threads': num_threads, 'decode_in': 'auto'}
    with open_train(directory, **settings) as batches:
      next(batches)
      assert len(workers()) == expected


def test_damage_is_replaced_counted_and_named_as_by_threads(tmp_path, caplog):
  jpeg = frame_dataset.frame_jpeg
  damaged_data_test.write(
    tmp_path,
    {(0, 4): jpeg(0, 4)[:-300], (2, 3): jpeg(1, 3), (5, 7): b''},
  )
  damaged_data_test.flip_bit(tmp_path, 4, 6)
  found = {}
  for name, settings in (('threads', THREADS), ('processes', PROCESSES)):
    caplog.clear()
    batches = damaged_data_test.train(tmp_path, 12, **settings)
    found[name] = batches, sorted(caplog.messages)
  damaged_data_test.assert_equal(found['processes'][0], found['threads'][0])
  assert found['processes'][1] == found['threads'][1]
  assert len(found['processes'][1]) == 3
  assert sum(batch['bad_frames'].sum() for batch in found['processes'][0])


def test_a_video_that_none_can_stand_for_is_named_as_by_threads(tmp_path):
  damaged_data_test.write(tmp_path, {(1, number): b'?' for number in range(5)})
  said = set()
  for settings in (THREADS, PROCESSES):
    with pytest.raises(ValueError, match=r"'kind/video 1\.mp4'") as raised:
      damaged_data_test.train(tmp_path, 9, **settings)
    said.add(str(raised.value))
  assert len(said) == 1


def test_a_damaged_index_is_said_once_and_read_without(tmp_path, caplog):
  damaged_data_test.write(tmp_path)
  expected = damaged_data_test.train(tmp_path, 3, **THREADS)
  shard = damaged_data_test.shard_of(tmp_path)
  content = bytearray(shard.read_bytes())
  content[content.rindex(b'group_size')] ^= 1
  shard.write_bytes(content)
  found = damaged_data_test.train(tmp_path, 3, **PROCESSES)
  damaged_data_test.assert_equal(found, expected)
  (line,) = [text for text in caplog.messages if 'index of' in text]
  assert str(shard) in line


def test_what_is_only_in_this_process_is_read_by_it(directory, monkeypatch):
  monkeypatch.setattr(batch_iterator, 'num_cores', lambda: 8)
  target = fsspec.filesystem('memory')
  target.put(str(directory), '/decode_processes', recursive=True)
  damaged_data_test.assert_equal(
    train('memory://decode_processes', 3), train(directory, 3, **THREADS)
  )
  settings = {'num_threads': 8, 'decode_in': 'auto'}
  with open_train('memory://decode_processes', **settings) as batches:
    next(batches)
    wait_until(lambda: not workers())


@pytest.mark.parametrize('settings', [THREADS, PROCESSES])
def test_another_data_set_in_its_place_is_not_read(tmp_path, settings):
  old = write_data_set(tmp_path / 'data', '0')
  with open_train(old, num_prefetched=0, **settings) as batches:
    swap(tmp_path, old)
    with pytest.raises(dataset_folder.DatasetError) as raised:
      next(batches)
  said = str(raised.value)
  assert f'{old} is another one now' in said
  assert '0' * 64 in said
  assert '1' * 64 in said


def test_a_new_process_does_not_read_what_came_in_its_place(tmp_path):
  old = write_data_set(tmp_path / 'data', '0')
  expected = train(old, 60, **THREADS)
  found = []
  with open_train(old, num_threads=1) as batches:
    found.append(next(batches))
    swap(tmp_path, old)
    (victim,) = workers()
    victim.kill()
    with pytest.raises(dataset_folder.DatasetError, match='another one now'):
      found += itertools.islice(batches, 59)
  damaged_data_test.assert_equal(found, expected[: len(found)])


def test_the_same_data_set_may_be_copied_to_its_place(tmp_path):
  old = write_data_set(tmp_path / 'data', '0')
  expected = train(old, 3, **THREADS)
  with open_train(old, num_prefetched=0) as batches:
    shutil.copytree(old, tmp_path / 'copy')
    shutil.rmtree(old)
    (tmp_path / 'copy').rename(old)
    found = [next(batches) for _ in range(3)]
  damaged_data_test.assert_equal(found, expected)


def write_data_set(folder, digit):
  """The same pictures, with a fingerprint of one digit."""
  frame_dataset.write_training(folder)
  manifest = folder / 'dataset.json'
  manifest.write_text(manifest.read_text().replace('0' * 64, digit * 64))
  return folder


def swap(tmp_path, folder):
  folder.rename(tmp_path / 'before')
  write_data_set(folder, '1')


def test_killed_ones_are_replaced_and_at_last_done_without(directory, caplog):
  expected = train(directory, 60, **THREADS)
  found = []

  def reports():
    return [line for line in caplog.messages if 'decodes clips ended' in line]

  with open_train(directory, num_threads=1) as batches:
    found.append(next(batches))
    for number in range(1, 4):
      wait_until(workers)
      (victim,) = workers()
      victim.kill()
      # Those that are made ahead of time come first.
      while len(reports()) < number and len(found) < len(expected) - 5:
        found.append(next(batches))
    found += [next(batches) for _ in range(5)]
    assert not workers()
  damaged_data_test.assert_equal(found, expected[: len(found)])
  assert all('killed by SIGKILL' in line for line in reports())
  outcomes = ['another one takes its place'] * 2
  outcomes.append('threads decode in its place')
  for outcome, line in zip(outcomes, reports(), strict=True):
    assert outcome in line


def test_ones_that_cannot_start_are_done_without(directory, monkeypatch):
  said = []
  # As if nothing had been said before.
  monkeypatch.setattr(
    logging,
    'log_first_n',
    lambda level, message, n, *values: said.append((message % values, n)),
  )
  expected = train(directory, 5, **THREADS)
  monkeypatch.setattr(worker_process, '_COMMAND', 'raise SystemExit(7)')
  damaged_data_test.assert_equal(train(directory, 5), expected)
  assert len(said) == 2
  for line, times in said:
    assert 'does not work (exit code 7)' in line
    assert times == 1


def test_without_room_for_more_processes_threads_decode(directory, monkeypatch):
  expected = train(directory, 5, **THREADS)

  def refuse(*unused_arguments, **unused_options):
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

  monkeypatch.setattr(subprocess, 'Popen', refuse)
  damaged_data_test.assert_equal(train(directory, 5), expected)


def test_without_room_for_more_memory_threads_decode(directory, monkeypatch):
  expected = train(directory, 9, **THREADS)
  add, added = shared_arrays.SharedMemory.add, []

  def refuse(self, num_bytes):
    added.append(num_bytes)
    # One to see whether there is any, one for the table, one for a batch.
    if len(added) > 3:
      raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return add(self, num_bytes)

  monkeypatch.setattr(shared_arrays.SharedMemory, 'add', refuse)
  damaged_data_test.assert_equal(train(directory, 9), expected)
  assert len(added) > 3


def test_sound_clips_are_made_by_processes_only(directory, monkeypatch):
  def refuse(*unused_arguments):
    raise AssertionError('made by the training')

  expected = train(directory, 9, **THREADS)
  monkeypatch.setattr(sound_frames.SoundFrames, 'read', refuse)
  damaged_data_test.assert_equal(train(directory, 9), expected)


LAZY = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from vie_jax.input_pipeline import decode_worker
make, asked = decode_worker._Worker.make, []
def make_at_first(worker, *request):
  asked.append(request)
  if len(asked) < 6:
    make(worker, *request)
decode_worker._Worker.make = make_at_first
decode_worker.main()
"""


def test_rows_that_nobody_made_are_not_those_of_a_batch_before(
  directory, monkeypatch
):
  """Processes that answer, and soon make nothing, in memory used before."""
  expected = train(directory, 30, **THREADS)
  monkeypatch.setattr(worker_process, '_COMMAND', LAZY)
  with open_train(directory) as batches:
    for batch in expected:
      damaged_data_test.assert_equal([next(batches)], [batch])


def test_what_lies_in_the_current_folder_is_not_theirs(
  directory, tmp_path, monkeypatch
):
  (tmp_path / 'json.py').write_text('raise SystemExit(1)')
  (tmp_path / 'vie_jax').mkdir()
  (tmp_path / 'vie_jax' / '__init__.py').write_text('raise SystemExit(1)')
  monkeypatch.chdir(tmp_path)
  test_sound_clips_are_made_by_processes_only(directory, monkeypatch)


def test_silent_ones_are_done_without_and_ended(directory, monkeypatch):
  expected = train(directory, 9, **THREADS)
  monkeypatch.setattr(decode_processes, '_MAX_SILENCE', 1.0)
  # One of them may have made nothing so far.
  monkeypatch.setattr(worker_process, '_MAX_START', 9.0)
  with open_train(directory) as batches:
    found = [next(batches)]
    stopped = workers()
    for worker in stopped:
      worker.suspend()
    found += [next(batches) for _ in range(8)]
    assert not any(worker.is_running() for worker in stopped)
  damaged_data_test.assert_equal(found, expected)


def test_those_that_never_start_are_done_without(directory, monkeypatch):
  expected = train(directory, 3, **THREADS)
  monkeypatch.setattr(worker_process, '_MAX_START', 1.0)
  monkeypatch.setattr(worker_process, '_COMMAND', 'import time; time.sleep(99)')
  before = set(psutil.Process().children())
  with open_train(directory) as batches:
    started = set(psutil.Process().children()) - before
    found = [next(batches) for _ in range(3)]
    assert len(started) == 2
    wait_until(lambda: all(map(is_gone, started)))
  damaged_data_test.assert_equal(found, expected)


def test_busy_ones_end_with_a_killed_training(directory):
  busy = (
    'import json, sys; sys.path[:] = json.loads(sys.argv[1]); import time;'
    'from vie_jax.input_pipeline import decode_worker as w;'
    'w._Worker.make = lambda *unused: time.sleep(999); w.main()'
  )
  command = f"""
import sys, threading, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]
from input_pipeline import decode_processes_test as test
from vie_jax.input_pipeline import worker_process
worker_process._COMMAND = {busy!r}
def tell():
  test.wait_until(lambda: len(test.workers()) == 2)
  time.sleep(2)
  print(*[worker.pid for worker in test.workers()], flush=True)
threading.Thread(target=tell).start()
with test.open_train({str(directory)!r}) as batches:
  next(batches)
"""
  assert len(left_by_killed(command)) == 2


def test_stopped_ones_do_not_keep_batches_from_closing(directory):
  with open_train(directory) as batches:
    next(batches)
    # Those that are made ahead of time are there.
    time.sleep(0.5)
    stopped = workers()
    for worker in stopped:
      worker.suspend()
  assert not any(worker.is_running() for worker in stopped)


@pytest.mark.parametrize('settings', [THREADS, PROCESSES])
def test_batches_that_are_closed_leave_their_memory(directory, settings):
  def count():
    gc.collect()
    return {
      'pieces': pathlib.Path('/proc/self/maps').read_text().count('vie_jax'),
      'files': len(os.listdir('/proc/self/fd')),
      'memories': sum(
        isinstance(one, (decode_threads._Memory, decode_processes._Batches))
        for one in gc.get_objects()
      ),
    }

  train(directory, 3, **settings)
  before = count()
  for _ in range(12):
    train(directory, 3, **settings)
  # TensorFlow's threads may still have the last ones: less than one of each.
  for name, number in count().items():
    assert number < before[name] + 12


def test_signals_of_a_job_are_not_theirs(directory):
  with open_train(directory) as batches:
    next(batches)
    before = {worker.pid for worker in workers()}
    for worker in workers():
      for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
        worker.send_signal(number)
    for _ in range(3):
      next(batches)
    assert {worker.pid for worker in workers()} == before


def test_memory_is_used_again(directory, monkeypatch):
  added = []
  add = shared_arrays.SharedMemory.add

  def note(self, num_bytes):
    added.append(num_bytes)
    return add(self, num_bytes)

  monkeypatch.setattr(shared_arrays.SharedMemory, 'add', note)
  train(directory, 1)
  with open_train(directory, num_prefetched=2) as batches:
    added.clear()
    for _ in range(60):
      next(batches)
    assert len(added) < 10


def test_a_batch_that_is_kept_stays_as_it_is(directory):
  with open_train(directory) as batches:
    kept = next(batches)
    copy = {name: array.copy() for name, array in kept.items()}
    for _ in range(30):
      next(batches)
  damaged_data_test.assert_equal([kept], [copy])


def test_they_need_no_library_that_computes():
  command = (
    'import sys; from vie_jax.input_pipeline import decode_worker;'
    'print([name for name in ("jax", "tensorflow") if name in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', command], cwd=ROOT, capture_output=True, check=True
  )
  assert done.stdout.strip() == b'[]'


def test_none_outlives_a_killed_training(directory):
  command = f"""
import sys, types
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]
from input_pipeline import decode_processes_test as test
with test.open_train({str(directory)!r}) as batches:
  next(batches)
  print(*[worker.pid for worker in test.workers()], flush=True)
  sys.stdin.read()
"""
  assert len(left_by_killed(command)) == 2


def test_without_memory_to_share_they_are_refused(directory, monkeypatch):
  monkeypatch.delattr(os, 'memfd_create')
  with pytest.raises(ValueError, match="'threads'"):
    train(directory, 1)
  monkeypatch.setattr(batch_iterator, 'num_cores', lambda: 9)
  settings = {'num_threads': 9, 'decode_in': 'auto'}
  assert len(train(directory, 1, **settings)) == 1


@pytest.mark.parametrize(
  ('limit', 'expected'),
  [
    ('250000 100000\n', 3),
    ('5000 100000\n', 1),
    ('6400000 100000\n', 8),
    ('max 100000\n', 8),
    (None, 8),
  ],
)
def test_cores_are_those_that_a_container_may_use(
  tmp_path, monkeypatch, limit, expected
):
  path = tmp_path / 'cpu.max'
  if limit is not None:
    path.write_text(limit)
  monkeypatch.setattr(batch_iterator, '_CPU_LIMIT', path)
  monkeypatch.setattr(os, 'sched_getaffinity', lambda unused_pid: range(8))
  assert batch_iterator.num_cores() == expected


@pytest.mark.parametrize(
  ('tasks', 'own', 'expected'),
  [
    ('1000\n', 4096, 7),
    ('max\n', 1000, 7),
    ('max\n', resource.RLIM_INFINITY, 9),
    (None, 10**6, 9),
    ('500\n', 10**6, 0),
  ],
)
def test_there_are_no_more_than_their_threads_may_be(
  directory, tmp_path, monkeypatch, tasks, own, expected
):
  path = tmp_path / 'pids.max'
  if tasks is not None:
    path.write_text(tasks)
  monkeypatch.setattr(clip_batches, '_TASK_LIMIT', path)
  monkeypatch.setattr(resource, 'getrlimit', lambda unused: (own, own))
  monkeypatch.setattr(batch_iterator, 'num_cores', lambda: 9)
  settings = {'num_threads': None, 'decode_in': 'auto', 'batch_size': 9}
  with open_train(directory, **settings) as batches:
    next(batches)
    assert len(workers()) == expected


def test_arrays_of_a_layout_do_not_meet():
  layout = shared_arrays.Layout(
    {'a': (np.uint8, (3, 5)), 'b': (np.float64, (2,)), 'c': (np.int32, (0, 4))}
  )
  memory = np.zeros(layout.num_bytes, np.uint8)
  arrays = layout.arrays(memory)
  for number, array in enumerate(arrays.values(), 1):
    array[...] = number
    assert array.ctypes.data % 64 == memory.ctypes.data % 64
  assert [array.shape for array in arrays.values()] == [(3, 5), (2,), (0, 4)]
  assert {float(value) for value in arrays['a'].flat} == {1.0}
  assert {float(value) for value in arrays['b']} == {2.0}
