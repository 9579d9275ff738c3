import concurrent.futures
import json
import pathlib
import random
import shutil
import sys
import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from array_record.python import array_record_module
from input_pipeline import array_records

from vie_jax.input_pipeline import dataset_folder, frame_store

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'data'))

from dataset import dataset_writer, staging

_SHARD_BYTES = 20_000
_NUM_FRAMES = {'train': [7, 1, 30, 12, 5], 'val': [3]}


def _content(path, frame_number):
  """Bytes that tell which frame they stand for."""
  rng = random.Random(f'{path}/{frame_number}')
  return rng.randbytes(400 + rng.randrange(400))


def _row(path, number, num_frames, first_frame, frames):
  return {
    'id': f'{number:016x}',
    'path': path,
    'num_frames': num_frames,
    'first_frame': first_frame,
    'height': 120 + number,
    'width': 160,
    'source_fps': 25.0,
    'source_height': 120,
    'source_width': 160,
    'duration_seconds': num_frames / 25,
    'source_sha256': '',
    'frames_sha256': frames.digest.hexdigest(),
    'num_bytes': frames.num_bytes,
    'label_class': number % 2,
    'label_speed': -1,
  }


@pytest.fixture
def dataset(tmp_path):
  """A prepared data set whose frames are random bytes, in many shards."""
  out = tmp_path / 'prepared'
  stage = staging.Staging(out)
  stage.start({})
  rows, number = {}, 0
  for split, counts in _NUM_FRAMES.items():
    rows[split], first_frame = [], 0
    for count in counts:
      path = f'{split}/{number}.mp4'
      with staging.FramesFile(stage.frames_path(f'{number:016x}')) as frames:
        for frame_number in range(count):
          frames.write(_content(path, frame_number))
      rows[split].append(_row(path, number, count, first_frame, frames))
      first_frame += count
      number += 1
  plan = {
    'name': 'test',
    'created_with': {},
    'options': {'fps': 25},
    'inputs': {},
    'labels': {'class': ['a', 'b'], 'speed': []},
    'rows': rows,
    'skipped': [],
    'warnings': [],
  }
  dataset_writer.write_dataset(out, plan, shard_bytes=_SHARD_BYTES)
  return out


def test_every_frame_is_found_by_its_index(dataset):
  assert len(list((dataset / 'train').glob('*.array_record'))) >= 2
  for split, counts in _NUM_FRAMES.items():
    store = frame_store.FrameStore.open(dataset, split)
    assert store.num_videos == len(counts)
    np.testing.assert_array_equal(store.num_frames, counts)
    assert store.num_frames.dtype == np.int32
    for index, count in enumerate(counts):
      expected = [_content(store.paths[index], n) for n in range(count)]
      assert store.read_frames(index, range(count)) == expected
    store.close()


def test_frames_come_in_the_order_asked_for_with_repeats(dataset):
  with frame_store.FrameStore.open(dataset, 'train') as store:
    numbers = np.array([5, 5, 0, 29, 3], np.int64)
    assert store.read_frames(np.int32(2), numbers) == [
      _content(store.paths[2], number) for number in numbers
    ]
    assert store.read_frames(0, []) == []


def test_frames_one_by_one_are_those_read_at_once(dataset):
  with frame_store.FrameStore.open(dataset, 'train') as store:
    numbers = [5, 5, 0, 29, 3]
    assert list(store.each_frame(2, numbers)) == store.read_frames(2, numbers)
    assert list(store.each_frame(0, [])) == []
    with pytest.raises(IndexError, match='not all in'):
      next(store.each_frame(2, [30]))


def test_a_frame_that_cannot_be_read_costs_no_other_one(dataset):
  with frame_store.FrameStore.open(dataset, 'train') as store:
    bad = store.read_frames(2, [7])[0]
    for shard in (dataset / 'train').glob('*.array_record'):
      content = shard.read_bytes()
      if bad in content:
        shard.write_bytes(content.replace(bad, bytes(len(bad))))
    expected = store.read_frames(2, [6, 8])
    assert list(store.each_frame(2, [6, 7, 8])) == [
      expected[0],
      None,
      expected[1],
    ]


def test_a_damaged_index_costs_no_frame_and_is_named(dataset, caplog):
  with frame_store.FrameStore.open(dataset, 'train') as store:
    num_videos, num_frames = store.num_videos, store.num_frames
    expected = [store.read_frames(v, range(num_frames[v])) for v in range(5)]
  shards = sorted((dataset / 'train').glob('*.array_record'))
  for shard in shards:
    content = bytearray(shard.read_bytes())
    # Of the chunk behind the frames, whose first record is about the file.
    content[content.rindex(b'group_size')] ^= 1
    shard.write_bytes(content)
  with frame_store.FrameStore.open(dataset, 'train') as store:
    for _ in range(2):
      for video in range(num_videos):
        frames = store.read_frames(video, range(num_frames[video]))
        assert frames == expected[video]
  assert len(caplog.messages) == len(shards) >= 2
  for message, shard in zip(sorted(caplog.messages), shards, strict=True):
    assert message.startswith(f'The index of {shard} is damaged.')


