"""What the retrieval page shows of videos of any length, and of results."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from vie_jax.results import findings
from vie_jax.retrieval import page as retrieval_page

SIZE = 40, 30


class Store:
  """Videos whose frames are of their number's brightness."""

  name = 'made up'
  frame_rate_hz = 25
  label_columns = ('kind',)

  def __init__(self, num_frames, labels, size=SIZE):
    self.num_frames = num_frames
    self.num_videos = len(num_frames)
    self.paths = [f'{k}.mp4' for k in range(self.num_videos)]
    self._labels = np.array(labels, np.int32)
    self._size = size
    width, height = np.full((self.num_videos, 2), size, np.int32).T
    self.width, self.height = width, height

  def label(self, column):
    assert column == 'kind'
    return self._labels, ['cat', 'dog']

  def read_frames(self, row, numbers):
    del row
    frames = []
    for number in numbers:
      data = io.BytesIO()
      Image.new('RGB', self._size, (int(number),) * 3).save(data, 'JPEG')
      frames.append(data.getvalue())
    return frames


def shown(num_frames, size=SIZE):
  store = Store([num_frames], [0], size)
  return retrieval_page.film_strip(store, 0, ['kind'])


def numbers(num_frames):
  """The frames that a strip of a video shows."""
  return shown(num_frames).frames[:, 5, 5, 0].astype(int).tolist()


@pytest.mark.parametrize(
  ('num_frames', 'expected'),
  [
    (1, [0]),
    (3, [0, 1, 2]),
    (8, [0, 1, 2, 3, 4, 5, 6, 7]),
    (12, [2, 3, 4, 5, 6, 7, 8, 9]),
    (48, [2, 8, 14, 20, 26, 32, 38, 44]),
    (251, [104, 110, 116, 122, 128, 134, 140, 146]),
  ],
)
def test_frames_are_from_the_middle_and_show_motion(num_frames, expected):
  found = numbers(num_frames)
  assert found == expected
  # As much is left out before as after, to a frame.
  assert abs(found[0] - (num_frames - 1 - found[-1])) <= 1


def test_large_frames_are_shown_small_and_small_ones_as_they_are():
  assert shown(8, (640, 320)).frames.shape == (8, 128, 256, 3)
  assert shown(8, (64, 300)).frames.shape == (8, 128, 27, 3)
  assert shown(8, (40, 30)).frames.shape == (8, 30, 40, 3)


def test_only_known_labels_are_shown():
  store = Store([8, 8], [1, -1])
  assert retrieval_page.labels_of(store, 0, ['kind']) == {'kind': 'dog'}
  assert retrieval_page.labels_of(store, 1, ['kind']) == {}


def make_result(**changes):
  return {
    'dataset': {'name': 'made up', 'fingerprint': '0' * 64, 'train': 3},
    'network': {
      'name': 'vie_single',
      'training': 'local_aggregation',
      'step': 1000,
      'source': 'W',
    },
    'settings': {'num_voters': 10, 'temperature': 0.07},
    'views': {'clips': 5},
    'recall': {'kind': {'1': 0.5, '2': 1.0, '3': 1.0, '5': 1.0}},
    'chance_recall': {'kind': {'1': 0.25, '2': 0.75, '3': 1.0, '5': 1.0}},
    'accuracy': {'kind': {'knn': {'top1': 0.5}}},
    'chance': {'kind': 0.5},
    'hardware': {'devices': '1 x cpu', 'cores': 2},
    'seed': 0,
    'commit': None,
    'date': '2026-11-23',
    **changes,
  }


def make_findings(heading, predicted, **changes):
  return findings.Findings(
    np.array([[2, 0, 1], [0, 1, 2]], np.int32),
    np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]], np.float32),
    {'kind': np.array(predicted, np.int32)},
    heading=heading,
    result=make_result(**changes),
  )


def make_page(*found, columns=('kind',), **options):
  train, val = Store([8, 8, 8], [0, 1, -1]), Store([8, 8], [0, 1])
  options = {'num_queries': 50, 'num_neighbors': 2, **options}
  return retrieval_page.validation_page(
    train, val, found, columns=columns, **options
  )


