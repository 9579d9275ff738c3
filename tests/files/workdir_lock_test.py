import errno
import json
import os
import pathlib
import signal
import threading
import time

import fault_runs
import lock_holder
import pytest

from vie_jax.files import disk, workdir_lock

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture
def holder(tmp_path):
  process = lock_holder.start(tmp_path / 'W')
  yield process
  process.kill()
  process.communicate()


def test_the_second_is_refused_by_name_and_the_first_unharmed(tmp_path, holder):
  started = time.monotonic()
  with (
    pytest.raises(workdir_lock.WorkdirLockedError) as error,
    workdir_lock.hold(tmp_path / 'W'),
  ):
    pass
  assert time.monotonic() - started < 5
  message = str(error.value)
  assert f'{tmp_path / "W"} is being written to by process' in message
  assert f'process {holder.pid} on {os.uname().nodename}' in message
  owner = json.loads((tmp_path / 'W' / '.lock').read_text())
  assert owner['pid'] == holder.pid
  assert holder.poll() is None


def test_what_a_kill_leaves_is_taken_over_at_once(tmp_path, holder):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  assert (tmp_path / 'W' / '.lock').exists()
  started = time.monotonic()
  with workdir_lock.hold(tmp_path / 'W') as check:
    assert time.monotonic() - started < 1
    owner = json.loads((tmp_path / 'W' / '.lock').read_text())
    assert owner['pid'] == os.getpid()
    check()
  assert not (tmp_path / 'W' / '.lock').exists()


def test_a_look_finds_who_has_it_and_leaves_no_trace(tmp_path, holder):
  before = (tmp_path / 'W' / '.lock').stat().st_ino
  with pytest.raises(workdir_lock.WorkdirLockedError) as error:
    workdir_lock.check_is_free(tmp_path / 'W')
  assert f'being written to by process {holder.pid} on' in str(error.value)
  assert (tmp_path / 'W' / '.lock').stat().st_ino == before
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  workdir_lock.check_is_free(tmp_path / 'W')
  assert (tmp_path / 'W' / '.lock').exists()


@pytest.mark.parametrize(
  'process',
  [1, pytest.param(os.getpid(), id='own'), 0, -1, 'x', 2**70],
)
def test_a_look_takes_no_name_for_a_lock(tmp_path, process):
  """A number may be another process's by now; the kernel knows of no lock."""
  with workdir_lock.hold(tmp_path / 'other'):
    owner = json.loads((tmp_path / 'other' / '.lock').read_text())
  write_owner(tmp_path / '.lock', boot=owner['boot'], pid=process)
  workdir_lock.check_is_free(tmp_path)


def test_a_look_leaves_other_machines_to_the_lock(tmp_path):
  workdir_lock.check_is_free(tmp_path / 'nowhere')
  write_owner(tmp_path / '.lock', pid=os.getpid())
  workdir_lock.check_is_free(tmp_path)
  assert not (tmp_path / 'nowhere').exists()


def test_given_back_it_can_be_taken_again(tmp_path):
  for _ in range(3):
    with workdir_lock.hold(tmp_path):
      (tmp_path / 'result').write_text('done')
  assert [path.name for path in tmp_path.iterdir()] == ['result']


def test_a_folder_in_which_nothing_was_left_is_removed(tmp_path):
  with pytest.raises(KeyError), workdir_lock.hold(tmp_path / 'a' / 'b'):
    raise KeyError
  assert not (tmp_path / 'a' / 'b').exists()


def write_owner(path, **changes):
  """The lock file of a process on another machine."""
  owner = {
    'host': 'far-away',
    'boot': 'another',
    'pid': 7,
    'started': 1,
    'beats': 1,
  }
  path.write_text(json.dumps(owner | changes).ljust(512))


def test_the_owner_on_another_machine_is_known_by_its_beats(tmp_path):
  """flock knows nothing of it, and neither clock is asked."""
  path = tmp_path / '.lock'
  write_owner(path)
  ends = threading.Event()

  def beat():
    for beats in range(2, 100):
      if ends.wait(2):
        return
      write_owner(path, beats=beats)

  thread = threading.Thread(target=beat)
  thread.start()
  started = time.monotonic()
  try:
    with (
      pytest.raises(workdir_lock.WorkdirLockedError, match='7 on far-away'),
      workdir_lock.hold(tmp_path),
    ):
      pass
  finally:
    ends.set()
    thread.join()
  assert time.monotonic() - started < 5


