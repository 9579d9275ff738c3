"""docs/launch/: every command is one, and is understood."""

import json
import os
import re
import shlex
import shutil
import subprocess

import cloud_tpu
import gke
import local
import pytest
import slurm
import tiny_run

FOLDER = tiny_run.REPOSITORY / 'docs' / 'launch'
PAGES = sorted(FOLDER.glob('*.md'))
SCRIPTS = {
  'cloud_tpu': cloud_tpu.main,
  'gke': gke.main,
  'local': local.main,
  'slurm': slurm.main,
}


def commands():
  """(page, words) of every command in the fenced blocks of the pages."""
  for page in PAGES:
    text = page.read_text('utf-8')
    for block in re.findall(
      r'^ *```\n(.*?)^ *```', text, re.DOTALL | re.MULTILINE
    ):
      for command in block.replace('\\\n', ' ').splitlines():
        yield page.stem, shlex.split(command)


ALL = list(commands())
OURS = [(page, words) for page, words in ALL if words[0] == 'python']


def named(case):
  page, words = case
  return f'{page}: {" ".join(words[1:4])}'


def test_every_page_is_there():
  assert [page.stem for page in PAGES] == ['cloud_tpu', 'gke', 'local', 'slurm']
  assert {page for page, _ in OURS} == set(SCRIPTS)


@pytest.mark.parametrize('case', OURS, ids=map(named, OURS))
def test_a_command_is_understood(case, capsys):
  _, (_, script, *arguments) = case
  if script == 'launch/supervise.py':
    _, _, script, *arguments = arguments[arguments.index('--') :]
  name = script.removeprefix('launch/').removesuffix('.py')
  own, dashes, rest = arguments, [], []
  if '--' in arguments:
    at = arguments.index('--')
    own, dashes, rest = arguments[:at], ['--'], arguments[at + 1 :]
  assert SCRIPTS[name]([*own, '--dry-run', *dashes, *rest]) == 0
  assert '$ ' in capsys.readouterr().out


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_pages_say_how_it_was_checked_and_what_it_costs(page):
  text = page.read_text('utf-8')
  for words in ('Checked on 25 November 2026', '## Cost', 'goes wrong'):
    assert words in text


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('gcloud'), reason='needs gcloud')
def test_gcloud_understands_its_commands(tmp_path, capsys):
  """Those of the pages and those that the launcher prints; by gcloud's own
  static check, which asks no server."""
  found = [words for _, words in ALL if words[0] == 'gcloud']
  for page, (_, _, *arguments) in OURS:
    if page == 'cloud_tpu':
      at = arguments.index('--') if '--' in arguments else len(arguments)
      cloud_tpu.main([*arguments[:at], '--dry-run', *arguments[at:]])
  found += [
    shlex.split(line.removeprefix('$ '))
    for line in capsys.readouterr().out.splitlines()
    if line.startswith('$ gcloud')
  ]
  assert len(found) > 20
  environment = os.environ | {'CLOUDSDK_CONFIG': str(tmp_path)}
  for words in found:
    done = subprocess.run(
      [
        *('gcloud', 'meta', 'lint-gcloud-commands'),
        f'--command-string={shlex.join(words)}',
      ],
      env=environment,
      capture_output=True,
      text=True,
      check=True,
    )
    (verdict,) = json.loads(done.stdout)
    assert verdict['success'], f'{words}: {verdict["error_message"]}'
