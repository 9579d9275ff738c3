"""Training on this machine, by one process or by several.

  python launch/local.py -- --config=configs/vie_slowfast.py --workdir=W
  python launch/local.py --processes=2 --devices-per-process=4 -- \\
      --config=configs/vie_slowfast.py --workdir=W

One process sees all devices, and is enough. Several are for trying out what a
cluster does; each has its own share of the GPUs, or, with --cpu, CPU devices of
its own. Ctrl-C, SIGTERM, SIGUSR1 and, unless it is ignored, SIGHUP go to all of
them; a second Ctrl-C ends them at once. docs/launch/local.md has the rest.
"""

import argparse
import contextlib
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from job import command_runner, training_command
from job.repository import REPOSITORY

from vie_jax import option_parser
from vie_jax.processes import exit_codes
from vie_jax.standard_output import say
from vie_jax.wording import chosen, counted

_GPUS = 'CUDA_VISIBLE_DEVICES'
_CPUS = 'JAX_NUM_CPU_DEVICES'
# Of XLA_FLAGS, an older way to say the same.
_CPU_FLAG = 'xla_force_host_platform_device_count'
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def free_port() -> int:
  """A port of this machine that nobody listens on."""
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]


def gpus(options: argparse.Namespace) -> list[str]:
  """Names of the GPUs that all processes share.

  Those that the environment leaves to this process, as on a machine that others
  use, too; else the first of the machine.

  Raises:
    training_command.LaunchError: if the environment leaves too few, or says
      so in a way that CUDA reads otherwise.
  """
  number = options.processes * options.devices_per_process
  visible = os.environ.get(_GPUS)
  if visible is None:
    return [str(gpu) for gpu in range(number)]
  names = [name.strip() for name in visible.split(',') if name.strip()]
  if len({*names}) < len(names) or any(name[0] == '-' for name in names):
    raise training_command.LaunchError(
      f'{_GPUS}={visible} names a GPU twice, or one below 0, where CUDA stops '
      'reading: name each GPU once.'
    )
  if len(names) < number:
    raise training_command.LaunchError(
      f'{counted(number, "GPU")} {chosen(number, "is", "are")} asked for, '
      f'and {_GPUS}={visible} leaves {len(names)}: change it, '
      'or --devices-per-process.'
    )
  return names


def number_of_devices(options: argparse.Namespace) -> int | None:
  """Devices of all processes; None if only JAX can tell."""
  each = options.devices_per_process
  is_plain = _CPU_FLAG not in os.environ.get('XLA_FLAGS', '')
  if each is None and options.cpu and is_plain:
    # JAX's own default is one.
    set_by_hand = os.environ.get(_CPUS, '1')
    each = int(set_by_hand) if set_by_hand.isdecimal() else None
  return each and options.processes * each


def environment_of(
  process: int, options: argparse.Namespace, port: int
) -> dict[str, str]:
  """Variables that a process gets on top of this one's.

  Args:
    process: its number, from 0.
    options: of the command line.
    port: where process 0 listens for the others.
  """
  added = {}
  if options.cpu:
    added['JAX_PLATFORMS'] = 'cpu'
    if options.devices_per_process:
      added[_CPUS] = str(options.devices_per_process)
  elif options.devices_per_process:
    first = process * options.devices_per_process
    share = slice(first, first + options.devices_per_process)
    added[_GPUS] = ','.join(gpus(options)[share])
  if options.processes > 1:
    added |= {
      'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
      'JAX_NUM_PROCESSES': str(options.processes),
      'JAX_PROCESS_ID': str(process),
    }
  return added


