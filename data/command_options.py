"""The options that the commands of prepare.py share, and what they lead to."""

import argparse
import dataclasses
import os

from dataset.summary import print_summary
from media.video_frames import FrameOptions
from preparation.bad_share import FIRST_LOOK
from preparation.prepare_dataset import Settings, prepare_dataset
from sources.folder_source import VAL_PERCENT


def prepare_and_print(source, options):
  """Prepares a source with the options of `add_common`; prints a summary.

  Args:
    source: Source.
    options: argparse.Namespace.

  Returns:
    int, exit code.

  Raises:
    InputError: if the input or the state of the output does not allow it.
    OutputError: if the output cannot be written.
  """
  settings = Settings(
    out=options.out,
    staging=options.staging,
    num_processes=options.processes,
    timeout_seconds=options.timeout,
    max_stall_seconds=options.max_stall,
    max_memory_mib=options.max_memory,
    max_bad_percent=options.max_bad_percent,
    restart=options.restart,
    reuse=options.reuse,
    frames=FrameOptions(
      short_side=options.short_side,
      jpeg_quality=options.jpeg_quality,
      max_seconds=options.max_seconds,
      max_pixels=options.max_pixels,
    ),
  )
  manifest, is_new = prepare_dataset(source, settings, cluster=options.cluster)
  if not is_new:
    print(f'{options.out} is already complete; nothing to do.')
  print_summary(options.out, manifest)
  return 0


def add_common(parser):
  """Adds the options of every command that prepares a data set."""
  default = {
    field.name: field.default
    for options in (Settings, FrameOptions)
    for field in dataclasses.fields(options)
  }
  add = parser.add_argument
  add(
    '--out',
    required=True,
    metavar='OUT',
    help='where to put the data set: a folder, or a URL such as '
    's3://bucket/dataset',
  )
  add(
    '--staging',
    metavar='DIR',
    help='for a URL: the folder here in which the data set is made, and which '
    'must have room for its frames (one in ~/.cache/vie_jax)',
  )
  add_processes(parser)
  add('--restart', action='store_true', help='throw away what is in OUT')
  add(
    '--reuse',
    metavar='DIR',
    help='a data set that was prepared before: of videos that are in it, too, '
    'frames are copied, not decoded again; OUT is the same with it or without',
  )
  for name, lowest, text in (
    ('short_side', 8, 'larger pictures are shrunk to this short side'),
    ('jpeg_quality', 1, 'of the stored frames'),
    ('max_seconds', 1, 'longer videos are skipped'),
    ('max_pixels', 1, 'videos with larger pictures are skipped'),
  ):
    add(
      f'--{name.replace("_", "-")}',
      type=int_from(lowest, 95 if name == 'jpeg_quality' else None),
      default=default[name],
      metavar='N',
      help=f'{text} (%(default)s)',
    )
  add(
    '--timeout',
    type=int_from(1),
    default=default['timeout_seconds'],
    metavar='SECONDS',
    help='a video that takes longer is skipped (%(default)s)',
  )
  add(
    '--max-stall',
    type=int_from(1),
    default=default['max_stall_seconds'],
    metavar='SECONDS',
    help='a video that gives no new picture for so long is skipped (%(default)s)',
  )
  add(
    '--max-memory',
    type=int_from(64),
    default=default['max_memory_mib'],
    metavar='MIB',
    help='a video for which a process needs more is skipped (%(default)s)',
  )
  add(
    '--max-bad-percent',
    type=int_from(0, 100),
    default=default['max_bad_percent'],
    metavar='N',
    help=f'stop when more than this share cannot be used, once {FIRST_LOOK} '
    'videos were tried (%(default)s)',
  )


def add_val_percent(parser, condition='', *, default=VAL_PERCENT):
  """Adds the share of videos that are held out, under some condition.

  Args:
    parser: of the command.
    condition: text, where it holds under some only.
    default: None where the command decides, on VAL_PERCENT or folders.
  """
  parser.add_argument(
    '--val-percent',
    type=int_from(0, 100),
    default=default,
    metavar='N',
    help=f'{condition}share of videos held out, chosen by a hash of the path '
    f'({VAL_PERCENT})',
  )


def add_follow_links(parser):
  """Adds whether symlinks that lead out of --videos are followed."""
  parser.add_argument(
    '--follow-links',
    action='store_true',
    help='follow symlinks that lead out of DIR, too: for links of your own',
  )


def add_processes(parser):
  """Adds the number of worker processes."""
  parser.add_argument(
    '--processes',
    type=int_from(1),
    default=num_cores(),
    metavar='N',
    help='worker processes (one for each core)',
  )


def int_from(lowest, highest=None):
  """Returns a type for argparse: int in [lowest, highest]."""

  def parse(text):
    try:
      value = int(text)
    except ValueError:
      raise argparse.ArgumentTypeError(f'{text!r} is no whole number') from None
    if value < lowest or (highest is not None and value > highest):
      raise argparse.ArgumentTypeError(
        f'{value} is not in [{lowest}, {"..." if highest is None else highest}]'
      )
    return value

  return parse


def num_cores():
  """How many cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
