"""Batches: their content, their order, and that reading always ends."""

import pathlib
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from input_pipeline import frame_dataset

from vie_jax.input_pipeline import (
  dataset_folder,
  frame_sampling,
  frame_store,
  instances,
  pipeline,
)

ROOT = pathlib.Path(__file__).parents[2]
CLIP = types.SimpleNamespace(
  sampler='slowfast', num_frames=8, frame_step=2, num_eval_clips=3
)
SINGLE = types.SimpleNamespace(
  sampler='single', num_frames=1, frame_step=0, num_eval_clips=2
)
CROP = types.SimpleNamespace(
  method='short_side',
  size=24,
  short_side_min=28,
  short_side_max=36,
  eval_short_side=30,
)
MULTISCALE = types.SimpleNamespace(
  method='multiscale',
  size=24,
  multiscale_scales=(1.0, 0.84089641525, 0.5),
  multiscale_eval='largest_square',
)


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp('dataset')
  frame_dataset.write_training(directory)
  return directory


@pytest.fixture(scope='module')
def store(directory):
  with frame_store.FrameStore.open(directory, 'train') as store:
    yield store


@pytest.fixture(scope='module')
def videos(store):
  return instances.all_videos(store)


def train(rows, count, **settings):
  """The first batches as a list."""
  defaults = {'clip': CLIP, 'crop': CROP, 'batch_size': 4, 'seed': 5}
  with pipeline.train_batches(rows, **defaults | settings) as batches:
    return [next(batches) for _ in range(count)]


def evaluate(rows, **settings):
  defaults = {'clip': CLIP, 'crop': CROP, 'batch_size': 4}
  with pipeline.eval_batches(rows, **defaults | settings) as batches:
    return list(batches)


