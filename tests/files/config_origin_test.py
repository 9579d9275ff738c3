"""Which config file a run is of."""

import os
import pathlib

import pytest
import tiny_run

from vie_jax.files import config_origin


def test_files_of_the_repository_are_known_by_their_path_in_it(monkeypatch):
  file = tiny_run.REPOSITORY / 'configs' / 'demo.py'
  assert config_origin.of(file) == 'configs/demo.py'
  monkeypatch.chdir(file.parent)
  assert config_origin.of('demo.py') == 'configs/demo.py'


def test_other_files_are_known_by_their_absolute_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('link').symlink_to(tmp_path)
  assert config_origin.of('link/mine.py') == str(tmp_path / 'mine.py')


def test_a_folder_is_of_the_file_that_was_noted_last(tmp_path):
  assert config_origin.other_than('/a/mine.py', tmp_path) is None
  assert config_origin.other_than('/a/mine.py', tmp_path / 'nowhere') is None
  name = os.fsdecode(b'\xff\n\xc3\xbc.py')
  for origin in (str(tmp_path / 'mine.py'), str(tmp_path / name)):
    pathlib.Path(origin).touch()
    config_origin.write(tmp_path, origin)
    assert config_origin.other_than(origin, tmp_path) is None
    assert config_origin.other_than('/b/mine.py', tmp_path) == origin
  config_origin.write(tmp_path, 'configs/demo.py')
  assert config_origin.other_than(name, tmp_path) == 'configs/demo.py'


def test_a_file_that_was_moved_is_no_other(tmp_path):
  config_origin.write(tmp_path, str(tmp_path / 'nowhere' / 'mine.py'))
  assert config_origin.other_than('/b/mine.py', tmp_path) is None


@pytest.mark.parametrize('make', [pathlib.Path.touch, os.mkfifo, os.mkdir])
def test_what_is_no_note_says_nothing(tmp_path, make):
  make(tmp_path / config_origin.FILE)
  assert config_origin.other_than('/b/mine.py', tmp_path) is None
