"""Runs a command again for as long as its exit code says that this may help.

  python launch/supervise.py [--max-restarts=N] [--progress=WORKDIR] -- \
      python main.py --config=configs/vie_slowfast.py --workdir=WORKDIR

0 is for done, 2 for a mistake that another try would meet again, 130 for
Ctrl-C: they end it. Every other code, 75 above all, and death by a signal mean
"again": at once after a try with progress, and otherwise after a wait, which
doubles from --first-wait to --longest-wait seconds; --max-restarts tries
without progress are the last ones. Progress is a step that is saved, in
WORKDIR/checkpoints or, of other modes, in WORKDIR/MODE/NAME/checkpoints;
without --progress, and without a --workdir in the command, it is a try of 10
minutes.

SIGTERM, SIGINT, SIGHUP and SIGUSR1 are passed on to the command, which is not
started again after the first three: whoever sends them wants the machine back,
or has closed the terminal. What is ignored, as SIGHUP below nohup, stays so.
"""

import argparse
import math
import pathlib
import signal
import subprocess
import sys
import time

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import job.repository  # noqa: F401 (vie_jax is the one beside it)

from vie_jax import option_parser
from vie_jax.processes import exit_codes
from vie_jax.wording import counted

LONG_ENOUGH_SECONDS = 600
# Of a pretraining, and of what else trains, see `vie_jax.results.result.folder`.
CHECKPOINTS = ('checkpoints', '*/*/checkpoints')
# After which no wait is shorter than its limit; more do not fit into a float.
_MOST_DOUBLINGS = 60
_LONGEST_DEAFNESS_SECONDS = 1.0
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Supervisor:
  """One command, started until it is done.

  Args:
    command: the program and its arguments.
    workdir: of the run, whose checkpoints tell of progress; None if it is not
      known.
    max_restarts: tries in a row without progress, but for the first.
    first_wait, longest_wait: seconds after tries without progress.
  """

  def __init__(
    self,
    command: list[str],
    *,
    workdir: pathlib.Path | None,
    max_restarts: int,
    first_wait: float,
    longest_wait: float,
  ):
    self._command = command
    self._workdir = workdir
    self._max_restarts = max_restarts
    self._first_wait, self._longest_wait = first_wait, longest_wait
    self._process: subprocess.Popen | None = None
    self._is_ending = False

  def run(self) -> int:
    """Returns the exit code that ends it."""
    for number in PASSED_ON:
      if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, self._pass_on)
    num_useless, before = 0, self._newest_steps()
    while True:
      code, seconds = self._once()
      if code in exit_codes.FINAL or self._is_ending:
        return _as_shell(code)
      now = self._newest_steps()
      new = [step for at, step in now.items() if step > before.get(at, -1)]
      is_progress = bool(new)
      if self._workdir is None:
        is_progress = seconds >= LONG_ENOUGH_SECONDS
      num_useless = 0 if is_progress else num_useless + 1
      if num_useless > self._max_restarts:
        _say(
          f'no progress in {counted(num_useless, "try", "tries")}: giving up.'
        )
        return _as_shell(code)
      wait = self._wait_seconds(num_useless)
      saved = f'step {max(new)} is saved' if new else 'no new step is saved'
      _say(
        f'exit code {code} after {seconds:.0f} s, {saved}; again in '
        f'{wait:.1f} s.'
      )
      before = now
      self._sleep(wait)
      if self._is_ending:
        return _as_shell(code)

  def _once(self):
    """Runs the command: (exit code, seconds)."""
    started = time.monotonic()
    # Alone, so that a terminal's Ctrl-C does not reach it beside the one that is
    # passed on: twice means at once, without a save.
    self._process = subprocess.Popen(self._command, start_new_session=True)
    # A signal that came meanwhile has found nobody to be passed on to.
    if self._is_ending:
      self._process.terminate()
    return self._code(), time.monotonic() - started

  def _code(self):
    """The exit code of the command, which it waits for."""
    while True:
      try:
        # Python handles a signal that comes right before a wait only behind it.
        return self._process.wait(timeout=_LONGEST_DEAFNESS_SECONDS)
      except subprocess.TimeoutExpired:
        continue

  def _wait_seconds(self, num_useless):
    if not num_useless:
      return 0.0
    doublings = min(num_useless - 1, _MOST_DOUBLINGS)
    return min(self._longest_wait, self._first_wait * 2.0**doublings)

  def _sleep(self, seconds):
    until = time.monotonic() + seconds
    while not self._is_ending and (left := until - time.monotonic()) > 0:
      time.sleep(min(left, 0.2))

  def _newest_steps(self) -> dict[pathlib.Path, int]:
    """The newest saved step in each folder of checkpoints of the workdir."""
    if self._workdir is None:
      return {}
    newest = {}
    for pattern in CHECKPOINTS:
      for folder in self._workdir.glob(pattern):
        names = [path.name for path in folder.glob('*')]
        steps = [int(name) for name in names if name.isdecimal()]
        newest[folder] = max(steps, default=-1)
    return newest

  def _pass_on(self, number, unused_frame):
    if number != signal.SIGUSR1:
      self._is_ending = True
    if self._process is not None and self._process.poll() is None:
      self._process.send_signal(number)


