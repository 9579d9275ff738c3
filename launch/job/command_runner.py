"""Commands of other programs: run, or, in a dry run, only shown."""

import contextlib
import io
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from job import training_command
from vie_jax.processes import exit_codes
from vie_jax.standard_output import say

# What passes by itself: servers and networks that do not answer for a while.
_TRANSIENT = re.compile(
  # kubectl asks localhost:8080 where it knows of no cluster.
  r'^(?!.*(localhost|127\.0\.0\.1|\[::1\]):8080\b).*('
  r'\b(HTTP|HttpError|status|code)\W+50[234]\b|\bUNAVAILABLE|DEADLINE_EXCEEDED'
  r'|(?i:temporarily|timed out|connection (refused|reset)|unable to contact)'
  r'|The connection to the server \S+ was refused'
  r'|Unable to connect to the server: (?!.*(x509:|tls:|no such host)'
  r'|getting credentials)'
  r'|Error from server \((InternalError|ServiceUnavailable|Timeout'
  r'|TooManyRequests)\)|etcdserver: |handshake timeout|i/o timeout'
  r'|unexpected EOF)'
)
# How long a program that has ended may leave what it said unread.
_LAST_WORDS_SECONDS = 1
_MOST_HEARD_BYTES = 10_000


class CommandError(training_command.LaunchError):
  """A program failed; what it said, and its exit code.

  Of that, the last line that begins with ERROR, behind which gcloud has advice
  of several lines; else the last one.

  Args:
    words: the program and its arguments.
    code: it ended with.
    output: all that it said, both streams.
    is_shown: whether the user has seen that already.

  Attributes:
    output: as given.
    exit_code: `RETRY` if what it said passes by itself.
  """

  def __init__(
    self,
    words: Sequence[str],
    code: int,
    output: str,
    *,
    is_shown: bool = False,
  ):
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith('ERROR:')]
    reason = (errors or lines or ['no output'])[-1]
    passes = bool(_TRANSIENT.search(reason))
    if is_shown:
      reason = 'what it said is above' + (
        '. That may pass by itself: try the same command again.'
        if passes
        else ''
      )
    shown = shlex.join(words[:4])
    super().__init__(f'{shown} ... failed with exit code {code}: {reason}')
    self.output = output
    if passes:
      self.exit_code = exit_codes.RETRY


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


def _pass_on(stream, heard):
  """Writes a program's errors to those of this one, and keeps the last."""
  with io.FileIO(sys.__stderr__.fileno(), 'w', closefd=False) as errors:
    while chunk := stream.read1():
      # A terminal that is gone does not keep the program from going on.
      with contextlib.suppress(OSError):
        errors.write(chunk)
      heard += chunk
      del heard[:-_MOST_HEARD_BYTES]


def _follow(words):
  """Exit code and last errors of a program that has the terminal."""
  heard = bytearray()
  try:
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
  except OSError as error:
    raise _not_found(words[0], error) from error
  # Whatever it leaves behind may keep the stream open.
  listener = threading.Thread(
    target=_pass_on, args=(process.stderr, heard), daemon=True
  )
  listener.start()
  try:
    code = process.wait()
  except BaseException:
    # Ctrl-C is one for both.
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(_LAST_WORDS_SECONDS)
    process.kill()
    process.wait()
    raise
  listener.join(_LAST_WORDS_SECONDS)
  return code, heard.decode('utf-8', 'replace')


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
      code, errors = _follow(words)
    except KeyboardInterrupt:
      return
    if code:
      raise CommandError(words, code, errors, is_shown=True)

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
