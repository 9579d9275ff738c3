"""Video files of one's own, prepared on the way: by data/prepare.py.

It is run as a command, as a user would run it: this package imports nothing of
data/, and the decoder of foreign files stays in other processes.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import TextIO

from absl import logging

from vie_jax.input_pipeline.dataset_folder import (
  DatasetError,
  UnreachableError,
)
from vie_jax.processes import watchdog
from vie_jax.wording import counted

PREPARE = pathlib.Path(__file__).parents[2] / 'data' / 'prepare.py'
# The same as data/media/guarded_container.py has; a test holds that.
VIDEO_SUFFIXES = (
  '.264 .265 .3g2 .3gp .3gp2 .3gpp .asf .avc .avi .divx .dv .f4v .flv '
  '.gif .h264 .h265 .hevc .ivf .m1v .m2p .m2t .m2ts .m2v .m4v .mj2 .mjpeg '
  '.mjpg .mk3d .mkv .mov .mp4 .mpe .mpeg .mpg .mpv .mts .mxf .nut .ogg .ogm '
  '.ogv .qt .rm .rmvb .tp .trp .ts .vob .vro .webm .wmv .y4m'
)
# How the command's error ends where that is what helps.
_RESTART = 'add --restart to throw it away and start again'
_WHEN_IT_ANSWERS = 'run the same command again when it can be read'
# What the command advises, in the words of options that nobody here gave it ->
# what helps.
_OF_COMMAND = {
  'prepare.py --follow-links takes it': (
    'copy it there, or name what it leads to'
  ),
}
_NAMED = 20


class PreparationError(DatasetError):
  """Videos cannot be prepared.

  Args:
    source: what the user has named.
    reason: a sentence.
    remedy: likewise, on the command or its folder; or ''.
  """

  def __init__(self, source: pathlib.Path, reason: str, remedy: str):
    message = f'{source} cannot be prepared: {reason} {remedy}'
    super().__init__(message.rstrip())
    self.reason = reason
    self.remedy = remedy


def folder_of(source: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  """Gives a file a folder of its own; a folder is one already.

  Args:
    source: a file or a folder.
    out: receives the folder `files`, with a link to the file, or a copy where
      there can be none.

  Returns:
    The folder that holds what is to be prepared.

  Raises:
    DatasetError: if there is no such file or folder.
  """
  if source.is_dir():
    return source
  if not source.is_file():
    raise DatasetError(f'There is no file or folder {source}.')
  folder = out / 'files'
  folder.mkdir(parents=True, exist_ok=True)
  # Files whose names begin with a dot would be passed over.
  target = folder / (source.name.lstrip('.') or 'file')
  for old in folder.iterdir():
    if old != target or not _is_same(old, source):
      old.unlink()
  if not target.exists():
    try:
      os.link(source.resolve(), target)
    except OSError:
      shutil.copy2(source, target)
  return folder


def _is_same(first, second):
  first, second = first.stat(), second.stat()
  return (first.st_size, first.st_mtime_ns) == (
    second.st_size,
    second.st_mtime_ns,
  )


def has_videos(folder: pathlib.Path, image_suffixes: tuple[str, ...]) -> bool:
  """Whether a folder is one of videos, and not of images.

  It is if it has a video other than a GIF, which can be either, or no image
  other than one.

  Args:
    folder: to look into, subfolders included.
    image_suffixes: those of images.
  """
  num_videos = num_images = num_gifs = 0
  video_suffixes = set(VIDEO_SUFFIXES.split()) - {'.gif'}
  image_suffixes = set(image_suffixes) - {'.gif'}
  for _, folders, files in os.walk(folder):
    folders[:] = [name for name in folders if not name.startswith('.')]
    for name in files:
      suffix = os.path.splitext(name)[1].lower()
      if not name.startswith('.'):
        num_videos += suffix in video_suffixes
        num_images += suffix in image_suffixes
        num_gifs += suffix == '.gif'
  if num_videos and num_images:
    logging.info(
      '%s has %s and %s; only videos are taken.',
      folder,
      counted(num_videos + num_gifs, 'video'),
      counted(num_images, 'image'),
    )
  return bool(num_videos or not num_images)


def prepare(
  folder: pathlib.Path,
  out: pathlib.Path,
  name: str,
  *,
  source: pathlib.Path | None = None,
  has_labels: bool = True,
  check_owner: Callable[[], None] = lambda: None,
) -> pathlib.Path:
  """Makes a prepared data set of a folder of videos, all of them in train.

  What a killed call has done is not done again, and a finished data set of the
  same files is taken as it is; one of other files is made anew.

  Args:
    folder: of video files.
    out: receives the folder `prepared`.
    name: of the data set.
    source: what the user has named, if it is not the folder.
    has_labels: whether labels of the folder are taken, which must be sound.
    check_owner: called before anything takes long, or is thrown away; raises if
      `out` is not for these files.

  Returns:
    The prepared data set.

  Raises:
    PreparationError: in one line, if it cannot be made.
    UnreachableError: if a video's file system does not answer.
  """
  prepared, source = out / 'prepared', source or folder
  if not PREPARE.is_file():
    raise PreparationError(
      source,
      'it has no dataset.json, and video files are prepared by data/prepare.py '
      f'of the repository, which is not at {PREPARE}.',
      'Run that from a copy of the repository and name the folder that it '
      'writes.',
    )
  if not (prepared / 'dataset.json').exists():
    check_owner()
  logging.info('Preparing the videos of %s in %s.', source, prepared)
  more = () if has_labels else ('--no-labels',)
  message = _run(folder, prepared, name, *more)
  if message.rstrip('.').endswith(_RESTART):
    check_owner()
    logging.info('All is made anew: %s.', message.rpartition(';')[0])
    message = _run(folder, prepared, name, '--restart', *more)
  if message.rstrip('.').endswith(_WHEN_IT_ANSWERS):
    raise UnreachableError(message)
  if message:
    raise PreparationError(
      source,
      message.replace(str(folder), str(source)),
      f'To start anew, remove {prepared}.' if prepared.exists() else '',
    )
  _name_skipped(prepared)
  return prepared


def _run(folder, prepared, name, *more):
  """Runs the command; returns the error that it ends with, or ''."""
  watchdog.expect('the preparation of the next videos', is_slow=True)
  process = subprocess.Popen(
    [
      sys.executable,
      str(PREPARE),
      'folder',
      f'--videos={folder}',
      f'--out={prepared}',
      f'--name={name}',
      '--val-percent=0',
      *more,
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    encoding='utf-8',
    errors='replace',
  )
  message = _pass_on(process.stderr)
  watchdog.expect('what is prepared', is_slow=True)
  return message if process.wait() else ''


def _pass_on(stream: TextIO) -> str:
  """Shows how far a process is, and returns the error that it ends with."""
  message = 'it was stopped.'
  for line in map(_in_own_words, stream):
    watchdog.beat()
    if line.startswith('Error: '):
      message = line.removeprefix('Error: ').strip()
    elif line.strip():
      sys.stderr.write(line)
  return message


def _in_own_words(text):
  for advice, remedy in _OF_COMMAND.items():
    text = text.replace(advice, remedy)
  return text


def skipped(prepared: pathlib.Path) -> list[dict]:
  """Returns `path` and `reason` of each file that could not be used."""
  entries = json.loads((prepared / 'skipped.json').read_text('utf-8'))
  return [
    {**entry, 'reason': _in_own_words(entry['reason'])} for entry in entries
  ]


def _name_skipped(prepared):
  """Logs the files that could not be used, and why."""
  entries = skipped(prepared)
  for entry in entries[:_NAMED]:
    logging.warning('Skipped: %s: %s', entry['path'], entry['reason'])
  if len(entries) > _NAMED:
    logging.warning(
      '%d more were skipped, see %s.',
      len(entries) - _NAMED,
      prepared / 'skipped.json',
    )
