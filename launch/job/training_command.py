"""The command that every launcher starts: main.py with its arguments.

They stand behind `--` on a launcher's command line, as main.py has them, and
are checked before anything is started or paid for.
"""

import argparse
import ast
import dataclasses
import operator
import pathlib
import re
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from job import config_files
from job.repository import REPOSITORY
from vie_jax import option_parser
from vie_jax.config import config_check, modes
from vie_jax.processes import exit_codes, process_environment
from vie_jax.program import command_line
from vie_jax.untrusted import urls

# What Google Cloud allows as the name of a bucket, and a folder to mount it at.
BUCKET = r'[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]'
FOLDER = r'/[\w.-]+(/[\w.-]+)*'
# Of every machine and container, where nothing can be mounted without harm: of
# the system, and where the code, its packages and keys of ssh are.
SYSTEM_FOLDERS = (
  *('/bin', '/boot', '/dev', '/etc', '/home', '/lib', '/lib64', '/opt'),
  *('/proc', '/root', '/run', '/sbin', '/sys', '/tmp', '/usr', '/var'),  # noqa: S108
)
# Of main.py, whose flags would be read from this command line; a test compares.
TIMEOUTS = ('connect_seconds', 'heartbeat_seconds', 'shutdown_seconds')
FLAGS = (
  '--config',
  '--workdir',
  '--mode',
  '--distributed',
  *(f'--{name}' for name in TIMEOUTS),
)
# Of vie_jax/objective/memory_bank.py, which imports JAX; a test compares.
ROW_MULTIPLE = 1024
_URL = re.compile(r'[a-z0-9]+://')
# What YAML takes in no quotes, and bytes that are no UTF-8.
_NO_TEXT = re.compile(
  '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]'
)
# Fields of paths -> what else they may be, and whether a URL will do.
_PATHS = {
  'dataset.dir': ((), True),
  'init_from': (('workdir', 'random'), False),
  'model.streams': (('', 'random'), False),
  'embeddings': (('',), False),
  'linear_eval.dataset': (('',), True),
  'finetune.dataset': (('',), True),
  'embed.source': (('',), True),
  'embed.clips': (('',), False),
  'retrieve.query': (('',), False),
  'retrieve.beside': (('',), False),
}
_SEVERAL_PATHS = ('model.streams', 'retrieve.beside')
_CONFIG_FILE = re.compile(r'configs/\w+\.py(?::\w+)?')


class LaunchError(ValueError):
  """What was asked for cannot be started; one line for the user."""

  exit_code = exit_codes.REFUSED


class TryAgainError(LaunchError):
  """What was asked for has stopped; the same command resumes it."""

  exit_code = exit_codes.RETRY


@dataclasses.dataclass(frozen=True)
class Training:
  """Arguments of main.py that have been checked.

  Attributes:
    arguments: all of them, in the user's order.
    workdir: a path, not the URL of a bucket.
    dataset_dir: the data set, a path or URL.
    batches: fields of batch sizes, and their values, that split over devices.
    has_rows: whether rows of a memory bank or a readout do, too.
    num_devices: that the config asks for; 0 for all there are.
    is_alone: whether each process is to know nothing of the others.
  """

  arguments: tuple[str, ...]
  workdir: str
  dataset_dir: str
  batches: tuple[tuple[str, int], ...] = ()
  has_rows: bool = False
  num_devices: int = 0
  is_alone: bool = False

  @property
  def words(self) -> tuple[str, ...]:
    """What comes behind `python`, from the repository's root."""
    return ('main.py', *self.arguments)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
  """A launcher's own arguments, and main.py's, which follow `--`."""
  own = list(arguments)
  if '--' not in own:
    return own, []
  at = own.index('--')
  return own[:at], own[at + 1 :]


def parse_fields(
  arguments: Sequence[str], parser: option_parser.OptionParser
) -> dict:
  """Reads --config.FIELD=VALUE.

  Args:
    arguments: that the parser does not know.
    parser: of the options that they may be meant for.

  Raises:
    LaunchError: naming an argument that is nothing of the kind.
  """
  fields = {}
  for argument in arguments:
    name, is_there, value = argument.partition('=')
    if not name.startswith('--config.') or not is_there:
      raise LaunchError(
        f'{argument} is not understood{parser.hint([argument])}; see --help.'
      )
    try:
      parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      parsed = value
    fields[name.removeprefix('--config.')] = parsed
  return fields


