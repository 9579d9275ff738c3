import concurrent.futures
import pathlib
import random
import subprocess
import sys

import fsspec
import numpy as np
import pytest
import s3_server
from array_record.python import array_record_module
from input_pipeline import array_records, frame_dataset

from vie_jax.input_pipeline import (
  array_record_format,
  dataset_folder,
  frame_store,
  remote_shards,
  sound_frames,
)

REPOSITORY = pathlib.Path(__file__).parents[2]
_BLOCK = 2**16
_RNG = random.Random(5)


def _write(path, records):
  """The bytes of a shard."""
  array_records.write(path, records)
  return path.read_bytes()


def _remote(content, num_records):
  """The same bytes behind a URL."""
  fsspec.filesystem('memory').pipe('/shards/one', content)
  folder = remote_shards.RemoteFolder('memory://shards')
  return folder.shard('one', num_bytes=len(content), num_records=num_records)


@pytest.mark.parametrize(
  'sizes', array_records.SIZES.values(), ids=array_records.SIZES
)
def test_each_record_is_the_one_that_array_record_reads(tmp_path, sizes):
  content = _write(tmp_path / 'shard', [_RNG.randbytes(n) for n in sizes])
  reader = array_record_module.ArrayRecordReader(str(tmp_path / 'shard'))
  expected = reader.read_all()
  numbers = list(range(len(sizes)))
  shard = _remote(content, len(sizes))
  assert shard.read(numbers) == expected
  for number in numbers[:20]:
    assert shard.read([number, number]) == [expected[number]] * 2


def test_a_record_may_end_anywhere_in_a_block(tmp_path):
  for size in range(_BLOCK - 240, _BLOCK + 20):
    records = [b'a' * size, b'b' * 100, b'c']
    content = _write(tmp_path / 'shard', records)
    assert _remote(content, 3).read([2, 0, 1]) == [b'c', *records[:2]], size


def _changed(content, place, new):
  return content[:place] + new + content[place + len(new) :]


def test_every_changed_byte_outside_of_a_record_is_found(tmp_path):
  records = [_RNG.randbytes(70_000) for _ in range(2)]
  content = _write(tmp_path / 'shard', records)
  number_of_hash_bytes = 0
  first_chunk = 64
  header = range(first_chunk, first_chunk + 40 + 5)
  block = range(_BLOCK, _BLOCK + 24)
  for place in [*header, *block]:
    damaged = _changed(content, place, bytes([content[place] ^ 0x55]))
    try:
      assert _remote(damaged, 2).read([0]) == records[:1]
      number_of_hash_bytes += 1
    except array_record_format.DamagedError:
      pass
  # Two hashes in the header of a chunk, one in that of a block.
  assert number_of_hash_bytes == 24


@pytest.mark.parametrize('place', ['footer', 'postscript'])
def test_a_damaged_index_is_refused(tmp_path, place):
  records = [_RNG.randbytes(9_000) for _ in range(30)]
  content = _write(tmp_path / 'shard', records)
  begin = len(content) - _BLOCK + 24
  if place == 'footer':
    begin = content.rindex(b'group_size')
  damaged = _changed(content, begin, bytes(300))
  with pytest.raises(array_record_format.DamagedError):
    _remote(damaged, 30).read([0])
  with pytest.raises(
    array_record_format.DamagedError, match='30 records instead'
  ):
    _remote(content, 31).read([0])


def test_other_writer_options_are_refused(tmp_path):
  for options in ('group_size:3,uncompressed', 'group_size:1,zstd'):
    path = tmp_path / 'shard'
    writer = array_record_module.ArrayRecordWriter(str(path), options)
    for _ in range(6):
      writer.write(bytes(1000))
    writer.close()
    with pytest.raises(array_record_format.DamagedError):
      _remote(path.read_bytes(), 6).read([0])


@pytest.mark.parametrize(
  'url, module',
  [('s3://bucket/data', 's3fs'), ('gs://bucket/data', 'gcsfs')],
)
def test_a_missing_backend_is_one_line_that_names_it(url, module):
  code = f"""
import sys
sys.modules[{module!r}] = None  # importing it now fails
from vie_jax.input_pipeline import remote_shards
try:
  remote_shards.RemoteFolder({url!r})
except remote_shards.RemoteError as error:
  print(error)
"""
  result = subprocess.run(
    [sys.executable, '-c', code],
    check=True,
    capture_output=True,
    text=True,
    cwd=REPOSITORY,
  )
  assert f'pip install {module} ' in result.stdout
  assert result.stdout.count('\n') == 1


def test_an_unknown_protocol_is_one_line():
  with pytest.raises(dataset_folder.DatasetError, match='nothing://a cannot'):
    frame_store.FrameStore.open('nothing://a', 'train')


# Of the data set on the server.


