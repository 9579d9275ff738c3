"""Trainings of the other networks, and on parts of a data set, in few steps."""

import json
import pathlib

import jax
import numpy as np
import pytest
import tiny_run

from vie_jax import checkpoint, evaluate, train, train_state

STEPS = {
  'num_steps': 4,
  'objective__instance_recognition_steps': 4,
  'eval_every_steps': 4,
  'checkpoint_every_steps': 4,
  'batch_size': 8,
}
FOUR_FRAMES = {'clip__num_frames': 4, 'clip__frame_step': 4}
STREAMS = 'vie_twostream_s'


def config(dataset, **changes):
  return tiny_run.config(dataset, **STEPS | changes)


def result_of(workdir, name='demo'):
  folder = pathlib.Path(workdir) / 'knn_eval' / name
  return json.loads((folder / 'result.json').read_text())


def finite(state):
  leaves = jax.tree.leaves((state.params, state.batch_stats, state.bank))
  return all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.fixture(scope='module')
def single(demo_dataset, tmp_path_factory):
  """The workdir of a VIE-Single, trained on all videos."""
  workdir = tmp_path_factory.mktemp('single')
  train.train_and_evaluate(config(demo_dataset), str(workdir))
  return workdir


@pytest.fixture(scope='module')
def slow(demo_dataset, tmp_path_factory):
  """The workdir of a VIE-Slow."""
  workdir = tmp_path_factory.mktemp('slow')
  settings = {'model__name': 'vie_slow', 'clip__sampler': 'slow'}
  state = train.train_and_evaluate(
    config(demo_dataset, **FOUR_FRAMES, **settings), str(workdir)
  )
  assert finite(state)
  return workdir


@pytest.mark.slow
def test_bins_of_a_share_of_the_videos_are_rows_of_the_bank(
  demo_dataset, tmp_path, caplog
):
  settings = config(
    demo_dataset,
    dataset__share=0.5,
    dataset__bin_frames=20,
    crop__method='multiscale',
    objective__instance_recognition_steps=2,
  )
  with caplog.at_level('INFO'):
    state = train.train_and_evaluate(settings, str(tmp_path))
  # 48 frames in bins of 20: three starts' ranges for each of 18 videos.
  assert 'Trained on: 54 instances of 18 of the training videos' in caplog.text
  visited = np.flatnonzero(np.asarray(state.bank_step) != train_state.NEVER)
  assert len(visited) == 32
  assert visited.max() < 54
  assert finite(state)
  # Evaluated against the bank of bins, and against videos.
  evaluate.knn_eval(settings, str(tmp_path))
  result = result_of(tmp_path)
  assert result['reference'] == 'bank'
  assert result['dataset']['train'] == 18
  neighbors = np.load(tmp_path / 'knn_eval/demo/neighbors.npz')['index']
  assert len(np.unique(neighbors)) <= 18
  # Videos, not bins, of which one may have the nearest three.
  assert neighbors.shape[1] == 3
  assert all(len(set(of_one)) == 3 for of_one in neighbors.tolist())
  assert neighbors.max() < 36
  settings.knn.reference = 'clips'
  evaluate.knn_eval(settings, str(tmp_path))
  assert result_of(tmp_path, 'demo_clips')['reference'] == 'clips'
  # The bank belongs to these instances: no other choice may go on with it.
  settings.dataset.share = 1.0
  with pytest.raises(checkpoint.CheckpointError, match='another data set'):
    train.train_and_evaluate(settings, str(tmp_path))


@pytest.mark.slow
def test_trn_goes_on_from_single_in_its_memory_bank(
  demo_dataset, single, tmp_path, caplog
):
  settings = config(
    demo_dataset,
    **FOUR_FRAMES,
    model__name='vie_trn',
    clip__sampler='trn',
    init_from=str(single),
    memory_bank__init='init_from',
    objective__instance_recognition_steps=0,
    optimizer__learning_rate=0.0,
  )
  with caplog.at_level('INFO'):
    state = train.train_and_evaluate(settings, str(tmp_path))
  assert 'anew: params/projection/kernel' in caplog.text
  with checkpoint.Checkpoints(single, read_only=True) as checkpoints:
    rows = train_state.sharding.replicated(train_state.sharding.make_mesh())
    old = checkpoints.restore_as_saved(
      4, 'memory_bank', dict.fromkeys(checkpoint.ITEMS['memory_bank'], rows)
    )
  unvisited = np.asarray(state.bank_step) == train_state.NEVER
  np.testing.assert_array_equal(
    np.asarray(state.bank)[unvisited], np.asarray(old['bank'])[unvisited]
  )
  assert finite(state)


@pytest.mark.slow
def test_a_single_network_is_the_control_on_the_clips_of_others(
  demo_dataset, single, tmp_path
):
  settings = config(
    demo_dataset,
    **FOUR_FRAMES,
    clip__sampler='slow',
    init_from=str(single),
    knn__reference='clips',
  )
  evaluate.knn_eval(settings, str(tmp_path))
  result = result_of(tmp_path, f'demo_clips_{single.name}')
  assert result['network']['source'] == str(single)


@pytest.mark.slow
def test_two_checkpoints_are_evaluated_side_by_side(
  demo_dataset, single, slow, tmp_path
):
  settings = config(
    demo_dataset,
    **FOUR_FRAMES,
    model__name=STREAMS,
    model__streams=f'{single},{slow}',
    clip__sampler='slow',
  )
  evaluate.knn_eval(settings, str(tmp_path))
  result = result_of(tmp_path)
  # Two networks have no memory bank in common.
  assert result['reference'] == 'clips'
  assert result['network']['source'] == f'{single},{slow}'
  assert result['network']['training'] == 'side_by_side'
  assert result['network']['step'] == 4
  streams = result['network']['streams']
  assert set(streams) == {'single', 'motion'}
  for facts in streams.values():
    assert facts['training'] == 'instance_recognition'
    assert facts['trained_on']['name'] == 'demo'
  assert not (tmp_path / 'checkpoints').exists()


@pytest.mark.slow
def test_two_streams_are_trained_together_from_two_checkpoints(
  demo_dataset, single, slow, tmp_path
):
  settings = config(
    demo_dataset,
    **FOUR_FRAMES,
    model__name=STREAMS,
    model__streams=f'{single},{slow}',
    clip__sampler='slow',
    memory_bank__init='embeddings',
  )
  state = train.train_and_evaluate(settings, str(tmp_path))
  assert finite(state)
  assert set(state.params) == {'single', 'motion'}
  # What was trained together is evaluated without naming the streams.
  settings.model.streams = ''
  evaluate.knn_eval(settings, str(tmp_path))
  assert result_of(tmp_path)['reference'] == 'bank'
