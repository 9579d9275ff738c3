"""The Beam command in an environment of its own, with the direct runner.

Names that environment's Python in VIE_JAX_BEAM_PYTHON, or builds one, which
needs a package index.
"""

import os
import pathlib
import signal
import subprocess
import time
import venv

import folder_content
import pytest
import sample_videos

_DATA = pathlib.Path(__file__).parents[2] / 'data'

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope='module')
def python(tmp_path_factory):
  named = os.environ.get('VIE_JAX_BEAM_PYTHON')
  if named:
    return named
  folder = tmp_path_factory.mktemp('beam') / 'environment'
  venv.create(folder, with_pip=True)
  python = folder / 'bin' / 'python'
  requirements = str(_DATA / 'beam-requirements.txt')
  install = [python, '-m', 'pip', 'install', '-q', '-r', requirements]
  subprocess.run(install, check=True)
  return str(python)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Sixteen videos of two classes, and three files that are none."""
  folder = tmp_path_factory.mktemp('videos') / 'toys'
  for number in range(16):
    path = folder / 'ab'[number % 2] / f'{number:02d}.mp4'
    path.parent.mkdir(parents=True, exist_ok=True)
    sample_videos.write(path, sample_videos.moving(10 + number, seed=number))
  whole = path.read_bytes()
  (folder / 'a' / 'cut.mp4').write_bytes(whole[: len(whole) // 2])
  (folder / 'a' / 'empty.mp4').write_bytes(b'')
  (folder / 'b' / 'text.mp4').write_text('no video')
  return folder


@pytest.fixture(scope='module')
def prepared(python, videos, tmp_path_factory):
  out = tmp_path_factory.mktemp('local') / 'toys'
  _run(_command(python, 'prepare.py', videos, out))
  return out


def _command(python, script, videos, out, *pipeline):
  command = [python, str(_DATA / script), 'folder', '--val-percent', '30']
  return [*command, '--videos', str(videos), '--out', str(out), *pipeline]


def _run(command):
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return done


@pytest.mark.parametrize(
  'options',
  [
    ('--direct_running_mode=in_memory',),
    ('--direct_running_mode=multi_processing', '--direct_num_workers=2'),
  ],
)
def test_beam_prepares_the_same_bytes(
  python, videos, prepared, tmp_path, options
):
  out = tmp_path / 'out'
  pipeline = ('--', '--runner=DirectRunner', *options)
  done = _run(_command(python, 'prepare_beam.py', videos, out, *pipeline))
  assert folder_content.digests(out) == folder_content.digests(prepared)
  counters = done.stderr.splitlines()
  assert 'videos_decoded: 16' in counters
  assert 'videos_skipped: 3' in counters
  assert 'shards: 2' in counters


def test_a_killed_pipeline_goes_on_and_ends_with_the_same_bytes(
  python, videos, prepared, tmp_path
):
  out = tmp_path / 'out'
  command = _command(python, 'prepare_beam.py', videos, out)
  command += ['--', '--runner=DirectRunner']
  process = subprocess.Popen(command, start_new_session=True)
  end = time.monotonic() + 300
  while len(list(out.glob('.staging/*.frames'))) < 3:
    assert process.poll() is None
    assert time.monotonic() < end
    time.sleep(0.002)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  assert not (out / 'dataset.json').exists()
  _run(command)
  assert folder_content.digests(out) == folder_content.digests(prepared)


def test_an_option_that_does_not_fit_is_one_line(python, videos, tmp_path):
  command = _command(python, 'prepare_beam.py', videos, 's3://bucket/set')
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2
  assert 'Traceback' not in done.stderr
  assert 'folder that all of them see' in done.stderr
