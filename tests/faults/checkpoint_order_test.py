"""R18: what must be on the disk before a step gets its name, by order.

Power cannot be cut in a test. What can be seen is the order of the calls that
bring files to the disk: strace records them.
"""

import re
import shutil
import subprocess
import sys

import pytest
import tiny_run

CALL = re.compile(r'(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)')
CALLS = 'openat,open,creat,write,pwrite64,writev,fsync,fdatasync,rename'
CALLS += ',renameat,renameat2,mkdir,mkdirat,close'


def whole_calls(trace):
  """Calls in the order of their ends: (name, arguments, result)."""
  begun = {}
  for line in trace.splitlines():
    process, _, rest = line.partition(' ')
    rest = rest.strip()
    if rest.endswith('<unfinished ...>'):
      begun[process] = rest.removesuffix('<unfinished ...>').rstrip()
      continue
    if rest.startswith('<... '):
      rest = begun.pop(process, '') + rest.partition(' resumed>')[2]
    found = CALL.match(rest)
    if found and int(found[3]) >= 0:
      yield found[1], found[2], int(found[3])


def paths_in(text):
  """The paths of a call: strace -y puts that of a descriptor in < >."""
  return re.findall(r'"([^"]*)"|\d+<([^>]*)>', text)


def events(trace, folder):
  """(what, path) of calls on files in a folder: dirty, synced or renamed."""
  for name, arguments, _ in whole_calls(trace):
    paths = [a or b for a, b in paths_in(arguments)]
    paths = [path for path in paths if path.startswith(str(folder))]
    if not paths:
      continue
    if 'sync' in name:
      yield 'synced', paths[0]
    elif 'rename' in name:
      yield 'renamed', tuple(paths[-2:])
    elif 'write' in name:
      yield 'dirty', paths[0]
    elif 'mkdir' in name or 'O_CREAT' in arguments:
      yield 'dirty', paths[-1]
      yield 'dirty', paths[-1].rpartition('/')[0]


@pytest.mark.skipif(not shutil.which('strace'), reason='strace is missing')
def test_all_is_on_the_disk_before_the_record_and_the_record_before_the_name(
  tmp_path,
):
  log = tmp_path / 'trace'
  subprocess.run(
    [
      *('strace', '-f', '-y', '-s', '300', '-e', f'trace={CALLS}'),
      *(
        '-o',
        str(log),
        sys.executable,
        '-m',
        'tests.faults.checkpoint_program',
      ),
      *(str(tmp_path / 'W'), '--num-steps=2', '--save-every=1', '--keep=1'),
    ],
    cwd=tiny_run.REPOSITORY,
    env=tiny_run.environment(),
    check=True,
    capture_output=True,
    timeout=tiny_run.PATIENCE_SECONDS,
  )
  folder = tmp_path / 'W' / 'checkpoints'
  dirty, committed, named, left = set(), [], [], []
  for what, path in events(log.read_text(errors='replace'), folder):
    if what == 'synced':
      dirty.discard(path)
    elif what == 'dirty':
      dirty.add(path)
    else:
      old, new = path
      if new.endswith('/commit.json'):
        # Everything but the folder that gets the new name is on the disk.
        step = old.removesuffix('/commit.json.tmp')
        assert not {p for p in dirty if p.startswith(step)} - {step}
        committed.append(step)
      elif old in committed:
        assert not {p for p in dirty if p.startswith(old)}
        named.append(new)
      elif new.endswith('.deleting'):
        # The new step is known to be on the disk before an old one goes.
        assert str(folder) not in dirty
        left.append(old)
      moved = {p for p in dirty if p == old or p.startswith(old + '/')}
      dirty = (dirty - moved) | {new + p[len(old) :] for p in moved}
      dirty |= {old.rpartition('/')[0], new.rpartition('/')[0]}
  assert committed == [f'{folder}/1.saving', f'{folder}/2.saving']
  assert named == [f'{folder}/1', f'{folder}/2']
  assert left == [f'{folder}/1']
  print('\nthe order of all files, the record and the name is kept')
