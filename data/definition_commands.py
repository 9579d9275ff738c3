"""The commands of prepare.py that know a data set by its lists."""

from command_options import (
  add_common,
  add_val_percent,
  prepare_and_print,
)
from list_source import read_list


def add_definitions(commands):
  """Adds the commands.

  Args:
    commands: what `add_subparsers` of an argparse.ArgumentParser returned.
  """
  _add_list(commands)


def _add_list(commands):
  parser = commands.add_parser(
    'list', help='prepare the videos, or parts of videos, that a list names'
  )
  parser.set_defaults(run=_run_list)
  parser.add_argument(
    '--list',
    required=True,
    metavar='FILE',
    help='.csv, .jsonl or .parquet with the column path, and where wanted '
    'label or label_*, split (train, val, test), start and end (seconds)',
  )
  parser.add_argument(
    '--root',
    metavar='DIR',
    help='where the files are; none outside of it is opened (the folder of '
    'FILE)',
  )
  parser.add_argument('--name', help='of the data set (the name of FILE)')
  add_val_percent(parser)
  add_common(parser)


def _run_list(options):
  source = read_list(
    options.list,
    root=options.root,
    name=options.name,
    val_percent=options.val_percent,
  )
  return prepare_and_print(source, options)
