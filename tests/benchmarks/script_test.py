"""How scripts of benchmarks/ end."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.benchmarks import benchmark_modules

# The folders of both are on PYTHONPATH.
TAKES_TURNS = """
from measuring import script, turns

import two_variants


def main():
  turns.take_turns(
    {'endless': (two_variants.prepare, {'seconds': 600.0})}, rounds=1
  )


if __name__ == '__main__':
  script.run(main)
"""

# In place of a package; as in callbacks of the garbage collector, Ctrl-C is
# dropped in it.
SLOW_PACKAGE = """
import contextlib
import time

print('importing', flush=True)
with contextlib.suppress(KeyboardInterrupt):
  time.sleep(600)
"""
COLLECTS_GARBAGE = """
import gc
import time

from measuring import script


def slow(phase, unused_information):
  if phase == 'start':
    print('collecting', flush=True)
    time.sleep(600)


def main():
  gc.callbacks.append(slow)
  gc.collect()
  gc.callbacks.remove(slow)
  time.sleep(600)


script.run(main)
"""


def processes_of(group):
  """Numbers of the processes of a group that have not ended."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = path.read_text().rpartition(') ')[2].split()
    except OSError:
      continue
    if int(fields[2]) == group and fields[0] != 'Z':
      found.append(int(path.parent.name))
  return found


def wait_until(is_so):
  deadline = time.monotonic() + 60
  while not is_so():
    assert time.monotonic() < deadline
    time.sleep(0.05)


@pytest.mark.parametrize('later', [0, 3], ids=['starting', 'running'])
def test_ctrl_c_is_one_line_and_leaves_no_process_behind(tmp_path, later):
  path = tmp_path / 'takes_turns.py'
  path.write_text(TAKES_TURNS)
  here = pathlib.Path(__file__).parent
  folders = os.pathsep.join(map(str, (benchmark_modules.FOLDER, here)))
  with subprocess.Popen(
    [sys.executable, path],
    env=os.environ | {'PYTHONPATH': folders},
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  ) as process:
    # Itself, what tracks resources, and the variant.
    wait_until(lambda: len(processes_of(process.pid)) == 3)
    time.sleep(later)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
  assert process.returncode == 130
  assert said == 'Interrupted.\n'
  wait_until(lambda: not processes_of(process.pid))


def assert_ends_by_ctrl_c(command, folder):
  """Ctrl-C when it has printed its first line ends a process with one line."""
  with subprocess.Popen(
    [sys.executable, *command],
    env=os.environ | {'PYTHONPATH': str(folder)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  ) as process:
    assert process.stdout.readline().endswith('ing\n')
    process.send_signal(signal.SIGINT)
    try:
      _, said = process.communicate(timeout=30)
    finally:
      process.kill()
  assert process.returncode == 130
  assert said == 'Interrupted.\n'


@pytest.mark.parametrize(
  'name',
  [
    path.name
    for path in sorted(benchmark_modules.FOLDER.glob('*.py'))
    # They import little.
    if path.stem not in ('make_tables', 'whole_program')
  ],
)
def test_ctrl_c_while_a_command_imports_is_one_line(name, tmp_path):
  for package in ('av', 'jax', 'numpy'):
    (tmp_path / f'{package}.py').write_text(SLOW_PACKAGE)
  command = [benchmark_modules.FOLDER / name, '--help']
  assert_ends_by_ctrl_c(command, tmp_path)


def test_ctrl_c_that_the_garbage_collector_drops_comes_again(tmp_path):
  path = tmp_path / 'collects_garbage.py'
  path.write_text(COLLECTS_GARBAGE)
  assert_ends_by_ctrl_c([path], benchmark_modules.FOLDER)


def test_a_package_that_is_missing_is_one_line(monkeypatch):
  (script,) = benchmark_modules.load(monkeypatch, 'measuring.script')
  script.require('json')
  with pytest.raises(SystemExit) as raised:
    script.require('no_such_package', 'install it')
  assert raised.value.code == (
    'Error: no_such_package is not installed: install it'
  )


@pytest.mark.parametrize(
  'name', ['kmeans', 'local_aggregation', 'train_step', 'checkpoint']
)
def test_help_needs_no_peer(name):
  code = f"""
import runpy, sys
sys.modules['torch'] = None
sys.path.insert(0, {str(benchmark_modules.FOLDER)!r})
sys.argv = ['{name}.py', '--help']
runpy.run_module('{name}', run_name='__main__')
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  # As it is written: the command is on a line of its own.
  assert f'\n\n  python benchmarks/{name}.py' in done.stdout
