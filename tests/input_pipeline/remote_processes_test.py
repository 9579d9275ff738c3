"""Processes that decode what is behind a URL: a real S3 server."""

import collections
import json
import os

import fsspec
import pytest
import s3_server
from input_pipeline import (
  damaged_data_test,
  decode_processes_test,
  frame_dataset,
)

from vie_jax.input_pipeline import (
  array_record_format,
  batch_iterator,
  dataset_folder,
  decode_processes,
  remote_shards,
)

train, evaluate = decode_processes_test.train, decode_processes_test.evaluate
THREADS, PROCESSES = (
  decode_processes_test.THREADS,
  decode_processes_test.PROCESSES,
)
SHARD = 'train/frames-00000-of-00001.array_record'


@pytest.fixture
def dataset(tmp_path, s3):
  """A data set of pictures, here and on the server: (folder, URL)."""
  folder = tmp_path / 'data'
  frame_dataset.write_training(folder)
  s3.files.put(f'{folder}{os.sep}', f'{s3.url}/data/', recursive=True)
  return folder, f'{s3.url}/data'


@pytest.mark.parametrize('num_threads', [1, 3, 9])
def test_batches_are_those_of_the_folder(dataset, caplog, num_threads):
  folder, url = dataset
  settings = {'decode_in': 'processes', 'num_threads': num_threads}
  damaged_data_test.assert_equal(
    train(url, 7, **settings), train(folder, 7, **THREADS)
  )
  damaged_data_test.assert_equal(
    evaluate(url, num_prefetched=0, **settings), evaluate(folder, **THREADS)
  )
  assert not caplog.messages


def test_the_index_is_fetched_once_and_not_by_each_process(dataset, s3):
  _, url = dataset
  before = len(s3.server.requests())
  with decode_processes_test.open_train(url, num_threads=3) as batches:
    for _ in range(12):
      next(batches)
    assert len(decode_processes_test.workers()) == 3
  requests = s3.server.requests()[before:]
  last_blocks = [
    request
    for request in requests
    if request[1].endswith(SHARD)
    and request[3] == array_record_format.BLOCK_BYTES
  ]
  assert len(last_blocks) == 1
  assert len([request for request in requests if SHARD in request[1]]) > 12


def test_two_cores_are_enough_for_processes_that_wait(dataset, monkeypatch):
  _, url = dataset
  for num_cores, expected in ((1, 0), (2, 4)):
    monkeypatch.setattr(batch_iterator, 'num_cores', lambda n=num_cores: n)
    settings = {'num_threads': 0, 'decode_in': 'auto'}
    with decode_processes_test.open_train(url, **settings) as batches:
      next(batches)
      assert len(decode_processes_test.workers()) == expected


def test_damage_is_replaced_counted_and_named_as_by_threads(
  dataset, s3, caplog
):
  folder, url = dataset
  content = bytearray((folder / SHARD).read_bytes())
  for number in (4, 20):
    place = content.index(frame_dataset.frame_jpeg(3, number))
    content[place - 12 : place] = bytes(12)
  s3.files.pipe(f'{url}/{SHARD}', bytes(content))
  found = {}
  for settings in (THREADS, PROCESSES):
    caplog.clear()
    batches = train(url, 12, **settings)
    found[settings['decode_in']] = batches, sorted(caplog.messages)
  damaged_data_test.assert_equal(found['processes'][0], found['threads'][0])
  assert found['processes'][1] == found['threads'][1]
  assert sum(batch['bad_frames'].sum() for batch in found['processes'][0])


def test_a_damaged_index_stops_at_once_and_is_said_as_by_threads(dataset, s3):
  folder, url = dataset
  content = bytearray((folder / SHARD).read_bytes())
  content[content.rindex(b'group_size')] ^= 1
  content[-array_record_format.BLOCK_BYTES + 64 :] = bytes(
    array_record_format.BLOCK_BYTES - 64
  )
  s3.files.pipe(f'{url}/{SHARD}', bytes(content))
  said = set()
  for settings in (THREADS, PROCESSES):
    before = len(s3.server.requests())
    with pytest.raises(dataset_folder.DatasetError) as raised:
      train(url, 3, batch_size=1, num_prefetched=0, **settings)
    said.add(str(raised.value))
    # None for each frame; a process asks for dataset.json and the shards' sizes.
    assert len(s3.server.requests()) - before < 40
  assert len(said) == 1
  assert f'{url}/{SHARD} cannot be read' in said.pop()


