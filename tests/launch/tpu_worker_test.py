"""launch/tpu/tpu_worker.sh, run here: only the cloud's own tools are stand-ins."""

import os
import pathlib
import subprocess
import time

import linters
import pytest
import tiny_run

SCRIPT = tiny_run.REPOSITORY / 'launch' / 'tpu' / 'tpu_worker.sh'
COMMIT = 'c0ffee'
BOOTSTRAP = ('bootstrap', COMMIT, 'my-bucket')
# In place of main.py: says what it was given, and does what it is told.
PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print('arguments', sys.argv[1:], flush=True)
if sys.argv[1] == 'wait':
  time.sleep(60)
sys.exit(int(sys.argv[1]))
"""
# As the real one makes an environment and installs into it.
UV = """
case "$1" in
  venv) mkdir -p "${!#}/bin"; ln -s "$(command -v python3)" "${!#}/bin/python" ;;
  pip) [[ ! -e "${HOME}/no-space" ]] ;;
esac
"""


@pytest.fixture
def worker(tmp_path, stand_ins):
  """A worker's home, with the code as it was copied there."""
  home = tmp_path / 'home'
  (home / 'vie_jax' / 'uv' / 'bin').mkdir(parents=True)
  code = tmp_path / 'code'
  code.mkdir()
  (code / 'main.py').write_text(PROGRAM)
  archive = home / f'vie_jax-{COMMIT}.tar.gz'
  subprocess.run(['tar', '-czf', archive, '-C', code, '.'], check=True)
  mounted = tmp_path / 'mounted'
  stand_ins.install_script('uv', UV)
  (home / 'vie_jax' / 'uv' / 'bin' / 'uv').symlink_to(stand_ins.folder / 'uv')
  stand_ins.install_script('sudo', '[[ "$1" != mkdir ]] || "$@"')
  stand_ins.install_script('mountpoint', f'[[ -e {mounted} ]]')
  stand_ins.install_script('findmnt', f'cat {mounted}')
  stand_ins.install_script('gcsfuse', f'echo "$2" >{mounted}')
  yield Worker(home, tmp_path / 'mnt')
  Worker(home, tmp_path / 'mnt').run('stop', 'vie')


class Worker:
  """Runs the script with a home folder of its own."""

  def __init__(self, home, mount):
    self.home = home
    self.mount = str(mount)
    self.log = home / 'vie_jax' / 'runs' / 'vie' / 'log'

  def run(self, *arguments):
    return subprocess.run(
      ['bash', SCRIPT, *arguments],
      env=os.environ | {'HOME': str(self.home)},
      capture_output=True,
      text=True,
      check=False,
    )

  def succeed(self, *arguments):
    done = self.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done

  def state(self):
    return self.succeed('state', 'vie').stdout

  def wait_for(self, state):
    until = time.monotonic() + 30
    while self.state() != state and time.monotonic() < until:
      time.sleep(0.1)
    assert self.state() == state

  def wait_for_log(self):
    """By then it listens to signals."""
    until = time.monotonic() + 30
    while not self.log.read_text() and time.monotonic() < until:
      time.sleep(0.1)


def test_shellcheck_has_nothing_against_it():
  for path in sorted(tiny_run.REPOSITORY.glob('launch/**/*.sh')):
    assert linters.shellcheck(path.read_text()) == '', path


def test_what_serves_the_bucket_keeps_no_lock(worker, stand_ins):
  mounted = worker.home.parent / 'mounted'
  # As the real one: a process that lives as long as the mount.
  stand_ins.install_script(
    'gcsfuse', f'echo "$2" >{mounted}; sleep 61 </dev/null >&/dev/null &'
  )
  for _ in range(2):
    worker.succeed(*BOOTSTRAP, worker.mount)
  assert (
    subprocess.run(['pkill', '-f', 'sleep 61'], check=False).returncode == 0
  )


def test_a_set_up_waits_for_another_one_and_says_so(worker):
  lock = worker.home / 'vie_jax' / 'lock'
  with subprocess.Popen(['flock', lock, 'sleep', '1']):
    time.sleep(0.5)
    done = worker.succeed(*BOOTSTRAP, worker.mount)
  assert 'waiting for another set-up' in done.stderr


