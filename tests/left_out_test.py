"""Evaluations of videos without a sound frame are those without the videos."""

import jax
import jax.numpy as jnp
import lost_videos
import numpy as np
import pytest
import tiny_run

from vie_jax import (
  blueprint,
  embed,
  evaluate,
  experiment,
  finetune,
  finite,
  linear_eval,
  retrieve,
)
from vie_jax.evaluation import features
from vie_jax.input_pipeline import dataset_folder, frame_store

# Rows of the data set, with the last one, and all of a class of training: so
# that chance is another one without these, and again without those.
TRAIN, VAL = [7, 20], [0, 1, 2, 3, 11]


@pytest.fixture(scope='module')
def damaged(demo_dataset, tmp_path_factory):
  """Some videos of each split have no sound frame."""
  folder = tmp_path_factory.mktemp('damaged') / 'demo'
  lost_videos.without(demo_dataset, folder, 'val', [])
  lost_videos.destroy(folder, 'train', TRAIN)
  lost_videos.destroy(folder, 'val', VAL)
  return folder


@pytest.fixture(scope='module')
def smaller(demo_dataset, tmp_path_factory):
  """They are not there."""
  folder = tmp_path_factory.mktemp('smaller')
  lost_videos.without(demo_dataset, folder / 'val', 'val', VAL)
  lost_videos.without(folder / 'val', folder / 'demo', 'train', TRAIN)
  return folder / 'demo'


def config(dataset, **changes):
  settings = {'init_from': 'random', 'input__max_bad_share': 0.5}
  return tiny_run.config(dataset, **settings | changes)


def assert_alike(one, other):
  """Numbers of nested dicts are the same, up to rounding."""
  flat, structure = jax.tree.flatten(one)
  other_flat, other_structure = jax.tree.flatten(other)
  assert structure == other_structure
  assert flat
  np.testing.assert_allclose(flat, other_flat, atol=1e-6)


def test_knn(damaged, smaller, tmp_path, caplog):
  found = evaluate.knn_eval(config(damaged), str(tmp_path / 'damaged'))
  expected = evaluate.knn_eval(config(smaller), str(tmp_path / 'smaller'))
  for name in ('accuracy', 'chance', 'same_video'):
    assert_alike(found[name], expected[name])
  assert found['left_out'] == {'train': 2, 'val': 5}
  assert expected['left_out'] == {'train': 0, 'val': 0}
  # Each clip has one frame, and each video five clips.
  assert found['bad_frames'] == {'train': 10, 'val': 25}
  own, other = (
    np.load(tmp_path / name / 'knn_eval' / 'demo_random' / 'neighbors.npz')
    for name in ('damaged', 'smaller')
  )
  assert own['query_ids'].tolist() == other['query_ids'].tolist()
  assert own['ids'].tolist() == other['ids'].tolist()
  lines = [x for x in caplog.messages if 'is left out' in x.lower()]
  assert len(lines) == 7
  assert any('5 of 12 videos of split' in line for line in caplog.messages)
  # A second call finds the embeddings of the first.
  again = evaluate.knn_eval(config(damaged), str(tmp_path / 'damaged'))
  for name in ('accuracy', 'left_out', 'bad_frames'):
    assert again[name] == found[name]


def test_retrieval(damaged, smaller, tmp_path):
  found = retrieve.retrieve(config(damaged), str(tmp_path / 'damaged'))
  expected = retrieve.retrieve(config(smaller), str(tmp_path / 'smaller'))
  for name in ('accuracy', 'chance', 'recall', 'chance_recall'):
    assert_alike(found[name], expected[name])
  assert found['left_out'] == {'train': 2, 'val': 5}
  folder = tmp_path / 'damaged' / 'retrieve' / 'demo_random'
  page = (folder / 'index.html').read_text()
  assert 'All 7 validation videos.' in page
  assert '7 validation videos of the data set demo' in page
  assert 'among 34 training videos' in page
  assert 'decoded: 2 training and 5 validation videos.' in page
  # Beside another network of the same videos.
  retrieve.retrieve(
    config(damaged, seed=1, retrieve__beside=str(folder)),
    str(tmp_path / 'beside'),
  )