def test_a_killed_process_is_replaced(dataset, caplog):
  folder, url = dataset
  with decode_processes_test.open_train(url, num_threads=1) as batches:
    found = [next(batches)]
    (victim,) = decode_processes_test.workers()
    victim.kill()
    found += [next(batches) for _ in range(11)]
    (other,) = decode_processes_test.workers()
    assert other.pid != victim.pid
  damaged_data_test.assert_equal(found, train(folder, 12, **THREADS))
  (line,) = caplog.messages
  assert 'another one takes its place' in line


def swap(folder, url, s3):
  """Puts a data set of the same sizes in the place of another."""
  other = folder.with_name('other')
  decode_processes_test.write_data_set(other, '1')
  sizes = [(path / SHARD).stat().st_size for path in (folder, other)]
  assert len(set(sizes)) == 1
  s3.files.put(f'{other}{os.sep}', f'{url}/', recursive=True)


@pytest.mark.parametrize('settings', [THREADS, PROCESSES])
def test_another_data_set_in_its_place_is_not_read(dataset, s3, settings):
  folder, url = dataset
  with decode_processes_test.open_train(
    url, num_prefetched=0, **settings
  ) as batches:
    swap(folder, url, s3)
    with pytest.raises(dataset_folder.DatasetError) as raised:
      next(batches)
  said = str(raised.value)
  assert f'{url} is another one now' in said
  assert '0' * 64 in said
  assert '1' * 64 in said


@pytest.mark.parametrize('settings', [THREADS, PROCESSES])
def test_what_no_longer_fits_the_index_is_no_damage(dataset, s3, settings):
  folder, url = dataset
  with decode_processes_test.open_train(
    url, num_prefetched=0, **settings
  ) as batches:
    next(batches)
    swap(folder, url, s3)
    content = bytearray((folder / SHARD).read_bytes())
    content[64 : -array_record_format.BLOCK_BYTES] = bytes(
      len(content) - array_record_format.BLOCK_BYTES - 64
    )
    s3.files.pipe(f'{url}/{SHARD}', bytes(content))
    with pytest.raises(dataset_folder.DatasetError, match='another one now'):
      next(batches)


def test_a_process_that_a_store_kept_waiting_is_replaced(dataset, monkeypatch):
  folder, url = dataset
  monkeypatch.setattr(decode_processes, '_MAX_REMOTE_SILENCE', 2.0)
  with decode_processes_test.open_train(url, num_threads=1) as batches:
    found = [next(batches)]
    for _ in range(4):
      (worker,) = decode_processes_test.workers()
      worker.suspend()
      found += [next(batches) for _ in range(9)]
      assert decode_processes_test.is_gone(worker)
    (worker,) = decode_processes_test.workers()
  damaged_data_test.assert_equal(found, train(folder, 37, **THREADS))


def test_a_store_that_goes_away_ends_the_batches(tmp_path, monkeypatch):
  folder = tmp_path / 'data'
  frame_dataset.write_training(folder)
  with s3_server.running(tmp_path) as server:
    for name, value in server.environment.items():
      monkeypatch.setenv(name, value)
    no_tries = {'config_kwargs': {'retries': {'max_attempts': 0}}}
    monkeypatch.setitem(fsspec.config.conf, 's3', no_tries)
    monkeypatch.setenv('FSSPEC_S3', json.dumps(no_tries))
    files = fsspec.filesystem('s3', skip_instance_cache=True)
    files.mkdir('bucket')
    files.put(f'{folder}{os.sep}', 's3://bucket/data/', recursive=True)
    with decode_processes_test.open_train('s3://bucket/data') as batches:
      next(batches)
      server.stop()
      with pytest.raises(dataset_folder.UnreachableError, match='goes on'):
        collections.deque(batches, maxlen=0)


@pytest.mark.parametrize('url', ['s3://bucket/data', 's3a://bucket/data'])
def test_many_requests_may_be_on_their_way_to_s3(url, monkeypatch):
  def options():
    return remote_shards.RemoteFolder(url)._fs.config_kwargs

  monkeypatch.setattr(fsspec.config, 'conf', {})
  assert options() == {'max_pool_connections': 100}
  retries = {'retries': {'max_attempts': 2}}
  fsspec.config.conf['s3'] = {'config_kwargs': retries}
  assert options() == {'max_pool_connections': 100} | retries
  fsspec.config.conf['s3'] = {'config_kwargs': {'max_pool_connections': 7}}
  assert options() == {'max_pool_connections': 7}
