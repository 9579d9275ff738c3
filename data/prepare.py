"""Prepares video files for training, and checks what was prepared.

  python data/prepare.py folder --videos DIR --out OUT
  python data/prepare.py list --list FILE --out OUT
  python data/prepare.py kinetics400 --videos DIR --out OUT
  python data/prepare.py ucf101 --videos DIR --splits DIR --split 1 --out OUT
  python data/prepare.py hmdb51 --videos DIR --splits DIR --split 1 --out OUT
  python data/prepare.py tfds --name NAME --out OUT
  python data/prepare.py check OUT
  python data/prepare.py show OUT --out PAGE.html
  python data/prepare.py demo --out OUT
  python data/prepare.py demo-images --out OUT

Each command says with --help what it takes. A stopped run goes on when the
same command is given again.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import sys

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import interrupts
import unread
from check_dataset import check_dataset
from command_options import (
  add_common,
  add_follow_links,
  add_processes,
  add_val_percent,
  int_from,
  num_cores,
  prepare_and_print,
)
from dataset.manifest import read_manifest
from dataset.remote import is_remote, place_of
from dataset.staging import OutputError, output_errors
from definition_commands import add_definitions
from errors import InputError
from option_parser import OptionParser
from preparation.worker_pool import WorkerStartError
from progress import progress_bar
from sources.folder_source import read_folder
from untrusted import urls
from wording import counted, printable

_DEMO_NAME = 'demo'
# Those of demo_videos.py, which only its commands import.
_LOOKS = ('day', 'night')
_REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SHOWN_CONFIG = os.path.join(_REPOSITORY, 'configs', 'vie_slowfast.py')


def main(arguments=None, *, cluster=None):
  """Runs one command.

  Args:
    arguments: list of str; None for those of the process.
    cluster: as `prepare_dataset` takes it.

  Returns:
    int, the exit code: 0 done, 1 `check` found something wrong, 2 the
    command cannot be carried out, 130 stopped from outside.
  """
  options = _parsed(sys.argv[1:] if arguments is None else arguments)
  options.cluster = cluster
  try:
    for value in vars(options).values():
      if isinstance(value, str) and (problem := urls.problem(value)):
        raise InputError(problem)
    return options.run(options)
  except (InputError, OutputError, WorkerStartError) as error:
    print(f'Error: {printable(_one_line(error))}.', file=sys.stderr)
    return 2
  except ModuleNotFoundError as error:
    # Such as in an environment for workers, with what they need.
    print(
      f'Error: the package {error.name} is not installed, which this command '
      'needs; install vie_jax ("pip install -e .").',
      file=sys.stderr,
    )
    return 2
  except BrokenPipeError:
    # Whoever read our output has left, as in "prepare.py ... | head".
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except OSError as error:
    # Of whatever the user of this command may not read or write, above all.
    message = unread.message(error)
    if message is None:
      raise
    print(f'Error: {printable(_one_line(message))}.', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('\nStopped. The same command goes on from here.', file=sys.stderr)
    return 130


def _parsed(arguments):
  """Parses the command line; fields of a config are for `show` alone."""
  fields = [word for word in arguments if word.startswith('--config.')]
  parser = _parser()
  options = parser.parse_args(
    [_with_home(word) for word in arguments if word not in fields]
  )
  if fields and options.run is not _run_show:
    parser.error(f'unrecognized arguments: {" ".join(fields)}')
  options.config_fields = fields
  return options


def _with_home(word):
  """Puts the home directory for a `~` behind `=`, which shells leave."""
  option, equals, value = word.partition('=')
  if not (equals and option.startswith('--')):
    return word
  return f'{option}={os.path.expanduser(value)}'


def _run_folder(options):
  source = read_folder(
    options.videos,
    name=options.name,
    labels=options.labels,
    train_list=options.train_list,
    val_list=options.val_list,
    val_percent=options.val_percent,
    follow_links=options.follow_links,
    without_labels=options.no_labels,
  )
  return prepare_and_print(source, options)


def _run_demo(options):
  # Imported here: the other commands do without the renderer.
  from demo_data import demo_files

  if is_remote(options.out) and not options.videos:
    raise InputError(
      f'--out is {options.out}; say with --videos where to render here'
    )
  videos = options.videos or f'{options.out.rstrip(os.sep)}-videos'
  with _rendering(videos, 'video', options.num_videos) as bar:
    demo_files.write_video_files(
      videos,
      seed=options.seed,
      num_videos=options.num_videos,
      look=options.look,
      num_processes=options.processes,
      on_video=bar.update,
    )
  source = read_folder(
    videos, name=options.name, val_percent=options.val_percent
  )
  return prepare_and_print(source, options)


def _run_demo_images(options):
  from demo_data import demo_images

  if is_remote(options.out):
    raise InputError(f'--out is {options.out}; images are written here only')
  total = options.num_train + options.num_val
  with _rendering(options.out, 'image', total) as bar:
    demo_images.write_image_folder(
      options.out,
      seed=options.seed,
      num_train=options.num_train,
      num_val=options.num_val,
      num_processes=options.processes,
      on_image=bar.update,
    )
  print(
    f'{options.out}: {options.num_train} training and '
    f'{counted(options.num_val, "validation image")}.'
  )
  return 0


@contextlib.contextmanager
def _rendering(folder, unit, total):
  """Shows progress, and makes what goes wrong one line for the user."""
  with output_errors(folder), progress_bar('rendering', unit, total) as bar:
    try:
      yield bar
    except ValueError as error:
      raise InputError(str(error)) from error


def _run_check(options):
  with contextlib.ExitStack() as stack:
    # Of a data set behind a URL it has copies here, which are to go.
    if not is_remote(options.directory):
      stack.enter_context(interrupts.left_to_the_system())
    problems = check_dataset(options.directory, full=options.full)
  return 1 if problems else 0


def _run_show(options):
  # Before the imports, which take seconds.
  if not options.out.endswith('.html'):
    raise InputError(f'--out is {options.out}; its name must end in .html')
  read_manifest(place_of(options.directory))
  # Config files import one another, and vie_jax is the one beside them.
  sys.path.insert(0, _REPOSITORY)
  # Imported here: it brings the whole of vie_jax, and the others start fast.
  from pages import show_dataset

  try:
    warnings = show_dataset.show_dataset(
      show_dataset.Request(
        directory=options.directory,
        out=options.out,
        config=options.config,
        config_fields=options.config_fields,
        seed=options.seed,
        num_clips=options.num_clips,
        num_threads=num_cores(),
      )
    )
  except KeyboardInterrupt:
    print('\nStopped; no page was written.', file=sys.stderr)
    return 130
  for warning in warnings:
    print(f'WARNING: {warning}', file=sys.stderr)
  print(f'Written: {options.out}')
  return 0


def _parser():
  parser = OptionParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  _add_folder(commands)
  add_definitions(commands)
  _add_check(commands)
  _add_show(commands)
  _add_demo(commands)
  _add_demo_images(commands)
  return parser


def _add_folder(commands):
  parser = commands.add_parser('folder', help='prepare a folder of video files')
  parser.set_defaults(run=_run_folder)
  parser.add_argument('--videos', required=True, metavar='DIR')
  parser.add_argument('--name', help='of the data set (the name of DIR)')
  labels = parser.add_mutually_exclusive_group()
  labels.add_argument(
    '--labels',
    metavar='FILE',
    help='CSV file: path, then one or more label columns (DIR/labels.csv '
    'where it exists, else the subfolders of DIR)',
  )
  labels.add_argument(
    '--no-labels',
    action='store_true',
    help='take none, neither of DIR/labels.csv nor of subfolders',
  )
  parser.add_argument(
    '--train-list', metavar='FILE', help='paths of the train split, by line'
  )
  parser.add_argument(
    '--val-list', metavar='FILE', help='paths of the val split, by line'
  )
  # Where it is not given, such folders decide.
  add_val_percent(
    parser, 'also in place of folders named train and val: ', default=None
  )
  add_follow_links(parser)
  add_common(parser)


def _add_demo(commands):
  parser = commands.add_parser(
    'demo', help='render demonstration videos and prepare them'
  )
  parser.set_defaults(run=_run_demo)
  parser.add_argument(
    '--videos', metavar='DIR', help='where to render them (OUT-videos)'
  )
  parser.add_argument('--seed', type=int_from(0), default=0)
  parser.add_argument('--num-videos', type=int_from(1), default=1000)
  parser.add_argument(
    '--look',
    choices=_LOOKS,
    default=_LOOKS[0],
    help='colours, size and noise; another look makes a data set to transfer '
    'to (day)',
  )
  parser.add_argument(
    '--name', default=_DEMO_NAME, help='of the data set (demo)'
  )
  add_val_percent(parser)
  add_common(parser)


def _add_demo_images(commands):
  parser = commands.add_parser(
    'demo-images',
    help='render a folder of images: frames of other demonstration videos',
  )
  parser.set_defaults(run=_run_demo_images)
  parser.add_argument('--seed', type=int_from(0), default=1)
  parser.add_argument('--num-train', type=int_from(1), default=800)
  parser.add_argument('--num-val', type=int_from(1), default=400)
  parser.add_argument(
    '--out', required=True, metavar='OUT', help='where to put the images'
  )
  add_processes(parser)


def _add_check(commands):
  parser = commands.add_parser('check', help='verify a prepared data set')
  parser.set_defaults(run=_run_check)
  parser.add_argument('directory', metavar='OUT')
  parser.add_argument(
    '--full', action='store_true', help='decode all frames, not a sample'
  )


def _add_show(commands):
  parser = commands.add_parser(
    'show', help='make one HTML page of a prepared data set'
  )
  parser.set_defaults(run=_run_show)
  parser.add_argument('directory', metavar='OUT')
  parser.add_argument(
    '--out', required=True, metavar='PAGE.html', help='the page to write'
  )
  parser.add_argument(
    '--config',
    default=_SHOWN_CONFIG,
    metavar='FILE.py[:VARIANT]',
    help='for whose network clips are shown; --config.FIELD=VALUE changes it '
    '(configs/vie_slowfast.py)',
  )
  parser.add_argument(
    '--seed',
    type=int_from(0, 2**31 - 1),
    help="which clips are drawn (the config's own)",
  )
  parser.add_argument(
    '--num-clips',
    type=int_from(1, 32),
    default=8,
    metavar='N',
    help='training clips, and as many videos of validation, up to 32 (8)',
  )


def _one_line(error):
  return urls.redacted(' '.join(str(error).split()).rstrip('.'))


def _stop(unused_signal, unused_frame):
  raise KeyboardInterrupt


def set_up_process():
  """Makes a process fit to be this command."""
  signal.signal(signal.SIGTERM, _stop)
  # Names of files may hold anything; printing one must not end the run.
  # A stream that was closed at the start is none.
  for stream in filter(None, (sys.stdout, sys.stderr)):
    stream.reconfigure(errors='backslashreplace')


if __name__ == '__main__':
  set_up_process()
  sys.exit(main())