def test_without_beats_it_is_taken_over(tmp_path):
  write_owner(tmp_path / '.lock')
  started = time.monotonic()
  with workdir_lock.hold(tmp_path):
    assert 4 < time.monotonic() - started < 6
    owner = json.loads((tmp_path / '.lock').read_text())
    assert owner['pid'] == os.getpid()


def test_who_was_taken_over_learns_of_it_before_it_writes(tmp_path):
  with workdir_lock.hold(tmp_path) as check:
    check()
    write_owner(tmp_path / '.lock')
    with pytest.raises(workdir_lock.WorkdirLockedError, match='far-away'):
      check()
  # It is not ours to remove.
  assert (tmp_path / '.lock').exists()


def test_the_owner_beats(tmp_path):
  def beats():
    return json.loads((tmp_path / '.lock').read_text())['beats']

  with workdir_lock.hold(tmp_path):
    first = beats()
    deadline = time.monotonic() + 30
    while beats() == first and time.monotonic() < deadline:
      time.sleep(0.1)
    assert beats() > first


@pytest.mark.parametrize(
  'content', [b'', b'{', b'[1]', b'\xff\x00', b'0' * 9999]
)
def test_a_file_that_names_nobody_is_nobodys(tmp_path, content):
  (tmp_path / '.lock').write_bytes(content)
  with workdir_lock.hold(tmp_path) as check:
    check()
    owner = json.loads((tmp_path / '.lock').read_text().split('\n')[0])
    assert owner['pid'] == os.getpid()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
  (tmp_path / 'file').write_text('in the way')
  with (
    pytest.raises(workdir_lock.WorkdirLockedError, match='cannot be written'),
    workdir_lock.hold(tmp_path / 'file' / 'W'),
  ):
    pass


@pytest.mark.parametrize('kind', ['file', 'dangling symlink', 'lock folder'])
def test_what_is_in_the_way_is_named_with_what_to_do(tmp_path, kind):
  path = named = tmp_path / 'W'
  if kind == 'file':
    path.write_text('in the way')
  elif kind == 'dangling symlink':
    path.symlink_to(tmp_path / 'nowhere')
  else:
    named = path / '.lock'
    named.mkdir(parents=True)
  with (
    pytest.raises(workdir_lock.WorkdirLockedError) as error,
    workdir_lock.hold(path),
  ):
    pass
  message = str(error.value)
  assert message.startswith(f'{named} cannot be written to: ')
  assert 'move' in message
  assert os.path.lexists(named)


def test_a_full_disk_is_no_refusal(tmp_path):
  """It may have room at the next try; a refusal would be the last."""
  with fault_runs.small_disk(tmp_path / 'disk', '64k') as folder:
    fault_runs.fill(folder / 'full')
    with (
      pytest.raises(OSError, match='No space left') as error,
      workdir_lock.hold(folder),
    ):
      pass
    assert disk.is_no_room(error.value)
    (folder / 'full').unlink()
    with workdir_lock.hold(folder) as check:
      check()


def test_a_file_system_that_does_not_answer_may_pass(tmp_path, monkeypatch):
  def mkdir(path, **unused):
    raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))

  monkeypatch.setattr(pathlib.Path, 'mkdir', mkdir)
  with (
    pytest.raises(OSError, match='not connected') as error,
    workdir_lock.hold(tmp_path / 'W'),
  ):
    pass
  assert error.value.errno == errno.ENOTCONN


def test_a_run_s_folder_that_is_read_only_now_may_pass(tmp_path):
  with fault_runs.FailingDisk(tmp_path) as failing:
    steps = failing.folder / 'W' / 'checkpoints' / '3'
    steps.mkdir(parents=True)
    (failing.folder / 'new').mkdir()
    failing.fail()
    for folder in ('W', 'W/knn_eval/demo'):
      with (
        pytest.raises(OSError, match='Read-only') as error,
        workdir_lock.hold(failing.folder / folder),
      ):
        pass
      assert error.value.filename == str(failing.folder / folder)
    with (
      pytest.raises(workdir_lock.WorkdirLockedError, match='mounted for'),
      workdir_lock.hold(failing.folder / 'new'),
    ):
      pass
