"""Frame numbers against the official implementation and plain loops."""

import json
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from vie_jax.input_pipeline import frame_sampling

OFFICIAL = json.loads(
  (pathlib.Path(__file__).parents[1] / 'oracle/frame_sampling.json').read_text()
)['families']
SETTINGS = {  # sampler, num_frames, frame_step, num_clips
  'single': ('single', 1, 0, 5),
  'slow': ('slow', 4, 16, 5),
  'slow_short': ('slow', 4, 16, 5),
  'slowfast': ('slowfast', 16, 4, 5),
  'slowfast_3clips': ('slowfast', 16, 4, 3),
  '3dresnet': ('3dresnet', 16, 1, 5),
  '3dresnet_10clips': ('3dresnet', 16, 1, 10),
  'trn': ('trn', 4, 12, 5),
}
FAMILIES = ('single', 'slow', 'slowfast', '3dresnet', 'trn')
SMALL = {
  'single': (1, 0),
  'slow': (3, 4),
  'slowfast': (8, 2),
  '3dresnet': (5, 1),
  'trn': (3, 4),
}
LENGTHS = (1, 2, 3, 4, 7, 8, 12, 13, 15, 16, 17, 40, 100)


def draw(length, sampler, num_frames, frame_step, count):
  """int [count, T], as many independent training clips of one video."""

  def sample(index):
    return frame_sampling.train_frame_numbers(
      tf.constant(length),
      sampler=sampler,
      num_frames=num_frames,
      frame_step=frame_step,
      seed=tf.stack([7, index]),
    )

  clips = tf.data.Dataset.range(count).map(sample).batch(count)
  return next(iter(clips)).numpy()


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
    if family == 'trn' and int(length) > 65:
      continue  # too many clips to list
    allowed = loop_train_clips(int(length), sampler, num_frames, frame_step)
    first = {clip[0] for clip in allowed}
    # The loop below stands for the rule; here it meets the official range.
    assert [min(first), max(first), len(first)] == expected, length


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
def test_same_seed_same_clip_in_eager_and_graph(family):
  num_frames, frame_step = SMALL[family]

  def sample(length):
    return frame_sampling.train_frame_numbers(
      length,
      sampler=family,
      num_frames=num_frames,
      frame_step=frame_step,
      seed=[1, 2],
    )

  eager = sample(tf.constant(100))
  assert eager.dtype == tf.int32
  assert eager.shape == (num_frames,)
  graph = tf.function(sample)(tf.constant(100))
  assert eager.numpy().tolist() == graph.numpy().tolist()


def test_settings_that_fit_no_clip_are_refused():
  def sample(sampler, num_frames, frame_step):
    frame_sampling.train_frame_numbers(
      tf.constant(9),
      sampler=sampler,
      num_frames=num_frames,
      frame_step=frame_step,
      seed=[0, 0],
    )

  with pytest.raises(ValueError, match="'fast': choose one of"):
    sample('fast', 8, 2)
  with pytest.raises(ValueError, match='clips of 2 frames'):
    sample('single', 2, 0)
  with pytest.raises(ValueError, match='step of at least 1, got 0'):
    sample('slow', 4, 0)
