"""Dockerfiles: linted, laid out as they say, and their command really run."""

import fnmatch
import itertools
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import dockerfile_parse
import gke
import linters
import pytest
import tiny_run
import yaml

REPOSITORY = tiny_run.REPOSITORY
FILES = sorted((REPOSITORY / 'launch' / 'docker').glob('Dockerfile.*'))
each_file = pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)


def instructions(path):
  parser = dockerfile_parse.DockerfileParser(
    fileobj=path.open('rb'), cache_content=True
  )
  return [
    (entry['instruction'], entry['value'])
    for entry in parser.structure
    if entry['instruction'] != 'COMMENT'
  ]


def values(path, name):
  return [value for found, value in instructions(path) if found == name]


def is_ignored(name):
  """Whether .dockerignore keeps a file out: the last line that fits decides."""
  ignored = False
  for line in (REPOSITORY / '.dockerignore').read_text().splitlines():
    if not line or line.startswith('#'):
      continue
    is_exception = line.startswith('!')
    pattern = line.removeprefix('!')
    parts = [name, *map(str, pathlib.PurePath(name).parents)]
    patterns = [pattern]
    if pattern.startswith('**/'):
      patterns.append(pattern.removeprefix('**/'))
    if any(fnmatch.fnmatchcase(p, q) for p in parts for q in patterns):
      ignored = not is_exception
  return ignored


def tracked_files():
  listed = subprocess.run(
    ['git', 'ls-files'],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=True,
  )
  return listed.stdout.splitlines()


def lay_out(path, folder):
  """Copies what the image will have in its folder; gives the names."""
  names = []
  for value in values(path, 'COPY'):
    *sources, target = value.split()
    for source in sources:
      for name in tracked_files():
        if name != source and not name.startswith(f'{source}/'):
          continue
        if is_ignored(name):
          continue
        inside = pathlib.PurePath(target, os.path.relpath(name, source))
        into = name if target == './' else str(inside)
        (folder / into).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / into)
        names.append(into)
  return names


@each_file
def test_hadolint_has_nothing_against_it(path):
  assert linters.hadolint(path) == ''


def test_hadolint_finds_mistakes(tmp_path):
  path = tmp_path / 'Dockerfile'
  path.write_text('FROM python\nRUN pip install jax\n')
  found = linters.hadolint(path)
  assert 'DL3006' in found
  assert 'DL3042' in found


def test_one_for_each_kind_of_device():
  assert [path.suffix for path in FILES] == ['.cpu', '.cuda', '.tpu']


@each_file
def test_the_user_is_that_of_the_job_set_and_is_not_root(path):
  names = [name for name, _ in instructions(path)]
  assert values(path, 'USER') == [f'{gke.USER}:{gke.USER}']
  assert names.index('USER') > max(
    at for at, name in enumerate(names) if name in ('RUN', 'COPY')
  )
  assert values(path, 'WORKDIR') == [gke.FOLDER]


@each_file
def test_stopping_it_is_a_preemption(path):
  assert values(path, 'STOPSIGNAL') == ['SIGTERM']
  (entrypoint,) = values(path, 'ENTRYPOINT')
  # A list: with a shell in between the signal would not arrive.
  assert json.loads(entrypoint) == list(gke.COMMAND)


@each_file
def test_packages_are_pinned_and_there_are_no_secrets(path):
  (install,) = [v for v in values(path, 'RUN') if 'pip' in v]
  words = shlex.split(install)
  files = [
    file
    for option, file in itertools.pairwise(words)
    if option == '--constraint'
  ]
  assert files == ['constraints.txt', 'launch/constraints.txt']
  assert '--no-cache-dir' in words
  text = path.read_text().lower()
  for word in ('secret', 'token', 'password', 'credential', ' arg '):
    assert word not in text


def test_versions_stand_in_one_place():
  lines = [
    (REPOSITORY / name).read_text().splitlines()
    for name in ('constraints.txt', 'launch/constraints.txt')
  ]
  first, second = (
    {line.partition('==')[0].lower() for line in each if '==' in line}
    for each in lines
  )
  assert not first & second
  assert {'libtpu', 'jax-cuda12-plugin', 'gcsfs'} <= second


