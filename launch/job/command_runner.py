"""Commands of other programs: run, or, in a dry run, only shown."""

import contextlib
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from job import training_command
from vie_jax.processes import exit_codes

# What passes by itself: servers and networks that do not answer for a while.
_TRANSIENT = re.compile(
  r'\b(HTTP|HttpError|status|code)\W+50[234]\b|\bUNAVAILABLE|DEADLINE_EXCEEDED'
  r'|(?i:temporarily|timed out|connection (refused|reset)|unable to contact)'
)


class CommandError(training_command.LaunchError):
  """A program failed; what it said, and its exit code.

  Of that, the last line that begins with ERROR, behind which gcloud has advice
  of several lines; else the last one.

  Attributes:
    output: all that it said, both streams.
    exit_code: `RETRY` if what it said passes by itself.
  """

  def __init__(self, words: Sequence[str], code: int, output: str):
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith('ERROR:')]
    reason = (errors or lines or ['no output'])[-1]
    shown = shlex.join(words[:4])
    super().__init__(f'{shown} ... failed with exit code {code}: {reason}')
    self.output = output
    if _TRANSIENT.search(reason):
      self.exit_code = exit_codes.RETRY


def say(line: str = '') -> None:
  """Shows a line at once, also where output is collected."""
  print(line, flush=True)


def complain(error: Exception) -> None:
  """Shows an error of the user's, on one line."""
  print(f'Error: {" ".join(str(error).split())}', file=sys.stderr, flush=True)


def _not_found(program, error):
  return training_command.LaunchError(
    f'{program} cannot be run ({error.strerror}). Is it installed?'
  )


def _run(words, seconds):
  """Exit code and both streams of a program, which hears of no Ctrl-C."""
  try:
    process = subprocess.Popen(
      words,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      errors='replace',
      # With a group of its own: gcloud starts ssh, which would stay behind.
      start_new_session=True,
    )
  except OSError as error:
    raise _not_found(words[0], error) from error
  with process:
    try:
      said, complained = process.communicate(timeout=seconds)
    except BaseException as error:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      if not isinstance(error, subprocess.TimeoutExpired):
        raise
      reason = f'timed out after {seconds:g} s'
      raise CommandError(words, -signal.SIGKILL, reason) from error
  return process.returncode, said, complained


class Commands:
  """Runs programs and writes files, showing each; a dry run only shows.

  Args:
    is_dry_run: whether nothing is to happen.
    show: takes a line for the terminal.
  """

  def __init__(self, *, is_dry_run: bool, show: Callable[[str], None] = say):
    self.is_dry_run = is_dry_run
    self._show = show

  def run(
    self, *words: str, is_shown: bool = True, seconds: float | None = None
  ) -> str:
    """Runs a program to its end; returns what it said on standard output.

    A dry run returns nothing.

    Args:
      *words: the program and its arguments; no shell reads them.
      is_shown: whether to show the command. A dry run shows every one.
      seconds: that it may take, or it is ended, with all that it started.

    Raises:
      CommandError: if it fails or takes longer.
      LaunchError: if it cannot be found.
    """
    if is_shown or self.is_dry_run:
      self._show(f'$ {shlex.join(words)}')
    if self.is_dry_run:
      return ''
    code, said, complained = _run(words, seconds)
    if code:
      raise CommandError(words, code, said + complained)
    return said

  def follow(self, *words: str) -> None:
    """Runs a program whose output goes to the terminal as it comes.

    Ctrl-C ends it, and nothing else.

    Raises:
      CommandError: if it fails.
      LaunchError: if it cannot be found.
    """
    self._show(f'$ {shlex.join(words)}')
    if self.is_dry_run:
      return
    try:
      code = subprocess.run(words, check=False).returncode
    except KeyboardInterrupt:
      return
    except OSError as error:
      raise _not_found(words[0], error) from error
    if code:
      raise CommandError(words, code, 'what it said is above')

  def write(self, path: pathlib.Path, text: str) -> None:
    """Writes a file; a dry run shows what would be in it.

    Raises:
      LaunchError: if it cannot be written.
    """
    if self.is_dry_run:
      self._show(f'# writes {path}:')
      self._show(text.rstrip('\n'))
      self._show(f'# end of {path}')
      return
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text, encoding='utf-8')
    except OSError as error:
      raise training_command.LaunchError(
        f'{path} cannot be written: {error.strerror}.'
      ) from error
    self._show(f'Written: {path}')
