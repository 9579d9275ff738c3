"""Which frames of a video make a clip: one rule per model family.

All frame numbers are 0-based. With T = num_frames, s = frame_step and a video
of L frames, the families are

  single            one frame anywhere
  slow              T frames, s apart
  slowfast,         T frames, s apart, from a timeline that is at least T * s
  3dresnet          frames long because a short video is repeated
  slow_looped       slow with the ranges that the official switch HMDB_sample
                    gives: as slow for short videos; in a long one the last
                    s starts are left out, and evaluation clips begin at the
                    first frame
  trn               one frame from each of T neighbouring bins of at most s
                    frames

A video too short for a clip, of T * s frames or fewer (trn: T), is repeated in
every family.

Source: the samplers of the official code (neuroailab/VIE, pt_loader/
datasets.py). Deviation: there, slow and trn replace a short video by another
one, unless asked to repeat it. Here they repeat it, as that switch does, so
that each video keeps its own row of the memory bank.
"""

import numpy as np

from vie_jax.input_pipeline import stateless_random

SAMPLERS = ('single', 'slow', 'slow_looped', 'slowfast', '3dresnet', 'trn')

_NO_STARTS = (
  "clips of the frame sampler 'trn' have no single start that could be kept "
  'inside a part of the video: set no bins, or take another sampler.'
)


def train_frame_numbers(
  video_length, *, sampler, num_frames, frame_step, seed, start_range=None
):
  """Picks the frames of training clips at random, one clip of each video.

  Args:
    video_length: integer [n], each at least 1, frames in the videos (L).
    sampler: one of SAMPLERS.
    num_frames: frames in the clip (T); 1 for 'single'.
    frame_step: frames from one to the next; for 'trn' the longest bin; not
      used for 'single'.
    seed: int64 [n, 2], unique per clip; same seed, same clip.
    start_range: (low, high), integers [n] with 0 <= low < high <= num_starts:
      a clip starts at low, ... or high - 1, each equally likely. None for all
      starts. Not for 'trn'.

  Returns:
    int32 [n, T], each in [0, L).

  Raises:
    ValueError: if sampler is unknown or the numbers do not fit it.
  """
  _check(sampler, num_frames, frame_step)
  video_length = np.asarray(video_length, np.int64)
  if sampler == 'trn':
    if start_range is not None:
      raise ValueError(_NO_STARTS)
    return _train_bins(video_length, num_frames, frame_step, seed)
  if start_range is None:
    start_range = (
      0,
      _num_starts(video_length, sampler, num_frames, frame_step),
    )
  start = stateless_random.between(stateless_random.words(seed), *start_range)
  frames = start[:, np.newaxis] + frame_step * np.arange(num_frames)
  return (frames % video_length[:, np.newaxis]).astype(np.int32)


def num_starts(video_length, *, sampler, num_frames, frame_step):
  """Counts the starts that a training clip may have: 0, 1, ... count - 1.

  Args:
    video_length: integer array [N] or scalar, frames in each video, at
      least 1.
    sampler: one of SAMPLERS, but not 'trn', whose clips have no one start.
    num_frames: as in train_frame_numbers.
    frame_step: as in train_frame_numbers.

  Returns:
    int64, of the shape of video_length.

  Raises:
    ValueError: if sampler is unknown or 'trn', or the numbers do not fit it.

  Source: as the module.
  """
  _check(sampler, num_frames, frame_step)
  if sampler == 'trn':
    raise ValueError(_NO_STARTS)
  video_length = np.asarray(video_length, np.int64)
  return _num_starts(video_length, sampler, num_frames, frame_step)