def programs(stand_ins):
  return [call[0] for call in stand_ins.calls]


def test_bootstrap_sets_up_once(worker, stand_ins):
  worker.succeed(*BOOTSTRAP, worker.mount)
  assert (worker.home / 'vie_jax' / COMMIT / 'code' / 'main.py').exists()
  venv, install = (call for call in stand_ins.calls if call[0] == 'uv')
  assert venv[-1] == str(worker.home / 'vie_jax' / COMMIT / 'venv')
  code = f'{worker.home}/vie_jax/{COMMIT}/code'
  assert install[-6:] == [
    '--constraint',
    f'{code}/constraints.txt',
    '--constraint',
    f'{code}/launch/constraints.txt',
    '--editable',
    f'{code}[tpu,gcs]',
  ]
  assert ['gcsfuse', '--implicit-dirs', 'my-bucket', worker.mount] in (
    stand_ins.calls
  )
  before = len(stand_ins.calls)
  again = worker.succeed(*BOOTSTRAP, worker.mount)
  assert {call[0] for call in stand_ins.calls[before:]} == {
    'mountpoint',
    'findmnt',
  }
  assert 'are there' in again.stderr


def test_a_set_up_that_was_cut_short_is_done_again(worker, stand_ins):
  (worker.home / 'no-space').touch()
  assert worker.run(*BOOTSTRAP, worker.mount).returncode != 0
  (worker.home / 'no-space').unlink()
  worker.succeed(*BOOTSTRAP, worker.mount)
  assert programs(stand_ins).count('uv') == 4


def test_another_bucket_is_not_hidden(worker):
  worker.succeed(*BOOTSTRAP, worker.mount)
  done = worker.run('bootstrap', COMMIT, 'other', worker.mount)
  assert done.returncode != 0
  assert 'is my-bucket, not the bucket other' in done.stderr


def test_a_training_starts_once_and_tells_how_it_ended(worker):
  worker.succeed(*BOOTSTRAP, worker.mount)
  assert worker.state() == 'vie_jax none\n'
  worker.succeed('start', 'vie', COMMIT, 'wait', "--b='c d' $HOME")
  assert worker.state() == 'vie_jax running\n'
  worker.wait_for_log()
  again = worker.succeed('start', 'vie', COMMIT, 'wait')
  assert 'runs already' in again.stderr
  worker.succeed('stop', 'vie')
  worker.wait_for('vie_jax exited 75\n')
  assert worker.log.read_text() == ("arguments ['wait', \"--b='c d' $HOME\"]\n")


@pytest.mark.parametrize('code', [0, 2, 75])
def test_exit_codes(worker, code):
  worker.succeed(*BOOTSTRAP, worker.mount)
  worker.succeed('start', 'vie', COMMIT, str(code))
  worker.wait_for(f'vie_jax exited {code}\n')


def test_it_starts_again_and_the_log_goes_on(worker):
  worker.succeed(*BOOTSTRAP, worker.mount)
  for code in ('75', '0'):
    worker.succeed('start', 'vie', COMMIT, code)
    worker.wait_for(f'vie_jax exited {code}\n')
  assert len(worker.log.read_text().splitlines()) == 2


def test_a_restart_of_the_machine_is_no_running_training(worker):
  """Its number may be somebody else's by then."""
  worker.succeed(*BOOTSTRAP, worker.mount)
  worker.succeed('start', 'vie', COMMIT, '0')
  worker.wait_for('vie_jax exited 0\n')
  (worker.log.parent / 'exit_code').unlink()
  (worker.log.parent / 'pid').write_text(f'{os.getpid()}\n')
  pytest_command = pathlib.Path(f'/proc/{os.getpid()}/cmdline').read_bytes()
  assert b'main.py' not in pytest_command
  assert worker.state() == 'vie_jax none\n'


def test_what_it_does_not_know(worker):
  done = worker.run('destroy')
  assert done.returncode == 1
  assert 'unknown: destroy' in done.stderr
