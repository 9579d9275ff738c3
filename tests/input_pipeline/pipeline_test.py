"""Batches: their content, their order, and that reading always ends."""

import hashlib
import io
import json
import pathlib
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from array_record.python import array_record_module
from PIL import Image

from vie_jax.input_pipeline import frame_sampling, frame_store, pipeline

ROOT = pathlib.Path(__file__).parents[2]
LENGTHS = (20, 1, 33, 40, 7, 16, 17, 25, 12, 30, 9, 21, 18)
SIDES = [(36 + 2 * v, 40 + v) if v % 2 else (38, 60) for v in range(13)]
CLIP = types.SimpleNamespace(
  sampler='slowfast', num_frames=8, frame_step=2, num_eval_clips=3
)
SINGLE = types.SimpleNamespace(
  sampler='single', num_frames=1, frame_step=0, num_eval_clips=2
)
CROP = types.SimpleNamespace(
  size=24, short_side_min=28, short_side_max=36, eval_short_side=30
)


def frame_jpeg(video, number):
  """One colour that tells the video and the number of the frame."""
  height, width = SIDES[video]
  picture = np.full((height, width, 3), (18 * video, 6 * number, 99), np.uint8)
  file = io.BytesIO()
  Image.fromarray(picture).save(file, 'JPEG', quality=95, subsampling=0)
  return file.getvalue()


def video_and_frame(window):
  """What frame_jpeg wrote, from uint8 [..., H, W, 3]."""
  color = window.astype(np.float64).mean(axis=(-3, -2))
  return np.round(color[..., 0] / 18), np.round(color[..., 1] / 6)


def write_split(directory, split, videos):
  """Writes one split; videos: lists of JPEG files."""
  folder = directory / split
  folder.mkdir(parents=True)
  shard = folder / 'frames-00000-of-00001.array_record'
  writer = array_record_module.ArrayRecordWriter(
    str(shard), 'group_size:1,uncompressed'
  )
  for frames in videos:
    for frame in frames:
      writer.write(frame)
  writer.close()
  lengths = np.array([len(frames) for frames in videos], np.int32)
  sides = np.array(SIDES[: len(videos)], np.int32).reshape(-1, 2)
  table = {
    'id': [f'{video:016x}' for video in range(len(videos))],
    'path': [f'kind/video {video}.mp4' for video in range(len(videos))],
    'num_frames': lengths,
    'first_frame': np.cumsum(lengths, dtype=np.int64) - lengths,
    'height': sides[:, 0],
    'width': sides[:, 1],
    'label_kind': np.arange(len(videos), dtype=np.int32) % 3 - 1,
  }
  index = folder / 'videos.parquet'
  pyarrow.parquet.write_table(pyarrow.table(table), index)
  return shard, index, int(lengths.sum())


def write_dataset(directory, train, val):
  files, splits = {}, {}
  for split, videos in [('train', train), ('val', val)]:
    shard, index, records = write_split(directory, split, videos)
    splits[split] = {'videos': len(videos), 'frames': records}
    for path in (shard, index):
      content = path.read_bytes()
      entry = {
        'bytes': len(content),
        'sha256': hashlib.sha256(content).hexdigest(),
      }
      if path == shard:
        entry['records'] = records
      files[path.relative_to(directory).as_posix()] = entry
  manifest = {
    'format_version': 1,
    'options': {'fps': 25},
    'splits': splits,
    'labels': {'kind': ['a', 'b']},
    'max_short_side': max(min(sides) for sides in SIDES),
    'max_long_side': max(max(sides) for sides in SIDES),
    'files': files,
    'fingerprint': '0' * 64,
  }
  (directory / 'dataset.json').write_text(json.dumps(manifest))


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp('dataset')
  videos = [
    [frame_jpeg(video, number) for number in range(length)]
    for video, length in enumerate(LENGTHS)
  ]
  write_dataset(directory, videos, [])
  return directory


@pytest.fixture(scope='module')
def store(directory):
  with frame_store.FrameStore.open(directory, 'train') as store:
    yield store


def train(store, count, **settings):
  """The first batches as a list."""
  defaults = {'clip': CLIP, 'crop': CROP, 'batch_size': 4, 'seed': 5}
  with pipeline.train_batches(store, **defaults | settings) as batches:
    return [next(batches) for _ in range(count)]


def evaluate(store, **settings):
  defaults = {'clip': CLIP, 'crop': CROP, 'batch_size': 4}
  with pipeline.eval_batches(store, **defaults | settings) as batches:
    return list(batches)


