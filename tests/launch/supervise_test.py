import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import supervise

REPOSITORY = pathlib.Path(__file__).parents[2]
SUPERVISE = [sys.executable, str(REPOSITORY / 'launch' / 'supervise.py')]
# Counts its own starts; argv: folder, then what to do in each try.
PROGRAM = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
tries = len(list(folder.glob('try-*')))
(folder / f'try-{tries}').touch()
what = sys.argv[2:][min(tries, len(sys.argv) - 3)]
if what in ('save', 'finetune'):
  place = folder / 'finetune' / 'ucf101' if what == 'finetune' else folder
  (place / 'checkpoints' / str(tries)).mkdir(parents=True)
  sys.exit(75)
if what == 'kill':
  os.kill(os.getpid(), signal.SIGKILL)
if what == 'abort':
  os.abort()
if what == 'wait':
  for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: sys.exit(75))
  signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
  (folder / 'waiting').touch()
  # Not one sleep: a signal right before it would be handled behind it.
  for _ in range(600):
    time.sleep(0.1)
if what == 'count':
  def interrupt(*_):
    (folder / f'interrupt-{time.monotonic_ns()}').touch()
  signal.signal(signal.SIGINT, interrupt)
  (folder / 'waiting').touch()
  until = time.monotonic() + 60
  while not list(folder.glob('interrupt-*')) and time.monotonic() < until:
    time.sleep(0.01)
  until = time.monotonic() + 1  # in which a second one would come
  while time.monotonic() < until:
    time.sleep(0.01)
  what = '130'
sys.exit(int(what))
"""


def command(folder, *tries, options=('--max-restarts=3',)):
  program = [sys.executable, '-c', PROGRAM, str(folder), *tries]
  return [
    *SUPERVISE,
    '--first-wait=0.02',
    f'--progress={folder}',
    *options,
    '--',
    *program,
  ]


def run(folder, *tries, **options):
  """(exit code, number of tries, what was said)."""
  done = subprocess.run(
    command(folder, *tries, **options),
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  return done.returncode, len(list(folder.glob('try-*'))), done.stderr


@pytest.mark.parametrize(
  'tries, code, count',
  [
    (['0'], 0, 1),
    (['75', 'kill', 'abort', '0'], 0, 4),
    (['75', '2'], 2, 2),  # a mistake of the user is not tried again
    (['134', '1', '0'], 0, 3),  # aborted under a shell; an unknown error
    (['130'], 130, 1),
    (['75'], 75, 4),  # the first, and three without progress
    (['kill'], 128 + 9, 4),
    # Progress has the count begin anew.
    (['75', '75', 'save', '75', '75', 'save', '75', '0'], 0, 8),
    # Other modes than pretraining save elsewhere.
    (['75', '75', '75', 'save', *(['finetune'] * 4), '0'], 0, 9),
  ],
)
def test_a_command_is_run_again_while_that_helps(tmp_path, tries, code, count):
  found, tried, output = run(tmp_path, *tries)
  assert (found, tried) == (code, count), output
  assert ('giving up' in output) == (count == 4 and code != 0)


def test_however_many_tries_the_wait_is_a_number():
  supervisor = supervise.Supervisor(
    ['true'],
    workdir=None,
    max_restarts=10**6,
    first_wait=1.0,
    longest_wait=300.0,
  )
  assert supervisor._wait_seconds(10_000) == 300.0


def test_the_wait_doubles_up_to_its_limit_from_the_last_progress_on(tmp_path):
  options = ('--max-restarts=4', '--first-wait=0.1', '--longest-wait=0.3')
  _, _, output = run(tmp_path, '75', 'save', '75', options=options)
  waits = [
    float(line.split('again in ')[1].split()[0])
    for line in output.splitlines()
    if 'again in' in line
  ]
  assert waits == [0.1, 0.0, 0.1, 0.2, 0.3, 0.3]


def test_a_signal_while_the_command_starts_is_not_lost(monkeypatch):
  class Starting(subprocess.Popen):
    def __init__(self, *arguments, **options):
      super().__init__(*arguments, **options)
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(supervise.subprocess, 'Popen', Starting)
  handlers = {
    number: signal.getsignal(number) for number in supervise.PASSED_ON
  }
  started = time.monotonic()
  try:
    code = supervise.Supervisor(
      ['sleep', '20'],
      workdir=None,
      max_restarts=3,
      first_wait=0.0,
      longest_wait=0.0,
    ).run()
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
  assert code == 128 + signal.SIGTERM
  assert time.monotonic() - started < 10


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_ends_it(tmp_path, number):
  process = subprocess.Popen(command(tmp_path, 'wait'))
  deadline = time.monotonic() + 60
  while not (tmp_path / 'waiting').exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
  os.kill(process.pid, number)
  assert process.wait(timeout=60) == 75
  assert len(list(tmp_path.glob('try-*'))) == 1


def test_a_signal_that_interrupts_no_wait_is_passed_on(tmp_path):
  """As one that comes right before the wait for the command begins.

  Here another thread has it, so that the wait of the first goes on.
  """
  code = """
