"""Reads main.py's command line; a mistake in it is one line and exit code 2."""

import collections
import os
import pathlib
import re
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from typing import NoReturn

import absl
from absl import flags
from ml_collections import config_flags

from vie_jax import code_version, option_parser
from vie_jax.processes import exit_codes
from vie_jax.standard_output import say
from vie_jax.untrusted import text, urls

# Of a mistake, which may be quoted in full.
_MOST_LETTERS = 500
# Orbax takes the path of a checkpoint for a pattern of names, and TensorStore a
# backslash for a slash.
_NOT_IN_WORKDIR = re.compile(r'[\[\]*?\\]')
_URL = re.compile(r'[a-z0-9+.-]+://', re.IGNORECASE)
_FIELD = re.compile(r'--?(config\.[^=]+)')
_FLAG = re.compile(r'--?[a-zA-Z]')
# Of the text of a traceback.
_PLACE = re.compile(r'^\s*File "(.+)", line (\d+)', re.MULTILINE)
# Whoever reads flags and config files, and libraries that these call.
_LIBRARIES = (
  *(
    str(pathlib.Path(module.__file__).parent) for module in (absl, config_flags)
  ),
  *(sysconfig.get_path(name) for name in ('stdlib', 'purelib', 'platlib')),
)
# Of a config file, behind whose name a colon and a variant stand.
_NO_VARIANT = re.compile(
  r'^flag --config=([^:]*):.*: get_config\(\) takes 0 positional arguments'
)
_NO_FILE = re.compile(r"\[Errno 2\] No such file or directory: '(.*)'$")
# What absl says of a value that must be one of a list, and of flags.
_NO_CHOICE = re.compile(r'^flag --\w+=(.*): value should be one of <(.*)>$')
_NO_FLAG = re.compile(r"^Unknown command line flag '([^']*)'")
# What Python and its libraries say of a mistake -> what it means to the user.
_WORDINGS = tuple(
  (re.compile(pattern, re.DOTALL), words)
  for pattern, words in (
    (r'^[\w.]*(Error|Exception): ', ''),
    (
      r"^module '.*' has no attribute 'get_config'$",
      'the file that --config names has no function get_config.',
    ),
    (
      r'invalid literal for int\(\) with base 10: (.*)',
      r'\1 is no whole number',
    ),
    (r'could not convert string to float: (.*)', r'\1 is no number'),
    (
      r"\('Non-boolean argument to boolean flag', (.*)\)",
      r'\1 is neither true nor false',
    ),
    (
      r'Error while parsing string: (.*) as tuple\..*',
      r'\1 is no list of values in brackets, such as (1, 2)',
    ),
    (
      r"^'(\w+)' Did you mean \"(\w+)\" .*",
      r"the config has no field '\1'; did you mean '\2'?",
    ),
    (
      r'^Attribute <class .* Attempting to lookup: (\S+)$',
      r"the config has no field '\1'.",
    ),
    (
      r'^string indices must be integers.*',
      'a --config.FIELD.NAME names a field of a text, which has none.',
    ),
    (
      r"Failed to parse '.*' as a ConfigDict: .*",
      'this is a group of fields, which are set one by one',
    ),
  )
)


def parse(argv: Sequence[str]) -> list[str]:
  """Parses the flags, those of the config file among them.

  `--version` prints versions, and ends the process. Of several values of a
  field the last one counts.

  Args:
    argv: with the program's name.

  Returns:
    The program's name alone, as `absl.app` wants it.
  """
  if '--version' in argv:
    say(code_version.line())
    sys.exit(exit_codes.DONE)
  try:
    name, *words = flags.FLAGS(_with_last_values(argv))
  # A config file is code, and may raise anything.
  except (Exception, SystemExit) as error:
    reason = _reason_in_file(error)
    if reason is None and isinstance(error, SystemExit):
      # --help, which absl ends with 1.
      sys.exit(exit_codes.DONE)
    refuse(reason or reason_of(error))
  if words:
    refuse(f'{words[0]!r} belongs to no flag; write --FLAG=VALUE.')
  return [name]


def _with_last_values(argv):
  """Leaves out values of fields that later ones replace.

  ml_collections does so with single values; tuples it puts together.
  """
  places = collections.defaultdict(list)
  for place, word in enumerate(argv):
    if field := _FIELD.match(word):
      places[field[1]].append(place)
  replaced = {place for several in places.values() for place in several[:-1]}
  # Of a value that is a word of its own, that word, too.
  replaced |= {
    place + 1
    for place in replaced
    if '=' not in argv[place] and not _FLAG.match(argv[place + 1])
  }
  return [word for place, word in enumerate(argv) if place not in replaced]


def _reason_in_file(error):
  """What is wrong in a config file, with the line; None if it lies elsewhere."""
  reason = None
  while error is not None:
    if place := _place(error):
      file, line = place
      said = _last_line(error)
      # Such as the names of its variants.
      reason = said if file in said else f'{file}, line {line}: {said}'
    # ml_collections makes errors of others, and fails at that with some.
    error = error.__context__
  return reason


