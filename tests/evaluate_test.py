import dataclasses
import shutil

import jax
import numpy as np
import pytest
import tiny_run

from vie_jax import (
  blueprint,
  checkpoint,
  embed,
  evaluate,
  experiment,
  train,
  train_state,
)
from vie_jax.embeddings import foreign_embeddings, split_embeddings
from vie_jax.evaluation import knn
from vie_jax.input_pipeline import dataset_folder, frame_store
from vie_jax.results import result


@pytest.fixture(scope='module')
def parts(demo_dataset):
  with experiment.open_experiment(tiny_run.config(demo_dataset)) as opened:
    yield opened


@pytest.fixture(scope='module')
def state(parts):
  rule, _ = blueprint.build_optimizer(parts.config)
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
    one_hot(val_labels, 5),
    parts.val,
    evaluate.Reference(bank, 'bank', parts.train),
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


def test_curves_are_of_as_many_videos_as_the_config_says(
  demo_dataset, state, parts
):
  # 4 of the 12 validation videos, each third.
  config = tiny_run.config(demo_dataset, eval_videos=4)
  evaluator = evaluate.Evaluator(parts)
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  embeddings = evaluator.embed(variables, parts.val)[::3]
  train_bank = evaluate.Reference(state.bank, 'bank', parts.train)
  third = dataclasses.replace(parts.val, video=parts.val.video[::3])
  accuracy = evaluator.knn(embeddings, third, train_bank)['motion']
  with experiment.open_experiment(config) as few:
    figures = evaluate.curves(evaluate.Evaluator(few), state, few)
  assert figures['same_video/chance'] == pytest.approx(4 / 19)
  for name in ('top1', 'top5', 'clip_top1'):
    assert figures[f'knn/motion_{name}'] == pytest.approx(accuracy[name])


@pytest.fixture(scope='module')
def untrained(demo_dataset, tmp_path_factory):
  """The workdir of an evaluation of an untrained network, and its result."""
  workdir = tmp_path_factory.mktemp('untrained')
  config = tiny_run.config(
    demo_dataset, init_from='random', knn__reference='bank'
  )
  return workdir, evaluate.knn_eval(config, str(workdir))


def test_a_network_that_was_never_trained_is_compared_with_clips(
  untrained, parts, state
):
  workdir, written = untrained
  folder = workdir / 'knn_eval' / 'demo_random'
  assert result.read(folder / 'result.json') == written
  assert written['reference'] == 'clips'
  for column, chance in written['chance'].items():
    labels = parts.train.label(column)[0].tolist()
    frequent = max(sorted(set(labels)), key=labels.count)
    truth = parts.val.label(column)[0].tolist()
    named, guessed = truth.count(frequent) / 12, 1 / len(set(labels))
    assert chance == pytest.approx(max(named, guessed))
  # The same weights as those that training starts with.
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  evaluator = evaluate.Evaluator(parts)
  means = [
    clips.mean(axis=0) / np.linalg.norm(clips.mean(axis=0))
    for clips in evaluator.embed(variables, parts.train)
  ]
  neighbors = np.load(folder / 'neighbors.npz')
  train_ids = np.array(parts.train.store.ids, 'S')
  assert neighbors['query_ids'].astype(str).tolist() == parts.val.store.ids
  assert neighbors['fingerprint'] == parts.val.store.fingerprint
  np.testing.assert_array_equal(neighbors['ids'], train_ids[neighbors['index']])
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


