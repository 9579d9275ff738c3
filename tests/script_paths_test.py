"""Scripts take the vie_jax beside their folder, whichever is installed."""

import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
SCRIPTS = sorted(
  path.relative_to(REPOSITORY)
  for folder in ('benchmarks', 'data', 'launch')
  for path in (REPOSITORY / folder).glob('*.py')
  if "__name__ == '__main__'" in path.read_text('utf-8')
)
# Prints where vie_jax is found when the script first asks for it, or would be
# after its imports.
FIRST_IMPORT = """
import importlib.machinery, os, pathlib, runpy, sys

class Told:
  @staticmethod
  def find_spec(name, path=None, target=None):
    if name == 'vie_jax':
      print(importlib.machinery.PathFinder.find_spec(name).origin, flush=True)
      os._exit(0)

script = pathlib.Path(sys.argv[1])
sys.path[0] = str(script.parent)
sys.meta_path.insert(0, Told)
runpy.run_path(str(script), run_name='imported')
import vie_jax
"""


@pytest.mark.parametrize('script', SCRIPTS, ids=str)
def test_a_script_takes_the_package_beside_it(script, tmp_path):
  # Before what is installed, as an editable install of another checkout is.
  other = tmp_path / 'other' / 'vie_jax'
  other.mkdir(parents=True)
  (other / '__init__.py').touch()
  done = subprocess.run(
    [sys.executable, '-c', FIRST_IMPORT, REPOSITORY / script],
    capture_output=True,
    text=True,
    check=False,
    cwd=tmp_path,
    env=os.environ | {'PYTHONPATH': str(other.parent)},
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == f'{REPOSITORY / "vie_jax" / "__init__.py"}\n'
