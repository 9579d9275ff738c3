"""Videos without a sound frame: what stands for them, and what is said."""

import io
import re
import types

import lost_videos
import numpy as np
import pytest
from input_pipeline import damaged_data_test, frame_dataset
from input_pipeline.damaged_data_test import CLIP, assert_equal
from PIL import Image

from vie_jax.input_pipeline import (
  bad_frames,
  dataset_folder,
  decode_threads,
  frame_store,
  instances,
  sound_frames,
)

LENGTHS = frame_dataset.LENGTHS
THREADS = {'decode_in': 'threads', 'num_threads': 3}
PROCESSES = {'decode_in': 'processes', 'num_threads': 2}
# 13 videos: 3 batches an epoch.
BATCH, EPOCH = 4, 12


def train(folder, count, rows=instances.all_videos, **settings):
  settings = {'batch_size': BATCH, 'label_column': 'kind'} | settings
  return damaged_data_test.train(folder, count, rows, **settings)


def evaluate(folder, **settings):
  settings = {'batch_size': BATCH, 'leaves_out': True} | settings
  return damaged_data_test.evaluate(folder, **settings)


def of_hosts(load, count=2):
  """What hosts read, put together."""
  hosts = [load(host_index=host, host_count=count) for host in range(count)]
  return [
    {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for parts in zip(*hosts, strict=True)
  ]


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sound') / 'set'
  frame_dataset.write_training(folder)
  return folder


@pytest.fixture(scope='module')
def expected(sound):
  """Batches without damage."""
  return train(sound, 12)


@pytest.fixture(scope='module')
def lost(expected):
  """Two videos of one batch, and one that would stand for the second."""
  first, second = (batch['instance_index'] for batch in expected[1:3])
  return {int(first[0]), int(first[3]), int(second[3])}


@pytest.fixture(scope='module')
def damaged(lost, tmp_path_factory):
  folder = tmp_path_factory.mktemp('lost') / 'set'
  frame_dataset.write_training(folder)
  lost_videos.destroy(folder, 'train', lost)
  return folder


@pytest.fixture(scope='module')
def batches(damaged):
  return train(damaged, 12, **THREADS)


def stands_for(position, expected, lost):
  """Position of the clip that is shown, by the rule."""
  epoch, at = divmod(position, EPOCH)
  for _ in range(EPOCH // BATCH):
    step, row = divmod(epoch * EPOCH + at, BATCH)
    if int(expected[step]['instance_index'][row]) not in lost:
      return step, row
    at = (at + BATCH) % EPOCH
  raise AssertionError('no clip is sound')


def test_the_clip_in_the_same_row_of_the_next_batch_stands_for_it(
  expected, batches, lost
):
  num_replaced = 0
  for step, batch in enumerate(batches):
    for row in range(BATCH):
      asked = expected[step]['instance_index'][row]
      place = stands_for(step * BATCH + row, expected, lost)
      for name in batch.keys() - {'bad_frames', 'asked_index'}:
        np.testing.assert_array_equal(
          batch[name][row], expected[place[0]][name][place[1]], err_msg=name
        )
      assert batch['asked_index'][row] == asked
      assert batch['bad_frames'][row] == (4 if asked in lost else 0)
      num_replaced += asked in lost
  assert num_replaced > 8
  # Of these two the second is replaced by a clip of the batch before.
  assert set(np.flatnonzero(batches[1]['bad_frames'])) == {0, 3}
  assert batches[1]['instance_index'][3] == expected[0]['instance_index'][3]


def test_what_an_epoch_leaves_over_stands_for_it_at_last(tmp_path):
  """13 videos are a batch of 12, whose first row may have the other one."""
  frame_dataset.write_training(tmp_path / 'set')
  options = {'batch_size': 12, 'num_threads': 1}
  (expected,) = train(tmp_path / 'set', 1, **options)
  (other,) = {*range(13)} - {*expected['instance_index'].tolist()}
  lost_videos.destroy(tmp_path / 'set', 'train', expected['instance_index'][:1])
  (found,) = train(tmp_path / 'set', 1, **options)
  assert found['instance_index'][0] == other
  assert found['asked_index'][0] == expected['instance_index'][0]
  videos, _ = frame_dataset.video_and_frame(found['window'])
  assert set(videos[0]) == {other}
  assert_equal(
    [{name: column[1:] for name, column in found.items()}],
    [{name: column[1:] for name, column in expected.items()}],
  )


def test_what_is_shown_is_the_video_that_the_row_names(batches):
  for batch in batches:
    videos, _ = frame_dataset.video_and_frame(batch['window'])
    for row, video in enumerate(batch['instance_index']):
      assert set(videos[row]) == {video}
      assert batch['label'][row] == video % 3 - 1


def test_what_stands_for_it_is_shown_as_in_its_own_place(tmp_path):
  """With another frame of its video, where that is damaged."""
  clip = types.SimpleNamespace(sampler='single', num_frames=1, frame_step=1)
  frame_dataset.write_training(tmp_path / 'set')
  expected = train(tmp_path / 'set', 3, clip=clip)
  first, second, third = (batch['instance_index'][2] for batch in expected)
  sound = expected[1]
  lost_videos.destroy(tmp_path / 'set', 'train', [first])
  number = sound['frame_numbers'][2, 0]
  lost_videos.destroy(tmp_path / 'set', 'train', [second], [number])
  found = train(tmp_path / 'set', 3, clip=clip)
  shown = [batch['instance_index'][2] for batch in found]
  assert shown == [second, second, third]
  assert [batch['bad_frames'][2] for batch in found] == [1, 1, 0]
  np.testing.assert_array_equal(found[0]['window'][2], found[1]['window'][2])
  assert (found[0]['window'][2] != sound['window'][2]).any()


@pytest.mark.parametrize('settings', [PROCESSES, {'num_threads': 1}])
def test_threads_and_processes_show_the_same(damaged, batches, settings):
  assert_equal(batches, train(damaged, 12, **settings))


@pytest.mark.parametrize('start', [1, 5, 8])
def test_a_run_that_goes_on_shows_the_same(damaged, batches, start):
  rest = train(damaged, 12 - start, start_step=start)
  assert_equal(batches[start:], rest)


@pytest.mark.parametrize('count', [2, 4])
def test_hosts_have_their_shares_of_the_same_batches(damaged, batches, count):
  found = of_hosts(lambda **host: train(damaged, 12, **host), count)
  assert_equal(batches, found)


def test_no_instance_is_twice_in_a_batch_of_videos_or_bins(damaged, lost):
  def in_bins(store):
    return instances.select(store, clip=CLIP, bin_frames=6)

  with frame_store.FrameStore.open(damaged, 'train') as store:
    rows = in_bins(store)
  for options, count, batch_size in (
    ({}, 90, 4),
    ({}, 40, 3),
    ({'rows': in_bins}, 40, 8),
  ):
    for batch in train(damaged, count, batch_size=batch_size, **options):
      assert len(set(batch['instance_index'])) == batch_size
      if options:
        assert not lost & set(rows.video[batch['instance_index']].tolist())


def named(caplog):
  return [line for line in caplog.messages if 'has no frame that' in line]


@pytest.mark.parametrize('settings', [THREADS, PROCESSES])
def test_each_is_counted_and_named_once(damaged, lost, caplog, settings):
  counts = bad_frames.BadFrames(1.0)
  for start in (0, 6):
    train(damaged, 6, start_step=start, damage=counts, **settings)
  assert counts.num_frames == 12 * BATCH * 4
  lines = named(caplog)
  assert len(lines) == len(lost)
  for video in lost:
    (line,) = [x for x in lines if f"Video 'kind/video {video}.mp4'" in x]
    assert 'cannot be read' in line
    assert ".mp4' is shown instead, as one of that video" in line
    assert '\n' not in line
  caplog.clear()
  counts.log_summary()
  (line,) = caplog.messages
  assert (
    f'Replaced or left out {counts.num_bad} damaged frames of 3 videos' in line
  )
  for video in lost:
    assert f'kind/video {video}.mp4' in line


def test_all_frames_of_a_clip_count_until_they_are_too_many(damaged, batches):
  counts = bad_frames.BadFrames(1.0)
  train(damaged, 12, damage=counts)
  bad = sum(int((batch['bad_frames'] > 0).sum()) for batch in batches)
  assert counts.num_bad == 4 * bad
  with pytest.raises(dataset_folder.DatasetError) as caught:
    train(damaged, 12, damage=bad_frames.BadFrames(0.1))
  assert 'more than the share 0.1' in str(caught.value)
  # The last epochs leave some out, so that the worst are two of them.
  assert "mp4' of split 'train'" in str(caught.value)


def test_in_an_epoch_of_one_batch_nothing_stands_for_it(damaged):
  with pytest.raises(dataset_folder.DatasetError) as caught:
    train(damaged, 2, batch_size=12)
  assert 'has no frame that can be read and decoded' in str(caught.value)
  assert 'Of the 0 clips that may' in str(caught.value)
  assert 'a lower batch_size gives more of them. Run' in str(caught.value)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('settings', [THREADS, PROCESSES])
def test_if_all_are_lost_it_says_so(tmp_path, settings):
  frame_dataset.write_training(tmp_path / 'set')
  lost_videos.destroy(tmp_path / 'set', 'train', range(13))
  with pytest.raises(dataset_folder.DatasetError) as caught:
    train(tmp_path / 'set', 1, **settings)
  assert re.search('Of the [23] clips that may', str(caught.value))
  assert f'check {tmp_path / "set"} --full' in str(caught.value)
  assert '\n' not in str(caught.value)


def test_what_ended_another_batch_is_said(sound, monkeypatch):
  """As where processes make several at once, and stop at the first error."""

  def read(*unused):
    raise dataset_folder.DatasetError('The store is gone.')

  monkeypatch.setattr(decode_threads.DecodeThreads, 'read', read)
  with pytest.raises(dataset_folder.DatasetError, match='The store is gone'):
    train(sound, 1, **THREADS)


def test_a_video_is_searched_once(damaged, lost, batches, monkeypatch):
  read, searched = frame_store.FrameStore.read_frames, []

  def note(self, video, numbers):
    searched.append((video, *numbers))
    return read(self, video, numbers)

  monkeypatch.setattr(frame_store.FrameStore, 'read_frames', note)
  train(damaged, 12, num_threads=1)
  assert sorted(searched) == sorted(
    (video, number) for video in lost for number in range(LENGTHS[video])
  )
  # Without that memory the batches are the same, and take longer.
  searched.clear()
  monkeypatch.setattr(sound_frames, '_MAX_LOST', 0)
  assert_equal(batches, train(damaged, 12))
  assert len(searched) > 2 * sum(LENGTHS[video] for video in lost)


def read_clip(store, video, box):
  """A clip as it is made for a batch; what is said of it if it is lost."""
  frames = sound_frames.SoundFrames(
    store, bad_frames.BadFrames(1.0), size=16, window=16
  )
  pixels = np.empty((2, 16, 16, 3), np.uint8)
  return frames.read(video, np.array([0, 1]), np.array(box), pixels)[2]


def test_a_video_that_another_crop_can_show_is_not_remembered(tmp_path):
  """Its frames have restart markers, and are damaged below."""
  rng = np.random.default_rng(0)
  height, width = frame_dataset.SIDES[0]
  pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG', restart_marker_rows=1)
  content = bytearray(file.getvalue())
  content[-120:-118] = b'\xff\xc4'
  frame_dataset.write_dataset(tmp_path / 'set', [[bytes(content)] * 3], [])
  with frame_store.FrameStore.open(tmp_path / 'set', 'train') as store:
    assert 'has no frame' in read_clip(store, 0, (21.0, 2.0, 16.0, 16.0))
    assert not store.lost
    assert not read_clip(store, 0, (2.0, 2.0, 16.0, 16.0))


def test_a_video_that_is_sound_again_is_shown(tmp_path):
  frame_dataset.write_training(tmp_path / 'set')
  lost_videos.destroy(tmp_path / 'set', 'train', [4])
  box = (2.0, 2.0, 16.0, 16.0)
  with frame_store.FrameStore.open(tmp_path / 'set', 'train') as store:
    for _ in range(2):
      assert 'has no frame' in read_clip(store, 4, box)
    assert store.lost.keys() == {4}
    shard = next((tmp_path / 'set' / 'train').glob('frames-*'))
    whole = tmp_path / 'whole'
    frame_dataset.write_training(whole)
    shard.write_bytes(next((whole / 'train').glob('frames-*')).read_bytes())
    assert not read_clip(store, 4, box)
    assert not store.lost


@pytest.mark.parametrize('settings', [THREADS, PROCESSES])
def test_an_evaluation_leaves_it_out(sound, tmp_path, caplog, settings):
  # Copies of the clips of the last one fill the last batch.
  lost = {2, 3, 12}
  frame_dataset.write_training(tmp_path / 'set')
  lost_videos.destroy(tmp_path / 'set', 'train', lost)
  counts = bad_frames.BadFrames(1.0)
  found = evaluate(tmp_path / 'set', damage=counts, **settings)
  valid, num_bad = [], 0
  for one, other in zip(evaluate(sound), found, strict=True):
    is_lost = np.isin(one['instance_index'], sorted(lost))
    for name in one:
      kept = slice(None)
      if name in ('window', 'bad_frames', 'is_valid'):
        kept = ~is_lost
      np.testing.assert_array_equal(
        one[name][kept], other[name][kept], err_msg=name
      )
    assert not other['is_valid'][is_lost].any()
    assert not other['window'][is_lost].any()
    assert (
      other['bad_frames'] == np.where(is_lost & one['is_valid'], 4, 0)
    ).all()
    valid += other['is_valid'].tolist()
    num_bad += int(other['bad_frames'].sum())
  assert sum(valid) == 10 * 3
  assert counts.num_bad == num_bad == 3 * 3 * 4
  assert counts.num_frames == 13 * 3 * 4
  assert counts.left_out == {'train': lost}
  assert sum(counts.clips['train'].values()) == num_bad
  lines = named(caplog)
  assert len(lines) == 3
  assert all(x.endswith('. It is left out.') for x in lines)
  assert_equal(found, of_hosts(lambda **h: evaluate(tmp_path / 'set', **h)))
  assert_equal(found[4:], evaluate(tmp_path / 'set', start_step=4))


def test_an_evaluation_of_too_much_damage_stops(damaged):
  with pytest.raises(dataset_folder.DatasetError, match='more than the share'):
    evaluate(damaged, damage=bad_frames.BadFrames(0.05))


def test_where_each_video_has_its_row_it_is_an_error(damaged):
  with pytest.raises(dataset_folder.DatasetError) as caught:
    evaluate(damaged, leaves_out=False)
  assert 'No other video can stand for it. Run "python' in str(caught.value)
  assert '\n' not in str(caught.value)
