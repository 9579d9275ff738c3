"""Where a command is called from may be a folder of anybody, such as of videos.

Its files are no modules: not of the command, nor of the processes it starts.
"""

import os
import pathlib
import subprocess
import sys

import pytest
import sample_videos

REPOSITORY = pathlib.Path(__file__).parents[2]
PREPARE = REPOSITORY / 'data' / 'prepare.py'
# Modules of Python, of packages, and folders of data/.
NAMES = 'json multiprocessing pickle random select signal struct numpy av media'
DECODE = """
import pathlib, sys
from input_pipeline import damaged_data_test, decode_processes_test
if __name__ == '__main__':
  folder = pathlib.Path(sys.argv[1])
  damaged_data_test.write(folder)
  damaged_data_test.train(folder, 3, **decode_processes_test.PROCESSES)
"""


@pytest.fixture
def folder(tmp_path):
  """A folder whose files say that they were run."""
  for name in NAMES.split():
    (tmp_path / f'{name}.py').write_text(
      'import os\n'
      f'os.mkdir({str(tmp_path / "ran")!r} + "-" + {name!r} + str(os.getpid()))\n'
      'raise RuntimeError\n'
    )
  return tmp_path


def call(folder, *command, path=''):
  environment = {
    name: value
    for name, value in os.environ.items()
    if name not in ('PYTHONPATH', 'PYTHONSAFEPATH')
  }
  if path:
    environment['PYTHONPATH'] = path
  done = subprocess.run(
    [sys.executable, *map(str, command)],
    cwd=folder,
    env=environment,
    check=False,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert not list(folder.glob('ran-*')), done.stderr
  assert 'Traceback' not in done.stderr
  assert done.returncode == 0, done.stderr


def test_processes_that_decode_videos_run_nothing_of_it(folder):
  for name in ('a', 'b', 'c'):
    sample_videos.write(folder / f'{name}.mp4', sample_videos.moving(4))
  prepared = ('--out', 'out', '--processes', '2')
  call(folder, PREPARE, 'folder', '--videos', '.', *prepared)


def test_processes_that_render_run_nothing_of_it(folder):
  images = ('--num-train', '9', '--num-val', '9')
  call(
    folder, PREPARE, 'demo-images', '--out', 'o', *images, '--processes', '2'
  )


def test_processes_that_decode_clips_run_nothing_of_it(
  folder, tmp_path_factory
):
  script = tmp_path_factory.mktemp('script') / 'decode.py'
  script.write_text(DECODE)
  path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / 'tests')))
  call(folder, script, folder / 'set', path=path)
