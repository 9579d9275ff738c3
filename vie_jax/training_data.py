"""What a network was trained on, as checkpoints and results say it.

Both may be older than this code, and say less.
"""

from collections.abc import Mapping
from typing import Any


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
  """What a checkpoint's record says of its videos, for `result.json`.

  Args:
    record: of a training; not of converted weights.

  Returns:
    `fingerprint` of the instances; `name` and `dataset_fingerprint` of the data
    set that they were taken from, if the record says so; and how.
  """
  if 'trained_on' in record:
    return _part(record, 'trained_on')
  config = _part(record, 'config')
  dataset, clip = _part(config, 'dataset'), _part(config, 'clip')
  crop = _part(config, 'crop')
  facts = {
    'path': dataset.get('dir'),
    'fingerprint': record.get('fingerprint'),
    'share': dataset.get('share'),
    'with_replacement': dataset.get('with_replacement', False),
    'bin_frames': dataset.get('bin_frames'),
    'sampler': clip.get('sampler'),
    'num_frames': clip.get('num_frames'),
    'frame_step': clip.get('frame_step'),
    'size': crop.get('size'),
  }
  whole = _part(record, 'dataset')
  if whole:
    facts['name'] = whole.get('name')
    facts['dataset_fingerprint'] = whole.get('fingerprint')
  return facts


def _part(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  found = facts.get(name)
  return found if isinstance(found, Mapping) else {}


def of_all_videos(
  dataset: Mapping[str, Any],
  *,
  sampler: str,
  num_frames: int,
  frame_step: int,
  size: int,
) -> dict[str, Any]:
  """As `of_record`, of a training that takes each video of a data set once.

  Args:
    dataset: its `name`, `path` and `fingerprint`.
    sampler: of the clips, as `config.clip` has it.
    num_frames: likewise.
    frame_step: likewise.
    size: of their crops, as `config.crop` has it.
  """
  return {
    'name': dataset['name'],
    'dataset_fingerprint': dataset['fingerprint'],
    'path': dataset['path'],
    'fingerprint': dataset['fingerprint'],
    'share': 1.0,
    'with_replacement': False,
    'bin_frames': 0,
    'sampler': sampler,
    'num_frames': num_frames,
    'frame_step': frame_step,
    'size': size,
  }


def is_whole(trained_on: Mapping[str, Any]) -> bool:
  """Whether each video of the data set was one instance."""
  return (
    trained_on.get('share', 1.0) == 1.0
    and not trained_on.get('with_replacement')
    and not trained_on.get('bin_frames')
  )


def dataset_of(trained_on: Mapping[str, Any]) -> dict[str, Any]:
  """`name`, `path` and `fingerprint` of the data set; None where unknown."""
  fingerprint = trained_on.get('dataset_fingerprint')
  if fingerprint is None and is_whole(trained_on):
    fingerprint = trained_on.get('fingerprint')
  return {
    'name': trained_on.get('name'),
    'path': trained_on.get('path'),
    'fingerprint': fingerprint,
  }
