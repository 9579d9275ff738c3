"""Frame numbers against the official implementation and plain loops."""

import json
import math
import pathlib

import numpy as np
import pytest

from vie_jax.input_pipeline import frame_sampling

ORACLE = json.loads(
  (pathlib.Path(__file__).parents[1] / 'oracle/frame_sampling.json').read_text()
)
OFFICIAL = ORACLE['families']
SETTINGS = {  # sampler, num_frames, frame_step, num_clips
  'single': ('single', 1, 0, 5),
  'slow': ('slow', 4, 16, 5),
  'slow_short': ('slow', 4, 16, 5),
  'slow_looped': ('slow_looped', 4, 16, 5),
  'slowfast': ('slowfast', 16, 4, 5),
  'slowfast_3clips': ('slowfast', 16, 4, 3),
  '3dresnet': ('3dresnet', 16, 1, 5),
  '3dresnet_10clips': ('3dresnet', 16, 1, 10),
  'trn': ('trn', 4, 12, 5),
}
FAMILIES = ('single', 'slow', 'slow_looped', 'slowfast', '3dresnet', 'trn')
SMALL = {
  'single': (1, 0),
  'slow': (3, 4),
  'slow_looped': (3, 4),
  'slowfast': (8, 2),
  '3dresnet': (5, 1),
  'trn': (3, 4),
}
LENGTHS = (1, 2, 3, 4, 7, 8, 12, 13, 15, 16, 17, 40, 100)


def draw(length, sampler, num_frames, frame_step, count, start_range=None):
  """int [count, T], as many independent training clips of one video."""

  return frame_sampling.train_frame_numbers(
    np.full(count, length),
    sampler=sampler,
    num_frames=num_frames,
    frame_step=frame_step,
    seed=np.stack([np.full(count, 7), np.arange(count)], axis=1),
    start_range=start_range,
  )


