"""Scripts use names of vie_jax that are there, also where no test runs them."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
SCRIPTS = sorted(
  path.relative_to(REPOSITORY)
  for folder in ('benchmarks', 'data', 'launch')
  for path in (REPOSITORY / folder).rglob('*.py')
)


COMMANDS = [
  script
  for script in SCRIPTS
  if "if __name__ == '__main__':" in (REPOSITORY / script).read_text()
]


def modules_of(tree):
  """Name in the file -> module of vie_jax that it stands for."""
  found = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and node.module.startswith('vie_jax'):
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        if (REPOSITORY / f'{name.replace(".", "/")}.py').exists():
          found[alias.asname or alias.name] = importlib.import_module(name)
  return found


def missing_names(source):
  tree = ast.parse(source)
  modules = modules_of(tree)
  return {
    f'{node.value.id}.{node.attr}'
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id in modules
    and not hasattr(modules[node.value.id], node.attr)
  }


def test_a_name_that_has_moved_is_found():
  source = 'from vie_jax import device_augment as d\nd.center\nd.resize\n'
  assert missing_names(source) == {'d.resize'}


@pytest.mark.parametrize('script', SCRIPTS, ids=str)
def test_names_of_vie_jax_exist(script):
  assert missing_names((REPOSITORY / script).read_text()) == set()


@pytest.mark.parametrize('script', COMMANDS, ids=str)
def test_commands_look_beside_them_first(script):
  """Python does not with PYTHONSAFEPATH=1, and none of them would start."""
  found = None
  for node in ast.parse((REPOSITORY / script).read_text()).body:
    if ast.unparse(node).startswith('sys.path.insert(0, '):
      found = script
    if isinstance(node, ast.Import | ast.ImportFrom) and found is None:
      names = [getattr(node, 'module', None) or node.names[0].name]
      assert {n.split('.')[0] for n in names} <= sys.stdlib_module_names
  assert found


@pytest.mark.parametrize(
  'script',
  ['benchmarks/make_tables.py', 'data/prepare.py', 'launch/supervise.py'],
)
@pytest.mark.parametrize('options', ['-I', '-OO'])
def test_commands_start_however_python_is_told_to(script, options):
  """Isolated, and without docstrings."""
  done = subprocess.run(
    [sys.executable, options, REPOSITORY / script, '--help'],
    capture_output=True,
    text=True,
    cwd='/',
  )
  assert done.returncode == 0, done.stderr
  assert 'usage: ' in done.stdout


@pytest.mark.parametrize('closed', [1, 2])
def test_a_preparation_needs_no_open_streams(closed, tmp_path):
  """As daemons start programs."""
  (tmp_path / 'v').mkdir()
  command = (
    f'exec "$0" data/prepare.py folder --videos "$1/v" --out "$1/o" {closed}>&-'
  )
  done = subprocess.run(
    ['bash', '-c', command, sys.executable, tmp_path],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2, done.stderr
  assert 'Traceback' not in done.stderr
  if closed != 2:
    assert 'no video' in done.stderr


@pytest.mark.parametrize(
  'command',
  [
    'launch/reproduce.py --list',
    '-m vie_jax.evaluation.report --list',
    'main.py --version',
    'launch/local.py --dry-run -- --config=configs/demo.py --workdir=W',
  ],
)
def test_commands_end_quietly_where_nobody_reads(command):
  """As before `| head`; and in one line where there is no room."""
  words = [sys.executable, *command.split()]
  done = subprocess.run(
    ['bash', '-c', '"$@" | true; exit "${PIPESTATUS[0]}"', 'bash', *words],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr) == (0, '')
  done = subprocess.run(
    ['bash', '-c', '"$@" > /dev/full', 'bash', *words],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert done.stderr == 'Error: standard output: No space left on device\n'
