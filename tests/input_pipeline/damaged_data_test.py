"""Batches of data sets that are really damaged: on the disk, and within."""

import json
import struct
import types
import zlib

import numpy as np
import pytest
from input_pipeline import frame_dataset

from vie_jax.input_pipeline import (
  bad_frames,
  dataset_folder,
  frame_store,
  instances,
  pipeline,
  sound_frames,
)

CLIP = types.SimpleNamespace(
  sampler='slowfast', num_frames=4, frame_step=1, num_eval_clips=3
)
CROP = types.SimpleNamespace(
  method='short_side',
  size=24,
  short_side_min=28,
  short_side_max=36,
  eval_short_side=30,
)
LENGTHS = (9, 5, 7, 6, 12, 8)


def png_bomb():
  """A small PNG file that says it has 900 million pixels."""

  def chunk(name, content):
    checksum = struct.pack('>I', zlib.crc32(name + content))
    return struct.pack('>I', len(content)) + name + content + checksum

  header = struct.pack('>IIBBBBB', 30_000, 30_000, 8, 2, 0, 0, 0)
  pixels = zlib.compress(bytes(1000))
  parts = chunk(b'IHDR', header) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + parts


def huge_jpeg(jpeg):
  """The same file with a header that says 65,000 x 65,000."""
  place = jpeg.index(b'\xff\xc0') + 5
  return jpeg[:place] + struct.pack('>HH', 65_000, 65_000) + jpeg[place + 4 :]


def write(folder, replaced=None):
  """Writes a data set, with some frames replaced: (video, number) -> bytes."""
  videos = [
    [frame_dataset.frame_jpeg(video, number) for number in range(length)]
    for video, length in enumerate(LENGTHS)
  ]
  for (video, number), content in (replaced or {}).items():
    videos[video][number] = content
  frame_dataset.write_dataset(folder, videos, videos[:2])


def shard_of(folder, split='train'):
  (shard,) = (folder / split).glob('frames-*')
  return shard


