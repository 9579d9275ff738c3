import argparse
import subprocess
import sys

import pytest

from tests.benchmarks import benchmark_modules


@pytest.fixture
def argument_types(monkeypatch):
  return benchmark_modules.load(monkeypatch, 'argument_types')[0]


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


@pytest.mark.parametrize(
  'words, said',
  [
    (('scaling.py', '--rounds=0'), "argument --rounds: '0' is no whole number"),
    (('cost_growth.py', '--sizes=-1'), 'argument --sizes:'),
    (('checkpoint.py', '--rounds=-1'), 'argument --rounds:'),
    (('decode_workers.py', '--workers=0'), 'argument --workers:'),
    (('object_store.py',), 'the following arguments are required: folder'),
    (('object_store.py', 'nowhere', '30'), 'there is no folder nowhere'),
    (('object_store.py', '.', 'abc'), "'abc' is no number above 0"),
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
