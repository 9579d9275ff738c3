import argparse
import ast
import pathlib
import subprocess
import sys

import pytest

from tests.benchmarks import benchmark_modules


@pytest.fixture
def argument_types(monkeypatch):
  return benchmark_modules.load(monkeypatch, 'measuring.argument_types')[0]


def test_a_count_is_a_whole_number_of_at_least_1(argument_types):
  assert argument_types.count('17') == 17
  for text in ('0', '-1', '1.5', 'x', '', '²', '9' * 5000):
    with pytest.raises(argparse.ArgumentTypeError, match='no whole number'):
      argument_types.count(text)


def test_a_positive_number_is_finite(argument_types):
  assert argument_types.positive('2.5') == 2.5
  for text in ('0', '-1', 'nan', 'inf', 'x'):
    with pytest.raises(argparse.ArgumentTypeError, match='no number above 0'):
      argument_types.positive(text)


def test_a_file_to_write_is_tried_and_left_as_it_is(argument_types, tmp_path):
  assert argument_types.new_file(f'{tmp_path}/x.png') == f'{tmp_path}/x.png'
  assert not list(tmp_path.iterdir())
  (tmp_path / 'old.png').write_text('old')
  argument_types.new_file(str(tmp_path / 'old.png'))
  assert (tmp_path / 'old.png').read_text() == 'old'
  for path, said in (
    ('/proc/x.png', 'cannot write /proc/x.png: No such file or directory'),
    (str(tmp_path), 'is a folder'),
    (str(tmp_path / 'no' / 'x.png'), 'there is no folder'),
  ):
    with pytest.raises(argparse.ArgumentTypeError, match=said):
      argument_types.new_file(path)


def test_a_folder_to_write_to_is_made(argument_types, tmp_path):
  path = tmp_path / 'a' / 'b'
  assert argument_types.new_folder(str(path)) == str(path)
  assert not list(path.iterdir())
  (tmp_path / 'file').touch()
  for path in ('/proc/x', '/proc', str(tmp_path / 'file')):
    with pytest.raises(argparse.ArgumentTypeError, match='cannot write '):
      argument_types.new_folder(path)


_REPOSITORY = benchmark_modules.FOLDER.parent
_SCRIPTS = [
  *sorted(benchmark_modules.FOLDER.glob('*.py')),
  _REPOSITORY / 'launch' / 'supervise.py',
]


def _calls(path, name):
  for node in ast.walk(ast.parse(path.read_text('utf-8'))):
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name):
      yield node, {keyword.arg: keyword.value for keyword in node.keywords}


@pytest.mark.parametrize('path', _SCRIPTS, ids=lambda path: path.stem)
def test_every_option_says_what_it_is(path):
  for call, keywords in _calls(path, '.add_argument'):
    assert 'help' in keywords, ast.unparse(call)


@pytest.mark.parametrize('path', _SCRIPTS[:-1], ids=lambda path: path.stem)
def test_the_help_of_a_benchmark_is_what_its_head_says(path):
  assert 'script.parser(__doc__)' in path.read_text('utf-8')


@pytest.mark.parametrize('path', _SCRIPTS[:-1], ids=lambda path: path.stem)
def test_figures_go_to_a_file_of_the_name_of_the_benchmark(path):
  head = ast.get_docstring(ast.parse(path.read_text('utf-8')))
  for word in head.split():
    if word.startswith('benchmarks/results/'):
      assert pathlib.Path(word).name.startswith(f'{path.stem}-')


@pytest.mark.parametrize(
  'words, said',
  [
    (('scaling.py', '--rounds=0'), "argument --rounds: '0' is no whole number"),
    (('cost_growth.py', '--sizes=-1'), 'argument --sizes:'),
    (('checkpoint.py', '--rounds=-1'), 'argument --rounds:'),
    (('decode_workers.py', '--workers=0'), 'argument --workers:'),
    (
      ('decode_workers.py', '--milliseconds=abc'),
      "'abc' is no number above 0",
    ),
    (('decode_workers.py', '--networks=nope'), "'nope' is no config"),
    (('device_augment.py', '--configs=nope'), "'nope' is no config"),
    (('tpu_programs.py', '--configs=nope'), "'nope' is no config"),
    (('whole_program.py', '--configs=demo'), "'demo' is no file of configs/"),
    (
      ('whole_program.py', '--configs=configs/demo.py:x'),
      'configs/demo.py:x does not exist',
    ),
    (('input_pipeline.py', '--videos=0'), 'there is no folder 0'),
    (('prepare.py', '--videos=0'), 'there is no folder 0'),
    (('cost_growth.py', '--figure=/no/x.png'), 'there is no folder /no'),
    (('scaling.py', '--figure=/no/x.png'), 'there is no folder /no'),
    (('scaling.py', '--figure=/proc/x.png'), 'cannot write /proc/x.png'),
    (('checkpoint.py', '--folder=/proc/x'), 'cannot write /proc/x'),
    (
      ('kmeans.py', '--clusters=4'),
      '--clusters: 4 is less than --warm-divisor',
    ),
    (
      ('kmeans.py', '--videos=20', '--clusters=50'),
      '--videos: 20 is less than',
    ),
    (
      ('train_step.py', '--networks=vie_single', '--size=32', '--batch-size=2'),
      '--batch-size: 2 x 32 px are too little for vie_single, whose last batch '
      'norm needs 4 values of each channel for two libraries to agree; take '
      '--batch-size=4 or --size=33, or more',
    ),
    (
      ('train_step.py', '--networks=vie_3dresnet', '--size=32')
      + ('--batch-size=1',),
      '--batch-size: 1 x 32 px are too little for vie_3dresnet',
    ),
    (('local_aggregation.py', '--videos=9'), '--neighbors: 512 is more than'),
    (
      ('local_aggregation.py', '--videos=90', '--neighbors=9'),
      '--batch-sizes: 128 is more than --videos, 90',
    ),
  ],
)
def test_mistakes_are_told_before_anything_is_measured(words, said):
  script, *options = words
  done = subprocess.run(
    [sys.executable, benchmark_modules.FOLDER / script, *options],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert said in done.stderr
  assert 'Traceback' not in done.stderr