def _place(error):
  """File and line of a config file where an error arose, or None."""
  # ml_collections raises some errors anew, with the traceback in their text.
  frames = _PLACE.findall(str(error)) or [
    (frame.filename, frame.lineno)
    for frame in traceback.extract_tb(error.__traceback__)
  ]
  for file, line in reversed(frames):
    if not file.startswith(('<', __file__, *_LIBRARIES)):
      near = os.path.relpath(file)
      return file if near.startswith('..') else near, int(line)
  return None


def _last_line(error):
  """The kind of an error and what it says; ValueErrors speak for themselves."""
  said = traceback.format_exception_only(error)[-1].strip()
  if _PLACE.search(str(error)):
    said = str(error).strip().splitlines()[-1]
  return re.sub(r'^ValueError: ', '', said)


def reason_of(error: Exception) -> str:
  """What a mistake in the flags is, in a line.

  Args:
    error: of `absl.flags`.
  """
  # ml_collections quotes the message of one error in another.
  message = str(error).replace('\\n', '\n').replace("\\'", "'")
  while message[:1] == message[-1:] in ('"', "'"):
    message = message[1:-1]
  lines = [line.strip() for line in message.split('\n') if line.strip()]
  # A config file that fails brings its traceback; its last line says it.
  reason = ' '.join(lines) if len(lines) < 3 else lines[-1]
  if found := _NO_VARIANT.search(' '.join(lines)):
    return f'{found[1]} takes no variant behind a colon; leave that out.'
  if 'Flag --config must have a value' in reason:
    if flags.FLAGS['config'].present:
      return 'get_config() of the file that --config names returns nothing.'
    return 'there is no --config, such as --config=configs/vie_slowfast.py.'
  if found := _NO_FILE.search(reason):
    return (
      f'there is no file {found[1]}; a relative path begins in the current '
      f'folder{option_parser.ending(near_config(found[1]))}'
    )
  if found := _NO_CHOICE.search(reason):
    return reason + option_parser.ending_of(found[1], found[2].split('|'))
  if found := _NO_FLAG.search(reason):
    known = [f'--{name}' for name in flags.FLAGS]
    name = f'--{found[1]}'
    return f'there is no flag {name}{option_parser.ending_of(name, known)}'
  if reason.isidentifier():
    return f'the config has no field {reason!r}.'
  for pattern, words in _WORDINGS:
    reason = pattern.sub(words, reason)
  return reason


def near_config(config_file: str) -> str:
  """The config file that may be meant by a name that none has; '' for none.

  Args:
    config_file: path, without a variant.

  Returns:
    Path of a file in the same folder, or in configs/.
  """
  path = pathlib.Path(config_file)
  own = pathlib.Path(__file__).parents[2] / 'configs'
  files = {}
  for folder in (own, path.parent):
    files |= {file.stem: file for file in folder.glob('*.py')}
  found = option_parser.near(path.name.removesuffix('.py'), files)
  if not found:
    return ''
  near = os.path.relpath(files[found])
  return str(files[found]) if near.startswith('..') else near


def refuse(reason: str) -> NoReturn:
  """Ends the process with a line about the command."""
  line = text.printable(urls.redacted(reason))
  if len(line) > _MOST_LETTERS:
    line = f'{line[:_MOST_LETTERS]} ...'
  print(f'Command line: {line}', file=sys.stderr)
  sys.exit(exit_codes.REFUSED)


def config_file() -> str:
  """The path of the config file, without its variant."""
  return _config_and_variant()[0]


def _config_and_variant():
  name = config_flags.get_config_filename(flags.FLAGS['config'])
  config_file, _, variant = name.partition(':')
  return config_file, variant


def workdir(chosen: str | None) -> str:
  """The folder of the run: as chosen, or workdir/ and the config's name.

  Args:
    chosen: `--workdir`; None where it is left out.
  """
  config_file, variant = _config_and_variant()
  if not os.path.isfile(config_file):
    refuse(
      f'there is no config {config_file}'
      f'{option_parser.ending(near_config(config_file))}'
    )
  if chosen is not None and not chosen.strip():
    refuse(
      '--workdir is empty; leave it out for workdir/ and the name of the config'
    )
  name = '_'.join(filter(None, (pathlib.Path(config_file).stem, variant)))
  folder = os.path.expanduser(chosen or os.path.join('workdir', name))
  problem = urls.problem(folder) or workdir_problem(folder)
  # The folder from which it leads may have a name that will not do.
  problem = problem or workdir_problem(os.path.abspath(folder))
  if problem:
    refuse(f'--workdir: {problem}.')
  return folder


def workdir_problem(folder: str) -> str | None:
  """Says why what is saved in a folder could not be read again, or None.

  Args:
    folder: path.
  """
  if _URL.match(folder):
    return (
      f'{folder} is a URL, and the workdir must be a path. Mount the bucket '
      '(docs/launch/ has how) and name the folder there'
    )
  try:
    folder.encode()
  except UnicodeEncodeError:
    if text.is_utf8(folder):
      return f'{os.fsencode(folder)!r}: {text.LOCALE_REMEDY}'
    return f'{os.fsencode(folder)!r} is not UTF-8: rename the folder'
  if found := _NOT_IN_WORKDIR.search(folder):
    return (
      f'{folder} has {found[0]} in it. Checkpoints could not be read again '
      'there: rename the folder'
    )
  return None