@pytest.mark.parametrize('is_index_damaged', [False, True])
def test_a_shard_of_fewer_frames_shows_no_frames_of_other_videos(
  dataset, is_index_damaged
):
  shard = sorted((dataset / 'train').glob('*.array_record'))[0]
  records = array_record_module.ArrayRecordReader(str(shard)).read_all()
  array_records.write(shard, records[1:])
  content = bytearray(shard.read_bytes())
  content[content.rindex(b'group_size')] ^= is_index_damaged
  shard.write_bytes(content)
  manifest = json.loads((dataset / 'dataset.json').read_text())
  name = shard.relative_to(dataset).as_posix()
  manifest['files'][name]['bytes'] = len(content)
  (dataset / 'dataset.json').write_text(json.dumps(manifest))
  reason = f'it has {len(records) - 1} records instead of {len(records)}'
  with frame_store.FrameStore.open(dataset, 'train') as store:
    for read in (store.read_frames, lambda *at: list(store.each_frame(*at))):
      with pytest.raises(dataset_folder.DatasetError, match=reason) as error:
        read(0, [0])
      assert str(shard) in str(error.value)
      assert not isinstance(error.value, dataset_folder.UnreadableError)


def test_what_the_store_says_about_the_data_set(dataset):
  with frame_store.FrameStore.open(str(dataset), 'train') as store:
    assert store.label_columns == ['class', 'speed']
    labels, names = store.label('class')
    assert labels.tolist() == [0, 1, 0, 1, 0]
    assert labels.dtype == np.int32
    assert names == ['a', 'b']
    assert store.label('speed')[0].tolist() == [-1] * 5
    assert store.max_short_side == 125
    assert store.max_long_side == 160
    assert store.frame_rate_hz == 25
    assert len(store.fingerprint) == 64
    assert store.height.tolist() == [120, 121, 122, 123, 124]


def test_an_unknown_label_column_is_answered_with_the_known_ones(dataset):
  with (
    frame_store.FrameStore.open(dataset, 'train') as store,
    pytest.raises(dataset_folder.DatasetError, match='class, speed'),
  ):
    store.label('motion')


@pytest.mark.parametrize(
  'index, numbers', [(5, [0]), (-1, [0]), (0, [7]), (0, [-1]), (1, [0, 1])]
)
def test_a_frame_that_does_not_exist_is_an_index_error(dataset, index, numbers):
  with (
    frame_store.FrameStore.open(dataset, 'train') as store,
    pytest.raises(IndexError),
  ):
    store.read_frames(index, numbers)


def test_many_threads_read_the_right_frames(dataset):
  with frame_store.FrameStore.open(dataset, 'train') as store:

    def read(seed):
      rng = np.random.default_rng(seed)
      for _ in range(50):
        index = int(rng.integers(store.num_videos))
        numbers = rng.integers(store.num_frames[index], size=8)
        assert store.read_frames(index, numbers) == [
          _content(store.paths[index], number) for number in numbers
        ]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      list(pool.map(read, range(16)))


def test_reading_after_close_is_an_error(dataset):
  store = frame_store.FrameStore.open(dataset, 'train')
  store.read_frames(0, [0])
  store.close()
  with pytest.raises(dataset_folder.DatasetError, match='closed'):
    store.read_frames(0, [0])


def _remove_manifest(dataset):
  (dataset / 'dataset.json').unlink()


def _garble_manifest(dataset):
  (dataset / 'dataset.json').write_text('{"format_ver')


def _change_version(dataset):
  path = dataset / 'dataset.json'
  manifest = json.loads(path.read_text()) | {'format_version': 99}
  path.write_text(json.dumps(manifest))


def _empty_manifest(dataset):
  (dataset / 'dataset.json').write_text('{"format_version": 1}')


def _remove_shard(dataset):
  next((dataset / 'train').glob('*.array_record')).unlink()


def _cut_shard(dataset):
  path = next((dataset / 'train').glob('*.array_record'))
  path.write_bytes(path.read_bytes()[:-100])


def _cut_table(dataset):
  path = dataset / 'train' / 'videos.parquet'
  path.write_bytes(path.read_bytes()[:-100])


def _garble_table(dataset):
  path = dataset / 'train' / 'videos.parquet'
  path.write_bytes(b'x' * path.stat().st_size)