def curves_of(settings):
  """Curves of a training that begins."""
  with experiment.open_experiment(settings) as parts:
    rule, _ = blueprint.build_optimizer(parts.config)
    state = experiment.state_initializer(parts, rule)(jax.random.key(0))
    return evaluate.curves(evaluate.Evaluator(parts), state, parts)


def test_curves_of_a_training(damaged, smaller):
  figures = [curves_of(config(dataset)) for dataset in (damaged, smaller)]
  for found in figures:
    assert all(np.isfinite(value) for value in found.values())
  # The memory bank has rows of the training videos that are lost, too.
  assert figures[0].keys() == figures[1].keys()
  for name in ('same_video/top1', 'same_video/chance'):
    assert figures[0][name] == figures[1][name]


@pytest.mark.parametrize('share', [0.4, 0.2])
def test_too_much_damage_stops_each_call(demo_dataset, tmp_path, share):
  """Also one that goes on from others, and finds the rest in order."""
  folder = tmp_path / 'demo'
  lost_videos.without(demo_dataset, folder, 'val', [])
  lost_videos.destroy(folder, 'train', range(9))
  settings = {'knn__batch_size': 8, 'clip__num_eval_clips': 50}
  calls = [
    config(folder, input__max_bad_share=allowed, **settings)
    for allowed in (share, share, 0.5, share, 0.5)
  ]
  # At first the frames so far are judged, and at last all of them.
  expected = [False, False, True, share > 0.25, True]
  for call, passes in zip(calls, expected, strict=True):
    if passes:
      evaluate.knn_eval(call, str(tmp_path / 'W'))
      continue
    with pytest.raises(dataset_folder.DatasetError) as caught:
      evaluate.knn_eval(call, str(tmp_path / 'W'))
    assert f'more than the share {call.input.max_bad_share}' in str(
      caught.value
    )
    assert "most of them in 'video_" in str(caught.value)
    assert str(caught.value).endswith('--restart.')


def not_finite(videos):
  """An `embedder` of a network that has no numbers for some videos."""
  make = features.embedder

  def embedder(*args, **options):
    embed = make(*args, **options)

    def of_batch(variables, batch):
      output = embed(variables, batch)
      is_bad = jnp.isin(output['instance_index'], jnp.array(videos))
      found = jnp.where(is_bad[:, None], jnp.nan, output['embedding'])
      return output | {'embedding': found}

    return of_batch

  return embedder


@pytest.mark.parametrize('mode', [evaluate.knn_eval, retrieve.retrieve])
def test_numbers_that_are_not_finite_are_no_damage_but_an_error(
  demo_dataset, tmp_path, monkeypatch, mode
):
  monkeypatch.setattr(features, 'embedder', not_finite([3]))
  settings = config(demo_dataset, knn__reference='clips')
  with pytest.raises(finite.DivergedError) as caught:
    mode(settings, str(tmp_path))
  num_clips = settings.clip.num_eval_clips
  assert f'Of clips of train, number {3 * num_clips} is not' in str(
    caught.value
  )
  assert not list(tmp_path.rglob('*.npy'))


def test_embeddings_of_an_earlier_call_that_are_not_finite_are_an_error(
  demo_dataset, tmp_path
):
  settings = config(demo_dataset)
  evaluate.knn_eval(settings, str(tmp_path))
  (path,) = tmp_path.rglob('embeddings_val.npy')
  clips = np.load(path)
  clips[1] = np.nan
  np.save(path, clips)
  with pytest.raises(finite.DivergedError, match='remove it'):
    evaluate.knn_eval(settings, str(tmp_path))


