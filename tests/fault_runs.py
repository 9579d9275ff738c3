"""Runs that something happens to: started, hit at a moment, looked at after."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
import tiny_run
from tensorboard.backend.event_processing import event_accumulator

from vie_jax import blueprint, checkpoint, experiment
from vie_jax.saved_steps import commit_record
from vie_jax.telemetry import metrics_file

RETRY, INTERRUPTED, REFUSED = 75, 130, 2
TERM, INT, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
KILL = signal.SIGKILL
# Of the process, not of the run.
TIMES = (
  'steps_per_sec',
  'uptime',
  'input/wait_share',
  'eval/seconds',
  'val/seconds',
)


def steps_of(workdir):
  """The saved steps, in order."""
  records = (workdir / 'checkpoints').glob(f'*/{commit_record.FILE}')
  names = [path.parent.name for path in records]
  return sorted(int(name) for name in names if name.isdigit())


def has_logged(workdir, text):
  """Function that says whether a run's log has come to a text."""
  return lambda: any(
    text in path.read_text() for path in workdir.glob('train*.log')
  )


def has_step(workdir, step, name='train/loss'):
  """Function that says whether a run's figures have come to a step."""

  def check():
    return any(
      line['step'] == step and name in line
      for line in metrics_file.read(workdir)
    )

  return check


def wait_until(is_so, process):
  """Polls; fails with what the process said if that ends first."""
  deadline = time.monotonic() + tiny_run.PATIENCE_SECONDS
  while not is_so():
    assert process.poll() is None, tiny_run.output_of(process)
    assert time.monotonic() < deadline
    time.sleep(0.005)


class Ended:
  """A process that came to its end.

  Attributes:
    code: its exit code.
    output: both streams.
    seconds: from `since` to the end.
  """

  def __init__(self, process, since=None):
    since = time.monotonic() if since is None else since
    self.output = tiny_run.output_of(process)
    self.seconds = time.monotonic() - since
    self.code = process.returncode


def hit(command, is_so, *signals, **options):
  """Starts a command and sends it signals when something is so."""
  process = tiny_run.start(command, **options)
  wait_until(is_so, process)
  since = time.monotonic()
  for number in signals:
    os.kill(process.pid, number)
    time.sleep(0.05)
  return Ended(process, since)


def finish(command, **options):
  """Runs a command to its end, whatever its exit code."""
  return Ended(tiny_run.start(command, **options))


def leaves_of(workdir, config, step=None):
  """Every leaf of a checkpoint, the newest by default, by its path."""
  rule, _ = blueprint.build_optimizer(config)
  with (
    experiment.open_experiment(config) as parts,
    checkpoint.Checkpoints(workdir, read_only=True) as checkpoints,
  ):
    initialize = experiment.state_initializer(parts, rule)
    shapes = experiment.state_shapes(initialize, parts.mesh)
    step = checkpoints.latest_step if step is None else step
    state = checkpoints.restore(step, shapes)
  state = state.replace(key=jax.random.key_data(state.key))
  return {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in jax.tree.leaves_with_path(state)
  }


def figures(workdir):
  """(step, name) -> value of a run's log; none may occur twice."""
  result = {}
  for line in metrics_file.read(workdir):
    for name, value in line.items():
      if name != 'step' and name not in TIMES:
        assert (line['step'], name) not in result
        result[line['step'], name] = value
  return result


def tensorboard_steps(workdir, name='loss'):
  """The steps at which TensorBoard shows a figure or a text, in order."""
  accumulator = event_accumulator.EventAccumulator(
    str(workdir), size_guidance={event_accumulator.TENSORS: 0}
  )
  accumulator.Reload()
  return [event.step for event in accumulator.Tensors(name)]


def assert_same_end(one, other, config):
  """Both workdirs hold the same last state, to the bit."""
  assert steps_of(one)[-1] == steps_of(other)[-1] == config.num_steps
  expected, found = leaves_of(one, config), leaves_of(other, config)
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)


_PATCHED = """
import runpy, sys
sys.path[:0] = [{repository!r}]
sys.argv[0] = {main!r}
{patch}
runpy.run_path({main!r}, run_name='__main__')
"""


def patched(command, patch):
  """A command of `tiny_run` in whose process some lines are run first."""
  python, main, *arguments = command
  code = _PATCHED.format(
    repository=str(tiny_run.REPOSITORY), main=main, patch=patch
  )
  return [python, '-c', code, *arguments]


