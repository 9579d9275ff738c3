"""Which clips of which videos an evaluation looks at, by number."""

import numpy as np

from vie_jax.input_pipeline import frame_sampling


def spread(instances, clip):
  """Takes G clips of each video, as `clip.num_eval_clips` says.

  Args:
    instances: Instances, N of them.
    clip: as in `pipeline.eval_batches`.

  Returns:
    (N * G, clip_at). The function tells where clips are: of int [n] in [0, N * G)
    it makes instances, int [n], the numbers of the clips in them, int [n], and
    frame numbers, int32 [n, T].

  Raises:
    ValueError: if a number does not fit the others.
  """
  num_clips = clip.num_eval_clips
  num_frames = instances.store.num_frames[instances.video]

  def all_frame_numbers(video_length):
    return frame_sampling.eval_frame_numbers(
      int(video_length),
      sampler=clip.sampler,
      num_frames=clip.num_frames,
      frame_step=clip.frame_step,
      num_clips=num_clips,
    )

  if instances.num_instances:
    # Refuses bad settings at once.
    all_frame_numbers(num_frames[0])

  def clip_at(clip_number):
    instance_index, clip_index = np.divmod(clip_number, num_clips)
    video_length = num_frames[instance_index]
    frame_numbers = [
      all_frame_numbers(length)[number]
      for length, number in zip(video_length, clip_index, strict=True)
    ]
    return instance_index, clip_index, np.stack(frame_numbers)

  return instances.num_instances * num_clips, clip_at


def consecutive(instances, clip):
  """As `spread`, of all clips that each video has, one after the other."""
  options = {
    'sampler': clip.sampler,
    'num_frames': clip.num_frames,
    'frame_step': clip.frame_step,
  }
  num_frames = instances.store.num_frames[instances.video]
  ends = np.cumsum(frame_sampling.num_consecutive(num_frames, **options))
  starts = np.concatenate([[0], ends])

  def clip_at(clip_number):
    instance_index = np.searchsorted(ends, clip_number, side='right')
    clip_index = clip_number - starts[instance_index]
    video_length = num_frames[instance_index]
    frame_numbers = frame_sampling.consecutive_frame_numbers(
      video_length, clip_index, **options
    )
    return instance_index, clip_index, frame_numbers

  return int(ends[-1]) if len(ends) else 0, clip_at
