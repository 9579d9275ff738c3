"""The commands of prepare.py that know a data set by its lists."""

import argparse
import dataclasses
import os
import pathlib

from command_options import (
  add_common,
  add_follow_links,
  add_val_percent,
  int_from,
  prepare_and_print,
)
from dataset.remote import is_remote
from dataset.staging import read_json
from errors import InputError
from sources.action_source import read_hmdb51, read_ucf101
from sources.archives import ARCHIVE_SUFFIXES, extract_archive, is_archive
from sources.kinetics_source import read_kinetics400
from sources.list_source import read_list

_HIGHEST_RATE_HZ = 1000


def add_definitions(commands):
  """Adds the commands.

  Args:
    commands: what `add_subparsers` of an argparse.ArgumentParser returned.
  """
  _add_list(commands)
  _add_kinetics400(commands)
  _add_actions(
    commands,
    'ucf101',
    read_ucf101,
    archive='UCF101.rar',
    lists='UCF101TrainTestSplits-RecognitionTask.zip',
  )
  _add_actions(
    commands,
    'hmdb51',
    read_hmdb51,
    archive='hmdb51_org.rar',
    lists='test_train_splits.rar',
  )
  _add_tfds(commands)


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


def _add_actions(commands, name, read, *, archive, lists):
  """Adds the command of a data set with three official splits."""
  parser = commands.add_parser(
    name, help=f'prepare {name.upper()} with one of its official splits'
  )
  parser.set_defaults(run=lambda options: _run_actions(options, read))
  parser.add_argument(
    '--videos',
    required=True,
    metavar='DIR',
    help=f'the folder of videos, or {archive}',
  )
  parser.add_argument(
    '--splits',
    required=True,
    metavar='DIR',
    help=f'the folder of the official lists, or {lists}',
  )
  parser.add_argument(
    '--split', required=True, type=int_from(1, 3), metavar='{1,2,3}'
  )
  parser.add_argument(
    '--name',
    help=f'of the data set ({name}, of splits 2 and 3 {name}-split2 and 3)',
  )
  parser.add_argument(
    '--extract-to',
    metavar='DIR',
    help='where to unpack an archive (OUT-videos)',
  )
  add_follow_links(parser)
  add_common(parser)


def _run_actions(options, read):
  videos = options.videos
  if os.path.isfile(videos) and not is_archive(videos):
    raise InputError(
      f'--videos {videos} is neither a folder nor an archive of a kind that is '
      f'read ({" ".join(ARCHIVE_SUFFIXES)}); unpack it yourself and name the '
      'folder'
    )
  if is_archive(videos) and not os.path.isdir(videos):
    archive = videos
    videos = options.extract_to or _beside(options.out)
    extract_archive(archive, videos)
  source = read(
    videos,
    splits=options.splits,
    split=options.split,
    name=options.name,
    follow_links=options.follow_links,
  )
  return prepare_and_print(source, options)


def _add_kinetics400(commands):
  parser = commands.add_parser(
    'kinetics400', help='prepare a folder of downloaded clips of Kinetics-400'
  )
  parser.set_defaults(run=_run_kinetics400)
  parser.add_argument('--videos', required=True, metavar='DIR')
  parser.add_argument(
    '--name', default='kinetics400', help='of the data set (kinetics400)'
  )
  for split in ('train', 'val'):
    parser.add_argument(
      f'--{split}-csv',
      metavar='FILE',
      help=f'the official list of {split} (folders named train and val)',
    )
  parser.add_argument(
    '--whole-videos',
    action='store_true',
    help='ID.mp4 is a whole video of the web: take the times of the lists',
  )
  add_follow_links(parser)
  add_val_percent(parser)
  add_common(parser)


def _run_kinetics400(options):
  source = read_kinetics400(
    options.videos,
    train_csv=options.train_csv,
    val_csv=options.val_csv,
    whole_videos=options.whole_videos,
    val_percent=options.val_percent,
    name=options.name,
    follow_links=options.follow_links,
  )
  return prepare_and_print(source, options)


def _add_tfds(commands):
  parser = commands.add_parser(
    'tfds', help='prepare a TFDS data set that has a video feature'
  )
  parser.set_defaults(run=_run_tfds)
  parser.add_argument(
    '--name',
    required=True,
    metavar='NAME[:VERSION]',
    help='as tfds.builder takes it; downloaded and prepared before',
  )
  parser.add_argument(
    '--data-dir', metavar='DIR', help='of TFDS (where it looks itself)'
  )
  parser.add_argument(
    '--video', metavar='KEY', help='the feature (the only tfds.features.Video)'
  )
  parser.add_argument(
    '--label',
    metavar='KEY',
    help='the feature, such as meta/label (the only ClassLabel, if any)',
  )
  parser.add_argument(
    '--frame-rate',
    type=_frame_rate,
    default=25,
    metavar='HZ',
    help='of the stored frames, such as 12.5, which TFDS does not tell (25)',
  )
  parser.add_argument(
    '--extract-to',
    metavar='DIR',
    help='where to put the videos as files (OUT-videos)',
  )
  add_val_percent(parser, 'where it has one split only: ')
  add_common(parser)


def _frame_rate(text):
  """Reads a frame rate, for argparse: int or float in [1, 1000]."""
  try:
    rate = float(text)
  except ValueError:
    raise argparse.ArgumentTypeError(f'{text!r} is no number') from None
  if not 1 <= rate <= _HIGHEST_RATE_HZ:
    raise argparse.ArgumentTypeError(
      f'{text} is not in [1, {_HIGHEST_RATE_HZ}]'
    )
  return int(rate) if rate.is_integer() else rate


def _run_tfds(options):
  # Imported here: the other commands do without TensorFlow.
  from sources.tfds_videos import LIST_FILE, SKIPPED_FILE, write_tfds_videos

  folder = options.extract_to or _beside(options.out)
  data_set = write_tfds_videos(
    options.name,
    folder,
    data_dir=options.data_dir,
    video=options.video,
    label=options.label,
    frame_rate_hz=options.frame_rate,
  )
  # With its config, such as a split of UCF101, and without its version.
  *names, _ = data_set.split('/')
  source = read_list(
    os.path.join(folder, LIST_FILE),
    name='-'.join(['tfds', *names]),
    val_percent=options.val_percent,
  )
  definition = {'definition': 'tfds', 'data_set': data_set}
  skipped = read_json(pathlib.Path(folder) / SKIPPED_FILE) or []
  source = dataclasses.replace(
    source,
    options=source.options | definition,
    skipped=sorted(source.skipped + skipped, key=lambda entry: entry['path']),
  )
  return prepare_and_print(source, options)


def _beside(out):
  if is_remote(out):
    raise InputError(
      f'--out is {out}; say with --extract-to where the videos go here'
    )
  return f'{out.rstrip(os.sep)}-videos'