class Announced:
  """A command that says in a file what it is about to do, as the watchdog hears.

  Attributes:
    command: does what `command` does.

  Args:
    command: of `tiny_run`.
    path: of the file.
  """

  _LENGTH = 64

  def __init__(self, command, path):
    self._path = path
    self.command = patched(
      command,
      f"""
import os
from vie_jax.processes import watchdog
announcements = os.open({str(path)!r}, os.O_CREAT | os.O_WRONLY)
sound = watchdog.Watchdog.expect
def expect(self, what, **options):
  words = what.encode().ljust({self._LENGTH})[:{self._LENGTH}]
  os.pwrite(announcements, words, 0)
  sound(self, what, **options)
watchdog.Watchdog.expect = expect
""",
    )

  def forget(self):
    """To be called before the command is started."""
    self._path.unlink(missing_ok=True)

  def last(self):
    """What the command was about to do, such as 'step 7'."""
    if not self._path.exists():
      return ''
    return self._path.read_text().strip()

  def step(self):
    """The number of the step that it was about to take; None for other things.

    Steps that wait for their batch count, too.
    """
    found = re.fullmatch('(?:the batch of )?step ([0-9]+)', self.last())
    return int(found[1]) if found else None


def is_saving(workdir):
  """Whether a folder of a step is there that has not got its name yet."""
  return any((workdir / 'checkpoints').glob('*.saving*'))


def spoiled_batches(*steps):
  """Lines that put NaN into the crops of training batches, steps from 1."""
  return f"""
import contextlib
import numpy as np
from vie_jax import experiment
sound = experiment.train_batches
@contextlib.contextmanager
def spoiled(parts, *, start_step, seed):
  with sound(parts, start_step=start_step, seed=seed) as batches:
    def give():
      for step, batch in enumerate(batches, start_step + 1):
        if step in {steps!r}:
          batch['crop'] = np.array(batch['crop'])
          batch['crop'][2, 3] = np.nan
        yield batch
    yield give()
experiment.train_batches = spoiled
"""


def digests_of(workdir):
  """Item -> leaf -> digest of the newest saved step, and that step."""
  step = steps_of(workdir)[-1]
  path = workdir / 'checkpoints' / str(step) / commit_record.FILE
  return step, json.loads(path.read_text())['items']


def kill_children(pid):
  """Kills the children of a process at once; returns how many there were."""
  count, children = 0, ''
  with contextlib.suppress(FileNotFoundError):  # It has just ended.
    children = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text()
  for child in map(int, children.split()):
    with contextlib.suppress(ProcessLookupError):
      os.kill(child, signal.SIGKILL)
      count += 1
  return count


def mount(*arguments):
  """Mounts; skips the test where that is not permitted."""
  if (
    not shutil.which('mount')
    or subprocess.run(['mount', *arguments], check=False).returncode
  ):
    pytest.skip('no file system can be mounted here')


@contextlib.contextmanager
def small_disk(folder, size):
  """A file system of some bytes; skips where none can be mounted."""
  folder.mkdir()
  mount('-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder)
  try:
    yield folder
  finally:
    # Lazily: what a test that fails has open must not keep it.
    subprocess.run(['umount', '--lazy', folder], check=True)


class FailingDisk:
  """An ext4 file system in a file, which turns read-only when it fails.

  Open files are no exception, as where a real disk fails. A context manager
  that keeps it mounted.

  Attributes:
    folder: that it is mounted at.

  Args:
    folder: where an image and a mount point are made.
  """

  def __init__(self, folder):
    self._image, self.folder = folder / 'image', folder / 'disk'
    self.folder.mkdir()
    with self._image.open('wb') as image:
      image.truncate(2**28)
    if not shutil.which('mkfs.ext4'):
      pytest.skip('no ext4 can be made here')
    subprocess.run(['mkfs.ext4', '-q', self._image], check=True)

  def __enter__(self):
    self._mount()
    return self

  def __exit__(self, *unused_exception):
    # Lazily: what a test that fails has open must not keep it.
    subprocess.run(['umount', '--lazy', self.folder], check=True)

  def _mount(self):
    mount('-o', 'loop,errors=remount-ro,commit=600', self._image, self.folder)

  def fail(self):
    """Has the file system find an error in itself."""
    device = subprocess.run(
      ['findmnt', '--noheadings', '--output=SOURCE', self.folder],
      check=True,
      capture_output=True,
      text=True,
    ).stdout.strip()
    name = pathlib.Path(device).name
    pathlib.Path(f'/sys/fs/ext4/{name}/trigger_fs_error').write_text('test')

  def repair(self):
    """Has it be as before; nothing on it may be open."""
    subprocess.run(['umount', self.folder], check=True)
    check = subprocess.run(['e2fsck', '-f', '-y', self._image], check=False)
    assert check.returncode in (0, 1)
    self._mount()


def fill(path):
  """Leaves no byte on the disk of a new file."""
  with path.open('wb', buffering=0) as file, contextlib.suppress(OSError):
    for size in (2**20, 2**12, 1):
      with contextlib.suppress(OSError):
        while file.write(bytes(size)) == size:
          pass