@pytest.mark.parametrize(
  'damage, message',
  [
    (shutil.rmtree, r'no prepared data set .* data/prepare.py folder'),
    (_remove_manifest, 'no complete data set'),
    (_garble_manifest, 'dataset.json cannot be read'),
    (_change_version, 'format version 99'),
    (_empty_manifest, 'lacks files'),
    (_remove_shard, r'array_record is missing .* --restart'),
    (_cut_shard, r'array_record has .* bytes instead of .* --restart'),
    (_cut_table, 'videos.parquet has .* bytes instead of'),
    (_garble_table, 'videos.parquet cannot be read'),
  ],
)
def test_damage_is_named_with_path_and_remedy(dataset, damage, message):
  damage(dataset)
  with pytest.raises(dataset_folder.DatasetError, match=message) as caught:
    frame_store.FrameStore.open(dataset, 'train')
  assert str(dataset) in str(caught.value)


def test_a_data_set_that_is_there_is_looked_for_without_opening_it(dataset):
  _garble_table(dataset)
  dataset_folder.check_is_there(str(dataset))
  dataset_folder.check_is_there('s3://nobody-asks/for-this')
  assert (
    dataset_folder.num_videos_of('s3://nobody-asks/for-this', 'train') is None
  )


def test_a_data_set_may_lie_in_the_home_directory(dataset, monkeypatch):
  monkeypatch.setenv('HOME', str(dataset.parent))
  with frame_store.FrameStore.open(f'~/{dataset.name}', 'train') as store:
    assert store.num_videos
  with pytest.raises(dataset_folder.DatasetError, match='~nobody-there/x'):
    dataset_folder.check_is_there('~nobody-there/x')


def test_videos_are_counted_without_opening_them(dataset):
  with frame_store.FrameStore.open(dataset, 'train') as store:
    num_videos = store.num_videos
  _garble_table(dataset)
  assert dataset_folder.num_videos_of(str(dataset), 'train') == num_videos
  with pytest.raises(dataset_folder.DatasetError, match="no split 'test'"):
    dataset_folder.num_videos_of(str(dataset), 'test')


@pytest.mark.parametrize(
  'damage, message',
  [
    (shutil.rmtree, 'no prepared data set'),
    (_remove_manifest, 'no complete data set'),
  ],
)
def test_what_is_not_there_is_refused_alike(dataset, damage, message):
  damage(dataset)
  with pytest.raises(dataset_folder.DatasetError, match=message) as looked:
    dataset_folder.check_is_there(str(dataset))
  with pytest.raises(dataset_folder.DatasetError) as opened:
    frame_store.FrameStore.open(str(dataset), 'train')
  assert str(looked.value) == str(opened.value)


def test_a_tfds_data_set_of_videos_is_prepared_first():
  with pytest.raises(
    dataset_folder.DatasetError,
    match=r'"python data/prepare\.py tfds --name ucf101/ucf101_1 --out DIR"',
  ):
    frame_store.FrameStore.open('tfds:ucf101/ucf101_1', 'train')


def test_changed_bytes_are_noticed_when_they_are_read(dataset):
  path = next((dataset / 'val').glob('*.array_record'))
  content = bytearray(path.read_bytes())
  position = content.index(_content('val/5.mp4', 0)[:20])
  content[position] ^= 1
  path.write_bytes(content)
  with (
    frame_store.FrameStore.open(dataset, 'val') as store,
    pytest.raises(dataset_folder.DatasetError, match='check'),
  ):
    store.read_frames(0, [0, 1, 2])


def test_an_unknown_split_is_answered_with_the_known_ones(dataset):
  with pytest.raises(dataset_folder.DatasetError, match='only train, val'):
    frame_store.FrameStore.open(dataset, 'test')


def test_a_hundred_thousand_videos_open_within_a_second(dataset):
  count = 100_000
  path = dataset / 'train' / 'videos.parquet'
  table = pyarrow.parquet.read_table(path)
  rows = table.to_pylist()[0] | {'num_frames': 1}
  columns = {name: [value] * count for name, value in rows.items()}
  columns['first_frame'] = list(range(count))
  columns['path'] = [f'class/{number}.mp4' for number in range(count)]
  large = pyarrow.table(columns, schema=table.schema)
  pyarrow.parquet.write_table(large, path)
  manifest = json.loads((dataset / 'dataset.json').read_text())
  manifest['files']['train/videos.parquet']['bytes'] = path.stat().st_size
  manifest['splits']['train'] = {'videos': count, 'frames': count}
  shards = [name for name in manifest['files'] if name.startswith('train/fr')]
  for name in shards:
    manifest['files'][name]['records'] = 0
  manifest['files'][shards[0]]['records'] = count
  (dataset / 'dataset.json').write_text(json.dumps(manifest))
  start = time.monotonic()
  store = frame_store.FrameStore.open(dataset, 'train')
  assert store.num_videos == count
  assert time.monotonic() - start < 1
