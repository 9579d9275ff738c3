import importlib.util
import pathlib
import subprocess
import sys

import pytest

from tests.benchmarks import benchmark_modules
from tests.data import sample_videos

_SCRIPT = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'input_pipeline.py'
_NETWORKS = ('Single', 'SlowFast', '3DResNet')


@pytest.fixture(scope='module')
def lines(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  for name in 'ab':
    sample_videos.write(folder / f'{name}.mp4', sample_videos.moving(70))
  done = subprocess.run(
    [
      *(sys.executable, _SCRIPT, '--videos', folder),
      *('--rounds', '1', '--copies', '1', '--clips', '2'),
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return benchmark_modules.figures(done.stdout)


def _values(lines, metric):
  """The values of a metric, by network and way."""
  return {
    (line['case'].split(',')[0], line['variant']): line['value']
    for line in lines
    if line['metric'] == metric
  }


@pytest.mark.slow
def test_all_ways_make_the_clips_of_all_networks(lines):
  times = _values(lines, 'CPU ms per clip')
  ways = {'vie_jax', 'official way', 'PyAV'}
  ways |= {'decoders alone, simplejpeg', 'decoders alone, TensorFlow'}
  ways |= {
    name for name in ('decord', 'torchcodec') if importlib.util.find_spec(name)
  }
  for network in _NETWORKS:
    of_network = {way for name, way in times if name == network}
    stored = {way for way in of_network if '--short-side' in way}
    assert sorted(stored)[0].startswith('official way, --short-side 160')
    assert len(stored) == 5
    assert of_network - stored == ways
  assert min(times.values()) > 0
  # Each of one round.
  for metric, official in (
    ('official way: times as long', 'official way'),
    (
      'official way on frames of this size: times as long',
      'official way, --short-side 160 --jpeg-quality 90',
    ),
  ):
    way = 'vie_jax, --short-side 160 --jpeg-quality 90'
    ratios = _values(lines, metric)
    for network in _NETWORKS:
      assert ratios[network, way] == pytest.approx(
        times[network, official] / times[network, way], rel=1e-2
      )


@pytest.mark.slow
def test_crops_are_nearly_those_of_pillow(lines):
  means = _values(lines, 'mean difference from Pillow')
  largest = _values(lines, 'largest difference from Pillow')
  for network in _NETWORKS:
    assert means[network, 'vie_jax'] < 0.1
    assert largest[network, 'vie_jax'] <= 2
