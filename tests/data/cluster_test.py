import hashlib
import os
import pathlib
import subprocess
import sys

import pytest
import sample_videos
from dataset.dataset_writer import plan_shards, write_shard
from errors import InputError
from preparation.prepare_dataset import Settings, prepare_dataset, worker_pool
from sources.folder_source import read_folder


class _Local:
  """What a cluster does, on this machine, and each shard twice."""

  def __init__(self):
    self.shards = []

  def pool(self, settings):
    return worker_pool(settings)

  def write_shards(self, out, shards):
    self.shards = [shard.name for shard in shards]
    for shard in reversed(shards):
      # As when a finished piece of work is tried again.
      assert write_shard(out, shard) == write_shard(out, shard)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  for number in range(3):
    path = folder / f'{number}.mp4'
    sample_videos.write(path, sample_videos.moving(5 + number, seed=number))
  (folder / 'text.mp4').write_text('no video')
  return read_folder(str(folder), name='toys', val_percent=50)


def _content(directory):
  return {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in directory.rglob('*')
    if path.is_file() and path.suffix != '.array_record'
  }


def test_a_cluster_writes_the_shards_and_the_bytes_are_the_same(
  source, tmp_path
):
  cluster = _Local()
  prepare_dataset(source, Settings(str(tmp_path / 'one')))
  prepare_dataset(source, Settings(str(tmp_path / 'two')), cluster=cluster)
  # dataset.json holds the digests of the shards.
  assert _content(tmp_path / 'one') == _content(tmp_path / 'two')
  assert cluster.shards


def test_a_cluster_needs_a_folder(source):
  with pytest.raises(InputError, match='folder that all of them see'):
    prepare_dataset(source, Settings('s3://bucket/set'), cluster=_Local())


def test_shards_follow_each_other_in_the_order_of_the_rows():
  rows = [
    {'id': str(number), 'num_bytes': 10, 'num_frames': 1} for number in range(5)
  ]
  plan = {'rows': {'train': rows, 'val': []}}
  shards = plan_shards(plan, shard_bytes=20)
  assert [shard.name for shard in shards] == [
    f'train/frames-{number:05d}-of-00003.array_record' for number in range(3)
  ]
  assert [row for shard in shards for row in shard.rows] == rows


def test_a_pool_runs_again(source, tmp_path):
  from dataset.staging import Staging
  from preparation.prepare_video import Task

  settings = Settings(str(tmp_path))
  Staging(tmp_path).directory.mkdir()
  with worker_pool(settings) as pool:
    for video in source.videos[:2]:
      task = Task(source.folder, video, str(tmp_path), settings.frames)
      ((_, record),) = pool.run([task])
      assert record['row']['id'] == video.id
    assert list(pool.run([])) == []


def _without_beam(folder, *arguments):
  """Runs the command of Beam where Beam is not installed."""
  missing = 'raise ModuleNotFoundError("none here", name="apache_beam")'
  (folder / 'apache_beam.py').write_text(missing)
  data = pathlib.Path(__file__).parents[2] / 'data'
  return subprocess.run(
    [sys.executable, data / 'prepare_beam.py', *arguments],
    env={**os.environ, 'PYTHONPATH': str(folder)},
    capture_output=True,
    text=True,
  )


def test_without_beam_one_line_names_it_and_its_page(tmp_path):
  out = tmp_path / 'out'
  done = _without_beam(tmp_path, 'folder', '--videos', tmp_path, '--out', out)
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert 'apache_beam is not installed; data/beam.md' in line
  assert not out.exists()


@pytest.mark.parametrize('command', [(), ('folder',)])
def test_help_comes_without_beam(tmp_path, command):
  done = _without_beam(tmp_path, *command, '--help')
  assert done.returncode == 0
  assert done.stdout.startswith('usage: prepare_beam.py')