import signal, sys, threading, time
import supervise
threading.Thread(target=time.sleep, args=(90,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
sys.exit(supervise.main(sys.argv[1:]))
"""
  arguments = command(tmp_path, 'wait')[len(SUPERVISE) :]
  process = subprocess.Popen(
    [sys.executable, '-c', code, *arguments],
    env=os.environ | {'PYTHONPATH': str(REPOSITORY / 'launch')},
  )
  deadline = time.monotonic() + 60
  while not (tmp_path / 'waiting').exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
  os.kill(process.pid, signal.SIGTERM)
  try:
    assert process.wait(timeout=30) == 75
  finally:
    process.kill()


def test_a_terminals_ctrl_c_reaches_the_command_once(tmp_path):
  """Twice would end it at once, without a save."""
  process = subprocess.Popen(command(tmp_path, 'count'), start_new_session=True)
  deadline = time.monotonic() + 60
  while not (tmp_path / 'waiting').exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
  # As a terminal does: to all that runs in its foreground. Two signals that
  # come at once count as one, so what is passed on must come a little later.
  os.kill(process.pid, signal.SIGSTOP)
  os.killpg(process.pid, signal.SIGINT)
  time.sleep(0.3)
  os.kill(process.pid, signal.SIGCONT)
  assert process.wait(timeout=60) == 130
  assert len(list(tmp_path.glob('interrupt-*'))) == 1


def test_a_command_that_cannot_be_started_is_one_line():
  done = subprocess.run(
    [*SUPERVISE, '--', './no-such-program'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert './no-such-program cannot be started: No such file' in line


@pytest.mark.parametrize(
  'option',
  [
    '--first-wait=nan',
    '--first-wait=inf',
    '--first-wait=-0.1',
    '--longest-wait=nan',
    '--longest-wait=-1',
    '--max-restarts=-1',
  ],
)
def test_numbers_that_cannot_be_are_one_line(capsys, option, tmp_path):
  started = tmp_path / 'started'
  assert supervise.main([option, '--', 'touch', str(started)]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  name = option.partition('=')[0]
  assert line.startswith(f'supervise: {name}=')
  assert line.endswith('must be finite and not negative.')
  assert not started.exists()


def test_the_workdir_of_the_command_tells_of_progress(tmp_path):
  program = [sys.executable, '-c', PROGRAM, str(tmp_path)]
  tries = ['save', 'save', 'save', '0', f'--workdir={tmp_path}']
  done = subprocess.run(
    [*SUPERVISE, '--max-restarts=0', '--first-wait=0', '--', *program, *tries],
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert 'step 2 is saved' in done.stderr


def test_a_command_must_be_given():
  done = subprocess.run(SUPERVISE, capture_output=True, text=True, check=False)
  assert done.returncode == 2
  assert 'no command behind --' in done.stderr