def check(arguments: Sequence[str], *, is_remote: bool) -> Training:
  """Checks main.py's arguments, down to the fields of the config.

  Args:
    arguments: such as --config=configs/vie_slowfast.py --workdir=/W.
    is_remote: whether they are for another machine, where a relative path
      leads nowhere.

  Raises:
    LaunchError: naming what is missing, wrong, secret, or there twice.
  """
  given, flags_given = {}, []
  refuse_secrets(arguments)
  _check_text(arguments)
  _check_repeated(arguments)
  for argument in arguments:
    name, is_there, value = argument.partition('=')
    if name.startswith('--config.'):
      if not is_there:
        raise LaunchError(f'{argument} is not understood; see --help.')
      if '--config' not in given:
        raise LaunchError(f'{name} must stand behind --config=...')
      flags_given.append(argument)
    elif name not in FLAGS:
      raise LaunchError(
        f'{argument} is no argument of main.py'
        f'{option_parser.ending_of(name, FLAGS)}'
      )
    elif not is_there or not value:
      raise LaunchError(f'{name} needs a value: {name}=...')
    else:
      given[name] = value
      if name.removeprefix('--') in TIMEOUTS:
        flags_given.append(argument)
  for name in ('--config', '--workdir'):
    if name not in given:
      raise LaunchError(
        f'{name} is missing. Arguments of main.py follow " -- ": '
        '-- --config=configs/vie_slowfast.py --workdir=/path/to/workdir'
      )
  mode = given.get('--mode', 'train')
  config = _config(given['--config'], flags_given, mode)
  choices = process_environment.CHOICES
  distributed = given.get('--distributed', 'auto')
  if distributed not in choices:
    raise LaunchError(f'--distributed must be one of {", ".join(choices)}.')
  workdir, dataset_dir = given['--workdir'], str(config.dataset.dir)
  fields = modes.MODES[mode].batches
  if problem := command_line.workdir_problem(workdir):
    raise LaunchError(f'--workdir: {problem}.')
  if is_remote:
    _check_remote_paths(workdir, config)
  return Training(
    tuple(arguments),
    workdir,
    dataset_dir,
    tuple((name, operator.attrgetter(name)(config)) for name in fields),
    modes.MODES[mode].has_rows,
    config.num_devices,
    distributed == 'off',
  )


def refuse_secrets(words: Sequence[str]) -> None:
  """Refuses URLs with a password: scripts, manifests and terminals keep them.

  Args:
    words: of a command line.

  Raises:
    LaunchError: without what is secret.
  """
  for word in words:
    problem = urls.problem(word)
    if problem is None:
      continue
    name, _, value = word.partition('=')
    if name.startswith('--') and '://' not in name:
      # As main.py says it of a field, and of the workdir.
      field = name.removeprefix('--') if name.startswith('--config.') else name
      problem = f'{field}: {urls.problem(value) or problem}'
    raise LaunchError(f'{problem}.')


def _check_text(arguments):
  """Refuses what cannot be written into a script or a manifest."""
  for argument in arguments:
    if _NO_TEXT.search(argument):
      shown = argument.encode('unicode_escape', 'backslashreplace').decode()
      raise LaunchError(f'{shown} has a character that is no text.')


def _check_repeated(arguments):
  """Refuses an argument that is there twice: only the last would count."""
  names = [argument.partition('=')[0] for argument in arguments]
  for name in names:
    if name.startswith('--') and names.count(name) > 1:
      raise LaunchError(f'{name} is given {names.count(name)} times.')


def _config(name, flags_given, mode):
  """The config that main.py will make of its file and flags, checked."""
  if mode not in modes.MODES:
    raise LaunchError(
      f'--mode={mode} must be one of {", ".join(modes.MODES)}'
      f'{option_parser.ending_of(mode, modes.MODES)}'
    )
  file, _, _ = name.partition(':')
  if not _CONFIG_FILE.fullmatch(name) or not (REPOSITORY / file).is_file():
    raise LaunchError(
      f'There is no config {name}; it must be a file of configs/, as it is '
      'named from the repository: configs/vie_slowfast.py'
      f'{option_parser.ending_of(file, _config_files())}'
    )
  try:
    config = config_files.read(name)
    _override(config, flags_given)
    config_check.check(config)
  except (ValueError, TypeError) as error:
    raise LaunchError(str(error)) from error
  return config


def _config_files():
  return [f'configs/{file.name}' for file in REPOSITORY.glob('configs/*.py')]


def _override(config, flags_given):
  """Sets fields as main.py does, and reads its timeouts.

  Raises:
    ValueError: as main.py says it.
  """
  words = ['main.py', *flags_given]
  values = flags.FlagValues()
  for name in TIMEOUTS:
    flags.DEFINE_integer(name, 1, '', lower_bound=1, flag_values=values)
  try:
    config_flags.DEFINE_config_dict(
      'config', config, flag_values=values, sys_argv=words
    )
    values(words)
  except Exception as error:  # as in command_line, whatever a parser raises
    raise ValueError(command_line.reason_of(error)) from error


