"""Options are written in full; a slip in one is answered with what is meant."""

import pathlib

import pytest

from vie_jax import option_parser

REPOSITORY = pathlib.Path(__file__).parents[1]


def parser():
  made = option_parser.OptionParser(prog='x')
  made.add_argument('--out')
  commands = made.add_subparsers(required=True)
  folder = commands.add_parser('folder')
  folder.add_argument('--videos', required=True)
  folder.add_argument('--processes')
  commands.add_parser('check').add_argument('--videos-too')
  return made


@pytest.mark.parametrize(
  'words, told',
  [
    # Not taken for --videos.
    (
      ['folder', '--video=V'],
      'error: the following arguments are required: --videos; there is no '
      '--video: did you mean --videos?',
    ),
    (
      ['folder', '--videos=V', '--proceses', '4'],
      'error: unrecognized arguments: --proceses 4; there is no --proceses: '
      'did you mean --processes?',
    ),
    (
      ['--ou=X', 'check'],
      'error: unrecognized arguments: --ou=X; there is no --ou: did you mean '
      '--out?',
    ),
    (['check', '--never=x'], 'error: unrecognized arguments: --never=x'),
  ],
)
def test_a_slip_is_named_with_what_may_be_meant(words, told, capsys):
  with pytest.raises(SystemExit) as stopped:
    parser().parse_args(words)
  assert stopped.value.code == 2
  assert capsys.readouterr().err.splitlines()[-1].endswith(told)


def test_words_of_another_command_are_left_alone():
  assert parser().hint(['folder', '--', '--video=V']) == ''


def test_every_command_has_such_a_parser():
  folders = ('benchmarks', 'data', 'launch', 'vie_jax')
  files = [f for folder in folders for f in (REPOSITORY / folder).rglob('*.py')]
  assert not [f for f in files if 'ArgumentParser(\n' in f.read_text('utf-8')]