def test_a_result_says_all_that_a_reader_needs(untrained, demo_dataset, parts):
  _, written = untrained
  assert written['dataset'] == {
    'name': 'demo',
    'path': str(demo_dataset),
    'kind': 'video',
    'fingerprint': parts.train.fingerprint,
    'train': 36,
    'val': 12,
    'split': 'val',
  }
  assert written['network']['training'] == 'random'
  assert written['views'] == {'clips': 5, 'crop': 'center', 'average': 'knn'}
  assert written['settings']['num_neighbors'] == 10
  assert written['config']['model']['width'] == 4
  assert written['accuracy'].keys() == {'appearance', 'motion'}
  for figures in written['accuracy'].values():
    assert set(figures['knn']) == {'top1', 'top5', 'clip_top1', 'judged'}
    assert figures['knn']['judged'] == 12
  for name in ('mode', 'seed', 'seconds', 'same_video', 'commit', 'hardware'):
    assert name in written


def test_a_result_says_how_many_neighbors_voted(demo_dataset, tmp_path, caplog):
  config = tiny_run.config(
    demo_dataset, init_from='random', knn__num_neighbors=1000
  )
  written = evaluate.knn_eval(config, str(tmp_path))
  assert written['settings']['num_neighbors'] == 36
  assert written['config']['knn']['num_neighbors'] == 1000
  config.knn.num_neighbors = 3
  with caplog.at_level('INFO'):
    evaluate.knn_eval(config, str(tmp_path))
  assert 'other settings' in caplog.text
  assert 'knn.num_neighbors was 1000, is 3' in caplog.text
  same = written['same_video']
  assert (
    f'is of the same video in {100 * same["top1"]:.1f} % (chance '
    f'{100 * same["chance"]:.1f} %).'
  ) in caplog.text
  assert 'No labels' not in caplog.text


def test_without_labels_that_is_said(untrained, caplog):
  _, written = untrained
  with caplog.at_level('INFO'):
    evaluate._log_figures({**written, 'accuracy': {}, 'same_video': {}})
  assert caplog.messages == ['No labels, so that there is no accuracy of kNN.']


def test_curves_leave_columns_without_labels_out(parts, state, monkeypatch):
  label = parts.train.label

  def without_motion(column):
    labels, names = label(column)
    return (np.full_like(labels, -1) if column == 'motion' else labels), names

  monkeypatch.setattr(
    type(parts.train), 'label', lambda _, column: without_motion(column)
  )
  figures = evaluate.curves(evaluate.Evaluator(parts), state, parts)
  assert 'health/neighbors_same_appearance' in figures
  assert 'health/neighbors_same_motion' not in figures
  assert all(np.isfinite(value) for value in figures.values())


@pytest.fixture(scope='module')
def trained(demo_dataset, tmp_path_factory):
  """The workdir of a short training."""
  workdir = tmp_path_factory.mktemp('trained')
  config = tiny_run.config(
    demo_dataset, num_steps=2, eval_every_steps=2, checkpoint_every_steps=2
  )
  train.train_and_evaluate(config, str(workdir))
  return workdir


@pytest.mark.slow
def test_each_reference_has_a_folder_of_its_own(
  demo_dataset, trained, parts, caplog
):
  config = tiny_run.config(demo_dataset)
  by_bank = evaluate.knn_eval(config, str(trained))
  share = 1 - 2 * config.batch_size / parts.train.num_instances
  assert (
    f'{100 * share:.1f} % of the training videos were in no batch until step 2'
  ) in caplog.text
  config.knn.reference = 'clips'
  by_clips = evaluate.knn_eval(config, str(trained))
  folder = trained / 'knn_eval'
  assert result.read(folder / 'demo' / 'result.json') == by_bank
  assert result.read(folder / 'demo_clips' / 'result.json') == by_clips
  assert (by_bank['reference'], by_clips['reference']) == ('bank', 'clips')
  assert (by_bank['left_out'], by_clips['left_out']) == (
    {'val': 0},  # no training video was looked at
    {'train': 0, 'val': 0},
  )
  assert by_bank['network']['step'] == 2
  assert by_bank['network']['trained_on']['path'] == str(demo_dataset)
  assert by_bank['network']['trained_on']['name'] == 'demo'
  # The bank takes the place of the training videos' clips.
  assert not (folder / 'demo' / 'embeddings_train.npy').exists()
  for name in ('demo', 'demo_clips'):
    assert (folder / name / 'embeddings_val.npy').exists()