def test_curves_of_a_network_that_is_not_finite_do_not_vanish(
  demo_dataset, monkeypatch
):
  sound = curves_of(config(demo_dataset))
  monkeypatch.setattr(features, 'embedder', not_finite(list(range(12))))
  assert curves_of(config(demo_dataset)).keys() == sound.keys()


@pytest.fixture(scope='module')
def half_damaged(demo_dataset, tmp_path_factory):
  """Some validation videos have no sound frame."""
  folder = tmp_path_factory.mktemp('damaged') / 'demo'
  lost_videos.without(demo_dataset, folder, 'val', [])
  lost_videos.destroy(folder, 'val', VAL)
  return folder


@pytest.fixture(scope='module')
def half_smaller(demo_dataset, tmp_path_factory):
  folder = tmp_path_factory.mktemp('smaller') / 'demo'
  lost_videos.without(demo_dataset, folder, 'val', VAL)
  return folder


@pytest.mark.parametrize(
  ('mode', 'settings'),
  [
    (linear_eval.linear_eval, {}),
    pytest.param(
      finetune.finetune,
      {
        'dataset__label_columns': ('motion',),
        'finetune__eval_clips': 'consecutive',
      },
      marks=pytest.mark.slow,
    ),
  ],
)
def test_classifiers(half_damaged, half_smaller, tmp_path, mode, settings):
  name = mode.__name__
  settings = settings | {
    f'{name}__{field}': value
    for field, value in {
      'batch_size': 8,
      'eval_batch_size': 16,
      'num_steps': 4,
      'eval_every_steps': 2,
    }.items()
  }
  found = mode(config(half_damaged, **settings), str(tmp_path / 'damaged'))
  expected = mode(config(half_smaller, **settings), str(tmp_path / 'smaller'))
  assert_alike(found['accuracy'], expected['accuracy'])
  for by_name in found['accuracy'].values():
    assert {figures['judged'] for figures in by_name.values()} == {7}
  assert found['left_out'] == {'val': 5}
  assert expected['left_out'] == {'val': 0}
  assert found['bad_frames']['val'] > 0
  # The same call again finds its result, and one without that finds out.
  (path,) = (tmp_path / 'damaged' / name).glob('*/result.json')
  path.unlink()
  again = mode(config(half_damaged, **settings), str(tmp_path / 'damaged'))
  assert again['left_out'] == {'val': 5}


def test_a_classifier_without_a_sound_validation_video_stops(
  demo_dataset, tmp_path
):
  folder = tmp_path / 'demo'
  lost_videos.without(demo_dataset, folder, 'val', [])
  lost_videos.destroy(folder, 'val', range(12))
  settings = config(
    folder,
    input__max_bad_share=1.0,
    linear_eval__batch_size=8,
    linear_eval__num_steps=1,
  )
  with pytest.raises(
    dataset_folder.DatasetError, match='no validation video or image of column'
  ):
    linear_eval.linear_eval(settings, str(tmp_path / 'W'))
  with pytest.raises(dataset_folder.DatasetError, match='No video of split'):
    evaluate.knn_eval(settings, str(tmp_path / 'W'))
  # A training goes on, without the curves that there are none of.
  found = curves_of(settings)
  assert 'health/bank_effective_rank' in found
  assert not [name for name in found if name.startswith(('knn', 'same_video'))]


def test_embed_has_a_row_for_each_video_and_stops(damaged, tmp_path):
  with frame_store.FrameStore.open(damaged, 'train') as store:
    names = [store.paths[video] for video in TRAIN]
  with pytest.raises(dataset_folder.DatasetError) as caught:
    embed.embed(config(damaged), str(tmp_path / 'W'))
  # Batches are made side by side: any may be the first to meet one.
  assert any(f'Video {name!r}' in str(caught.value) for name in names)
  assert 'No other video can stand for it.' in str(caught.value)
