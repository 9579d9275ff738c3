"""Options are written in full; a slip in one is answered with what is meant."""

import ast
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
  folder.add_argument('--look', choices=['plain', 'hard'])
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
    # A value that is spelled like another command.
    (
      ['folder', '--videos', 'check', '--videos-to=x'],
      'error: unrecognized arguments: --videos-to=x; there is no --videos-to: '
      'did you mean --videos?',
    ),
    (
      ['foldr', '--videos=V'],
      "invalid choice: 'foldr' (choose from 'folder', 'check'); did you mean "
      'folder?',
    ),
    (
      ['folder', '--videos=V', '--look=plane'],
      "invalid choice: 'plane' (choose from 'plain', 'hard'); did you mean "
      'plain?',
    ),
    (
      ['x'],
      "error: argument {folder,check}: invalid choice: 'x' (choose from "
      "'folder', 'check')",
    ),
  ],
)
def test_a_slip_is_named_with_what_may_be_meant(words, told, capsys):
  with pytest.raises(SystemExit) as stopped:
    parser().parse_args(words)
  assert stopped.value.code == 2
  assert capsys.readouterr().err.splitlines()[-1].endswith(told)


def test_words_of_another_command_are_left_alone():
  assert parser().hint(['folder', '--', '--video=V']) == ''


def test_a_command_of_a_line_before_is_forgotten(capsys):
  used = parser()
  used.parse_args(['folder', '--videos=V'])
  with pytest.raises(SystemExit):
    used.parse_args(['--proceses=4'])
  said = capsys.readouterr().err
  assert said.endswith('arguments are required: {folder,check}\n')


def names_that_of_argparse(source):
  """Whether code names the parser of argparse, called so or otherwise."""
  return any(
    (isinstance(node, ast.Attribute) and node.attr == 'ArgumentParser')
    or (isinstance(node, ast.alias) and node.name == 'ArgumentParser')
    for node in ast.walk(ast.parse(source))
  )


@pytest.mark.parametrize(
  'source, does',
  [
    (
      'import argparse\nargparse.ArgumentParser(prog=None,\n  usage=None)',
      True,
    ),
    ('import argparse as a\nparser = a.ArgumentParser()', True),
    ('from argparse import ArgumentParser as Parser', True),
    ('"""Like argparse.ArgumentParser()."""\nimport argparse', False),
  ],
)
def test_a_parser_of_argparse_is_found(source, does):
  assert names_that_of_argparse(source) is does


def test_every_command_has_such_a_parser():
  folders = ('benchmarks', 'data', 'launch', 'vie_jax')
  files = [f for folder in folders for f in (REPOSITORY / folder).rglob('*.py')]
  files.append(REPOSITORY / 'main.py')
  own = REPOSITORY / 'vie_jax' / 'option_parser.py'
  found = [f for f in files if names_that_of_argparse(f.read_text('utf-8'))]
  assert found == [own]