@pytest.mark.slow
def test_a_step_may_be_removed_while_clips_are_embedded(
  demo_dataset, trained, tmp_path, monkeypatch
):
  workdir = tmp_path / 'W'
  shutil.copytree(trained, workdir)
  embed_splits = split_embeddings.embed_splits

  def embed_while_training_goes_on(*arguments):
    embedded = embed_splits(*arguments)
    shutil.rmtree(workdir / 'checkpoints' / '2')
    return embedded

  monkeypatch.setattr(
    split_embeddings, 'embed_splits', embed_while_training_goes_on
  )
  written = evaluate.knn_eval(tiny_run.config(demo_dataset), str(workdir))
  assert written['reference'] == 'bank'


@pytest.mark.slow
def test_chosen_label_columns_replace_no_result(demo_dataset, trained):
  whole = evaluate.knn_eval(tiny_run.config(demo_dataset), str(trained))
  config = tiny_run.config(demo_dataset, dataset__label_columns=('motion',))
  part = evaluate.knn_eval(config, str(trained))
  assert set(part['accuracy']) < set(whole['accuracy'])
  folder = trained / 'knn_eval'
  assert result.read(folder / 'demo' / 'result.json') == whole
  assert result.read(folder / 'demo_motion' / 'result.json') == part


@pytest.mark.slow
def test_another_source_replaces_no_result(demo_dataset, trained, tmp_path):
  workdir = str(tmp_path / 'W')
  config = tiny_run.config(demo_dataset, init_from=str(trained))
  first = evaluate.knn_eval(config, workdir)
  # Another run whose folder has the same name.
  other = tmp_path / 'other' / trained.name
  shutil.copytree(trained, other)
  config.init_from = str(other)
  with pytest.raises(result.ResultError, match='result_name'):
    evaluate.knn_eval(config, workdir)
  path = tmp_path / f'W/knn_eval/demo_{trained.name}/result.json'
  assert result.read(path) == first
  config.result_name = 'other'
  evaluate.knn_eval(config, workdir)
  assert (tmp_path / 'W' / 'knn_eval' / 'other' / 'result.json').exists()


@pytest.mark.slow
def test_a_bank_of_other_videos_is_refused_with_a_remedy(demo_dataset, trained):
  config = tiny_run.config(demo_dataset, dataset__share=0.5)
  with pytest.raises(checkpoint.CheckpointError) as error:
    evaluate.knn_eval(config, str(trained))
  assert f'{demo_dataset}, share 1.0' in str(error.value)
  assert '--config.knn.reference=clips' in str(error.value)
  config.knn.reference = 'clips'
  config.result_name = 'half'
  assert evaluate.knn_eval(config, str(trained))['dataset']['train'] == 18


def foreign_file(folder, dataset, vectors_of):
  """Writes vectors of all videos; vectors_of: (split, label) -> vector."""
  names, vectors = [], []
  for split in ('train', 'val'):
    with frame_store.FrameStore.open(dataset, split) as store:
      names += store.ids
      vectors += [vectors_of(split, y) for y in store.label('motion')[0]]
  np.save(folder / 'other.npy', np.stack(vectors))
  (folder / 'other.ids.txt').write_text('\n'.join(names))
  return str(folder / 'other.npy')


