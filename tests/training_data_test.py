"""What is known of the data that a network was trained on."""

import copy

import pytest

from vie_jax import training_data

RECORD = {
  'fingerprint': 'i' * 64,
  'dataset': {'name': 'demo', 'fingerprint': 'd' * 64},
  'config': {
    'dataset': {
      'dir': '/demo',
      'share': 0.3,
      'with_replacement': True,
      'bin_frames': 0,
    },
    'clip': {'sampler': 'slow', 'num_frames': 4},
  },
}


def test_a_checkpoint_says_which_videos_of_which_data_set():
  facts = training_data.of_record(RECORD)
  assert facts['path'] == '/demo'
  assert facts['share'] == 0.3
  assert facts['with_replacement']
  assert not training_data.is_whole(facts)
  assert training_data.dataset_of(facts) == {
    'name': 'demo',
    'path': '/demo',
    'fingerprint': 'd' * 64,
  }


def test_a_training_on_labels_says_the_same_of_all_videos():
  facts = training_data.of_all_videos(
    {'name': 'demo', 'path': '/demo', 'fingerprint': 'd' * 64},
    sampler='slow',
    num_frames=4,
    frame_step=16,
    size=224,
  )
  assert facts.keys() == training_data.of_record(RECORD).keys()
  assert training_data.is_whole(facts)
  assert training_data.of_record({'trained_on': facts}) == facts


@pytest.mark.parametrize(
  'path',
  [
    ('config',),
    ('config', 'dataset'),
    ('config', 'dataset', 'dir'),
    ('config', 'dataset', 'share'),
    ('config', 'clip'),
    ('config', 'clip', 'sampler'),
    ('dataset',),
    ('dataset', 'name'),
    ('fingerprint',),
  ],
)
@pytest.mark.parametrize('is_there', [True, False])
def test_what_it_does_not_say_is_unknown(path, is_there):
  record = copy.deepcopy(RECORD)
  parent = record
  for name in path[:-1]:
    parent = parent[name]
  if is_there:
    parent[path[-1]] = None
  else:
    del parent[path[-1]]
  training_data.dataset_of(training_data.of_record(record))
