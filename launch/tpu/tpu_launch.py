"""A training on a Cloud TPU, from asking for the TPU to giving it back."""

import argparse
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

from job import command_runner, training_command
from job.repository import REPOSITORY

from tpu import queued_resource, tpu_slices
from vie_jax.processes import exit_codes
from vie_jax.standard_output import say
from vie_jax.wording import counted

# Archives of the code, kept out of git.
ARCHIVES = REPOSITORY / '.launch'
# Set-up and start are tried again, because machines that were just made do
# not always answer.
ATTEMPTS = 3
# Questions in a row that need not be answered.
PATIENCE = 10
LAST_LINES = 30
# What gcloud says if waiting does not help: no project, no account, no right.
_NOT_SET_UP = re.compile(
  r'required property \[|active account selected|valid credentials'
  r'|invalid_grant|reauthentication|UNAUTHENTICATED|PERMISSION_DENIED',
  re.IGNORECASE,
)


class _PreemptedError(Exception):
  """The TPU has been taken away."""


def _git(*words):
  return subprocess.run(
    ['git', *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
  )


def commit_of(revision: str) -> str:
  """The full name of a commit of this repository.

  Raises:
    training_command.LaunchError: if there is none of that name.
  """
  done = _git('rev-parse', '--verify', '--quiet', f'{revision}^{{commit}}')
  if done.returncode:
    raise training_command.LaunchError(
      f'--commit={revision} is no commit of {REPOSITORY}.'
    )
  return done.stdout.strip()


def command(verb: str, options: argparse.Namespace) -> str:
  """Another verb of launch/cloud_tpu.py for the same TPU, to copy."""
  project = f' --project={options.project}' if options.project else ''
  return (
    f'python launch/cloud_tpu.py {verb} --name={options.name} '
    f'--zone={options.zone}{project}'
  )


def request(options: argparse.Namespace) -> queued_resource.Request:
  """What to ask the cloud for.

  Raises:
    training_command.LaunchError: if there is no such type of TPU.
  """
  size = tpu_slices.of_type(options.accelerator_type)
  flags = [f'--{options.tier}'] if options.tier else []
  for name in ('network', 'subnetwork', 'service_account'):
    value = getattr(options, name)
    if value:
      flags.append(f'--{name.replace("_", "-")}={value}')
  return queued_resource.Request(
    options.name,
    options.zone,
    options.project,
    options.accelerator_type,
    options.runtime or tpu_slices.VERSIONS[size.version].runtime,
    tuple(flags),
  )


def _is_not_set_up(error):
  return _NOT_SET_UP.search(error.output) is not None


def _nothing_asked_for(error):
  """What gcloud refused, and how it is set up."""
  words = str(error).rstrip('.')
  return training_command.LaunchError(
    f'{words}. This command has asked for no TPU. Log in by "gcloud auth '
    'login", name the project by "gcloud config set project PROJECT" or '
    '--project, and run it again.'
  )


def _tell(error, told):
  """Shows a refusal at once, but each wording only once."""
  if str(error) not in told:
    told.add(str(error))
    command_runner.complain(error)


class Launch:
  """Trains on a Cloud TPU.

  Args:
    options: of the command line.
    training: what is run on every worker.
    runner: runs programs.
  """

  def __init__(
    self,
    options: argparse.Namespace,
    training: training_command.Training,
    runner: command_runner.Commands,
  ):
    self._options = options
    size = tpu_slices.of_type(options.accelerator_type)
    training_command.check_processes(training, size.hosts)
    training_command.check_devices(training, size.devices, size.hosts)
    self._num_workers = size.hosts
    self._training = training
    self._runner = runner
    self._resource = queued_resource.QueuedResource(request(options), runner)
    # Whether there was ever a TPU or a request for one, which may cost.
    self._was_seen = False
    self._was_active = False
    self._commit = commit_of(options.commit)
    self._archive = ARCHIVES / f'vie_jax-{self._commit}.tar.gz'

  def run(self) -> int:
    """Trains to the end; returns main.py's exit code.

    Raises:
      training_command.LaunchError: if the cloud refuses, takes the TPU away
        too often, or does not answer.
    """
    if _git('status', '--porcelain').stdout.strip():
      say(f'{self._options.commit} is run; changes without a commit are not.')
    preemptions = restarts = 0
    while True:
      try:
        self._make_active()
        self._set_up()
        self._start()
        code = self._watch()
      except _PreemptedError:
        preemptions += 1
        say(f'The TPU has been taken away ({preemptions}).')
        if preemptions > self._options.max_preemptions:
          raise training_command.TryAgainError(
            f'Given up after {counted(preemptions, "preemption")}. '
            f'{self._what_now()}'
          ) from None
        continue
      if code in exit_codes.FINAL:
        return code
      restarts += 1
      say(f'main.py ended with exit code {code} ({restarts}).')
      if restarts > self._options.max_restarts:
        raise training_command.TryAgainError(
          f'Given up after main.py ended {counted(restarts, "time")}, at last '
          f'with exit code {code}. {self._what_now()}'
        )

  def _what_now(self):
    delete = command('delete', self._options)
    return (
      'The same command resumes from the newest checkpoint. A TPU that is '
      f'there costs until it is deleted: {delete}'
    )

  def _wait(self):
    time.sleep(self._options.poll_seconds)

  def _state(self):
    """State of the queued resource, however often one has to ask.

    Raises:
      training_command.LaunchError: if gcloud does not answer for long, or says
        nothing that is known, or, at once, if it is not set up.
    """
    failures, told = 0, set()
    while True:
      try:
        state = self._resource.state()
      except (command_runner.CommandError, queued_resource.StateError) as error:
        failures += 1
        self._bear_silence(error, failures)
        _tell(error, told)
        self._wait()
      else:
        self._was_seen |= state != queued_resource.NONE
        return state

  def _bear_silence(self, error, failures):
    """Takes it that the question for the state fails, for a while.

    Raises:
      training_command.LaunchError: if that was not for a while.
    """
    if not self._was_seen and _is_not_set_up(error):
      raise _nothing_asked_for(error) from error
    if failures == PATIENCE:
      raise self._given_up(error) from error

  def _given_up(self, error):
    words = str(error).rstrip('.')
    return training_command.TryAgainError(f'{words}. {self._what_now()}')

  def _make_active(self):
    """Asks for a TPU, unless it is there, and waits until it is.

    Raises:
      _PreemptedError: if it is taken away before it is active.
      training_command.LaunchError: if it cannot be had.
    """
    shown = ''
    was_waiting = False
    failures, told = 0, set()
    while True:
      state = self._state()
      if state != shown:
        now = time.strftime('%H:%M:%S')
        say(f'{now} {self._options.name}: {state}')
        shown = state
      if state == queued_resource.ACTIVE:
        self._was_active = True
        return
      if state in queued_resource.ENDED and was_waiting:
        self._refuse(state)
      try:
        self._ask_again(state)
      except command_runner.CommandError as error:
        failures += 1
        self._bear(error, state, failures, told)
        self._wait()
        continue
      if state not in queued_resource.ENDED:
        was_waiting = state != queued_resource.DELETING
        self._wait()

  def _ask_again(self, state):
    """Has what has ended deleted, and what is not there created."""
    if state in queued_resource.ENDED:
      self._resource.delete()
    elif state == queued_resource.NONE:
      self._resource.create()
      self._was_seen = True

  def _bear(self, error, state, failures, told):
    """Takes it that the cloud refuses, for a while: nobody may be watching.

    Raises:
      training_command.LaunchError: if that was not for a while, or the very
        first request is refused.
    """
    if not self._was_active and state == queued_resource.NONE:
      if self._was_seen or not _is_not_set_up(error):
        # It may have been heard all the same.
        if error.exit_code == exit_codes.RETRY:
          raise self._given_up(error) from error
        raise error
      raise _nothing_asked_for(error) from error
    if failures == PATIENCE:
      raise self._given_up(error) from error
    _tell(error, told)

  def _refuse(self, state):
    """A request that has ended before it was active."""
    if state != 'FAILED':
      raise _PreemptedError
    # Not taken away, but never given: asking again would not help.
    reason = self._resource.reason() or 'the cloud does not say why'
    raise training_command.LaunchError(
      f'The request has failed: {reason}. To be rid of it: '
      f'{command("delete", self._options)}'
    )

  def _set_up(self):
    ARCHIVES.mkdir(exist_ok=True)
    self._pack()
    self._try_again(self._copy)
    self._try_again(self._bootstrap)

  def _pack(self):
    self._runner.run(
      *('git', '-C', str(REPOSITORY), 'archive', '--format=tar.gz'),
      f'--output={self._archive}',
      self._commit,
    )

  def _copy(self):
    self._resource.copy([self._archive, queued_resource.WORKER_SCRIPT])

  def _bootstrap(self):
    self._resource.on_workers(
      *('bootstrap', self._commit, self._options.bucket, self._options.mount),
      seconds=queued_resource.WORK_SECONDS,
    )

  def _start(self):
    self._try_again(self._start_once)

  def _start_once(self):
    self._resource.on_workers(
      'start', self._options.name, self._commit, *self._training.arguments
    )

  def _try_again(self, step: Callable[[], Any]):
    """Does a step, again if a worker does not answer.

    Raises:
      _PreemptedError: if the reason is that the TPU is gone.
    """
    told = set()
    for attempt in range(1, ATTEMPTS + 1):
      try:
        step()
        return
      except command_runner.CommandError as error:
        self._check_active()
        if attempt == ATTEMPTS:
          raise self._given_up(error) from error
        _tell(error, told)
        self._wait()

  def _check_active(self):
    """Looks whether the TPU is there.

    Raises:
      _PreemptedError: if it has been taken away.
      training_command.LaunchError: if somebody has deleted it, which the cloud
        does not do by itself: another one would not be wanted.
    """
    state = self._state()
    if state == queued_resource.NONE:
      # What is there, too, is "not found" for a while.
      self._wait()
      state = self._state()
    if state in (queued_resource.NONE, queued_resource.DELETING):
      raise training_command.LaunchError(
        f'{self._options.name} has been deleted. The same command asks for '
        'another one and resumes from the newest checkpoint. If it is still '
        f'there, it costs: {command("delete", self._options)}'
      )
    if state != queued_resource.ACTIVE:
      raise _PreemptedError

  def _watch(self):
    """Waits until main.py has ended on all workers; returns one exit code.

    Raises:
      _PreemptedError: if the TPU is taken away.
    """
    failures, told = 0, set()
    while True:
      self._wait()
      self._check_active()
      try:
        states = self._worker_states()
      except training_command.LaunchError as error:
        failures += 1
        if failures < PATIENCE:
          _tell(error, told)
          continue
        raise training_command.TryAgainError(
          f'A worker does not answer, {failures} times in a row: {error}. '
          f'{self._what_now()}'
        ) from error
      failures, told = 0, set()
      if None not in states:
        return training_command.exit_code_of(states)

  def _worker_states(self):
    """Asks all workers how they are; see QueuedResource.worker_states.

    Raises:
      training_command.LaunchError: if not each of them says it.
    """
    states = self._resource.worker_states(self._options.name)
    if len(states) != self._num_workers:
      raise training_command.LaunchError(
        f'{len(states)} of {self._num_workers} workers say how they are'
      )
    return states

  def finish(self, code: int) -> None:
    """Shows the ends of the logs, and gives the TPU back.

    Args:
      code: main.py's exit code.

    Raises:
      training_command.TryAgainError: if the cloud does not take it.
    """
    try:
      self._show_last_lines()
    except command_runner.CommandError as error:
      # Not worth paying on for.
      command_runner.complain(error)
    if self._options.keep:
      say(
        'The TPU is kept, and costs until it is deleted: '
        f'{command("delete", self._options)}'
      )
    else:
      self._give_back(code)

  def _give_back(self, code):
    failures, told = 0, set()
    while True:
      try:
        self._resource.delete()
        return
      except command_runner.CommandError as error:
        failures += 1
        if self._state() in (queued_resource.NONE, queued_resource.DELETING):
          return
        if failures == PATIENCE:
          words = str(error).rstrip('.')
          raise training_command.TryAgainError(
            f'main.py has ended with exit code {code}, but the TPU cannot be '
            f'given back: {words}. {self._what_now()}'
          ) from error
        _tell(error, told)
        self._wait()

  def _show_last_lines(self):
    name = self._options.name
    say(self._resource.last_lines(name, lines=LAST_LINES))

  def dry_run(self) -> None:
    """Prints what `run` does if nothing goes wrong, and what else if it does."""
    options, note = self._options, say
    size = tpu_slices.of_type(options.accelerator_type)
    seconds = options.poll_seconds
    note(
      f'# {options.accelerator_type}: {counted(size.chips, "chip")}, '
      f'{counted(size.hosts, "worker")}; runs commit {self._commit}'
    )
    self._resource.state()
    note('# if there is none:')
    self._resource.create()
    note(f'# then every {seconds} s the first command, until it says ACTIVE')
    self._pack()
    self._copy()
    self._bootstrap()
    self._start_once()
    note(f'# then every {seconds} s, until main.py has ended on all workers:')
    self._resource.state()
    self._resource.worker_states(options.name)
    note(
      '# if it says anything but ACTIVE, up to '
      f'{counted(options.max_preemptions, "time")} from the start:'
    )
    self._resource.delete()
    note(
      '# if main.py ends with another exit code than 0, 2 or 130, up to '
      f'{counted(options.max_restarts, "time")} from "git archive" on'
    )
    note('# at the end:')
    self._resource.last_lines(options.name, lines=LAST_LINES)
    if not options.keep:
      self._resource.delete()