def test_embeddings_made_elsewhere_are_evaluated(demo_dataset, tmp_path):
  rng = np.random.default_rng(0)

  def vectors_of(unused_split, label):
    # The label and some noise, of any length.
    return 7 * np.eye(12)[label] + 0.1 * rng.standard_normal(12)

  config = tiny_run.config(
    demo_dataset, embeddings=foreign_file(tmp_path, demo_dataset, vectors_of)
  )
  written = evaluate.knn_eval(config, str(tmp_path / 'W'))
  path = tmp_path / 'W' / 'knn_eval' / 'demo_other' / 'result.json'
  assert result.read(path) == written
  assert written['network']['training'] == 'foreign'
  assert written['views']['clips'] == 1
  assert written['same_video'] == {}
  with frame_store.FrameStore.open(demo_dataset, 'train') as store:
    known = set(store.label('motion')[0].tolist())
  with frame_store.FrameStore.open(demo_dataset, 'val') as store:
    truth = store.label('motion')[0].tolist()
  share = sum(label in known for label in truth) / len(truth)
  assert written['accuracy']['motion']['knn']['top1'] == pytest.approx(share)
  assert not (tmp_path / 'W' / 'checkpoints').exists()


def test_bad_embeddings_made_elsewhere_leave_nothing_behind(
  demo_dataset, tmp_path
):
  def vectors_of(split, unused_label):
    return np.full(3, np.nan if split == 'val' else 1.0)

  config = tiny_run.config(
    demo_dataset, embeddings=foreign_file(tmp_path, demo_dataset, vectors_of)
  )
  with pytest.raises(foreign_embeddings.EmbeddingsError, match='not finite'):
    evaluate.knn_eval(config, str(tmp_path / 'W'))
  assert not (tmp_path / 'W').exists()


@pytest.mark.parametrize('name', ['embeddings.npy', 'embeddings.parquet'])
def test_what_embed_writes_has_the_same_figures_when_read_back(
  demo_dataset, untrained, tmp_path, name
):
  _, expected = untrained
  workdir = str(tmp_path / 'W')
  config = tiny_run.config(
    demo_dataset,
    init_from='random',
    embed__per_clip=True,
    embed__batch_size=32,
    result_name='mine',
  )
  embed.embed(config, workdir)
  config = tiny_run.config(
    demo_dataset, embeddings=f'{workdir}/embed/mine/{name}'
  )
  written = evaluate.knn_eval(config, workdir)
  for key in ('accuracy', 'same_video', 'chance', 'reference', 'views'):
    assert written[key] == expected[key], key


def test_a_data_set_without_validation_videos_is_refused(
  demo_dataset, tmp_path
):
  tiny_run.prepare_without_val(demo_dataset, tmp_path / 'prepared')
  config = tiny_run.config(tmp_path / 'prepared', init_from='random')
  with pytest.raises(dataset_folder.DatasetError, match='no validation videos'):
    evaluate.knn_eval(config, str(tmp_path / 'W'))
  assert not (tmp_path / 'W').exists()


@pytest.mark.slow
def test_a_result_says_how_many_frames_were_replaced(demo_dataset, tmp_path):
  damaged = tmp_path / 'set'
  shutil.copytree(demo_dataset, damaged)
  with frame_store.FrameStore.open(damaged, 'val') as store:
    # The only clip of a single frame shows the one in the middle.
    middle = int(store.num_frames[3]) // 2
    frames = [store.read_frames(3, [middle + k])[0] for k in (-1, 0, 1)]
  (shard,) = (damaged / 'val').glob('frames-*')
  content = bytearray(shard.read_bytes())
  for jpeg in frames:
    content[content.index(jpeg) + len(jpeg) // 2] ^= 1
  shard.write_bytes(content)
  config = tiny_run.config(
    damaged,
    init_from='random',
    clip__num_eval_clips=1,
    input__max_bad_share=0.5,
  )
  for _ in range(2):  # the second finds the embeddings of the first
    written = evaluate.knn_eval(config, str(tmp_path / 'W'))
    assert written['bad_frames'] == {'train': 0, 'val': 1}
  found = embed.embed(config, str(tmp_path / 'W'))
  assert found.shape[0] == 48
  (path,) = (tmp_path / 'W' / 'embed').glob('*/result.json')
  assert result.read(path)['bad_frames'] == {'train': 0, 'val': 1}
