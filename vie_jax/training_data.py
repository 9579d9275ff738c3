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
    return record['trained_on']
  config = record['config']
  dataset, clip = config['dataset'], config['clip']
  facts = {
    'path': dataset['dir'],
    'fingerprint': record['fingerprint'],
    'share': dataset['share'],
    'with_replacement': dataset.get('with_replacement', False),
    'bin_frames': dataset['bin_frames'],
    'sampler': clip['sampler'],
    'num_frames': clip['num_frames'],
  }
  if 'dataset' in record:
    facts['name'] = record['dataset']['name']
    facts['dataset_fingerprint'] = record['dataset']['fingerprint']
  return facts


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