def test_page_has_queries_neighbours_and_predictions_of_each_network():
  page = make_page(make_findings('a', [0, -1]), make_findings('b', [1, 1]))
  assert [q.strip.caption for q in page.queries] == ['0.mp4', '1.mp4']
  assert page.query_caption.startswith('All 2 validation videos.')
  first, second = page.queries
  assert first.predictions == {'a': {'kind': 'cat'}, 'b': {'kind': 'dog'}}
  assert second.predictions == {'a': {}, 'b': {'kind': 'dog'}}
  near = first.neighbors['b']
  assert [n.strip.caption for n in near] == ['2.mp4', '0.mp4']
  assert [n.similarity for n in near] == pytest.approx([0.9, 0.8])
  # A video that occurs often is read once.
  assert near[1].strip is second.neighbors['a'][0].strip
  assert page.label_columns == ['kind']
  assert 'a beside b' in page.title


def test_nouns_and_verbs_fit_one_video():
  found = dataclasses.replace(
    make_findings('a', [0], left_out={'train': 2, 'val': 1}),
    index=np.array([[0]]),
    similarity=np.array([[0.3]]),
    queries=np.array([1]),
  )
  page = make_page(found)
  assert page.query_caption.startswith('The one validation video.')
  assert page.introduction[0].startswith('1 validation video of the data set ')
  assert ' was looked up among 1 training video. Each' in page.introduction[0]


def test_page_has_the_queries_that_all_networks_have():
  some = dataclasses.replace(
    make_findings('b', [1], left_out={'train': 1, 'val': 1}),
    index=np.array([[0, 2]]),
    similarity=np.array([[0.3, 0.2]]),
    queries=np.array([1]),
  )
  page = make_page(make_findings('a', [0, -1]), some)
  assert [query.strip.caption for query in page.queries] == ['1.mp4']
  page = make_page(some, make_findings('a', [0, -1]))
  (query,) = page.queries
  assert query.strip.caption == '1.mp4'
  assert query.predictions == {'b': {'kind': 'dog'}, 'a': {}}
  near = [
    [neighbor.similarity for neighbor in query.neighbors[name]]
    for name in ('b', 'a')
  ]
  assert near == [pytest.approx([0.3, 0.2]), pytest.approx([0.6, 0.5])]
  assert '1 training and 1 validation video.' in page.introduction[-1]


def test_table_has_a_row_for_each_network_and_one_for_chance():
  lacking = make_findings('b', [0, 0], recall={}, accuracy={})
  page = make_page(make_findings('a', [0, 0]), lacking)
  (table,) = page.tables
  # Of three training videos, three are all.
  assert table.header == ['network', 'recall@1', 'recall@2', 'kNN top-1']
  assert table.rows == [
    ['a', 50.0, 100.0, 50.0],
    ['b', 'not run', 'not run', 'not run'],
    ['chance', '25.0', '75.0', '50.0'],
  ]


def test_recall_is_shown_of_one_training_video():
  found = make_findings('a', [0, 0], left_out={'train': 2, 'val': 0})
  (table,) = make_page(found).tables
  assert table.header == ['network', 'recall@1', 'kNN top-1']


def test_facts_tell_the_networks_apart():
  page = make_page(make_findings('a', [0, 0]), make_findings('b', [0, 0]))
  assert page.facts['a'] == (
    'vie_single, local aggregation, step 1,000, from W; 3 training videos; kNN '
    'of 10 at temperature 0.07'
  )
  assert 'b' in page.facts
  assert page.facts['commit'] == 'unknown'


def test_columns_that_nothing_can_be_judged_by_are_left_out():
  train, val = Store([8, 8, 8], [0, 1, 0]), Store([8, 8], [-1, -1])
  page = retrieval_page.validation_page(
    train,
    val,
    [make_findings('a', [0, 0], recall={})],
    columns=['kind'],
    num_queries=1,
    num_neighbors=3,
  )
  assert page.label_columns == []
  assert page.tables == []
  assert 'no labels' in ' '.join(page.introduction)
