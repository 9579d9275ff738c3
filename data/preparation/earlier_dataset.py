"""Frames that an earlier data set has already: copied, not decoded again.

What comes of it is the same to the byte as if all were decoded: only frames of
the same file, made with the same options by the same versions, are taken. What
is odd about an earlier data set costs its frames, and no video.
"""

import dataclasses
import io
import math
import os
import pathlib

import unread
from array_record.python import array_record_module
from dataset.dataset_layout import SPLITS
from dataset.dataset_tables import read_videos
from dataset.manifest import FRAMES, read_manifest
from dataset.remote import is_remote
from dataset.staging import read_json
from errors import InputError
from media.video_frames import VideoFacts
from PIL import Image
from untrusted import tables

# Of `created_with`, those that decide the bytes of a frame.
_DECODERS = ('av', 'numpy', 'pillow', FRAMES)
_FACTS = {field.name for field in dataclasses.fields(VideoFacts)} - {'warnings'}
# Frames that are in memory at once.
_CHUNK = 128


@dataclasses.dataclass(frozen=True)
class EarlierVideo:
  """Where an earlier data set has the frames of a video.

  Attributes:
    directory: str, the real path.
    shard: str, path of the file.
    first: record of the first frame in it.
    row: dict, what its table says of the video.
  """

  directory: str
  shard: str
  first: int
  row: dict


class NotCopiedError(Exception):
  """The frames are damaged or gone; the video has to be decoded."""


def read_earlier(directory, out, frames, created_with):
  """Looks up what an earlier data set has.

  Videos that it warns of are left out, as its warnings are not told apart:
  they are decoded again, and warned of again.

  Args:
    directory: str, path of the earlier data set.
    out: path of the new one.
    frames: FrameOptions of the new one.
    created_with: dict from what frames are made with to its version, of this
      run.

  Returns:
    dict from id of a video to EarlierVideo.

  Raises:
    InputError: if it is no complete data set, or frames of it would be others.
  """
  if is_remote(directory):
    raise InputError(
      f'--reuse is {directory}; name a data set in a folder of this machine'
    )
  folder = pathlib.Path(directory)
  if os.path.realpath(folder) == os.path.realpath(out):
    raise InputError('--reuse must be another data set than --out')
  manifest = read_manifest(folder)
  wanted = dataclasses.asdict(frames)
  _check_same(folder, 'options', manifest['options'], wanted)
  made_with = manifest.get('created_with')
  if not isinstance(made_with, dict) or FRAMES not in made_with:
    raise InputError(
      f'--reuse {folder} is of an earlier version of this code, whose frames may '
      'be others; leave --reuse out'
    )
  versions = {name: created_with[name] for name in _DECODERS}
  _check_same(folder, 'created_with', made_with, versions)
  warned_of = _warned_of(folder)
  real = os.path.realpath(folder)
  return {
    row['id']: EarlierVideo(real, shard, first, row)
    for split in SPLITS
    for shard, first, row in _rows(folder, manifest, split)
    if row['path'] not in warned_of and _is_sound(row)
  }


def copy_frames(video, frames, report_progress):
  """Copies the frames of a video.

  Args:
    video: EarlierVideo.
    frames: FramesFile that takes them.
    report_progress: called without arguments after each frame.

  Returns:
    VideoFacts, without warnings.

  Raises:
    NotCopiedError: if they are not those that its table tells of; one line.
  """
  size = video.row['width'], video.row['height']
  try:
    # The reader takes a missing file for an empty one.
    reader = array_record_module.ArrayRecordReader(
      video.shard, options='readahead_buffer_size:0,max_parallelism:0'
    )
    last = video.first + video.row['num_frames']
    for start in range(video.first, last, _CHUNK):
      for frame in reader.read([*range(start, min(start + _CHUNK, last))]):
        _check_frame(frame, size)
        frames.write(frame)
        report_progress()
  except (RuntimeError, IndexError) as error:
    raise NotCopiedError(' '.join(str(error).split())) from error
  if frames.digest.hexdigest() != video.row['frames_sha256']:
    raise NotCopiedError('other frames than its table tells of')
  return VideoFacts(**{name: video.row[name] for name in _FACTS})


def _check_frame(frame, size):
  """Looks at the header of a frame."""
  try:
    with Image.open(io.BytesIO(frame), formats=['JPEG']) as image:
      found = image.size
  except (OSError, ValueError, SyntaxError) as error:
    raise NotCopiedError(' '.join(str(error).split())) from error
  if found != size:
    raise NotCopiedError(f'a frame of {found} pixels, not {size}')


def _check_same(folder, key, old, new):
  """Refuses frames that were made in another way."""
  changed = [
    f'{name} {old.get(name)!r}, and here {new[name]!r}'
    for name in new
    if old.get(name) != new[name]
  ]
  if changed:
    raise InputError(
      f'--reuse {folder} was made with other settings, {key}: '
      f'{", ".join(changed)}; use the same as there, or leave --reuse out'
    )


def _warned_of(folder):
  """Returns the paths of which warnings.json says something."""
  path = folder / 'warnings.json'
  try:
    warnings = read_json(path)
    return {warning['path'] for warning in warnings}
  except OSError as error:
    raise InputError(
      f'--reuse: {path} cannot be read: {error.strerror}'
    ) from error
  except (TypeError, KeyError) as error:
    raise InputError(f'--reuse: {path} is damaged or gone') from error


def _is_sound(row):
  """Tells whether the facts of a row can be those of a video."""
  return all(
    row[name] is not None and 0 < row[name] < math.inf for name in _FACTS
  )


def _rows(folder, manifest, split):
  """Yields (shard, first record, row) of each row whose shard is known."""
  name = f'{split}/videos.parquet'
  try:
    rows = read_videos(folder, name, manifest['labels']).to_pylist()
  except (OSError, tables.TableError) as error:
    unread.check(folder / name, error)
    raise InputError(
      f'--reuse: {folder / name} cannot be read: {error}'
    ) from error
  shards = _shards(manifest, split)
  for row in rows:
    while shards and row['first_frame'] >= shards[0][2]:
      shards.pop(0)
    if shards and row['first_frame'] >= shards[0][1]:
      shard, first, _ = shards[0]
      yield os.path.abspath(folder / shard), row['first_frame'] - first, row


def _shards(manifest, split):
  """Returns (name, first frame, last + 1) of each shard of a split."""
  shards, first = [], 0
  for name, entry in sorted(manifest['files'].items()):
    if name.startswith(f'{split}/frames-'):
      shards.append((name, first, first + entry['records']))
      first += entry['records']
  return shards
