"""R17: a run that goes on with other data or another network is refused."""

import shutil

import fault_runs
import pytest
import tiny_run

from vie_jax.input_pipeline import frame_store

pytestmark = pytest.mark.slow
OPTIONS = {'num_steps': 4, 'num_devices': 1, 'eval_every_steps': 100}


@pytest.fixture(scope='module')
def trained(demo_dataset, tmp_path_factory):
  folder = tmp_path_factory.mktemp('trained') / 'run'
  tiny_run.run(tiny_run.command(folder, demo_dataset, **OPTIONS))
  return folder


@pytest.fixture
def workdir(trained, tmp_path):
  return shutil.copytree(trained, tmp_path / 'run')


def refusal(workdir, dataset, **changes):
  """The last line of a run that goes on and must not; it changes no step."""
  before = fault_runs.digests_of(workdir)
  command = tiny_run.command(
    workdir, dataset, **{**OPTIONS, 'num_steps': 6, **changes}
  )
  ended = fault_runs.finish(command)
  assert ended.code == fault_runs.REFUSED, ended.output
  assert 'Traceback' not in ended.output
  assert fault_runs.digests_of(workdir) == before
  return ended.output.strip().splitlines()[-1]


def fingerprint_of(dataset):
  with frame_store.FrameStore.open(dataset, 'train') as store:
    return store.fingerprint


def test_another_data_set_is_refused_with_both_fingerprints(
  demo_dataset, workdir, tmp_path
):
  other = tmp_path / 'other'
  tiny_run.prepare(
    'demo', '--num-videos=48', '--val-percent=25', '--seed=1', f'--out={other}'
  )
  message = refusal(workdir, other)
  for dataset in (demo_dataset, other):
    assert fingerprint_of(dataset)[:16] in message


def test_another_network_is_refused_with_both_names(demo_dataset, workdir):
  message = refusal(workdir, demo_dataset, model__width=8)
  assert 'model.width was 4, is 8' in message


def test_a_run_on_more_videos_begins_with_the_network_of_the_one_before(
  demo_dataset, trained, tmp_path
):
  more, workdir = tmp_path / 'more', tmp_path / 'W'
  tiny_run.prepare(
    'demo', '--num-videos=60', '--val-percent=25', f'--out={more}'
  )
  for split in ('train', 'val'):
    with (
      frame_store.FrameStore.open(demo_dataset, split) as before,
      frame_store.FrameStore.open(more, split) as now,
    ):
      assert set(before.paths) < set(now.paths)
  new_run = {'memory_bank__init': 'embeddings'}
  new_run['objective__instance_recognition_steps'] = 0
  command = tiny_run.command(
    workdir, more, init_from=str(trained), **OPTIONS, **new_run
  )
  tiny_run.run(command)
  log = (workdir / 'train.log').read_text()
  assert f'Starting from the weights of {trained}, step 4.' in log
  figures = fault_runs.figures(workdir)
  assert figures[0, 'health/bank_share_never_visited'] == 1
  # A bank of random rows has 0, within 0.03.
  assert figures[1, 'train/own_similarity'] > 0.1