def _as_shell(code: int) -> int:
  """As a shell has it: 128 and the number of the signal."""
  return 128 - code if code < 0 else code


def _say(text: str) -> None:
  print(f'supervise: {text}', file=sys.stderr, flush=True)


def _workdir_of(command: list[str]) -> str | None:
  """What the command says of its workdir."""
  for number, argument in enumerate(command):
    if argument.startswith('--workdir='):
      return argument.partition('=')[2]
    if argument == '--workdir' and number + 1 < len(command):
      return command[number + 1]
  return None


def _mistake(options: argparse.Namespace) -> str | None:
  """What is wrong with a number of the command line, in a line."""
  for name in ('max_restarts', 'first_wait', 'longest_wait'):
    value = getattr(options, name)
    # Not a number is neither more nor less than anything.
    if not 0 <= value < math.inf:
      option = name.replace('_', '-')
      return f'--{option}={value}: it must be finite and not negative.'
  return None


def main(arguments: list[str] | None = None) -> int:
  """Reads the command line and runs what is behind `--`."""
  parser = option_parser.OptionParser(
    description=(__doc__ or '').split('\n\n')[0],
    usage='%(prog)s [options] -- COMMAND ...',
  )
  parser.add_argument(
    '--max-restarts',
    type=int,
    default=10,
    metavar='N',
    help='tries in a row without progress, but for the first (default: 10)',
  )
  parser.add_argument(
    '--progress',
    metavar='WORKDIR',
    help="where saved steps are progress (default: the command's --workdir)",
  )
  parser.add_argument(
    '--first-wait',
    type=float,
    default=1.0,
    metavar='S',
    help='seconds after the first of these tries (default: 1)',
  )
  parser.add_argument(
    '--longest-wait',
    type=float,
    default=300.0,
    metavar='S',
    help='seconds after any (default: 300)',
  )
  parser.add_argument(
    'command', nargs=argparse.REMAINDER, help='to run, behind --'
  )
  options = parser.parse_args(arguments)
  command = options.command[options.command[:1] == ['--'] :]
  if not command:
    parser.error('there is no command behind --.')
  if mistake := _mistake(options):
    _say(mistake)
    return exit_codes.REFUSED
  workdir = options.progress or _workdir_of(command)
  supervisor = Supervisor(
    command,
    workdir=pathlib.Path(workdir) if workdir else None,
    max_restarts=options.max_restarts,
    first_wait=options.first_wait,
    longest_wait=options.longest_wait,
  )
  try:
    return supervisor.run()
  except OSError as error:
    _say(f'{command[0]} cannot be started: {error.strerror}.')
    return exit_codes.REFUSED


if __name__ == '__main__':
  sys.exit(main())
