"""Findings are found again where they are of the same videos, or refused."""

import dataclasses
import json

import numpy as np
import pytest

from vie_jax.input_pipeline import frame_store
from vie_jax.results import findings, result


@pytest.fixture(scope='module')
def stores(demo_dataset):
  with (
    frame_store.FrameStore.open(demo_dataset, 'train') as train,
    frame_store.FrameStore.open(demo_dataset, 'val') as val,
  ):
    yield train, val


def make(heading):
  rng = np.random.default_rng(0)
  return findings.Findings(
    rng.integers(0, 36, (12, 4)).astype(np.int32),
    rng.uniform(-1, 1, (12, 4)).astype(np.float32),
    {'motion': rng.integers(-1, 9, 12).astype(np.int32)},
    heading=heading,
  )


def save(folder, stores, *, heading='h', fingerprint=None):
  """Writes findings as the mode does, and returns them."""
  own = make(heading)
  findings.write(folder, *stores, own)
  facts = {
    'mode': 'retrieve',
    'heading': heading,
    'dataset': {'fingerprint': fingerprint or stores[1].fingerprint},
  }
  return dataclasses.replace(own, result=result.write(folder, facts))


def read(entries, stores):
  return findings.read_beside(entries, *stores, mode='retrieve', name='demo')


def test_findings_are_read_as_they_were_written(stores, tmp_path):
  written = {
    name: save(tmp_path / name / 'retrieve' / 'demo', stores, heading=name)
    for name in ('A', 'B')
  }
  found = read(f'{tmp_path / "A"}, {tmp_path / "B"},', stores)
  assert [f.heading for f in found] == ['A', 'B']
  for one in found:
    expected = written[one.heading]
    np.testing.assert_array_equal(one.index, expected.index)
    np.testing.assert_array_equal(one.similarity, expected.similarity)
    np.testing.assert_array_equal(
      one.predicted['motion'], expected.predicted['motion']
    )
    assert one.result == expected.result
  assert read('', stores) == []


def test_findings_of_some_of_the_videos_name_them(stores, tmp_path):
  own, rows = make('h'), np.array([0, 2, 3, 11])
  some = dataclasses.replace(
    own,
    index=own.index[rows],
    similarity=own.similarity[rows],
    predicted={'motion': own.predicted['motion'][rows]},
    queries=rows,
  )
  findings.write(tmp_path, *stores, some)
  result.write(tmp_path, {'mode': 'retrieve', 'heading': 'h', 'dataset': {}})
  (found,) = read(str(tmp_path), stores)
  assert found.queries.tolist() == rows.tolist()
  assert [found.place(row) for row in rows] == [0, 1, 2, 3]
  np.testing.assert_array_equal(found.index, own.index[rows])
  common = findings.common_queries([own, found], stores[1])
  assert common.tolist() == rows.tolist()


def test_without_label_columns_there_are_no_predictions(stores, tmp_path):
  own = dataclasses.replace(make('h'), predicted={})
  findings.write(tmp_path, *stores, own)
  facts = {'mode': 'retrieve', 'heading': 'h', 'dataset': {}}
  result.write(tmp_path, facts)
  (found,) = read(str(tmp_path), stores)
  assert found.predicted == {}


def test_of_several_results_the_one_of_the_same_name_is_meant(stores, tmp_path):
  for name in ('demo', 'demo_random'):
    save(tmp_path / 'W' / 'retrieve' / name, stores, heading=name)
  (found,) = read(str(tmp_path / 'W'), stores)
  assert found.heading == 'demo'
  # The folder itself can be named, too.
  folder = tmp_path / 'W' / 'retrieve' / 'demo_random'
  assert read(str(folder), stores)[0].heading == 'demo_random'


def test_the_only_results_on_these_videos_are_meant_whatever_their_name(
  stores, tmp_path
):
  root = tmp_path / 'W' / 'retrieve'
  save(root / 'mine', stores, heading='mine')
  save(root / 'demo', stores, heading='other videos', fingerprint='0123')
  (root / 'torn').mkdir()
  (root / 'torn' / findings.FILE).write_bytes(b'PK')
  (found,) = read(str(tmp_path / 'W'), stores)
  assert found.heading == 'mine'


def test_missing_results_name_the_command_that_makes_them(stores, tmp_path):
  with pytest.raises(result.ResultError) as error:
    read(str(tmp_path / 'W'), stores)
  message = str(error.value)
  assert f'--workdir={tmp_path / "W"} --mode=retrieve' in message
  assert f'--config.dataset.dir={stores[1].directory}' in message
  assert '\n' not in message


def test_several_results_that_may_be_meant_are_named(stores, tmp_path):
  for name in ('one', 'two'):
    save(tmp_path / 'W' / 'retrieve' / name, stores)
  with pytest.raises(result.ResultError, match='several results') as error:
    read(str(tmp_path / 'W'), stores)
  assert 'retrieve/one, ' in str(error.value)


def test_results_of_other_videos_are_refused(stores, tmp_path):
  save(tmp_path, stores)
  archive = dict(np.load(tmp_path / findings.FILE))
  archive['fingerprint'] = np.array('0123')
  np.savez(tmp_path / findings.FILE, **archive)
  with pytest.raises(result.ResultError, match='is of other videos than'):
    read(str(tmp_path), stores)


def test_neighbours_of_another_mode_are_named_as_such(stores, tmp_path):
  findings.write(tmp_path, *stores, make(''))
  result.write(tmp_path, {'mode': 'knn_eval', 'dataset': {}})
  with pytest.raises(
    result.ResultError, match='has results of another mode; name'
  ):
    read(str(tmp_path), stores)


def truncate(folder):
  path = folder / findings.FILE
  path.write_bytes(path.read_bytes()[:200])


def drop_an_array(folder):
  archive = dict(np.load(folder / findings.FILE))
  del archive['similarity']
  np.savez(folder / findings.FILE, **archive)


def drop_queries(folder):
  archive = dict(np.load(folder / findings.FILE))
  archive['index'] = archive['index'][:5]
  np.savez(folder / findings.FILE, **archive)


def swap_queries(folder):
  archive = dict(np.load(folder / findings.FILE))
  archive['query_ids'] = archive['query_ids'][::-1]
  np.savez(folder / findings.FILE, **archive)


def name_other_queries(folder):
  archive = dict(np.load(folder / findings.FILE))
  archive['query_ids'][3] = b'?'
  np.savez(folder / findings.FILE, **archive)


def drop_the_heading(folder):
  facts = json.loads((folder / result.FILE).read_text())
  del facts['heading']
  (folder / result.FILE).write_text(json.dumps(facts))


@pytest.mark.parametrize(
  'damage',
  [
    truncate,
    drop_an_array,
    drop_queries,
    swap_queries,
    name_other_queries,
    drop_the_heading,
  ],
)
def test_damaged_results_are_named_with_the_remedy(stores, tmp_path, damage):
  save(tmp_path, stores)
  damage(tmp_path)
  with pytest.raises(result.ResultError, match='run --mode=retrieve') as error:
    read(str(tmp_path), stores)
  assert f'{tmp_path / findings.FILE} is damaged' in str(error.value)


def test_networks_of_one_heading_get_another_each():
  named = findings.distinct([make(name) for name in ('a', 'b', 'a', 'a')])
  assert [found.heading for found in named] == ['a', 'b', 'a (2)', 'a (3)']
