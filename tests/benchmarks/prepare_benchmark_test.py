import io
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from dataset.staging import FramesFile
from PIL import Image

from tests.benchmarks import benchmark_modules
from tests.data import sample_videos

_SCRIPT = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'prepare.py'
_KEYS = [
  *('benchmark', 'case', 'variant', 'metric', 'value', 'ratio_to', 'ratio'),
  *('rounds', 'machine', 'versions'),
]


@pytest.fixture
def prepare(monkeypatch):
  """The script; `import prepare` is that of data/."""
  # What is there now, if anything, is there again afterwards.
  monkeypatch.setitem(sys.modules, 'prepare', None)
  del sys.modules['prepare']
  (module,) = benchmark_modules.load(monkeypatch, 'prepare')
  return module


def _jpeg(level):
  file = io.BytesIO()
  Image.new('RGB', (16, 8), (level, level, level)).save(file, 'JPEG')
  return file.getvalue()


def _write_both_ways(folder, ours, theirs):
  """Frames of one grey level each: those of vie_jax, and ffmpeg's files."""
  with FramesFile(folder / 'a.frames') as frames:
    for level in ours:
      frames.write(_jpeg(level))
  jpegs = folder / 'jpegs'
  jpegs.mkdir()
  for number, level in enumerate(theirs):
    (jpegs / f'{number:06d}.jpg').write_bytes(_jpeg(level))
  return folder / 'a.frames', 'a.mp4', jpegs


def test_the_frames_of_both_ways_are_compared(prepare, tmp_path):
  prepare.check_agreement(*_write_both_ways(tmp_path, [9, 99], [10, 99]))


@pytest.mark.parametrize(
  'theirs, said',
  [
    ([9], 'a.mp4: 2 frames, ffmpeg 1'),
    ([20, 99], 'a.mp4: pictures differ from those of ffmpeg by 11.0 grey'),
  ],
)
def test_other_frames_end_the_run(prepare, tmp_path, theirs, said):
  with pytest.raises(SystemExit, match=said):
    prepare.check_agreement(*_write_both_ways(tmp_path, [9, 99], theirs))


@pytest.fixture
def ffmpeg():
  """Skips the test where the peer of the benchmark is not installed."""
  if shutil.which('ffmpeg') is None:
    pytest.importorskip('imageio_ffmpeg')


def _run(folder, *options):
  return subprocess.run(
    [sys.executable, _SCRIPT, '--videos', folder, '--rounds', '1', *options],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
def test_a_tiny_run_prints_every_figure_of_every_case(ffmpeg, tmp_path):
  sample_videos.write(tmp_path / 'a.mp4', sample_videos.moving(10))
  done = _run(tmp_path, '--copies', '2')
  assert done.returncode == 0, done.stderr
  lines = benchmark_modules.figures(done.stdout)
  assert all(list(line) == _KEYS for line in lines)
  case = 'one video, 96 x 64, 25 Hz, 0.4 s'
  of_one = [line for line in lines if line['case'] == case]
  assert {line['variant'] for line in of_one} == {'vie_jax', 'ffmpeg'}
  assert all(line['value'] > 0 for line in of_one)
  (against,) = (line for line in of_one if line['ratio_to'] == 'ffmpeg')
  assert against['metric'] == 'videos per CPU second'
  of_many = [line for line in lines if line['case'] != case]
  assert {line['metric'] for line in of_many} == {
    *('videos per second', 'videos per CPU second', 'start-up seconds')
  }
  cores = len(os.sched_getaffinity(0))
  assert len(of_many) == (6 if cores > 1 else 3)


def test_pictures_that_ffmpeg_does_not_make_end_the_run(ffmpeg, tmp_path):
  # ffmpeg turns a picture by its display matrix before it scales it: asked
  # for the size of ours, it gives the same pictures. Not so where it is
  # interlaced: only vie_jax takes the combs away.
  rng = np.random.default_rng(0)
  pictures = rng.integers(0, 255, (10, 64, 96, 3), dtype=np.uint8)
  sample_videos.write(
    tmp_path / 'a.mp4', pictures, options={'x264-params': 'tff=1'}
  )
  done = _run(tmp_path, '--copies', '2')
  assert done.returncode == 1
  assert 'pictures differ from those of ffmpeg' in done.stderr
  assert not done.stdout