@pytest.mark.parametrize(
  'name, expected',
  [
    ('main.py', False),
    ('vie_jax/train.py', False),
    ('launch/docker/Dockerfile.cpu', False),
    ('data/prepare.py', False),
    ('data/prepared/kinetics400/dataset.json', True),
    ('data/__pycache__/prepare.cpython-312.pyc', True),
    ('vie_jax/x.pyc', True),
    ('.git/config', True),
    ('.venv/bin/python', True),
    ('workdir/demo/checkpoints/1', True),
    ('tests/conftest.py', True),
    ('key.json', True),
    ('vie_jax.egg-info/PKG-INFO', True),
  ],
)
def test_what_is_kept_out_of_the_image(name, expected):
  assert is_ignored(name) == expected


@each_file
def test_everything_that_it_copies_is_there(path, tmp_path):
  names = lay_out(path, tmp_path)
  for name in (
    'main.py',
    'setup.py',
    'constraints.txt',
    'README.md',
    'LICENSE',
  ):
    assert name in names
  assert 'configs/default.py' in names
  assert 'vie_jax/train.py' in names
  assert not any(name.startswith('tests/') for name in names)


def container_command(capsys, mount, dataset):
  """Command and variables of the container that launch/gke.py writes.

  A folder of this machine is not taken for a mount: it comes in afterwards.
  """
  overrides = tiny_run.overrides_of('vie_single', dataset, num_steps=4)
  arguments = [
    '--config=configs/vie_single.py',
    '--workdir=/mnt/bucket/vie',
    *(f'--config.{field}={value}' for field, value in overrides.items()),
  ]
  options = [
    *('run', '--name=vie', '--image=vie_jax:cpu', '--dry-run'),
    *('--gpu=nvidia-l4', '--gpus-per-node=1', '--claim=c'),
  ]
  assert gke.main([*options, '--', *arguments]) == 0
  shown = capsys.readouterr().out
  shown = shown[shown.index('apiVersion') : shown.index('# end of ')]
  document = yaml.safe_load(shown.replace('/mnt/bucket', str(mount)))
  (job,) = document['spec']['replicatedJobs']
  pod = job['template']['spec']['template']['spec']
  (container,) = pod['containers']
  variables = {v['name']: v.get('value') for v in container['env']}
  # Of the only pod.
  variables['JAX_PROCESS_ID'] = '0'
  return [*container['command'], *container['args']], variables


def environment_of(path, home):
  """Variables of the image, with this Python as its `python`."""
  variables = {
    name: value
    for entry in values(path, 'ENV')
    for name, _, value in (word.partition('=') for word in shlex.split(entry))
  }
  assert variables['PYTHONPATH'] == gke.FOLDER
  tests = {
    name: value
    for name, value in tiny_run.environment().items()
    if name.startswith(('JAX_', 'XLA_', 'TF_'))
  }
  programs = (
    f'{os.path.dirname(sys.executable)}{os.pathsep}{os.environ["PATH"]}'
  )
  return variables | tests | {'HOME': str(home), 'PATH': programs}


@pytest.mark.slow
def test_the_command_of_the_container_trains(capsys, tmp_path, demo_dataset):
  """What a pod runs, in a folder like the image's, with no repository."""
  path = REPOSITORY / 'launch' / 'docker' / 'Dockerfile.cpu'
  folder, mount = tmp_path / 'app', tmp_path / 'mnt'
  lay_out(path, folder)
  mount.mkdir()
  command, variables = container_command(capsys, mount, demo_dataset)
  (entrypoint,) = values(path, 'ENTRYPOINT')
  assert command[:2] == json.loads(entrypoint)
  environment = environment_of(path, tmp_path) | variables
  environment['PYTHONPATH'] = str(folder)
  done = subprocess.run(
    command,
    cwd=folder,
    env=environment,
    capture_output=True,
    text=True,
    timeout=tiny_run.PATIENCE_SECONDS,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert (mount / 'vie' / 'checkpoints' / '4').is_dir()
  # Not a file beside the code, which a user who is not root could not write.
  assert not list(folder.rglob('*.pyc'))


@pytest.mark.slow
@each_file
def test_packages_can_be_installed(path, tmp_path):
  """The line of the Dockerfile, as pip resolves it; needs a package index."""
  lay_out(path, tmp_path)
  (install,) = [v for v in values(path, 'RUN') if 'pip' in v]
  words = shlex.split(install)
  assert words[0] == 'python'
  done = subprocess.run(
    [sys.executable, *words[1:], '--dry-run', '--ignore-installed', '--quiet'],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  if 'Could not fetch' in done.stderr or 'NewConnectionError' in done.stderr:
    pytest.skip('no package index can be reached')
  assert done.returncode == 0, done.stderr