def assert_equal(first, second):
  assert len(first) == len(second)
  for one, other in zip(first, second, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_training_batches_keep_the_contract(videos):
  batches = train(videos, 4, label_column='kind')
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
  assert set(train(videos, 1)[0]['label']) == {-1}


def test_clips_hold_the_chosen_frames_of_their_video(videos):
  for batch in train(videos, 4):
    shown, frames = frame_dataset.video_and_frame(batch['window'])
    for row, instance in enumerate(batch['instance_index']):
      assert np.all(shown[row] == instance)
      steps = np.diff(frames[row]) % frame_dataset.LENGTHS[instance]
      assert np.all(steps == CLIP.frame_step % frame_dataset.LENGTHS[instance])


def test_epochs_visit_different_videos_and_leave_out_others_in_turn(videos):
  batches = train(videos, 900, clip=SINGLE)
  indices = np.stack([batch['instance_index'] for batch in batches])
  epochs = indices.reshape(300, 12)  # 13 videos, batches of 4
  assert all(len(set(epoch)) == 12 for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 300
  left_out = [(set(range(13)) - set(epoch)).pop() for epoch in epochs]
  counts = np.bincount(left_out, minlength=13)
  assert counts.min() > 5  # 23 on average
  assert counts.max() < 50


def test_an_epoch_of_a_divisible_data_set_visits_all(videos):
  batches = train(videos, 26, clip=SINGLE, batch_size=1)
  order = [int(batch['instance_index'][0]) for batch in batches]
  assert sorted(order[:13]) == sorted(order[13:]) == list(range(13))
  assert order[:13] != order[13:]


def test_a_single_video_is_a_data_set(tmp_path):
  content = [[frame_dataset.frame_jpeg(0, 0)]]
  frame_dataset.write_dataset(tmp_path / 'set', content, content)
  with frame_store.FrameStore.open(tmp_path / 'set', 'train') as store:
    batch = train(instances.all_videos(store), 2, batch_size=1)[1]
  assert batch['instance_index'].tolist() == [0]


def test_a_batch_is_a_function_of_seed_and_step(videos):
  batches = train(videos, 7)
  assert_equal(batches, train(videos, 7, num_threads=1))
  assert_equal(batches[5:], train(videos, 2, start_step=5, num_threads=4))
  other = train(videos, 1, seed=6)[0]
  assert not np.array_equal(other['window'], batches[0]['window'])


def test_clips_of_a_video_differ_between_epochs(videos):
  batches = train(videos, 12)
  crops = np.concatenate([batch['crop'] for batch in batches])
  assert len(np.unique(crops, axis=0)) > 40  # of 48


def test_hosts_share_the_batch_of_a_single_host(videos):
  alone = train(videos, 4)
  shares = [train(videos, 4, host_index=h, host_count=2) for h in range(2)]
  joined = [
    {name: np.concatenate([a[name], b[name]]) for name in a}
    for a, b in zip(*shares, strict=True)
  ]
  assert_equal(joined, alone)


def clips_of(batches):
  return [
    (int(video), *numbers)
    for batch in batches
    for video, numbers in zip(
      batch['instance_index'], batch['frame_numbers'].tolist(), strict=True
    )
  ]


@pytest.mark.parametrize('host', range(4))
def test_a_host_reads_no_clips_but_its_own(videos, monkeypatch, host):
  # What other processes read is not seen here.
  share = {'batch_size': 8, 'host_index': host, 'host_count': 4}
  share['decode_in'] = 'threads'
  own = clips_of(train(videos, 12, **share))
  assert len(own) == 24
  read, whole = [], frame_store.FrameStore.each_frame

  def each_frame(store, video, numbers, places):
    read.append((int(video), *map(int, numbers)))
    return whole(store, video, numbers, places)

  monkeypatch.setattr(frame_store.FrameStore, 'each_frame', each_frame)
  train(videos, 3, **share)  # and some ahead of time
  assert len(read) >= 6
  assert set(read) <= set(own)
  read.clear()
  batches = evaluate(videos, **share)
  assert sorted(read) == sorted(clips_of(batches))
  assert len(read) == 2 * len(batches)


def test_a_late_step_starts_at_once(videos):
  train(videos, 1)
  begin = time.perf_counter()
  late = train(videos, 1, start_step=10**7)
  assert time.perf_counter() - begin < 5
  assert_equal(late, train(videos, 2, start_step=10**7 - 1)[1:])


def test_settings_that_do_not_fit_are_refused(videos):
  with pytest.raises(ValueError, match=r'batch of 14 .* from 13.*lower the'):
    train(videos, 1, batch_size=14)
  with pytest.raises(ValueError, match=r'batch of 4 clips .* by 3 hosts'):
    train(videos, 1, host_count=3)
  with pytest.raises(ValueError, match='host 2 is not one of 2'):
    train(videos, 1, host_index=2, host_count=2)
  with pytest.raises(ValueError, match='start_step must be at least 0'):
    train(videos, 1, start_step=-1)
  with pytest.raises(dataset_folder.DatasetError, match="no label column 'x'"):
    train(videos, 1, label_column='x')
  wrong = types.SimpleNamespace(**{**vars(CLIP), 'frame_step': 0})
  with pytest.raises(ValueError, match='needs a frame step'):
    evaluate(videos, clip=wrong)
  with pytest.raises(ValueError, match='needs a frame step'):
    train(videos, 1, clip=wrong)
  wrong = types.SimpleNamespace(**{**vars(CROP), 'short_side_max': 27})
  with pytest.raises(ValueError, match=r'between 28 and 27'):
    train(videos, 1, crop=wrong)
  wrong = types.SimpleNamespace(**{**vars(CROP), 'method': 'none'})
  with pytest.raises(ValueError, match="method 'none': choose one of"):
    train(videos, 1, crop=wrong)
  with pytest.raises(ValueError, match="method 'none': choose one of"):
    evaluate(videos, crop=wrong)
  wrong = types.SimpleNamespace(
    **{**vars(MULTISCALE), 'multiscale_scales': (1.2,)}
  )
  with pytest.raises(ValueError, match=r'in \(0, 1\], got \(1.2,\)'):
    train(videos, 1, crop=wrong)


@pytest.mark.parametrize('clip', [CLIP, SINGLE])
def test_evaluation_takes_every_clip_of_every_video_in_order(videos, clip):
  batches = evaluate(videos, clip=clip, label_column='kind')
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
  rows_of = places // clip.num_eval_clips
  assert rows['instance_index'].tolist() == rows_of.tolist()
  assert rows['clip_index'].tolist() == (places % clip.num_eval_clips).tolist()
  assert rows['label'].tolist() == (rows_of % 3 - 1).tolist()
  shown, frames = frame_dataset.video_and_frame(rows['window'])
  assert np.all(shown == rows_of[:, np.newaxis])
  for video, length in enumerate(frame_dataset.LENGTHS):
    expected = frame_sampling.eval_frame_numbers(
      length,
      sampler=clip.sampler,
      num_frames=clip.num_frames,
      frame_step=clip.frame_step,
      num_clips=clip.num_eval_clips,
    )
    assert frames[rows_of == video].tolist() == expected.tolist()


def test_consecutive_evaluation_takes_all_clips_that_a_video_has(videos):
  batches = evaluate(videos, clip=CLIP, is_consecutive=True)
  expected = [
    (video, clip, (16 * clip + 2 * place) % length)
    for video, length in enumerate(frame_dataset.LENGTHS)
    for clip in range(max(1, length // 16))
    for place in range(8)
  ]
  found = []
  for batch in batches:
    _, frames = frame_dataset.video_and_frame(batch['window'])
    for row in np.flatnonzero(batch['is_valid']):
      video, clip = batch['instance_index'][row], batch['clip_index'][row]
      found += [(video, clip, frame) for frame in frames[row]]
  assert found == expected


@pytest.mark.parametrize('start_step', [1, 5, 9, 10, 30])
def test_evaluation_starts_at_any_batch(videos, start_step):
  whole = evaluate(videos, clip=CLIP)
  assert len(whole) == 10
  found = evaluate(videos, clip=CLIP, start_step=start_step)
  assert_equal(found, whole[start_step:])


def test_evaluation_is_shared_by_hosts_in_equal_numbers(videos):
  alone = evaluate(videos, batch_size=2, clip=SINGLE)
  assert len(alone) == 13
  alone = evaluate(videos, batch_size=4, clip=SINGLE)
  shares = [
    evaluate(videos, batch_size=4, clip=SINGLE, host_index=h, host_count=2)
    for h in range(2)
  ]
  joined = [
    {name: np.concatenate([a[name], b[name]]) for name in a}
    for a, b in zip(*shares, strict=True)
  ]
  assert_equal(joined, alone)


def test_an_empty_split_has_no_evaluation_batches(directory):
  with frame_store.FrameStore.open(directory, 'val') as empty:
    assert evaluate(instances.all_videos(empty)) == []


def test_batches_of_a_seed_stay_what_they_were(videos):
  batch = train(videos, 1, clip=SINGLE, start_step=7)[0]
  # As before there were instances: a run may go on under newer code.
  assert batch['instance_index'].tolist() == [5, 12, 11, 2]
  np.testing.assert_allclose(
    batch['crop'][0], [2.967742, 8.709678, 35.612904, 34.83871], rtol=1e-6
  )


def test_all_videos_however_selected_give_the_same_batches(store, videos):
  selected = instances.select(store, clip=CLIP, share=1.0)
  assert_equal(train(videos, 4), train(selected, 4))
  assert_equal(evaluate(videos), evaluate(selected))


@pytest.mark.parametrize('with_replacement', [False, True])
def test_rows_of_a_subset_are_shown_by_their_videos(store, with_replacement):
  rows = instances.select(
    store, clip=CLIP, share=0.7, with_replacement=with_replacement
  )
  assert rows.num_instances == 9
  assert (len(set(rows.video.tolist())) < 9) == with_replacement
  batches = train(rows, 9, batch_size=3, clip=SINGLE, label_column='kind')
  batches += evaluate(rows, batch_size=3, clip=SINGLE, label_column='kind')
  for batch in batches:
    shown, _ = frame_dataset.video_and_frame(batch['window'])
    video = rows.video[batch['instance_index']]
    assert shown[:, 0].tolist() == video.tolist()
    assert batch['label'].tolist() == (video % 3 - 1).tolist()
  epochs = np.stack([batch['instance_index'] for batch in batches[:9]])
  for epoch in epochs.reshape(3, 9):
    assert sorted(epoch) == list(range(9))


@pytest.mark.parametrize('clip', [CLIP, SINGLE])
def test_every_bin_is_shown_once_in_an_epoch(store, clip):
  rows = instances.select(store, clip=clip, bin_frames=5)
  count = rows.num_instances
  assert count > store.num_videos
  batches = train(rows, 6 * count, batch_size=1, clip=clip)
  first = [set() for _ in range(count)]
  for epoch in range(6):
    order = []
    for batch in batches[epoch * count : (epoch + 1) * count]:
      (index,) = batch['instance_index']
      order.append(int(index))
      shown, frames = frame_dataset.video_and_frame(batch['window'])
      assert np.all(shown == rows.video[index])
      first[index].add(int(frames[0, 0]))
    assert sorted(order) == list(range(count))
  for index, seen in enumerate(first):
    allowed = range(rows.start_low[index], rows.start_high[index])
    length = store.num_frames[rows.video[index]]
    assert seen <= {start % length for start in allowed}
  assert len(set.union(*first)) > 20


def test_multiscale_crops_are_squares_in_the_middle_or_a_corner(videos):
  seen = set()
  for batch in train(videos, 40, crop=MULTISCALE, clip=SINGLE):
    assert batch['window'].shape == (4, 1, 51, 51, 3)
    for index, crop in zip(batch['instance_index'], batch['crop'], strict=True):
      height, width = frame_dataset.SIDES[index]
      side = [int(min(height, width) * scale) for scale in (1, 0.84089641525)]
      side.append(min(height, width) // 2)
      even = [value // 2 * 2 for value in side]
      assert crop[2] == crop[3]
      assert crop[2] in side + even
      assert np.all(crop[:2] >= 0)
      assert np.all(crop[:2] + crop[2:] <= 51)
      seen.add((int(index), *crop.tolist()))
  assert len(seen) > 50


def test_multiscale_evaluation_takes_the_largest_middle_square(videos):
  for batch in evaluate(videos, crop=MULTISCALE, clip=SINGLE):
    assert batch['window'].shape == (4, 1, 51, 51, 3)
    for index, crop in zip(batch['instance_index'], batch['crop'], strict=True):
      side = min(frame_dataset.SIDES[index]) // 2 * 2
      assert crop[2:].tolist() == [side, side]


def test_multiscale_training_may_be_evaluated_as_without_it(videos):
  crop = types.SimpleNamespace(
    **{**vars(CROP), **vars(MULTISCALE), 'multiscale_eval': 'short_side'}
  )
  pairs = zip(
    evaluate(videos, crop=crop, clip=SINGLE),
    evaluate(videos, crop=CROP, clip=SINGLE),
    strict=True,
  )
  for found, expected in pairs:
    for name in ('window', 'crop'):
      np.testing.assert_array_equal(found[name], expected[name])


def test_a_closed_store_is_named(directory):
  with frame_store.FrameStore.open(directory, 'train') as store:
    pass  # closed: nothing can be read any more
  with pytest.raises(dataset_folder.DatasetError, match=r'was closed'):
    train(instances.all_videos(store), 1, decode_in='threads')


def test_batches_end_with_their_with_statement(videos):
  with pipeline.train_batches(
    videos, clip=CLIP, crop=CROP, batch_size=4, seed=0
  ) as batches:
    next(batches)
  with pytest.raises(RuntimeError, match='inside the with-statement'):
    next(batches)


USE = """
import os, signal, sys, threading, time, types
from vie_jax.input_pipeline import (
  dataset_folder,
  frame_store,
  instances,
  pipeline,
)

way, place, directory = sys.argv[1:]
clip = types.SimpleNamespace(
  sampler='slowfast', num_frames=8, frame_step=2, num_eval_clips=3
)
crop = types.SimpleNamespace(
  method='short_side',
  size=24,
  short_side_min=28,
  short_side_max=36,
  eval_short_side=30,
)
class SlowStore(frame_store.FrameStore):
  def each_frame(self, *clip):
    time.sleep(0.02)  # so that reading is under way whenever we leave
    return super().each_frame(*clip)

videos = instances.all_videos(SlowStore.open(directory, 'train'))
def open_batches():
  return pipeline.train_batches(
    videos, clip=clip, crop=crop, batch_size=2, seed=0, num_threads=4,
    decode_in=place
  )

if way == 'exit':
  with open_batches() as batches:  # to be finished, with clips on their way
    next(batches)
  with pipeline.eval_batches(
    videos, clip=clip, crop=crop, batch_size=30
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


@pytest.mark.slow
def test_the_process_ends_however_batches_are_left(directory):
  codes = {
    (way, place): code
    for way, code in (('exit', 7), ('interrupt', -signal.SIGINT))
    for place in ('threads', 'processes')
  }
  processes = {
    case: subprocess.Popen(
      [sys.executable, '-c', USE, *case, str(directory)],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for case in codes
  }
  try:
    for case, process in processes.items():
      output, errors = process.communicate(timeout=90)
      assert process.returncode == codes[case], (case, output, errors)
      assert output == ('end\n' if 'exit' in case else '')
  finally:
    for process in processes.values():
      process.kill()
