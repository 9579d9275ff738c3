"""Embeddings on the disk: gone on with, used again, never of another source."""

import json
import time

import numpy as np
import pytest
import tiny_run

from vie_jax import evaluate, experiment, weights
from vie_jax.embeddings import split_embeddings
from vie_jax.input_pipeline import frame_store
from vie_jax.results import result, result_owner

SPLITS = ('train', 'val')


@pytest.fixture(scope='module')
def config(demo_dataset):
  return tiny_run.config(demo_dataset, init_from='random', num_devices=1)


@pytest.fixture(scope='module')
def run(config):
  with experiment.open_experiment(config, 'knn_eval') as opened:
    yield opened


@pytest.fixture(scope='module')
def found(run):
  return weights.load(
    run.config, 'W', run.model, clip_shape=run.clip_shape, mesh=run.mesh
  )


@pytest.fixture(scope='module')
def finished(run, found, tmp_path_factory):
  """A folder with the embeddings of both splits."""
  folder = tmp_path_factory.mktemp('finished')
  opened = split_embeddings.embed_splits(run, found, folder, SPLITS)
  return folder, opened


def opened_with(config, folder, splits=SPLITS, **changes):
  """Opens the embeddings of a changed config in a folder."""
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in changes.items()}
  )
  with experiment.open_experiment(config, 'knn_eval') as run:
    return split_embeddings.open_embeddings(run, config, 'W', folder, splits)


def test_they_are_those_that_training_measures(run, found, finished):
  _, opened = finished
  evaluator = evaluate.Evaluator(run)
  for split in SPLITS:
    videos = split_embeddings.videos_of(run, split)
    expected = evaluator.embed(found.variables, videos)
    np.testing.assert_array_equal(opened[split].clips, expected)
    assert isinstance(opened[split].clips, np.memmap)
    assert opened[split].facts['training'] == 'random'


def copied(finished, folder):
  folder.mkdir()
  for path in finished[0].iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  return folder


def test_what_is_finished_is_used_again(config, finished, tmp_path, caplog):
  folder = copied(finished, tmp_path / 'copy')
  before = {path: path.stat().st_mtime_ns for path in folder.glob('*.npy')}
  with caplog.at_level('INFO'):
    # The size of a batch changes no embedding.
    opened = opened_with(config, folder, knn__batch_size=8)
  assert caplog.text.count('Embedded before') == 2
  assert before == {path: path.stat().st_mtime_ns for path in before}
  for split in SPLITS:
    np.testing.assert_array_equal(opened[split].clips, finished[1][split].clips)


@pytest.mark.parametrize(
  'change,words',
  [
    ({'seed': 1}, 'weights changed'),
    ({'clip__num_eval_clips': 3}, 'clip, shape changed'),
    ({'crop__eval_short_side': 40}, 'crop changed'),
  ],
)
def test_other_weights_and_settings_are_embedded_anew(
  config, finished, tmp_path, caplog, change, words
):
  folder = copied(finished, tmp_path / 'copy')
  with caplog.at_level('INFO'):
    opened = opened_with(config, folder, ('val',), **change)
  assert words in caplog.text
  old = finished[1]['val'].clips
  new = opened['val'].clips
  assert new.shape != old.shape or not np.allclose(new, old, atol=1e-3)


def test_fields_that_change_no_embedding_change_no_identity(config, found):
  same = split_embeddings.identity(config, found)
  other = config.copy_and_resolve_references()
  other.crop.short_side_min = 40
  other.optimizer.learning_rate = 0.5
  other.knn.batch_size = 4
  assert split_embeddings.identity(other, found) == same
  other.crop.method = 'multiscale'
  assert split_embeddings.identity(other, found) != same


def killed_run(workdir, dataset, after):
  """Starts an evaluation; kills it once so many clips are on the disk."""
  process = tiny_run.start(
    tiny_run.command(
      workdir, dataset, mode='knn_eval', init_from='random', **SLOWLY
    )
  )
  record = workdir / 'knn_eval' / 'demo_random' / 'embeddings_train.json'
  saved = -1
  while saved <= after and process.poll() is None:
    time.sleep(0.002)
    if record.exists():
      saved = json.loads(record.read_text())['num_done']
  assert process.poll() is None, tiny_run.output_of(process)
  tiny_run.kill(process)
  return json.loads(record.read_text())['num_done']


# Many small batches: enough time to be killed in.
SLOWLY = {'clip__num_eval_clips': 60, 'knn__batch_size': 4}