def loop_train_clips(length, sampler, num_frames, step):
  """All clips the rule allows, as a set of tuples, by plain loops."""
  if sampler == 'single':
    return {(start,) for start in range(length)}
  if sampler == 'trn':
    timeline = length
    while timeline <= num_frames:
      timeline += length
    width = min(step, timeline // num_frames)
    bins = [
      range(low, min(low + width, timeline))
      for low in range(0, timeline, width)
    ]
    clips = set()
    for first in range(len(bins) - num_frames + 1):
      grid = np.meshgrid(*bins[first : first + num_frames])
      for clip in np.stack([axis.ravel() for axis in grid], axis=1):
        clips.add(tuple(int(frame) % length for frame in clip))
    return clips
  needed = num_frames * step
  timeline = length
  while timeline <= needed:
    timeline += length
  starts = timeline - needed
  if sampler == 'slow' and length > needed:
    starts = length - (num_frames - 1) * step
  return {
    tuple((start + step * j) % length for j in range(num_frames))
    for start in range(starts)
  }


@pytest.mark.parametrize('family', SETTINGS)
def test_eval_clips_are_the_official_ones(family):
  sampler, num_frames, frame_step, num_clips = SETTINGS[family]
  assert OFFICIAL[family]['eval']
  for length, expected in OFFICIAL[family]['eval'].items():
    clips = frame_sampling.eval_frame_numbers(
      int(length),
      sampler=sampler,
      num_frames=num_frames,
      frame_step=frame_step,
      num_clips=num_clips,
    )
    assert clips.shape == (num_clips, num_frames)
    assert clips.dtype == np.int32
    assert clips.ravel().tolist() == expected, length


@pytest.mark.parametrize(
  'family', [name for name in SETTINGS if OFFICIAL[name]['train_first']]
)
def test_training_clips_start_where_the_official_ones_do(family):
  sampler, num_frames, frame_step, _ = SETTINGS[family]
  for length, expected in OFFICIAL[family]['train_first'].items():
    count = 16 * expected[2]  # so many that none is missed by chance
    clips = draw(int(length), sampler, num_frames, frame_step, count)
    first = set(clips[:, 0].tolist())
    assert [min(first), max(first), len(first)] == expected, length
    if sampler not in ('single', 'trn'):
      steps = np.diff(clips, axis=1) % int(length)
      assert np.all(steps == frame_step % int(length))


@pytest.mark.parametrize(
  'family', [name for name in SETTINGS if 'train_positions' in OFFICIAL[name]]
)
def test_training_frames_cover_the_official_ranges(family):
  sampler, num_frames, frame_step, _ = SETTINGS[family]
  for length, expected in OFFICIAL[family]['train_positions'].items():
    count = 16 * expected[2]
    clips = draw(int(length), sampler, num_frames, frame_step, count)
    assert clips.min(axis=0).tolist() == expected[0], length
    assert clips.max(axis=0).tolist() == expected[1], length
    assert len(set(clips[:, 0].tolist())) == expected[2], length


def restated_timeline(length, needed):
  """Frames of the repeated video: the first multiple above the need."""
  return length if length > needed else length * (needed // length + 1)


def restated_starts(length, sampler, num_frames, step):
  """Number of training starts, from the table of the method."""
  if sampler == 'single':
    return length
  needed = num_frames * step
  if sampler == 'slow' and length > needed:
    return length - (num_frames - 1) * step
  return restated_timeline(length, needed) - needed


def restated_bins(length, num_frames, longest):
  timeline = restated_timeline(length, num_frames)
  width = min(longest, timeline // num_frames)
  bins, low = [], 0
  while low < timeline:
    bins.append((low, min(low + width, timeline)))
    low += width
  return bins


def restated_eval_clips(length, sampler, num_frames, step, num_clips):
  """All evaluation clips, from the table of the method, number by number."""
  if sampler == 'trn':
    bins = restated_bins(length, num_frames, step)
    stride = int((len(bins) - num_frames + 1) / (1 + num_clips))
    return [
      [
        int(sum(bins[stride * (clip + 1) + j]) / 2) % length
        for j in range(num_frames)
      ]
      for clip in range(num_clips)
    ]
  if sampler == 'single':
    segment = length / num_clips
    start = (length - (num_clips - 1) * segment) / 2
    return [[int(start + segment * clip)] for clip in range(num_clips)]
  needed = num_frames * step
  if sampler in ('slowfast', '3dresnet'):
    starts = max(length, needed * num_clips) - needed
  else:
    starts = restated_starts(length, sampler, num_frames, step)
  if sampler == 'slow' and length > needed:
    first = [starts / (num_clips + 1) * (g + 1) for g in range(num_clips)]
  else:
    first = [starts / (num_clips - 1) * g for g in range(num_clips)]
  return [
    [int(start + step * j) % length for j in range(num_frames)]
    for start in first
  ]


@pytest.mark.parametrize('num_clips', [2, 3, 5, 8, 10])
@pytest.mark.parametrize('family', FAMILIES)
def test_eval_clips_of_every_length_follow_the_rule(family, num_clips):
  for num_frames, frame_step in (SETTINGS[family][1:3], SMALL[family]):
    for length in range(1, 401):
      clips = frame_sampling.eval_frame_numbers(
        length,
        sampler=family,
        num_frames=num_frames,
        frame_step=frame_step,
        num_clips=num_clips,
      )
      assert clips.tolist() == restated_eval_clips(
        length, family, num_frames, frame_step, num_clips
      ), (length, num_frames)


@pytest.mark.parametrize('family', FAMILIES)
def test_training_clips_of_every_length_follow_the_rule(family):
  _, num_frames, frame_step, _ = SETTINGS[family]

  lengths = np.repeat(np.arange(1, 401), 8)
  clips = frame_sampling.train_frame_numbers(
    lengths,
    sampler=family,
    num_frames=num_frames,
    frame_step=frame_step,
    seed=np.stack([lengths, np.arange(3200)], axis=1),
  )
  for length, clip in zip(lengths, clips, strict=True):
    if family == 'trn':
      bins = restated_bins(length, num_frames, frame_step)
      assert any(
        all(
          frame in {number % length for number in range(*span)}
          for frame, span in zip(clip, bins[first:], strict=False)
        )
        for first in range(len(bins) - num_frames + 1)
      ), (length, clip)
    else:
      starts = restated_starts(length, family, num_frames, frame_step)
      assert clip[0] in {start % length for start in range(starts)}
      expected = (clip[0] + frame_step * np.arange(num_frames)) % length
      assert clip.tolist() == expected.tolist(), length


@pytest.mark.parametrize('family', [name for name in FAMILIES if name != 'trn'])
def test_starts_of_every_length_are_counted(family):
  _, num_frames, frame_step, _ = SETTINGS[family]
  counts = frame_sampling.num_starts(
    np.arange(1, 401),
    sampler=family,
    num_frames=num_frames,
    frame_step=frame_step,
  )
  assert counts.dtype == np.int64
  assert counts.tolist() == [
    restated_starts(length, family, num_frames, frame_step)
    for length in range(1, 401)
  ]


def test_clips_of_a_bin_start_where_the_official_ones_do():
  for video in ORACLE['bins']['videos']:
    for starts, expected in zip(
      video['start_ranges'], video['first_frame_min_max'], strict=True
    ):
      clips = draw(video['num_frames'], 'single', 1, 0, 800, starts)
      assert [clips.min(), clips.max()] == expected
      assert len(np.unique(clips)) == expected[1] - expected[0] + 1


@pytest.mark.parametrize('family', [name for name in FAMILIES if name != 'trn'])
def test_a_range_of_starts_keeps_the_steps_of_the_clip(family):
  num_frames, frame_step = SMALL[family]
  for length in (1, 7, 40):
    starts = frame_sampling.num_starts(
      length, sampler=family, num_frames=num_frames, frame_step=frame_step
    )
    low = int(starts) // 2
    clips = draw(length, family, num_frames, frame_step, 300, (low, starts))
    expected = {
      tuple((start + frame_step * j) % length for j in range(num_frames))
      for start in range(low, int(starts))
    }
    assert {tuple(clip) for clip in clips.tolist()} == expected


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('length', LENGTHS)
def test_training_draws_every_clip_of_the_rule_and_no_other(family, length):
  allowed = loop_train_clips(length, family, *SMALL[family])
  # Enough draws to miss any one of equally likely clips rarely; unequal
  # ones exist for bins of unequal width.
  count = max(50, 12 * len(allowed))
  drawn = {tuple(clip) for clip in draw(length, family, *SMALL[family], count)}
  assert drawn <= allowed
  if family != 'trn':
    assert drawn == allowed
  else:
    assert {clip[0] for clip in drawn} == {clip[0] for clip in allowed}


@pytest.mark.parametrize('family', FAMILIES)
def test_training_starts_are_equally_likely(family):
  num_frames, frame_step = SMALL[family]
  clips = draw(20, family, num_frames, frame_step, 4000)
  starts, counts = np.unique(clips[:, 0], return_counts=True)
  if family == 'trn':  # a uniform bin, then a uniform frame inside it
    starts, counts = np.unique(clips[:, 0] // frame_step, return_counts=True)
  expected = 4000 / len(starts)
  assert np.all(np.abs(counts - expected) < 5 * math.sqrt(expected))


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('num_clips', [1, 2, 5])
def test_eval_clips_lie_inside_every_video(family, num_clips):
  num_frames, frame_step = SMALL[family]
  for length in LENGTHS:
    clips = frame_sampling.eval_frame_numbers(
      length,
      sampler=family,
      num_frames=num_frames,
      frame_step=frame_step,
      num_clips=num_clips,
    )
    assert clips.shape == (num_clips, num_frames)
    assert clips.min() >= 0
    assert clips.max() < length


def test_a_single_eval_clip_comes_from_the_middle():
  clips = frame_sampling.eval_frame_numbers(
    26, sampler='slowfast', num_frames=8, frame_step=2, num_clips=1
  )
  assert clips.tolist() == [[5 + 2 * j for j in range(8)]]


@pytest.mark.parametrize('family', FAMILIES)
def test_a_clip_is_the_same_alone_and_among_others(family):
  num_frames, frame_step = SMALL[family]
  lengths = np.array([100, 5, 30], np.int32)
  seeds = np.array([[1, 2], [3, 4], [1, 2]])

  def sample(rows):
    return frame_sampling.train_frame_numbers(
      lengths[rows],
      sampler=family,
      num_frames=num_frames,
      frame_step=frame_step,
      seed=seeds[rows],
    )

  clips = sample(slice(None))
  assert clips.dtype == np.int32
  assert clips.shape == (3, num_frames)
  for row in range(3):
    assert sample([row]).tolist() == clips[[row]].tolist()


def test_settings_that_fit_no_clip_are_refused():
  def sample(sampler, num_frames, frame_step):
    frame_sampling.train_frame_numbers(
      np.array([9]),
      sampler=sampler,
      num_frames=num_frames,
      frame_step=frame_step,
      seed=np.zeros((1, 2), np.int64),
    )

  with pytest.raises(ValueError, match="'fast': choose one of"):
    sample('fast', 8, 2)
  with pytest.raises(ValueError, match='clips of 2 frames'):
    sample('single', 2, 0)
  with pytest.raises(ValueError, match='step of at least 1, got 0'):
    sample('slow', 4, 0)
  with pytest.raises(ValueError, match=r"'trn' have no single start"):
    draw(9, 'trn', 4, 2, 1, (0, 2))
  with pytest.raises(ValueError, match=r"'trn' have no single start"):
    frame_sampling.num_starts(9, sampler='trn', num_frames=4, frame_step=2)


@pytest.mark.parametrize(
  'sampler, num_frames, frame_step',
  [('slowfast', 4, 2), ('3dresnet', 3, 1), ('trn', 4, 5), ('single', 1, 1)],
)
def test_consecutive_clips_tile_a_video_without_overlap(
  sampler, num_frames, frame_step
):
  settings = {
    'sampler': sampler,
    'num_frames': num_frames,
    'frame_step': frame_step,
  }
  for length in (1, 3, 8, 9, 41):
    count = int(frame_sampling.num_consecutive(length, **settings))
    assert count == max(1, length // (num_frames * frame_step))
    seen = []
    for clip in range(count):
      (frames,) = frame_sampling.consecutive_frame_numbers(
        np.array([length]), np.array([clip]), **settings
      )
      assert len(frames) == num_frames
      for place, frame in enumerate(frames):
        start = (clip * num_frames + place) * frame_step
        inside = frame_step // 2 if sampler == 'trn' else 0
        assert frame == (start + inside) % length
      seen.extend(frames)
    if length >= num_frames * frame_step:
      assert len(set(seen)) == len(seen)