def flip_bit(folder, video, number, split='train'):
  """Changes one bit on the disk, in the middle of a frame."""
  shard = shard_of(folder, split)
  content = bytearray(shard.read_bytes())
  jpeg = frame_dataset.frame_jpeg(video, number)
  content[content.index(jpeg) + len(jpeg) // 2] ^= 4
  shard.write_bytes(content)


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
  """Bits flipped, pictures of the wrong kind, size and length."""
  folder = tmp_path_factory.mktemp('damaged') / 'set'
  jpeg = frame_dataset.frame_jpeg
  write(
    folder,
    {
      (0, 0): png_bomb(),
      (0, 4): huge_jpeg(jpeg(0, 4)),
      (2, 2): jpeg(2, 2)[:-300],
      (2, 3): jpeg(1, 3),  # of another size
      (4, 11): b'no picture',
      (5, 7): b'',
    },
  )
  flip_bit(folder, 0, 3)
  flip_bit(folder, 4, 6)
  return folder


DAMAGED = {0: {0, 3, 4}, 2: {2, 3}, 4: {6, 11}, 5: {7}}


def shown_for(video, number):
  """What the rule says, by hand."""
  sound = sorted(set(range(LENGTHS[video])) - DAMAGED.get(video, set()))
  return min(sound, key=lambda other: (abs(other - number), other))


def train(folder, count, rows=instances.all_videos, **settings):
  """The first batches as a list."""
  settings = {
    'clip': CLIP,
    'crop': CROP,
    'batch_size': 4,
    'seed': 5,
    'damage': bad_frames.BadFrames(1.0),
  } | settings
  with (
    frame_store.FrameStore.open(folder, 'train') as store,
    pipeline.train_batches(rows(store), **settings) as batches,
  ):
    return [next(batches) for _ in range(count)]


def evaluate(folder, **settings):
  settings = {
    'clip': CLIP,
    'crop': CROP,
    'batch_size': 4,
    'damage': bad_frames.BadFrames(1.0),
  } | settings
  with (
    frame_store.FrameStore.open(folder, 'train') as store,
    pipeline.eval_batches(instances.all_videos(store), **settings) as batches,
  ):
    return list(batches)


def assert_equal(first, second):
  assert len(first) == len(second)
  for one, other in zip(first, second, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize('load', [evaluate, lambda f: train(f, 12)])
def test_the_nearest_sound_frame_is_shown_and_counted(tmp_path, damaged, load):
  write(tmp_path / 'sound')
  total = 0
  for one, other in zip(load(tmp_path / 'sound'), load(damaged), strict=True):
    assert one['bad_frames'].tolist() == [0] * 4
    assert one['bad_frames'].dtype == other['bad_frames'].dtype == np.int32
    for name in one.keys() - {'window', 'bad_frames'}:
      np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    _, asked = frame_dataset.video_and_frame(one['window'])
    videos, shown = frame_dataset.video_and_frame(other['window'])
    for row, video in enumerate(one['instance_index']):
      expected = [shown_for(video, number) for number in asked[row]]
      assert shown[row].tolist() == expected
      assert set(videos[row]) == {video}
      num_bad = sum(n in DAMAGED.get(video, ()) for n in asked[row])
      assert other['bad_frames'][row] == num_bad
      total += num_bad
  assert total > 8


@pytest.fixture(scope='module')
def batches(damaged):
  return train(damaged, 12)


def test_batches_depend_on_the_clip_only(damaged, batches):
  assert_equal(batches, train(damaged, 12, num_threads=1))
  assert_equal(batches[5:9], train(damaged, 4, start_step=5, num_threads=4))
  hosts = [train(damaged, 12, host_index=h, host_count=2) for h in range(2)]
  joined = [
    {name: np.concatenate([a[name], b[name]]) for name in a}
    for a, b in zip(*hosts, strict=True)
  ]
  assert_equal(joined, batches)
  assert all(len(set(b['instance_index'])) == 4 for b in batches)


def named_videos(caplog):
  """The videos that the log names, in order of their rows."""
  found = [line for line in caplog.messages if line.startswith('Frame ')]
  for line in found:
    assert 'shown instead' in line
    assert '{{' not in line
    assert '\n' not in line
  return sorted(int(line.split('.mp4')[0].split()[-1]) for line in found)


def test_bins_of_a_damaged_video_name_its_row_in_the_store(damaged, caplog):
  with frame_store.FrameStore.open(damaged, 'train') as store:
    bins = instances.select(store, clip=CLIP, bin_frames=2)
  batches = train(
    damaged,
    8,
    rows=lambda store: instances.select(store, clip=CLIP, bin_frames=2),
  )
  bad = [
    bins.video[index]
    for batch in batches
    for index in batch['instance_index'][batch['bad_frames'] > 0]
  ]
  assert set(bad) <= set(DAMAGED)
  assert named_videos(caplog) == sorted(set(bad))


def test_each_video_is_named_once_with_a_reason(damaged, batches, caplog):
  damage = bad_frames.BadFrames(1.0)
  train(damaged, 6, damage=damage)
  train(damaged, 6, damage=damage, start_step=6)
  bad = {
    int(index)
    for batch in batches
    for index in batch['instance_index'][batch['bad_frames'] > 0]
  }
  assert len(bad) > 2
  assert named_videos(caplog) == sorted(bad)
  assert damage.num_frames == 12 * 4 * 4
  caplog.clear()
  damage.log_summary()
  (line,) = caplog.messages
  assert line.startswith(
    f'Replaced or left out {damage.num_bad} damaged frames of {len(bad)} '
  )
  assert f'data/prepare.py check {damaged} --full' in line


def test_nothing_is_said_of_a_sound_data_set(tmp_path, caplog):
  write(tmp_path / 'set')
  damage = bad_frames.BadFrames(0.0)
  train(tmp_path / 'set', 6, damage=damage)
  damage.log_summary()
  assert (damage.num_bad, damage.num_frames) == (0, 96)
  assert not [line for line in caplog.records if line.name == 'absl']


def test_evaluation_counts_each_clip_once(damaged):
  damage = bad_frames.BadFrames(1.0)
  batches = evaluate(damaged, damage=damage)
  evaluate(damaged, damage=damage)
  valid = np.concatenate([batch['is_valid'] for batch in batches])
  bad = np.concatenate([batch['bad_frames'] for batch in batches])
  assert sum(damage.clips['train'].values()) == bad[valid].sum() > 0


def test_too_many_damaged_frames_stop_with_the_worst_and_the_remedy(damaged):
  message = (
    r"of \d+ frames are damaged, .* config\.input\.max_bad_share .*'kind/video "
    rf"\d\.mp4' of split 'train' of .* \(\d+\).*check {damaged} --full"
  )
  for load in (lambda **s: train(damaged, 40, **s), evaluate):
    arguments = {'damage': bad_frames.BadFrames(0.02)}
    if load is evaluate:
      arguments['folder'] = damaged
    with pytest.raises(dataset_folder.DatasetError, match=message) as caught:
      load(**arguments)
    assert '\n' not in str(caught.value)


def test_the_share_is_counted_on_after_a_restart(damaged, batches):
  taken = [batch['bad_frames'].sum() for batch in batches]
  resumed = bad_frames.BadFrames(1.0)
  resumed.go_on_from({'num_frames': 5 * 16, 'num_bad': int(sum(taken[:5]))})
  train(damaged, 7, start_step=5, damage=resumed)
  assert resumed.num_bad == sum(taken) > 0
  assert resumed.num_frames == 12 * 16


def test_a_few_frames_are_no_share():
  damage = bad_frames.BadFrames(0.05)
  damage.count(16, {'a': 16}, location='here', remedy='Repair it.')
  damage.check(num_all=10_000)
  damage.count(984, {'a': 34}, location='here', remedy='Repair it.')
  damage.check(num_all=10_000)
  damage.count(16, {'b': 1}, location='here', remedy='Repair it.')
  with pytest.raises(
    dataset_folder.DatasetError, match=r'51 of 1016 .*\(50\), '
  ):
    damage.check(num_all=10_000)


def test_several_processes_judge_their_damage_together():
  one, other = (bad_frames.BadFrames(0.05, is_shared=True) for _ in range(2))
  one.count(1000, {'a': 90}, location='here', remedy='Repair it.')
  other.count(1000, {}, location='here', remedy='Repair it.')
  for damage in (one, other):
    damage.check(num_all=10_000)  # does not stop one of them alone
  parts = json.loads(json.dumps([one.counted(), other.counted()]))
  one.check_all(parts)
  other.check_all(parts)
  other.count(100, {'b': 20}, location='here', remedy='Repair it.')
  for damage in (one, other):
    damage.check(num_all=10_000)
    damage.check(num_all=50, num_frames=50, num_bad=0, what='val')
  parts = [one.counted(), other.counted()]
  messages = []
  for damage in (one, other):
    with pytest.raises(dataset_folder.DatasetError) as caught:
      damage.check_all(parts)
    messages.append(str(caught.value))
  assert messages[0] == messages[1]
  assert messages[0].startswith('110 of 2100 frames are damaged')
  assert "'a' of here (90), 'b' of here (20). Repair it." in messages[0]


def test_a_shard_that_is_cut_short_while_open_is_replaced_or_named(tmp_path):
  write(tmp_path / 'set')
  shard = shard_of(tmp_path / 'set')
  end = shard.read_bytes().index(frame_dataset.frame_jpeg(5, 5))
  settings = {'clip': CLIP, 'crop': CROP, 'batch_size': 3}
  with frame_store.FrameStore.open(tmp_path / 'set', 'train') as store:
    store.read_frames(0, [0])
    with shard.open('r+b') as file:
      file.truncate(end)
    damage = bad_frames.BadFrames(1.0)
    with pipeline.eval_batches(
      instances.all_videos(store), damage=damage, **settings
    ) as batches:
      *others, last = list(batches)
    assert sum(batch['bad_frames'].sum() for batch in others) == 0
    videos, shown = frame_dataset.video_and_frame(last['window'])
    assert last['bad_frames'].sum() > 0
    assert set(videos.flat) == {5}
    assert shown.max() == 4
    with shard.open('r+b') as file:
      file.truncate(100)
    with (
      pytest.raises(dataset_folder.DatasetError, match='has no frame that can'),
      pipeline.eval_batches(
        instances.all_videos(store), damage=damage, **settings
      ) as batches,
    ):
      list(batches)


def test_a_shard_that_vanishes_before_it_is_read_is_named(tmp_path):
  write(tmp_path / 'set')
  with frame_store.FrameStore.open(tmp_path / 'set', 'train') as store:
    shard_of(tmp_path / 'set').unlink()
    with (
      pytest.raises(
        dataset_folder.DatasetError, match=r'no frame .*array_record'
      ),
      pipeline.eval_batches(
        instances.all_videos(store), clip=CLIP, crop=CROP, batch_size=4
      ) as batches,
    ):
      next(batches)


def test_a_picture_to_look_at_is_sound(damaged):
  with frame_store.FrameStore.open(damaged, 'train') as store:
    jpeg = sound_frames.read_whole(store, 0, 3)
  assert jpeg == frame_dataset.frame_jpeg(0, 2)
