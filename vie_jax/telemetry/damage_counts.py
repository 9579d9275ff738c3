"""Frames of a run that could not be read: counted over all hosts."""

import contextlib
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np

from vie_jax.input_pipeline import bad_frames, instances, pipeline
from vie_jax.processes import agreement, peers


@contextlib.contextmanager
def counting(
  config: ml_collections.ConfigDict,
) -> Iterator[bad_frames.BadFrames]:
  """Counts damaged frames, and says at the end how many there were."""
  damage = bad_frames.BadFrames(
    config.input.max_bad_share, is_shared=peers.is_shared()
  )
  try:
    yield damage
  finally:
    damage.log_summary()


def so_far(damage: bad_frames.BadFrames) -> dict[str, int]:
  """What a training's checkpoint keeps: frames taken and replaced, all hosts.

  To be called by all hosts at the same step.

  Raises:
    dataset_folder.DatasetError: as `check`.
  """
  check(damage)
  own = [damage.num_frames, damage.num_bad]
  num_frames, num_bad = np.sum(agreement.gather('frames', own), axis=0)
  return {'num_frames': int(num_frames), 'num_bad': int(num_bad)}


def go_on_from(damage: bad_frames.BadFrames, counts: dict) -> None:
  """Goes on from `so_far` of a checkpoint; each host with its share."""
  count, index = jax.process_count(), jax.process_index()
  damage.go_on_from(
    {
      name: value // count + (value % count if index == 0 else 0)
      for name, value in counts.items()
    }
  )


def replaced(damage: bad_frames.BadFrames, *splits: str) -> dict[str, int]:
  """What `result.json` says: split -> frames that stand for damaged ones.

  To be called by all hosts.

  Raises:
    dataset_folder.DatasetError: as `check`.
  """
  _share_clips(damage)
  return {split: sum(damage.clips[split].values()) for split in splits}


def _share_clips(damage):
  """Gives every host the notes of evaluation clips that any of them has."""
  check(damage)
  for clips in agreement.gather('clips', damage.clips):
    for split, found in clips.items():
      damage.clips[split].update(found)


def num_left_out(damage: bad_frames.BadFrames, split: str) -> int:
  """How many videos or images of a split an evaluation has left out.

  To be called by all hosts.
  """
  own = sorted(damage.left_out[split])
  return len(set().union(*agreement.gather('left out', own)))


def check(damage: bad_frames.BadFrames) -> None:
  """Stops if too many frames of all hosts were replaced.

  To be called by all hosts, now and then; a single one checks each batch.

  Raises:
    dataset_folder.DatasetError: naming the worst videos, and the remedy.
  """
  if peers.is_shared():
    damage.check_all(agreement.gather('damage', damage.counted()))


def check_clips(
  damage: bad_frames.BadFrames,
  videos: instances.Instances,
  clip: ml_collections.ConfigDict,
) -> None:
  """Stops if too many frames of all evaluation clips were replaced.

  Those of earlier calls, that this one goes on from, count, too. To be called
  by all hosts.

  Args:
    damage: has the notes of all clips.
    videos: whose clips they are.
    clip: config.clip, how many there are of a video, of how many frames.

  Raises:
    dataset_folder.DatasetError: as `check`.
  """
  split = videos.store.split
  _share_clips(damage)
  damage.check_clips(
    split,
    num_frames=videos.num_instances * clip.num_eval_clips * clip.num_frames,
    **pipeline.named(videos),
  )
