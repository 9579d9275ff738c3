"""The command that every launcher starts: main.py with its arguments.

They stand behind `--` on a launcher's command line, as main.py has them, and
are checked before anything is started or paid for.
"""

import argparse
import ast
import dataclasses
import pathlib
import re
from collections.abc import Sequence

import plans

from vie_jax.processes import exit_codes, process_environment

REPOSITORY = plans.REPOSITORY
# What Google Cloud allows as the name of a bucket, and a folder to mount it at.
BUCKET = r'[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]'
FOLDER = r'/[\w.-]+(/[\w.-]+)*'
# Of main.py, which takes seconds to import; a test compares.
MODES = (
  'convert',
  'describe',
  'embed',
  'finetune',
  'knn_eval',
  'linear_eval',
  'retrieve',
  'supervised',
  'train',
)
FLAGS = (
  '--config',
  '--workdir',
  '--mode',
  '--distributed',
  '--connect_seconds',
  '--heartbeat_seconds',
  '--shutdown_seconds',
)
# Of vie_jax/objective/memory_bank.py, which imports JAX; a test compares.
ROW_MULTIPLE = 1024
_URL = re.compile(r'[a-z0-9]+://')
# What YAML takes in no quotes, and bytes that are no UTF-8.
_NO_TEXT = re.compile(
  '[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]'
)
_CONFIG_FILE = re.compile(r'configs/\w+\.py(?::\w+)?')


class LaunchError(ValueError):
  """What was asked for cannot be started; one line for the user."""

  exit_code = exit_codes.REFUSED


class TryAgainError(LaunchError):
  """What was asked for has stopped; the same command goes on."""

  exit_code = exit_codes.RETRY


@dataclasses.dataclass(frozen=True)
class Training:
  """Arguments of main.py that have been checked.

  Attributes:
    arguments: all of them, in the user's order.
    workdir: a path, not the URL of a bucket.
    dataset_dir: the data set, a path or URL.
    batch: field of the batch size, and its value; of a mode that trains.
    num_devices: that the config asks for; 0 for all there are.
    is_alone: whether each process is to know nothing of the others.
  """

  arguments: tuple[str, ...]
  workdir: str
  dataset_dir: str
  batch: tuple[str, int] | None = None
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


def parse_fields(arguments: Sequence[str]) -> dict:
  """Reads --config.FIELD=VALUE.

  Raises:
    LaunchError: naming an argument that is nothing of the kind.
  """
  fields = {}
  for argument in arguments:
    name, is_there, value = argument.partition('=')
    if not name.startswith('--config.') or not is_there:
      raise LaunchError(f'{argument} is not understood; see --help.')
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
    LaunchError: naming what is missing, wrong, or there twice.
  """
  given, fields = {}, []
  _check_text(arguments)
  _check_repeated(arguments)
  for argument in arguments:
    name, is_there, value = argument.partition('=')
    if name.startswith('--config.'):
      fields.append(argument)
    elif name not in FLAGS:
      raise LaunchError(f'{argument} is no argument of main.py.')
    elif not is_there or not value:
      raise LaunchError(f'{name} needs a value: {name}=...')
    else:
      given[name] = value
  for name in ('--config', '--workdir'):
    if name not in given:
      raise LaunchError(
        f'{name} is missing. Arguments of main.py follow " -- ": '
        '-- --config=configs/vie_slowfast.py --workdir=/path/to/workdir'
      )
  mode = given.get('--mode', 'train')
  config = _config(given['--config'], fields, mode)
  choices = process_environment.CHOICES
  distributed = given.get('--distributed', 'auto')
  if distributed not in choices:
    raise LaunchError(f'--distributed must be one of {", ".join(choices)}.')
  workdir, dataset_dir = given['--workdir'], str(config.dataset.dir)
  _check_paths(workdir, dataset_dir, is_remote=is_remote)
  batch = _batch(config, mode)
  for field, value, least in (
    *((*pair, 1) for pair in filter(None, [batch])),
    ('num_devices', config.num_devices, 0),
  ):
    if value < least:
      raise LaunchError(
        f'config.{field} is {value}; it must be at least {least}.'
      )
  return Training(
    tuple(arguments),
    workdir,
    dataset_dir,
    batch,
    config.num_devices,
    distributed == 'off',
  )


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


def _config(name, fields, mode):
  """The config that main.py will make of file and fields."""
  if mode not in MODES:
    raise LaunchError(f'--mode={mode} must be one of {", ".join(MODES)}.')
  file, _, _ = name.partition(':')
  if not _CONFIG_FILE.fullmatch(name) or not (REPOSITORY / file).is_file():
    raise LaunchError(
      f'There is no config {name}; it must be a file of configs/, as it is '
      'named from the repository: configs/vie_slowfast.py'
    )
  step = plans.Step('launch', (), mode, '', name, parse_fields(fields))
  try:
    return step.config()
  except (ValueError, TypeError) as error:
    raise LaunchError(str(error)) from error


def _batch(config, mode):
  """Field and size of the batch that a mode trains with, or None."""
  if mode == 'train':
    return 'batch_size', config.batch_size
  if mode in ('finetune', 'linear_eval', 'supervised'):
    return f'{mode}.batch_size', config[mode].batch_size
  return None


def check_devices(training: Training, number: int, processes: int = 1) -> None:
  """Refuses devices that a training does not split over.

  Args:
    training: that is to run on them.
    number: of all devices of all its processes.
    processes: how many these are; several use all their devices.

  Raises:
    LaunchError: with the remedy.
  """
  wanted = training.num_devices or number
  if wanted > number or (processes > 1 and wanted != number):
    raise LaunchError(
      f'config.num_devices is {wanted}, and {processes} x {number // processes} '
      'devices would start: leave it out, and all are used.'
    )
  number = wanted
  if training.batch is None:
    return
  if ROW_MULTIPLE % number:
    raise LaunchError(
      f'A training splits over 1, 2, 4 ... {ROW_MULTIPLE} devices, and not over '
      f'{number}.'
    )
  field, size = training.batch
  if size % number:
    raise LaunchError(
      f'config.{field} is {size}, which does not split over {number} devices: '
      f'--config.{field}={-(-size // number) * number}, or another multiple.'
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


def _check_paths(workdir, dataset_dir, *, is_remote):
  if _URL.match(workdir):
    raise LaunchError(
      f'--workdir={workdir}: the workdir must be a path. Mount the bucket '
      '(docs/launch/ has how) and name the folder there.'
    )
  if not is_remote:
    return
  if not workdir.startswith('/'):
    raise LaunchError(
      f'--workdir={workdir} must begin with "/": it is of other machines.'
    )
  if not dataset_dir.startswith('/') and not _URL.match(dataset_dir):
    raise LaunchError(
      f'--config.dataset.dir={dataset_dir} must begin with "/" or be a URL '
      'such as gs://BUCKET/NAME: it is of other machines.'
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
    if not re.fullmatch(pattern, text):
      raise argparse.ArgumentTypeError(f'{text!r} is not {meaning}')
    return text

  return convert


def number(minimum: int, maximum: int | None = None):
  """A type for argparse: a whole number in a range."""

  def convert(text: str) -> int:
    try:
      value = int(text)
    except ValueError:
      value = None
    if value is None or value < minimum or (maximum and value > maximum):
      most = f' and at most {maximum}' if maximum else ''
      raise argparse.ArgumentTypeError(
        f'{text!r} is not a whole number of at least {minimum}{most}'
      )
    return value

  return convert