def _videos(lengths, mean_bytes=400):
  """Bytes that tell which frame they stand for; read, never decoded here."""
  rng = random.Random(3)
  return [
    [
      b'%d/%d ' % (video, number)
      + rng.randbytes(rng.randrange(mean_bytes // 2, 2 * mean_bytes))
      for number in range(length)
    ]
    for video, length in enumerate(lengths)
  ]


@pytest.fixture
def dataset(tmp_path, s3):
  """A data set of pictures, here and on the server: (folder, URL)."""
  folder = tmp_path / 'data'
  videos = [
    [frame_dataset.frame_jpeg(video, number) for number in range(length)]
    for video, length in enumerate(frame_dataset.LENGTHS)
  ]
  frame_dataset.write_dataset(folder, videos, videos[:3])
  s3.files.put(f'{folder}/', f'{s3.url}/data/', recursive=True)
  return folder, f'{s3.url}/data'


def test_a_store_behind_a_url_is_the_store_of_the_folder(dataset):
  folder, url = dataset
  for split in ('train', 'val'):
    with (
      frame_store.FrameStore.open(folder, split) as here,
      frame_store.FrameStore.open(url, split) as there,
    ):
      assert str(there.directory) == url
      assert there.paths == here.paths
      assert there.label('kind')[0].tolist() == here.label('kind')[0].tolist()
      with concurrent.futures.ThreadPoolExecutor(8) as pool:
        frames = pool.map(
          lambda video: there.read_frames(
            video,
            range(there.num_frames[video]),
          ),
          range(there.num_videos),
        )
      for video, found in enumerate(frames):
        numbers = range(here.num_frames[video])
        assert found == here.read_frames(video, numbers)


def test_what_is_not_there_is_one_line(dataset, s3):
  _, url = dataset
  with pytest.raises(dataset_folder.DatasetError, match='no complete data set'):
    frame_store.FrameStore.open(f'{s3.url}/nothing', 'train')
  with pytest.raises(dataset_folder.DatasetError, match='no complete data set'):
    frame_store.FrameStore.open('s3://no-such-bucket/data', 'train')
  s3.files.pipe(f'{url}/train/videos.parquet', b'short')
  with pytest.raises(
    dataset_folder.DatasetError, match='has 5 bytes instead of'
  ):
    frame_store.FrameStore.open(url, 'train')
  s3.files.rm(f'{url}/train/videos.parquet')
  with pytest.raises(dataset_folder.DatasetError, match='is not there'):
    frame_store.FrameStore.open(url, 'train')


@pytest.mark.parametrize('damage', ['gone', 'shorter', 'emptied'])
def test_a_shard_that_changes_while_in_use_is_unreadable(dataset, s3, damage):
  folder, url = dataset
  name = 'train/frames-00000-of-00001.array_record'
  with frame_store.FrameStore.open(url, 'train') as store:
    assert store.read_frames(3, [1])
    if damage == 'gone':
      s3.files.rm(f'{url}/{name}')
      reason = 'it is gone'
    elif damage == 'shorter':
      s3.files.pipe(f'{url}/{name}', (folder / name).read_bytes()[:3000])
      reason = 'it has 3000 bytes instead of'
    else:
      size = (folder / name).stat().st_size
      s3.files.pipe(f'{url}/{name}', bytes(size))
      reason = 'is damaged'
    with pytest.raises(dataset_folder.UnreadableError, match=reason) as caught:
      store.read_frames(12, [1, 9])
    assert f'{url}/{name}' in str(caught.value)
    assert f'check {url}' in str(caught.value)


def test_another_frame_stands_for_a_damaged_one(dataset, s3):
  folder, url = dataset
  name = 'train/frames-00000-of-00001.array_record'
  content = (folder / name).read_bytes()
  damaged = frame_dataset.frame_jpeg(3, 20)
  place = content.index(damaged)
  s3.files.pipe(f'{url}/{name}', _changed(content, place - 12, bytes(12)))
  with frame_store.FrameStore.open(url, 'train') as store:
    search = sound_frames.read_whole(store, 3, 20)
    assert search == frame_dataset.frame_jpeg(3, 19)
    assert sound_frames.read_whole(store, 3, 21) == frame_dataset.frame_jpeg(
      3, 21
    )


def test_a_server_that_is_gone_stops_the_run(tmp_path, monkeypatch):
  with s3_server.running(tmp_path) as server:
    for name, value in server.environment.items():
      monkeypatch.setenv(name, value)
    files = fsspec.filesystem(
      's3',
      skip_instance_cache=True,
      config_kwargs={'retries': {'max_attempts': 0}},
    )
    files.retries = 1
    files.mkdir('bucket')
    content = _write(tmp_path / 'shard', [b'one', b'two'])
    files.pipe('bucket/shard', content)
    shard = remote_shards.RemoteShard(
      files,
      'bucket/shard',
      url='s3://bucket/shard',
      num_bytes=len(content),
      num_records=2,
    )
    assert shard.read([1]) == [b'two']
    server.stop()
    with pytest.raises(remote_shards.RemoteError, match='Could not connect'):
      shard.read([0])


@pytest.mark.parametrize(
  'step, num_requests', [(4, 16), (1, 1)], ids=['slowfast', '3dresnet']
)
def test_a_clip_costs_little_more_than_its_frames(
  tmp_path, s3, step, num_requests
):
  videos = _videos([250, 250], mean_bytes=16_000)
  frame_dataset.write_dataset(tmp_path / 'data', videos, [])
  s3.files.put(f'{tmp_path / "data"}/', f'{s3.url}/data/', recursive=True)
  with frame_store.FrameStore.open(f'{s3.url}/data', 'train') as store:
    store.read_frames(0, [0])  # the index, too
    before = len(s3.server.requests())
    numbers = 7 + step * np.arange(16)
    frames = store.read_frames(1, numbers)
  assert frames == [videos[1][number] for number in numbers]
  requests = s3.server.requests()[before:]
  assert len(requests) == num_requests
  fetched = sum(size for _, _, _, size in requests)
  assert 1.0 < fetched / sum(map(len, frames)) < 1.1
