import json
import os
import pathlib
import sys

import pytest

# As with the commands in data/: scripts, whose folder is on the path.
_FOLDER = pathlib.Path(__file__).parents[2] / 'launch'
if str(_FOLDER) not in sys.path:
  sys.path.insert(0, str(_FOLDER))

_PROGRAM = f"""#!{sys.executable} -IS
import json, pathlib, sys, time
folder = pathlib.Path(__file__).parent
name = pathlib.Path(__file__).name
with (folder / 'calls.jsonl').open('a') as calls:
  calls.write(json.dumps([name, *sys.argv[1:]]) + '\\n')
script = folder / f'{{name}}.json'
answers = json.loads(script.read_text()) if script.exists() else {{}}
for words, queue in answers.items():
  if words in ' '.join(sys.argv[1:]):
    answer = queue.pop(0) if len(queue) > 1 else queue[0]
    script.write_text(json.dumps(answers))
    time.sleep(answer.get('seconds', 0))
    sys.stdout.write(answer.get('out', ''))
    sys.stderr.write(answer.get('err', ''))
    sys.exit(answer.get('code', 0))
"""


class StandIns:
  """Programs of a folder that is first on PATH: they record and answer.

  Each writes down its arguments, and answers what it was told to, one answer
  after the other; the last is given again and again.
  """

  def __init__(self, folder):
    self.folder = folder

  def install(self, name, **answers):
    """Makes a program.

    Args:
      name: of the program.
      **answers: beside `answers={words of the command: [answer, ...]}`; an
        answer has `out`, `err`, `code` and `seconds`.
    """
    path = self.folder / name
    path.write_text(_PROGRAM)
    path.chmod(0o755)
    if answers:
      path.with_suffix('.json').write_text(json.dumps(answers['answers']))

  def install_script(self, name, text):
    """Makes a program of a shell script, which records its call, too."""
    path = self.folder / name
    calls = self.folder / 'calls.jsonl'
    recorder = self.folder / f'record-{name}'
    recorder.write_text(
      f'#!{sys.executable} -IS\nimport json, sys\n'
      f"open({str(calls)!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    recorder.chmod(0o755)
    path.write_text(f'#!/bin/bash\n{recorder} {name} "$@"\n{text}\n')
    path.chmod(0o755)

  @property
  def calls(self):
    """All calls so far: lists of a program and its arguments."""
    path = self.folder / 'calls.jsonl'
    if not path.exists():
      return []
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
  folder = tmp_path / 'stand_ins'
  folder.mkdir()
  monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')
  return StandIns(folder)
