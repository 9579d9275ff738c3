"""A Cloud TPU as a queued resource: the commands of gcloud, and its states.

Source: `gcloud compute tpus queued-resources --help`, and the states of
projects.locations.queuedResources in the REST reference of Cloud TPU.
"""

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Sequence

from job import command_runner, training_command

# On its way to ACTIVE.
WAITING = ('CREATING', 'ACCEPTED', 'WAITING_FOR_RESOURCES', 'PROVISIONING')
ACTIVE = 'ACTIVE'
# It has no machines any more: preempted, or never got them.
ENDED = ('SUSPENDING', 'SUSPENDED', 'FAILED')
DELETING = 'DELETING'
# There is none of that name.
NONE = 'NONE'
STATES = (*WAITING, ACTIVE, *ENDED, DELETING)
# How long gcloud may take: for a question or a request, and for what waits for
# machines. Set-up has them install packages, and delete waits until it is gone.
ANSWER_SECONDS = 300
WORK_SECONDS = 3600
# ssh itself finds out within two minutes that a worker does not answer any more.
_KEEP_ALIVE = ('ServerAliveInterval=30', 'ServerAliveCountMax=4')
_WORKER = re.compile(r'^vie_jax (running|none|exited (\d+))$', re.MULTILINE)
WORKER_SCRIPT = pathlib.Path(__file__).parent / 'tpu_worker.sh'


class StateError(training_command.LaunchError):
  """A state that this does not know; one line for the user.

  Attributes:
    output: as that of a `CommandError`.
  """

  def __init__(self, name: str, said: str):
    super().__init__(
      f'{name} is in the state {said!r}, which is not known here; look at it in '
      'the console.'
    )
    self.output = said


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked of the cloud.

  Attributes:
    name: of the queued resource and of its TPU.
    zone: such as us-central2-b.
    project: None takes that of gcloud's own settings.
    accelerator_type: such as v5litepod-16.
    runtime: software of the machines.
    options: further flags of `queued-resources create`.
  """

  name: str
  zone: str
  project: str | None = None
  accelerator_type: str = ''
  runtime: str = ''
  options: tuple[str, ...] = ()


class QueuedResource:
  """A queued resource with one TPU of the same name.

  Args:
    request: what it is.
    runner: runs gcloud.
  """

  def __init__(self, request: Request, runner: command_runner.Commands):
    self._request = request
    self._runner = runner

  def _place(self):
    project = self._request.project
    return (
      f'--zone={self._request.zone}',
      *([f'--project={project}'] if project else []),
      '--quiet',
    )

  def _queue(self, verb, *flags, seconds=None, **options):
    return self._runner.run(
      *('gcloud', 'compute', 'tpus', 'queued-resources', verb),
      self._request.name,
      *flags,
      *self._place(),
      seconds=seconds or ANSWER_SECONDS,
      **options,
    )

  def _is_not_found(self, output):
    """Whether the cloud says so, of this: proxies, too, find things not."""
    name = re.escape(self._request.name)
    entity = rf"(Requested entity|Resource( '[^']*/{name}')?)"
    return re.search(rf'NOT_FOUND: {entity} (was )?not found', output)

  def create(self) -> None:
    """Asks for it; returns before it is there.

    Raises:
      command_runner.CommandError: if the cloud refuses, such as for want of quota.
    """
    self._queue(
      'create',
      f'--node-id={self._request.name}',
      f'--accelerator-type={self._request.accelerator_type}',
      f'--runtime-version={self._request.runtime}',
      *self._request.options,
      '--async',
    )

  def state(self) -> str:
    """One of `STATES` or `NONE`; in a dry run only `NONE`.

    Raises:
      StateError: if the cloud names a state that is not known here.
      command_runner.CommandError: if gcloud fails otherwise.
    """
    try:
      said = self._queue(
        'describe', '--format=value(state.state)', is_shown=False
      ).strip()
    except command_runner.CommandError as error:
      if self._is_not_found(error.output):
        return NONE
      raise
    if self._runner.is_dry_run:
      return NONE
    if said not in STATES:
      raise StateError(self._request.name, said)
    return said

  def reason(self) -> str:
    """Why it failed, as the cloud has it; '' if it does not say."""
    words = '--format=value(state.failedData.error.message)'
    return ' '.join(self._queue('describe', words, is_shown=False).split())

  def delete(self) -> None:
    """Gives it back, with its machines; waits until it is gone."""
    self._queue('delete', '--force', seconds=WORK_SECONDS)

  def copy(self, files: Sequence[pathlib.Path]) -> None:
    """Copies files to the home folder of every worker."""
    self._runner.run(
      *('gcloud', 'compute', 'tpus', 'tpu-vm', 'scp'),
      *map(str, files),
      f'{self._request.name}:',
      '--worker=all',
      *(f'--scp-flag=-o {option}' for option in _KEEP_ALIVE),
      *self._place(),
      seconds=WORK_SECONDS,
    )

  def _ssh(self, worker, command):
    return (
      *('gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', self._request.name),
      f'--worker={worker}',
      f'--command={command}',
      *(f'--ssh-flag=-o {option}' for option in _KEEP_ALIVE),
      *self._place(),
    )

  def on_workers(
    self, *words: str, is_shown: bool = True, seconds: float | None = None
  ) -> str:
    """Runs launch/tpu/tpu_worker.sh with some arguments on every worker.

    Args:
      *words: the arguments.
      is_shown: whether to show the command.
      seconds: that it may take; `ANSWER_SECONDS` if None.

    Returns:
      What all of them said on standard output.

    Raises:
      command_runner.CommandError: if one of them fails, cannot be reached, or
        takes longer.
    """
    # gcloud hands the command to a shell on the worker.
    command = shlex.join(['bash', WORKER_SCRIPT.name, *words])
    return self._runner.run(
      *self._ssh('all', command),
      is_shown=is_shown,
      seconds=seconds or ANSWER_SECONDS,
    )

  def worker_states(self, name: str) -> list[int | None]:
    """Exit codes of a training on the workers, in no order.

    None stands for one that runs; -1 for a worker that has none, because its
    machine was restarted.
    """
    said = self.on_workers('state', name, is_shown=False)
    return [
      {'running': None, 'none': -1}.get(state, int(code or 0))
      for state, code in _WORKER.findall(said)
    ]

  def follow_log(self, name: str, worker: int, *, lines: int) -> None:
    """Shows the log of a worker as it grows."""
    path = f'vie_jax/runs/{name}/log'
    command = f'tail -n {lines} -F {shlex.quote(path)}'
    self._runner.follow(*self._ssh(worker, command))

  def last_lines(self, name: str, *, lines: int) -> str:
    """The ends of the logs of all workers."""
    path = shlex.quote(f'vie_jax/runs/{name}/log')
    # Several at once, so that each line says whose it is.
    prefix = shlex.quote('s/^/[/;s/$/]/')
    command = f'hostname | sed {prefix}; tail -n {lines} {path}'
    return self._runner.run(*self._ssh('all', command), seconds=ANSWER_SECONDS)
