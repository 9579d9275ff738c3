"""What the code says of its own version."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import vie_jax
from vie_jax import code_version

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def git(folder, *words):
  person = {
    f'GIT_{role}_{field}': value
    for role in ('AUTHOR', 'COMMITTER')
    for field, value in (('NAME', 'a'), ('EMAIL', 'a@example.com'))
  }
  return subprocess.run(
    ['git', *words],
    cwd=folder,
    env=os.environ | person,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.strip()


def copied_into(folder):
  """The package, as far as it is needed, in another place."""
  (folder / 'vie_jax').mkdir(parents=True)
  for name in ('__init__.py', 'code_version.py'):
    shutil.copy(REPOSITORY / 'vie_jax' / name, folder / 'vie_jax')
  return folder


def said_in(folder):
  done = subprocess.run(
    [
      *(sys.executable, '-c'),
      'from vie_jax import code_version; print(code_version.commit())',
    ],
    env=os.environ | {'PYTHONPATH': str(folder)},
    cwd=folder.parent,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
  folder = tmp_path / 'repository'
  folder.mkdir()
  git(folder, 'init', '-q')
  return folder


def test_the_commit_is_that_of_this_code(repository):
  copied_into(repository)
  git(repository, 'add', 'vie_jax')
  git(repository, 'commit', '-q', '-m', 'First')
  commit = git(repository, 'rev-parse', '--short', 'HEAD')
  assert said_in(repository) == commit
  with (repository / 'vie_jax/__init__.py').open('a') as file:
    file.write('# Changed.\n')
  assert said_in(repository) == f'{commit}-dirty'


def test_the_commit_of_another_project_is_not_taken_for_it(repository):
  (repository / 'README').write_text('another project')
  git(repository, 'add', 'README')
  git(repository, 'commit', '-q', '-m', 'First')
  packages = copied_into(repository / '.venv/lib/site-packages')
  assert said_in(packages) == 'None'


def test_main_prints_the_versions():
  done = subprocess.run(
    [sys.executable, 'main.py', '--version'],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.strip() == code_version.line()
  assert f'vie_jax {vie_jax.__version__}' in done.stdout
  assert f'jax {importlib.metadata.version("jax")}' in done.stdout


def test_the_digest_is_of_names_and_content(tmp_path, monkeypatch):
  monkeypatch.setattr(code_version, '_PACKAGE', tmp_path)
  (tmp_path / 'part').mkdir()
  (tmp_path / 'a.py').write_text('1')
  digests = [code_version.digest()]
  (tmp_path / 'part' / 'b.py').write_text('2')
  digests.append(code_version.digest())
  (tmp_path / 'part' / 'b.py').rename(tmp_path / 'b.py')
  digests.append(code_version.digest())
  (tmp_path / 'b.py').write_text('3')
  digests.append(code_version.digest())
  assert len(set(digests)) == 4
  (tmp_path / 'b.pyc').write_text('no source')
  (tmp_path / '.#b.py').symlink_to('user@host.1')
  (tmp_path / 'folder.py').mkdir()
  (tmp_path / '.ipynb_checkpoints').mkdir()
  (tmp_path / '.ipynb_checkpoints' / 'b-checkpoint.py').write_text('3')
  (tmp_path / 'a.py').write_bytes(b'1')
  assert code_version.digest() == digests[-1]
  for name in ('a.py', 'b.py'):
    (tmp_path / name).unlink()
  assert code_version.digest() is None