def assert_equal(first, second):
  assert len(first) == len(second)
  for one, other in zip(first, second, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_training_batches_keep_the_contract(store):
  batches = train(store, 4, label_column='kind')
  for batch in batches:
    side = batch['window'].shape[2]
    assert batch['window'].shape == (4, 8, side, side, 3)
    assert batch['window'].dtype == np.uint8
    assert batch['crop'].shape == (4, 4)
    assert batch['crop'].dtype == np.float32
    offset, sides = batch['crop'][:, :2], batch['crop'][:, 2:]
    assert np.all(offset > -1e-3)
    assert np.all(offset + sides < side + 1e-3)
    assert batch['instance_index'].dtype == np.int32
    assert batch['label'].dtype == np.int32
    assert batch['label'].tolist() == (batch['instance_index'] % 3 - 1).tolist()
  assert set(train(store, 1)[0]['label']) == {-1}


def test_clips_hold_the_chosen_frames_of_their_video(store):
  for batch in train(store, 4):
    videos, frames = video_and_frame(batch['window'])
    for row, instance in enumerate(batch['instance_index']):
      assert np.all(videos[row] == instance)
      steps = np.diff(frames[row]) % LENGTHS[instance]
      assert np.all(steps == CLIP.frame_step % LENGTHS[instance])


def test_epochs_visit_different_videos_and_leave_out_others_in_turn(store):
  batches = train(store, 900, clip=SINGLE)
  indices = np.stack([batch['instance_index'] for batch in batches])
  epochs = indices.reshape(300, 12)  # 13 videos, batches of 4
  assert all(len(set(epoch)) == 12 for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 300
  left_out = [(set(range(13)) - set(epoch)).pop() for epoch in epochs]
  counts = np.bincount(left_out, minlength=13)
  assert counts.min() > 5  # 23 on average
  assert counts.max() < 50


def test_an_epoch_of_a_divisible_data_set_visits_all(store):
  batches = train(store, 26, clip=SINGLE, batch_size=1)
  order = [int(batch['instance_index'][0]) for batch in batches]
  assert sorted(order[:13]) == sorted(order[13:]) == list(range(13))
  assert order[:13] != order[13:]


def test_a_single_video_is_a_data_set(tmp_path):
  videos = [[frame_jpeg(0, 0)]]
  write_dataset(tmp_path / 'set', videos, videos)
  with frame_store.FrameStore.open(tmp_path / 'set', 'train') as store:
    batch = train(store, 2, batch_size=1)[1]
  assert batch['instance_index'].tolist() == [0]


def test_a_batch_is_a_function_of_seed_and_step(store):
  batches = train(store, 7)
  assert_equal(batches, train(store, 7, num_threads=1))
  assert_equal(batches[5:], train(store, 2, start_step=5, num_threads=4))
  other = train(store, 1, seed=6)[0]
  assert not np.array_equal(other['window'], batches[0]['window'])


def test_clips_of_a_video_differ_between_epochs(store):
  batches = train(store, 12)
  crops = np.concatenate([batch['crop'] for batch in batches])
  assert len(np.unique(crops, axis=0)) > 40  # of 48


def test_hosts_share_the_batch_of_a_single_host(store):
  alone = train(store, 4)
  shares = [train(store, 4, host_index=h, host_count=2) for h in range(2)]
  joined = [
    {name: np.concatenate([a[name], b[name]]) for name in a}
    for a, b in zip(*shares, strict=True)
  ]
  assert_equal(joined, alone)


def test_a_late_step_starts_at_once(store):
  train(store, 1)
  begin = time.perf_counter()
  late = train(store, 1, start_step=10**7)
  assert time.perf_counter() - begin < 5
  assert_equal(late, train(store, 2, start_step=10**7 - 1)[1:])


def test_settings_that_do_not_fit_are_refused(store):
  with pytest.raises(ValueError, match=r'batch of 14 .* from 13.*lower the'):
    train(store, 1, batch_size=14)
  with pytest.raises(ValueError, match=r'batch of 4 clips .* by 3 hosts'):
    train(store, 1, host_count=3)
  with pytest.raises(ValueError, match='host 2 is not one of 2'):
    train(store, 1, host_index=2, host_count=2)
  with pytest.raises(ValueError, match='start_step must be at least 0'):
    train(store, 1, start_step=-1)
  with pytest.raises(frame_store.DatasetError, match="no label column 'x'"):
    train(store, 1, label_column='x')
  wrong = types.SimpleNamespace(**{**vars(CLIP), 'frame_step': 0})
  with pytest.raises(ValueError, match='needs a frame step'):
    evaluate(store, clip=wrong)
  with pytest.raises(ValueError, match='needs a frame step'):
    train(store, 1, clip=wrong)
  wrong = types.SimpleNamespace(**{**vars(CROP), 'short_side_max': 27})
  with pytest.raises(ValueError, match=r'between 28 and 27'):
    train(store, 1, crop=wrong)


@pytest.mark.parametrize('clip', [CLIP, SINGLE])
def test_evaluation_takes_every_clip_of_every_video_in_order(store, clip):
  batches = evaluate(store, clip=clip, label_column='kind')
  count = 13 * clip.num_eval_clips
  assert len(batches) == -(-count // 4)
  joined = {
    name: np.concatenate([batch[name] for batch in batches])
    for name in batches[0]
  }
  assert joined['is_valid'].tolist() == [
    place < count for place in range(4 * len(batches))
  ]
  rows = {name: values[:count] for name, values in joined.items()}
  places = np.arange(count)
  instances = places // clip.num_eval_clips
  assert rows['instance_index'].tolist() == instances.tolist()
  assert rows['clip_index'].tolist() == (places % clip.num_eval_clips).tolist()
  assert rows['label'].tolist() == (instances % 3 - 1).tolist()
  videos, frames = video_and_frame(rows['window'])
  assert np.all(videos == instances[:, np.newaxis])
  for video, length in enumerate(LENGTHS):
    expected = frame_sampling.eval_frame_numbers(
      length,
      sampler=clip.sampler,
      num_frames=clip.num_frames,
      frame_step=clip.frame_step,
      num_clips=clip.num_eval_clips,
    )
    assert frames[instances == video].tolist() == expected.tolist()


def test_evaluation_is_shared_by_hosts_in_equal_numbers(store):
  alone = evaluate(store, batch_size=2, clip=SINGLE)
  assert len(alone) == 13
  alone = evaluate(store, batch_size=4, clip=SINGLE)
  shares = [
    evaluate(store, batch_size=4, clip=SINGLE, host_index=h, host_count=2)
    for h in range(2)
  ]
  joined = [
    {name: np.concatenate([a[name], b[name]]) for name in a}
    for a, b in zip(*shares, strict=True)
  ]
  assert_equal(joined, alone)


def test_an_empty_split_has_no_evaluation_batches(directory):
  with frame_store.FrameStore.open(directory, 'val') as empty:
    assert evaluate(empty) == []


@pytest.mark.parametrize(
  'damaged',
  [
    frame_jpeg(2, 4)[:-300],
    frame_jpeg(1, 4),  # of another size
  ],
)
def test_a_damaged_frame_is_named(tmp_path, damaged):
  videos = [[frame_jpeg(v, number) for number in range(7)] for v in range(4)]
  videos[2][4] = damaged
  write_dataset(tmp_path / 'set', videos, videos[:1])
  message = r"Frame 4 of video 'kind/video 2.mp4' \(split 'train' of .*check"
  with frame_store.FrameStore.open(tmp_path / 'set', 'train') as store:
    with pytest.raises(frame_store.DatasetError, match=message):
      train(store, 1)
    with pipeline.eval_batches(
      store, clip=CLIP, crop=CROP, batch_size=3
    ) as batches:
      assert next(batches)['instance_index'].tolist() == [0, 0, 0]
      assert next(batches)['instance_index'].tolist() == [1, 1, 1]
      with pytest.raises(frame_store.DatasetError, match=message):
        next(batches)


def test_a_failing_read_is_named(tmp_path, directory):
  with frame_store.FrameStore.open(directory, 'train') as store:
    pass  # closed: nothing can be read any more
  with pytest.raises(frame_store.DatasetError, match=r'Frame .* was closed'):
    train(store, 1)


def test_batches_end_with_their_with_statement(store):
  with pipeline.train_batches(
    store, clip=CLIP, crop=CROP, batch_size=4, seed=0
  ) as batches:
    next(batches)
  with pytest.raises(RuntimeError, match='inside the with-statement'):
    next(batches)


USE = """
import os, signal, sys, threading, time, types
from vie_jax.input_pipeline import frame_store, pipeline

way, directory = sys.argv[1:]
clip = types.SimpleNamespace(
  sampler='slowfast', num_frames=8, frame_step=2, num_eval_clips=3
)
crop = types.SimpleNamespace(
  size=24, short_side_min=28, short_side_max=36, eval_short_side=30
)
class SlowStore(frame_store.FrameStore):
  def read_frames(self, instance_index, frame_numbers):
    time.sleep(0.02)  # so that reading is under way whenever we leave
    return super().read_frames(instance_index, frame_numbers)

store = SlowStore.open(directory, 'train')
def open_batches():
  return pipeline.train_batches(
    store, clip=clip, crop=crop, batch_size=2, seed=0, num_threads=4
  )

if way == 'exit':
  with open_batches() as batches:  # to be finished, with clips on their way
    next(batches)
  with pipeline.eval_batches(
    store, clip=clip, crop=crop, batch_size=30
  ) as batches:
    assert len(list(batches)) == 2
  try:
    with open_batches() as batches:
      next(batches)
      raise ZeroDivisionError
  except ZeroDivisionError as error:
    kept = error  # and with it all frames of the stack
  abandoned = open_batches()
  next(abandoned.__enter__())
  with open_batches() as batches:
    for _, batch in zip(range(3), batches):
      pass
    print('end')
    sys.exit(7)
else:
  threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
  abandoned = open_batches()
  next(abandoned.__enter__())
  with open_batches() as batches:
    for batch in batches:
      pass
"""


def test_the_process_ends_however_batches_are_left(directory):
  codes = {'exit': 7, 'interrupt': -signal.SIGINT}
  processes = {
    way: subprocess.Popen(
      [sys.executable, '-c', USE, way, str(directory)],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for way in codes
  }
  try:
    for way, process in processes.items():
      output, errors = process.communicate(timeout=90)
      assert process.returncode == codes[way], (way, output, errors)
      assert output == ('end\n' if way == 'exit' else '')
  finally:
    for process in processes.values():
      process.kill()