class Group:
  """Processes that train together.

  Args:
    patience: seconds that the others have to end, once one has.
  """

  def __init__(self, patience: float):
    self._patience = patience
    self._processes: list[subprocess.Popen] = []

  def start(self, command: Sequence[str], added: Mapping[str, str]) -> None:
    """Starts one more, with some variables on top of this one's."""
    process = subprocess.Popen(
      command,
      cwd=REPOSITORY,
      env=os.environ | added,
      # The terminal's Ctrl-C must not come beside ours: twice means at once.
      start_new_session=True,
    )
    self._processes.append(process)

  def signal(self, which: int) -> None:
    """Passes a signal on to all that still run."""
    for process in self._processes:
      with contextlib.suppress(ProcessLookupError):
        process.send_signal(which)

  def wait(self) -> list[int]:
    """Waits for all; returns their exit codes, in order.

    A process that does not end `patience` seconds after another one did is
    told to by SIGTERM, and after as many seconds again ended by SIGKILL.
    """
    deadline, sent = None, []
    while any(process.poll() is None for process in self._processes):
      now = time.monotonic()
      if deadline is None and any(
        p.poll() is not None for p in self._processes
      ):
        deadline = now + self._patience
      if deadline is not None and now > deadline and len(sent) < 2:
        which = (signal.SIGTERM, signal.SIGKILL)[len(sent)]
        say(
          f'A process has ended, and others have not after {self._patience:.0f}'
          f' s more: sending {which.name}.'
        )
        sent.append(which)
        self.signal(which)
        deadline = now + self._patience
      time.sleep(0.1)
    return [process.returncode for process in self._processes]


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
  """Starts all processes and waits for them; returns one exit code."""
  group = Group(options.patience)
  handlers = {}

  def pass_on(which, unused_frame):
    group.signal(which)

  # What it does not pass on would end it alone, and leave them behind.
  for which in PASSED_ON:
    if signal.getsignal(which) != signal.SIG_IGN:
      handlers[which] = signal.signal(which, pass_on)
  try:
    port = options.port or free_port()
    for process in range(options.processes):
      added = environment_of(process, options, port)
      group.start([sys.executable, *words], added)
    return training_command.exit_code_of(group.wait())
  finally:
    for which, handler in handlers.items():
      signal.signal(which, handler)


def dry_run(options: argparse.Namespace, words: Sequence[str]) -> None:
  """Prints what would be started, one line for each process."""
  # The real port is one that is free when the processes start.
  port = options.port or 'PORT'
  say(f'$ cd {shlex.quote(str(REPOSITORY))}')
  for process in range(options.processes):
    added = environment_of(process, options, port)
    variables = [f'{name}={value}' for name, value in added.items()]
    prefix = ['env', *variables] if variables else []
    say(f'$ {shlex.join([*prefix, sys.executable, *words])}')


def _parser() -> option_parser.OptionParser:
  parser = option_parser.OptionParser(
    usage='%(prog)s [options] -- ARGUMENTS OF main.py',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add, number = parser.add_argument, training_command.number
  add('--processes', type=number(1, 64), default=1, help='how many (1)')
  add(
    '--devices-per-process',
    type=number(1, 64),
    metavar='N',
    help='GPUs of each process, or, with --cpu, CPU devices',
  )
  add('--cpu', action='store_true', help='use the CPU, also where GPUs are')
  add(
    '--port',
    type=number(1024, 65535),
    help='where process 0 listens (one that is free)',
  )
  add(
    '--patience',
    type=number(1),
    default=120,
    metavar='SECONDS',
    help='that the others have to end, once one process has (120)',
  )
  add('--dry-run', action='store_true', help='print what would be started')
  return parser


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  own, rest = training_command.split(
    sys.argv[1:] if arguments is None else arguments
  )
  parser = _parser()
  try:
    training_command.refuse_secrets(own)
    options = parser.parse_args(own)
    is_shared = options.processes > 1 and not options.cpu
    if is_shared and not options.devices_per_process:
      parser.error(
        'several processes need --devices-per-process=N, so that each has GPUs '
        'of its own, or --cpu'
      )
    training = training_command.check(rest, is_remote=False)
    training_command.check_processes(training, options.processes)
    devices = number_of_devices(options)
    training_command.check_devices(training, devices, options.processes)
    if options.devices_per_process and not options.cpu:
      gpus(options)
  except training_command.LaunchError as error:
    command_runner.complain(error)
    return error.exit_code
  if options.dry_run:
    dry_run(options, training.words)
    return exit_codes.DONE
  return run(options, training.words)


if __name__ == '__main__':
  sys.exit(main())
