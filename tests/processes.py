"""Several processes as one run: real ones, on CPU devices of this machine."""

import contextlib
import dataclasses
import pathlib
import socket
import subprocess
import time

import tiny_run


@dataclasses.dataclass(frozen=True)
class Ended:
  """A process that came to its end.

  Attributes:
    code: exit code.
    output: what it wrote to standard output.
    log: to standard error.
    seconds: from the start of all of them to its end.
  """

  code: int
  output: str
  log: str
  seconds: float


def free_port():
  """A port that nothing listened to a moment ago."""
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]


def variables(index, count, port):
  """What connects process `index` of `count`."""
  return {
    'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
    'JAX_NUM_PROCESSES': str(count),
    'JAX_PROCESS_ID': str(index),
  }


class Processes:
  """Processes of one run, each with a command of its own.

  Args:
    commands: one of each process.
    folder: receives what they say.
    num_devices: of each process.
    environs: variables that a process has besides, or None.
    cwds: folder that each process is in, or None.
  """

  def __init__(
    self, commands, folder, *, num_devices=2, environs=None, cwds=None
  ):
    port, count = free_port(), len(commands)
    self._folder = pathlib.Path(folder)
    self._folder.mkdir(parents=True, exist_ok=True)
    self._started = time.monotonic()
    self.processes = []
    for index, command in enumerate(commands):
      connected = variables(index, count, port) if count > 1 else {}
      more = environs[index] if environs else {}
      with self._file(index, 'out') as out, self._file(index, 'err') as err:
        self.processes.append(
          subprocess.Popen(
            command,
            cwd=cwds[index] if cwds else tiny_run.REPOSITORY,
            env=tiny_run.environment(num_devices) | connected | more,
            stdout=out,
            stderr=err,
            start_new_session=True,
          )
        )

  def _file(self, index, kind, mode='wb'):
    return (self._folder / f'process-{index}.{kind}').open(mode)

  def said(self, index, kind='err'):
    """What a process has written until now."""
    with self._file(index, kind, 'rb') as file:
      return file.read().decode()

  def wait(self, patience=tiny_run.PATIENCE_SECONDS):
    """Waits for all of them, which must end; returns `Ended` of each."""
    ended = {}
    try:
      while len(ended) < len(self.processes):
        for index, process in enumerate(self.processes):
          if index not in ended and process.poll() is not None:
            ended[index] = time.monotonic() - self._started
        if time.monotonic() > self._started + patience:
          logs = [self.said(index)[-2000:] for index in range(len(self))]
          raise TimeoutError('\n\n'.join(logs))
        time.sleep(0.05)
    finally:
      self.kill()
    return [
      Ended(
        process.returncode,
        self.said(index, 'out'),
        self.said(index),
        ended[index],
      )
      for index, process in enumerate(self.processes)
    ]

  def kill(self):
    """Ends what is left of them at once."""
    for process in self.processes:
      if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
          tiny_run.kill(process)

  def __len__(self):
    return len(self.processes)


def run(commands, folder, **options):
  """Runs processes that must all succeed; returns `Ended` of each."""
  ended = Processes(commands, folder, **options).wait()
  for process in ended:
    assert process.code == 0, process.log
  return ended
