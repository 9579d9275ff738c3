"""The trainings behind a network, as checkpoints and results say them.

`started_from` of a record, or of `network` in a result, lists the trainings that
the last one began with the weights of, the nearest first; none if they were
drawn. Each has `training`, `step`, `source`, `trained_on` and, of a network whose
streams are from sources of their own, `streams`, as `network` has them.
"""

from collections.abc import Mapping
from typing import Any

from vie_jax import training_data

LABELLED = ('supervised', 'finetuned')
"""Trainings that are on labels."""
OBJECTIVES = ('instance_recognition', 'local_aggregation')
"""Trainings that are not, and have a memory bank."""
UNKNOWN = 'unknown'
"""Of weights of which a record of before says no more than their place."""
_FACTS = ('training', 'step', 'source', 'trained_on')


def training_of(record: Mapping[str, Any]) -> str:
  """How the weights of a checkpoint came to be.

  Args:
    record: of the checkpoint, with its `step`; not of converted weights.
  """
  if 'training' in record:
    return record['training']
  until = record['config']['objective']['instance_recognition_steps']
  return OBJECTIVES[record['step'] > until]


def started_from(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """What the training of a checkpoint started from, for `result.json`.

  Records of before have no list. That of a training on labels has the network
  all the same; that of a pretraining has `init_from` of its config.

  Args:
    record: of the checkpoint; not of converted weights.
  """
  if 'started_from' in record:
    return origins(record)
  if 'network' in record:
    return behind(record['network'])
  config = record['config']
  source = config['model'].get('streams') or config.get('init_from', 'workdir')
  if source in ('workdir', 'random'):
    return []
  is_official = source.startswith('official:')
  training = 'official' if is_official else UNKNOWN
  return [{'training': training, 'step': None, 'source': source}]


def behind(network: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """`started_from` of a training that begins with the weights of a network.

  Args:
    network: as `network` of a result; what it is and sees does not matter.
  """
  if network.get('training') == 'random':
    return []
  nearest = {name: network.get(name) for name in _FACTS}
  if 'streams' in network:
    nearest['streams'] = network['streams']
  return [nearest, *origins(network)]


def gone_on(
  record: Mapping[str, Any], *, instance_recognition_steps: int, source: str
) -> list[Mapping[str, Any]]:
  """`started_from` of a pretraining that goes on from a checkpoint of its own.

  Where it goes back to Instance Recognition, its steps of Local Aggregation
  are a training of their own before it.

  Args:
    record: of the checkpoint, with its `step`.
    instance_recognition_steps: that the run is to have now.
    source: its workdir.
  """
  training, before = training_of(record), started_from(record)
  goes_back = record['step'] < instance_recognition_steps
  if training != 'local_aggregation' or not goes_back:
    return before
  return behind(
    {
      'training': training,
      'step': record['step'],
      'source': source,
      'trained_on': training_data.of_record(record),
      'started_from': before,
    }
  )


def origins(network: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """What a result or a record says that a network started from.

  They are anybody's: an entry that is no object is an empty one, of which no
  training is known.

  Args:
    network: of a result, a stream of one, or a record.
  """
  found = network.get('started_from') or []
  entries = found if isinstance(found, list) else [found]
  return [entry if isinstance(entry, Mapping) else {} for entry in entries]
