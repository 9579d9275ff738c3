import json

import jax
import numpy as np
import pytest
import tiny_run

from vie_jax import evaluate, experiment, train, train_state
from vie_jax.evaluation import knn
from vie_jax.input_pipeline import frame_store


@pytest.fixture(scope='module')
def parts(demo_dataset):
  with experiment.open_experiment(tiny_run.config(demo_dataset)) as opened:
    yield opened


@pytest.fixture(scope='module')
def state(parts):
  rule, _ = train.build_optimizer(parts.config)
  return experiment.state_initializer(parts, rule)(jax.random.key(0))


def test_every_clip_is_embedded_in_its_place(parts, state):
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  embeddings = evaluate.Evaluator(parts).embed(variables, parts.val)
  assert embeddings.shape == (12, 5, 128)

  @jax.jit
  def embed(window, crop):
    clips = parts.center(window, crop)
    return parts.model.apply(variables, clips, train=False)

  # One device, and clips in the order of the batches.
  rows = []
  with experiment.eval_batches(parts, parts.val) as batches:
    for batch in batches:
      found = np.asarray(embed(batch['window'], batch['crop']))
      rows.extend(found[batch['is_valid']])
  expected = np.stack(rows).reshape(12, 5, 128)
  np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def one_hot(labels, num_clips=1):
  """Embeddings that say the class and nothing else: [V, G, 128]."""
  vectors = np.eye(128, dtype=np.float32)[labels]
  return np.repeat(vectors[:, None], num_clips, axis=1)


def test_videos_are_compared_with_the_training_labels_of_each_column(parts):
  train_labels, names = parts.train.label('motion')
  val_labels, _ = parts.val.label('motion')
  bank = knn.as_bank(one_hot(train_labels)[:, 0], parts.mesh)
  accuracy = evaluate.Evaluator(parts).knn(
    one_hot(val_labels, 5), evaluate.Reference(bank, 'bank', parts.train)
  )
  assert set(accuracy) == {'appearance', 'motion'}
  known = np.isin(val_labels, train_labels)
  assert accuracy['motion']['top1'] == pytest.approx(known.mean())
  # The other column, by hand: those of the same motion vote with weight
  # exp(1 / t), the others with 1.
  train_other, other_names = parts.train.label('appearance')
  val_other, _ = parts.val.label('appearance')
  hits = 0
  for motion, truth in zip(val_labels, val_other, strict=True):
    nearest = sorted(range(36), key=lambda i: train_labels[i] != motion)[:10]
    votes = np.zeros(len(other_names))
    for i in nearest:
      weight = 1 / 0.07 if train_labels[i] == motion else 0
      votes[train_other[i]] += np.exp(weight) / 10
    hits += votes.argmax() == truth
  assert accuracy['appearance']['top1'] == pytest.approx(hits / 12)
  assert len(names) == 9


def test_curves_have_all_figures_under_their_names(parts, state):
  figures = evaluate.curves(evaluate.Evaluator(parts), state, parts)
  assert set(figures) == {
    'health/bank_age_mean',
    'health/bank_age_max',
    'health/bank_share_never_visited',
    'health/bank_effective_rank',
    'health/neighbors_same_appearance',
    'health/neighbors_same_motion',
    *(
      f'knn/{column}_{name}'
      for column in ('appearance', 'motion')
      for name in ('top1', 'top5', 'clip_top1')
    ),
    'same_video/top1',
    'same_video/chance',
  }
  assert all(np.isfinite(value) for value in figures.values())
  assert figures['health/bank_share_never_visited'] == 1.0
  assert (np.asarray(state.bank_step) == train_state.NEVER).all()


def test_a_network_that_was_never_trained_is_compared_with_clips(
  demo_dataset, parts, state, tmp_path
):
  config = tiny_run.config(
    demo_dataset, init_from='random', knn__reference='bank'
  )
  result = evaluate.knn_eval(config, str(tmp_path))
  folder = tmp_path / 'knn_eval_random'
  assert json.loads((folder / 'result.json').read_text()) == result
  assert result['reference'] == 'clips'
  for column, chance in result['chance'].items():
    labels = parts.train.label(column)[0].tolist()
    frequent = max(sorted(set(labels)), key=labels.count)
    truth = parts.val.label(column)[0].tolist()
    assert chance == pytest.approx(truth.count(frequent) / 12)
  # The same weights as those that training starts with.
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  evaluator = evaluate.Evaluator(parts)
  means = [
    clips.mean(axis=0) / np.linalg.norm(clips.mean(axis=0))
    for clips in evaluator.embed(variables, parts.train)
  ]
  neighbors = np.load(folder / 'neighbors.npz')
  for video, clips in enumerate(evaluator.embed(variables, parts.val)):
    query = clips.mean(axis=0) / np.linalg.norm(clips.mean(axis=0))
    products = np.array([float(query @ mean) for mean in means])
    np.testing.assert_allclose(
      neighbors['similarity'][video], np.sort(products)[::-1][:3], atol=1e-5
    )
    np.testing.assert_allclose(
      products[neighbors['index'][video]],
      neighbors['similarity'][video],
      atol=1e-5,
    )


def test_a_data_set_without_validation_videos_is_refused(
  demo_dataset, tmp_path
):
  tiny_run.prepare(
    'folder',
    f'--videos={demo_dataset.parent / "demo-videos"}',
    f'--out={tmp_path / "prepared"}',
    '--val-percent=0',
    '--processes=2',
  )
  config = tiny_run.config(tmp_path / 'prepared', init_from='random')
  with pytest.raises(frame_store.DatasetError, match='no validation videos'):
    evaluate.knn_eval(config, str(tmp_path / 'W'))
  assert not (tmp_path / 'W').exists()