def num_bins(video_length, *, bin_frames, **clip):
  """Counts the bins of a video, each an instance of its own.

  Args:
    video_length: integer array [N] or scalar, frames in each video, at
      least 1.
    bin_frames: starts in a bin, at least 1; the last bin may have fewer.
    **clip: sampler, num_frames and frame_step, see `num_starts`.

  Returns:
    int64, of the shape of video_length.

  Raises:
    ValueError: as `num_starts`.
  """
  return -(-num_starts(video_length, **clip) // bin_frames)


def eval_frame_numbers(
  video_length, *, sampler, num_frames, frame_step, num_clips
):
  """Picks the frames of all evaluation clips of a video, evenly spread.

  Args:
    video_length: frames in the video (L), at least 1.
    sampler: one of SAMPLERS.
    num_frames: frames in the clip (T); 1 for 'single'.
    frame_step: as in train_frame_numbers.
    num_clips: clips of the video (G), at least 1.

  Returns:
    int32 [G, T], each in [0, L).

  Raises:
    ValueError: if sampler is unknown or the numbers do not fit it.

  Source: as the module; real-valued starts are computed in the order of the
    official code, as their rounding decides where they are truncated.
    Deviation: the official samplers that repeat videos refuse a single clip;
    here it is taken from the middle.
  """
  _check(sampler, num_frames, frame_step)
  if num_clips < 1:
    raise ValueError(f'num_clips must be at least 1, got {num_clips}.')
  if sampler == 'trn':
    return _eval_bins(video_length, num_frames, frame_step, num_clips)
  if sampler == 'single':
    # One clip of G frames, a G-th of the video apart, from the middle start.
    segment = video_length / num_clips
    start = (video_length - (num_clips - 1) * segment) / 2
    frames = start + segment * np.arange(num_clips)[:, np.newaxis]
    return frames.astype(np.int32)
  span = num_frames * frame_step
  starts = int(_num_starts(video_length, sampler, num_frames, frame_step))
  if sampler == 'slow' and video_length > span:
    start = starts / (num_clips + 1) * np.arange(1, num_clips + 1)
  elif sampler in ('slow', 'slow_looped'):
    start = _spread(starts, num_clips)
  else:
    start = _spread(max(video_length, span * num_clips) - span, num_clips)
  frames = start[:, np.newaxis] + frame_step * np.arange(num_frames)
  return (frames.astype(np.int64) % video_length).astype(np.int32)


def num_consecutive(video_length, *, sampler, num_frames, frame_step):
  """Counts the clips that lie one after the other in a video.

  Args:
    video_length: integer array [N] or scalar, frames in each video, at
      least 1.
    sampler: one of SAMPLERS.
    num_frames: as in train_frame_numbers.
    frame_step: as in train_frame_numbers.

  Returns:
    int64, of the shape of video_length, at least 1: for 'single' every frame,
    else as many clips of num_frames * frame_step frames as fit.

  Raises:
    ValueError: if sampler is unknown or the numbers do not fit it.

  Source: the paper's test of finetuned networks, on all consecutive clips.
  """
  _check(sampler, num_frames, frame_step)
  span = 1 if sampler == 'single' else num_frames * frame_step
  return np.maximum(np.asarray(video_length, np.int64) // span, 1)


def consecutive_frame_numbers(
  video_length, clip_index, *, sampler, num_frames, frame_step
):
  """Picks the frames of clips that `num_consecutive` counts.

  Args:
    video_length: integer [n], frames in the videos (L).
    clip_index: likewise, which clip of each.
    sampler: one of SAMPLERS; 'trn' takes the middle of each of its bins.
    num_frames: as in train_frame_numbers.
    frame_step: as in train_frame_numbers.

  Returns:
    int32 [n, T], each in [0, L); a video that is shorter than a clip starts
    over.
  """
  start = np.asarray(clip_index, np.int64)[:, np.newaxis]
  if sampler == 'single':
    return start.astype(np.int32)
  start = start * num_frames * frame_step
  if sampler == 'trn':
    start += frame_step // 2
  frames = start + frame_step * np.arange(num_frames)
  return (frames % np.asarray(video_length)[:, np.newaxis]).astype(np.int32)


def _check(sampler, num_frames, frame_step):
  if sampler not in SAMPLERS:
    raise ValueError(
      f'unknown frame sampler {sampler!r}: choose one of {SAMPLERS}.'
    )
  if num_frames < 1 or (sampler == 'single' and num_frames != 1):
    raise ValueError(
      f'frame sampler {sampler!r} cannot make clips of {num_frames} frames.'
    )
  if sampler != 'single' and frame_step < 1:
    raise ValueError(
      f'frame sampler {sampler!r} needs a frame step of at least 1, '
      f'got {frame_step}.'
    )


def _num_starts(video_length, sampler, num_frames, frame_step):
  """The one definition of the span of a clip."""
  if sampler == 'single':
    return video_length
  span = num_frames * frame_step
  repeated = video_length * (span // video_length + 1)
  is_long = video_length > span
  starts = np.where(is_long, video_length, repeated) - span
  if sampler == 'slow':
    # Here the frame_step frames behind the last frame need not exist.
    starts = np.where(is_long, starts + frame_step, starts)
  return starts


def _train_bins(video_length, num_frames, frame_step, seed):
  bin_seed, frame_seed = stateless_random.split(seed, 2)
  repeats = np.where(
    video_length > num_frames, 1, num_frames // video_length + 1
  )
  timeline = video_length * repeats
  width = np.minimum(frame_step, timeline // num_frames)
  num_bins = -(-timeline // width)
  first = stateless_random.between(
    stateless_random.words(bin_seed), 0, num_bins - num_frames + 1
  )
  width, timeline = width[:, np.newaxis], timeline[:, np.newaxis]
  low = (first[:, np.newaxis] + np.arange(num_frames)) * width
  high = np.minimum(low + width, timeline)
  share = stateless_random.floats(frame_seed, num_frames)
  inside = (share * (high - low).astype(np.float32)).astype(np.int64)
  return ((low + inside) % video_length[:, np.newaxis]).astype(np.int32)


def _eval_bins(video_length, num_frames, frame_step, num_clips):
  timeline = video_length
  if video_length <= num_frames:
    timeline *= num_frames // video_length + 1
  width = min(frame_step, timeline // num_frames)
  num_bins = -(-timeline // width)
  stride = (num_bins - num_frames + 1) // (num_clips + 1)
  first = stride * np.arange(1, num_clips + 1)
  low = (first[:, np.newaxis] + np.arange(num_frames)) * width
  high = np.minimum(low + width, timeline)
  return ((low + high) // 2 % video_length).astype(np.int32)


def _spread(last, num_clips):
  """float64 [G], from 0 to last in equal steps; the middle if G is 1."""
  if num_clips == 1:
    return np.array([last / 2])
  return last / (num_clips - 1) * np.arange(num_clips)