@pytest.mark.slow
def test_evaluations_that_are_killed_go_on_and_end_the_same(
  demo_dataset, tmp_path
):
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  command = {'mode': 'knn_eval', 'init_from': 'random', **SLOWLY}
  tiny_run.run(tiny_run.command(whole, demo_dataset, **command))
  saved = 0
  for _ in range(2):
    saved = killed_run(killed, demo_dataset, after=saved)
    assert 0 < saved < 36 * 60
  folder = killed / 'knn_eval' / 'demo_random'
  assert not (folder / 'embeddings_train.npy').exists()
  output = tiny_run.run(tiny_run.command(killed, demo_dataset, **command))
  assert f'Going on from {saved} of 2160 clips of train' in output
  expected = whole / 'knn_eval' / 'demo_random'
  for name in ('embeddings_train.npy', 'embeddings_val.npy'):
    assert (folder / name).read_bytes() == (expected / name).read_bytes()
  results = [
    json.loads((path / 'result.json').read_text())
    for path in (folder, expected)
  ]
  assert results[0]['accuracy'] == results[1]['accuracy']


def written(folder, config, **changes):
  """A folder with the result of a config."""
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in changes.items()}
  )
  dataset = {'path': 'data/demo', 'fingerprint': 'abc'}
  result.write(folder, {'config': config.to_dict(), 'dataset': dataset})
  return config, dataset


@pytest.mark.parametrize(
  'change',
  [
    {'init_from': 'workdir'},
    {'init_from': 'official:model.npz'},
    {'init_from': 'elsewhere/W'},
    {'model__streams': 'A,B', 'init_from': 'workdir'},
    {'embeddings': 'vectors.npy'},
  ],
)
def test_results_of_another_source_are_not_replaced(config, tmp_path, change):
  _, dataset = written(tmp_path, config)
  other, _ = written(tmp_path / 'other', config, **change)
  for folder, now in ((tmp_path, other), (tmp_path / 'other', config)):
    with pytest.raises(result.ResultError) as error:
      result_owner.check_source(folder, now, dataset)
    assert '--config.result_name' in str(error.value)
    assert str(folder / 'result.json') in str(error.value)


@pytest.mark.parametrize('group', ['clip', 'knn', 'retrieve'])
def test_nor_where_they_say_less(config, tmp_path, group):
  other, dataset = written(tmp_path, config, init_from='elsewhere/W')
  path = tmp_path / 'result.json'
  facts = json.loads(path.read_text())
  for value in (None, 3):
    facts['config'][group] = value
    path.write_text(json.dumps(facts))
    result_owner.check_source(tmp_path, other, dataset)
    with pytest.raises(result.ResultError, match='elsewhere/W'):
      result_owner.check_source(tmp_path, config, dataset)


def test_results_of_another_data_set_of_the_name_are_not_replaced(
  config, tmp_path
):
  _, dataset = written(tmp_path, config)
  other = {'path': 'elsewhere/demo', 'fingerprint': 'def'}
  with pytest.raises(result.ResultError, match='elsewhere/demo'):
    result_owner.check_source(tmp_path, config, other)
  # The same place, prepared again, and the same data in another place.
  for same in ('path', 'fingerprint'):
    result_owner.check_source(tmp_path, config, other | {same: dataset[same]})


def test_a_source_may_be_written_in_several_ways(config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _, dataset = written(tmp_path, config, init_from='runs/W')
  for same in ('./runs/W/', str(tmp_path / 'runs' / 'W')):
    other, _ = written(tmp_path / 'other', config, init_from=same)
    result_owner.check_source(tmp_path, other, dataset)


@pytest.mark.parametrize(
  'content',
  [
    '',
    '[]',
    '{"format_version": 1}',
    '{"config": {"init_from": 3, "model": {"streams": ""}, "embeddings": ""}}',
    '{"config": {"init_from": "", "model": {"streams": ""}, "embeddings": 3}}',
  ],
)
def test_a_damaged_result_may_be_replaced(config, tmp_path, content):
  (tmp_path / 'result.json').write_text(content)
  dataset = {'path': 'data/demo', 'fingerprint': 'abc'}
  result_owner.check_source(tmp_path, config, dataset)


def test_embeddings_made_elsewhere_go_to_their_videos(
  config, demo_dataset, tmp_path
):
  rng = np.random.default_rng(0)
  names, vectors = [], []
  for split in SPLITS:
    with frame_store.FrameStore.open(demo_dataset, split) as store:
      names += store.ids
  vectors = rng.standard_normal((len(names), 9))
  order = rng.permutation(len(names))
  np.save(tmp_path / 'other.npy', vectors[order])
  (tmp_path / 'other.ids.txt').write_text(
    '\n'.join(names[i] for i in order) + '\n'
  )
  opened = opened_with(
    config, tmp_path / 'out', embeddings=str(tmp_path / 'other.npy')
  )
  expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  for split, part in (('train', expected[:36]), ('val', expected[36:])):
    np.testing.assert_allclose(opened[split].clips[:, 0], part, atol=1e-6)
    assert opened[split].facts['training'] == 'foreign'
    assert opened[split].facts['source'] == str(tmp_path / 'other.npy')
    assert opened[split].facts['name'] == 'other'
