"""Prepares video files for training, and checks what was prepared.

  python data/prepare.py folder --videos DIR --out OUT
  python data/prepare.py check OUT
  python data/prepare.py demo --out OUT
  python data/prepare.py demo-images --out OUT

Each command says with --help what it takes. A stopped run goes on when the
same command is given again.
"""

import argparse
import contextlib
import dataclasses
import os
import signal
import sys

from check_dataset import check_dataset
from labels_and_splits import InputError
from prepare_folder import Request, prepare_folder
from progress import progress_bar
from staging import OutputError, output_errors
from summary import print_summary
from video_frames import FrameOptions
from worker_pool import WorkerStartError

_DEMO_NAME = 'demo'
# Those of demo_videos.py, which only its commands import.
_LOOKS = ('day', 'night')


def main(arguments=None):
  """Runs one command.

  Args:
    arguments: list of str; None for those of the process.

  Returns:
    int, the exit code: 0 done, 1 `check` found something wrong, 2 the
    command cannot be carried out, 130 stopped from outside.
  """
  options = _parser().parse_args(arguments)
  try:
    return options.run(options)
  except (InputError, OutputError, WorkerStartError) as error:
    print(f'Error: {_one_line(error)}.', file=sys.stderr)
    return 2
  except BrokenPipeError:
    # Whoever read our output has left, as in "prepare.py ... | head".
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except KeyboardInterrupt:
    print('\nStopped. The same command goes on from here.', file=sys.stderr)
    return 130


def _run_folder(options):
  return _prepare(_request(options, name=options.name, videos=options.videos))


def _run_demo(options):
  # Imported here: the other commands do without the renderer.
  import demo_videos

  videos = options.videos or f'{options.out.rstrip(os.sep)}-videos'
  with _rendering(videos, 'video', options.num_videos) as bar:
    demo_videos.write_video_files(
      videos,
      seed=options.seed,
      num_videos=options.num_videos,
      look=options.look,
      num_processes=options.processes,
      on_video=bar.update,
    )
  return _prepare(_request(options, name=options.name, videos=videos))


def _run_demo_images(options):
  import demo_images

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
    f'{options.out}: {options.num_train} training and {options.num_val} '
    'validation images.'
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
  problems = check_dataset(options.directory, full=options.full)
  return 1 if problems else 0


def _prepare(request):
  manifest, is_new = prepare_folder(request)
  if not is_new:
    print(f'{request.out} is already complete; nothing to do.')
  print_summary(request.out, manifest)
  return 0


def _request(options, *, name, videos):
  return Request(
    videos=videos,
    out=options.out,
    name=name,
    labels=getattr(options, 'labels', None),
    train_list=getattr(options, 'train_list', None),
    val_list=getattr(options, 'val_list', None),
    val_percent=options.val_percent,
    num_processes=options.processes,
    timeout_seconds=options.timeout,
    restart=options.restart,
    frames=FrameOptions(
      short_side=options.short_side,
      jpeg_quality=options.jpeg_quality,
      max_seconds=options.max_seconds,
      max_pixels=options.max_pixels,
    ),
  )


def _parser():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  _add_folder(commands)
  _add_check(commands)
  _add_demo(commands)
  _add_demo_images(commands)
  return parser


def _add_folder(commands):
  parser = commands.add_parser('folder', help='prepare a folder of video files')
  parser.set_defaults(run=_run_folder)
  parser.add_argument('--videos', required=True, metavar='DIR')
  parser.add_argument('--name', help='of the data set (the name of DIR)')
  parser.add_argument(
    '--labels',
    metavar='FILE',
    help='CSV file: path, then one or more label columns (DIR/labels.csv '
    'where it exists, else the subfolders of DIR)',
  )
  parser.add_argument(
    '--train-list', metavar='FILE', help='paths of the train split, by line'
  )
  parser.add_argument(
    '--val-list', metavar='FILE', help='paths of the val split, by line'
  )
  _add_common(parser)


def _add_demo(commands):
  parser = commands.add_parser(
    'demo', help='render demonstration videos and prepare them'
  )
  parser.set_defaults(run=_run_demo)
  parser.add_argument(
    '--videos', metavar='DIR', help='where to render them (OUT-videos)'
  )
  parser.add_argument('--seed', type=_int_from(0), default=0)
  parser.add_argument('--num-videos', type=_int_from(1), default=1000)
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
  _add_common(parser)


def _add_demo_images(commands):
  parser = commands.add_parser(
    'demo-images',
    help='render a folder of images: frames of other demonstration videos',
  )
  parser.set_defaults(run=_run_demo_images)
  parser.add_argument('--seed', type=_int_from(0), default=1)
  parser.add_argument('--num-train', type=_int_from(1), default=800)
  parser.add_argument('--num-val', type=_int_from(1), default=400)
  parser.add_argument(
    '--out', required=True, metavar='OUT', help='where to put the images'
  )
  _add_processes(parser)


def _add_check(commands):
  parser = commands.add_parser('check', help='verify a prepared data set')
  parser.set_defaults(run=_run_check)
  parser.add_argument('directory', metavar='OUT')
  parser.add_argument(
    '--full', action='store_true', help='decode all frames, not a sample'
  )


def _add_common(parser):
  default = {f.name: f.default for f in dataclasses.fields(FrameOptions)}
  add = parser.add_argument
  add('--out', required=True, metavar='OUT', help='where to put the data set')
  add(
    '--val-percent',
    type=_int_from(0, 100),
    default=10,
    metavar='N',
    help='share of videos held out, chosen by a hash of the path (10)',
  )
  _add_processes(parser)
  add('--restart', action='store_true', help='throw away what is in OUT')
  for name, lowest, text in (
    ('short_side', 8, 'larger pictures are shrunk to this short side'),
    ('jpeg_quality', 1, 'of the stored frames'),
    ('max_seconds', 1, 'longer videos are skipped'),
    ('max_pixels', 1, 'videos with larger pictures are skipped'),
  ):
    add(
      f'--{name.replace("_", "-")}',
      type=_int_from(lowest, 95 if name == 'jpeg_quality' else None),
      default=default[name],
      metavar='N',
      help=f'{text} ({default[name]})',
    )
  add(
    '--timeout',
    type=_int_from(1),
    default=600,
    metavar='SECONDS',
    help='a video that takes longer is skipped (600)',
  )


def _add_processes(parser):
  parser.add_argument(
    '--processes',
    type=_int_from(1),
    default=_num_cores(),
    metavar='N',
    help='worker processes (one for each core)',
  )


def _int_from(lowest, highest=None):
  def parse(text):
    value = int(text)
    if value < lowest or (highest is not None and value > highest):
      raise argparse.ArgumentTypeError(
        f'{value} is not in [{lowest}, {"..." if highest is None else highest}]'
      )
    return value

  parse.__name__ = 'int'
  return parse


def _num_cores():
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _one_line(error):
  return ' '.join(str(error).split()).rstrip('.')


def _stop(unused_signal, unused_frame):
  raise KeyboardInterrupt


if __name__ == '__main__':
  signal.signal(signal.SIGTERM, _stop)
  # Names of files may hold anything; printing one must not end the run.
  sys.stdout.reconfigure(errors='backslashreplace')
  sys.stderr.reconfigure(errors='backslashreplace')
  sys.exit(main())
