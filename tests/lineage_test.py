"""Which trainings a network has behind it."""

import pytest

from vie_jax import lineage


def record_of(step, until=10, init_from='workdir', **more):
  return {
    'step': step,
    'fingerprint': 'f' * 64,
    'config': {
      'init_from': init_from,
      'model': {'streams': ''},
      'dataset': {'dir': '/demo', 'share': 1.0},
      'objective': {'instance_recognition_steps': until},
    },
    **more,
  }


EARLIER = [{'training': 'finetuned', 'step': 3, 'source': 'A'}]


@pytest.mark.parametrize(
  'init_from, training',
  [
    ('workdir', None),
    ('random', None),
    ('runs/A', 'unknown'),
    ('official:runs/A', 'official'),
  ],
)
def test_a_pretraining_of_before_has_no_more_than_its_init_from(
  init_from, training
):
  found = lineage.started_from(record_of(7, init_from=init_from))
  expected = {'training': training, 'step': None, 'source': init_from}
  assert found == ([expected] if training else [])


def test_a_pretraining_of_before_may_have_started_from_two_runs():
  record = record_of(7)
  record['config']['model']['streams'] = 'A,B'
  (found,) = lineage.started_from(record)
  assert (found['training'], found['source']) == ('unknown', 'A,B')


def test_the_list_of_a_record_counts_whatever_its_config_says():
  record = record_of(7, init_from='runs/B', started_from=EARLIER)
  assert lineage.started_from(record) == EARLIER
  assert lineage.started_from({**record, 'started_from': []}) == []


def test_a_training_on_labels_has_its_network_behind_it():
  network = {
    'name': 'vie_single',
    'training': 'local_aggregation',
    'step': 14,
    'source': 'W',
    'trained_on': {'name': 'demo'},
    'input': {'size': 112},
    'weights': 'a' * 64,
  }
  record = {'training': 'finetuned', 'network': network}
  nearest = {
    'training': 'local_aggregation',
    'step': 14,
    'source': 'W',
    'trained_on': {'name': 'demo'},
  }
  assert lineage.started_from(record) == [nearest]
  network['started_from'] = EARLIER
  assert lineage.started_from(record) == [nearest, *EARLIER]
  network['training'] = 'random'
  assert lineage.started_from(record) == []


@pytest.mark.parametrize(
  'step, until, now, goes_back',
  [
    (14, 10, 100, True),
    (14, 10, 15, True),
    (14, 10, 14, False),
    (14, 10, 0, False),
    (10, 10, 100, False),
    (7, 10, 100, False),
    (7, 10, 0, False),
  ],
)
def test_going_back_to_instance_recognition_leaves_a_training_behind(
  step, until, now, goes_back
):
  record = record_of(step, until, started_from=EARLIER)
  nearest, *earlier = lineage.gone_on(
    record, instance_recognition_steps=now, source='W'
  )
  if not goes_back:
    assert [nearest, *earlier] == EARLIER
    return
  assert earlier == EARLIER
  assert nearest['training'] == 'local_aggregation'
  assert (nearest['step'], nearest['source']) == (step, 'W')
  assert nearest['trained_on']['path'] == '/demo'


@pytest.mark.parametrize(
  'found, expected',
  [
    (None, []),
    (EARLIER, EARLIER),
    ('text', [{}]),
    ({'training': 'official'}, [{'training': 'official'}]),
    ([3, *EARLIER], [{}, *EARLIER]),
  ],
)
def test_what_anybody_wrote_is_a_list_of_objects(found, expected):
  assert lineage.origins({'started_from': found}) == expected
  assert lineage.started_from({'started_from': found}) == expected
  assert lineage.origins({}) == []
