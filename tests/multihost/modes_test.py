"""Every mode on two processes of two devices gives what one process gives."""

import json
import shutil

import jax
import jax.export
import numpy as np
import processes
import pytest
import tiny_run

from vie_jax.telemetry import metrics_file

pytestmark = pytest.mark.slow

# Rates are small where a whole network is trained, see same_run_test.py.
READOUT = {
  'linear_eval__batch_size': 8,
  'linear_eval__eval_batch_size': 16,
  'linear_eval__num_steps': 12,
  'linear_eval__eval_every_steps': 6,
  'linear_eval__checkpoint_every_steps': 6,
  'linear_eval__drop_steps': '(8,)',
}


def classifier(mode):
  return {
    f'{mode}__batch_size': 8,
    f'{mode}__eval_batch_size': 16,
    f'{mode}__num_steps': 6,
    f'{mode}__eval_every_steps': 3,
    f'{mode}__checkpoint_every_steps': 3,
    f'{mode}__learning_rate': 1e-6,
    f'{mode}__num_eval_clips': 2,
    'dataset__label_columns': "('appearance',)",
  }


@pytest.fixture(scope='module')
def trained(demo_dataset, tmp_path_factory):
  """The workdir of a short training."""
  workdir = tmp_path_factory.mktemp('trained') / 'run'
  tiny_run.run(
    tiny_run.command(
      workdir,
      demo_dataset,
      num_steps=8,
      eval_every_steps=8,
      optimizer__learning_rate=1e-5,
    )
  )
  return workdir


@pytest.fixture
def both(trained, demo_dataset, tmp_path):
  """Function (mode, settings) -> workdirs of one process, and of two."""

  def run(mode, settings):
    workdirs = [tmp_path / name / 'run' for name in ('one', 'two')]
    for workdir, (count, devices) in zip(
      workdirs, [(1, 1), (2, 2)], strict=True
    ):
      shutil.copytree(trained, workdir)
      command = tiny_run.command(workdir, demo_dataset, mode=mode, **settings)
      processes.run(
        [command] * count, workdir.parent / 'said', num_devices=devices
      )
    return workdirs

  return run


def results(workdirs, mode):
  """`result.json` of each, and the folders that they lie in."""
  folders = [next((w / mode).iterdir()) for w in workdirs]
  assert folders[0].name == folders[1].name
  found = [json.loads((f / 'result.json').read_text()) for f in folders]
  assert [r['hardware']['processes'] for r in found] == [1, 2]
  assert found[0]['dataset'] == found[1]['dataset']
  assert found[0]['bad_frames'] == found[1]['bad_frames']
  # The second process logs to a file of its own.
  assert (folders[1] / 'train-process-1.log').stat().st_size
  return found, folders


def assert_same_arrays(folders, name):
  one, two = (np.load(folder / name) for folder in folders)
  np.testing.assert_allclose(two, one, atol=1e-4)


@pytest.mark.parametrize(
  'mode, settings',
  [
    ('linear_eval', READOUT),
    ('finetune', classifier('finetune')),
    ('supervised', classifier('supervised')),
  ],
)
def test_classifiers(both, mode, settings):
  (one, two), folders = results(both(mode, settings), mode)
  for name in ('accuracy', 'best', 'chance', 'steps'):
    assert one[name] == two[name]
  (steps, expected), (_, found) = (
    metrics_file.curve(folder, 'train/loss') for folder in folders
  )
  assert len(steps) == one['steps']
  np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize('reference', ['bank', 'clips'])
def test_knn_eval(both, reference):
  workdirs = both('knn_eval', {'knn__reference': reference})
  (one, two), folders = results(workdirs, 'knn_eval')
  assert one['accuracy'] == two['accuracy']
  assert_same_arrays(folders, 'embeddings_val.npy')
  found = [np.load(folder / 'neighbors.npz') for folder in folders]
  np.testing.assert_array_equal(found[0]['index'], found[1]['index'])


def test_retrieve(both):
  (one, two), folders = results(both('retrieve', {}), 'retrieve')
  for name in ('recall', 'accuracy', 'chance', 'chance_recall'):
    assert one[name] == two[name]
  for split in ('train', 'val'):
    assert_same_arrays(folders, f'embeddings_{split}.npy')
  assert (folders[1] / 'index.html').exists()


def test_embed_of_a_data_set_and_of_video_files(both, demo_dataset):
  videos = demo_dataset.parent / 'demo-videos'
  for source, count in ((demo_dataset, 48), (videos, 48)):
    settings = {'embed__source': source, 'embed__batch_size': 16}
    workdirs = both('embed', settings)
    (one, two), folders = results(workdirs, 'embed')
    assert one['shape'] == two['shape'] == [count, 128]
    assert_same_arrays(folders, 'embeddings.npy')
    ids = [(f / 'embeddings.ids.txt').read_text() for f in folders]
    assert ids[0] == ids[1]
    for workdir in workdirs:
      shutil.rmtree(workdir)


def test_embed_of_an_array(both, tmp_path):
  clips = np.random.default_rng(0).integers(
    0, 256, (10, 1, 32, 32, 3), dtype=np.uint8
  )
  np.savez(tmp_path / 'clips.npz', clips=clips)
  settings = {'embed__clips': tmp_path / 'clips.npz', 'embed__batch_size': 8}
  workdirs = both('embed', settings)
  folders = [w / 'embed' / 'clips' for w in workdirs]
  assert_same_arrays(folders, 'embeddings.npy')


def test_export(both):
  workdirs = both('export', {})
  paths = [w / 'export' / 'vie_single' / 'encoder.jax' for w in workdirs]
  clips = np.random.default_rng(0).integers(
    0, 256, (2, 1, 32, 32, 3), dtype=np.uint8
  )
  one, two = (
    jax.export.deserialize(bytearray(path.read_bytes())).call(clips)
    for path in paths
  )
  np.testing.assert_allclose(two, one, atol=1e-6)
  found = [json.loads((p.parent / 'result.json').read_text()) for p in paths]
  assert found[0]['weights_sha256'] == found[1]['weights_sha256']


def test_describe_prints_one_line(both, trained):
  workdirs = both('describe', {})
  said = [w.parent / 'said' for w in workdirs]
  alone = (said[0] / 'process-0.out').read_text()
  assert json.loads(alone)['model'] == 'vie_single'
  assert (said[1] / 'process-0.out').read_text() == alone
  assert (said[1] / 'process-1.out').read_text() == ''