def check_devices(
  training: Training, number: int | None, processes: int = 1
) -> None:
  """Refuses devices that a training does not split over.

  Args:
    training: that is to run on them.
    number: of all devices of all its processes; None if it is not known, but
      for being a multiple of the processes.
    processes: how many these are; several use all their devices.

  Raises:
    LaunchError: with the remedy.
  """
  wanted = training.num_devices or number or processes
  if number is None:
    if wanted % processes:
      raise LaunchError(
        f'config.num_devices is {wanted}, and {processes} processes would '
        'start, with as many devices each: leave it out, and all are used.'
      )
  elif wanted > number or (processes > 1 and wanted != number):
    raise LaunchError(
      f'config.num_devices is {wanted}, and {processes} x {number // processes} '
      'devices would start: leave it out, and all are used.'
    )
  what = 'devices' if number or training.num_devices else 'processes'
  if training.has_rows and ROW_MULTIPLE % wanted:
    raise LaunchError(
      f'What has a memory bank or a readout splits over 1, 2, 4 ... {ROW_MULTIPLE} '
      f'devices, and not over {wanted}'
      + ('.' if what == 'devices' else f' {what}, whatever each of them has.')
    )
  for field, size in training.batches:
    if size % wanted:
      raise LaunchError(
        f'config.{field} is {size}, which does not split over {wanted} {what}: '
        f'--config.{field}={-(-size // wanted) * wanted}, or another multiple.'
      )


def check_processes(training: Training, number: int) -> None:
  """Refuses processes that would each train alone, in the same workdir.

  Args:
    training: that is to run on them.
    number: of processes.

  Raises:
    LaunchError: with the remedy.
  """
  if training.is_alone and number > 1:
    raise LaunchError(
      f'--distributed=off is for one process, and {number} would start: leave it '
      'out, and they are one run.'
    )


def _check_remote_paths(workdir, config):
  """Refuses paths that lead nowhere on another machine."""
  if not workdir.startswith('/'):
    raise LaunchError(
      f'--workdir={workdir} must begin with "/": it is of other machines.'
    )
  for field, (words, may_be_url) in _PATHS.items():
    value = str(operator.attrgetter(field)(config))
    parts = value.split(',') if field in _SEVERAL_PATHS else [value]
    for part in (part.strip().removeprefix('official:') for part in parts):
      is_url = may_be_url and _URL.match(part)
      if not (part in words or part.startswith(('/', 'tfds:')) or is_url):
        url = ' or be a URL such as gs://BUCKET/NAME' if may_be_url else ''
        raise LaunchError(
          f'--config.{field}={value} must begin with "/"{url}: it is of other '
          'machines.'
        )


def check_mount(mount: str, *more: str) -> None:
  """Refuses to mount a bucket where it would hide what a run needs.

  Args:
    mount: the folder, an absolute path.
    *more: folders that are taken, beside those of the system.

  Raises:
    LaunchError: if it is one of them, or above or below one.
  """
  folder = pathlib.PurePosixPath(mount)
  if {'.', '..'} & set(mount.split('/')):
    raise LaunchError(f'--mount={mount} must be a path without "." and "..".')
  for name in (*SYSTEM_FOLDERS, *more):
    taken = pathlib.PurePosixPath(name)
    if folder == taken or folder in taken.parents or taken in folder.parents:
      raise LaunchError(
        f'--mount={mount} would hide {name}, or what is there: name another '
        'folder, such as /mnt/bucket.'
      )


def check_below(training: Training, mount: str) -> None:
  """Refuses a workdir that would be lost with the machine.

  Raises:
    LaunchError: if the workdir is not below the mounted bucket.
  """
  folder = pathlib.PurePosixPath(training.workdir)
  if pathlib.PurePosixPath(mount) not in folder.parents or '..' in folder.parts:
    raise LaunchError(
      f'--workdir={training.workdir} must lie below {mount}, where the bucket '
      'is mounted: everything else is lost with the machine.'
    )


def exit_code_of(codes: Sequence[int]) -> int:
  """One exit code for that of all processes.

  "Do not retry" comes before everything else, because one process that saw
  why is enough; then Ctrl-C, then "run again", then any other failure.

  Args:
    codes: as subprocess has them: -9 for a process that signal 9 ended.
  """
  for code in (
    exit_codes.REFUSED,
    exit_codes.INTERRUPTED,
    exit_codes.RETRY,
  ):
    if code in codes:
      return code
  failed = [code for code in codes if code]
  if not failed:
    return exit_codes.DONE
  return 128 - failed[0] if failed[0] < 0 else failed[0]


def matching(pattern: str, meaning: str):
  """A type for argparse: text that must match as a whole.

  Args:
    pattern: regular expression.
    meaning: what it is, for the message.
  """

  def convert(text: str) -> str:
    # Digits are those of ASCII: no other program takes '４' for a number.
    if not re.fullmatch(pattern, text, re.ASCII):
      raise argparse.ArgumentTypeError(f'{text!r} is not {meaning}')
    return text

  return convert


def number(minimum: int, maximum: int | None = None):
  """A type for argparse: a whole number in a range."""

  def convert(text: str) -> int:
    # Few digits: Python itself refuses thousands of them in another way.
    is_number = re.fullmatch(r'-?[0-9]{1,18}', text)
    value = int(text) if is_number else None
    if value is None or value < minimum or (maximum and value > maximum):
      most = f' and at most {maximum}' if maximum else ''
      raise argparse.ArgumentTypeError(
        f'{text!r} is not a whole number of at least {minimum}{most}'
      )
    return value

  return convert
