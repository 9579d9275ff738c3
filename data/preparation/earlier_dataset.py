"""Frames that an earlier data set has already: copied, not decoded again.

What comes of it is the same to the byte as if all were decoded: only frames of
the same file, made with the same options by the same versions, are taken.
"""

import dataclasses
import os
import pathlib

from array_record.python import array_record_module
from dataset.dataset_tables import read_videos
from dataset.dataset_writer import SPLITS
from dataset.manifest import read_manifest
from dataset.remote import is_remote
from dataset.staging import read_json
from errors import InputError
from media.video_frames import VideoFacts
from untrusted import tables

# Of `created_with`, those that decide the bytes of a frame.
_DECODERS = ('av', 'numpy', 'pillow')
_FACTS = {field.name for field in dataclasses.fields(VideoFacts)} - {'warnings'}
# Frames that are in memory at once.
_CHUNK = 128


@dataclasses.dataclass(frozen=True)
class EarlierVideo:
  """Where an earlier data set has the frames of a video.

  Attributes:
    shard: str, path of the file.
    first: record of the first frame in it.
    row: dict, what its table says of the video.
  """

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
    created_with: dict from package to version, of this run.

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
  versions = {name: created_with[name] for name in _DECODERS}
  _check_same(folder, 'created_with', manifest.get('created_with'), versions)
  warned_of = _warned_of(folder)
  return {
    video.row['id']: video
    for split in SPLITS
    for video in _videos(folder, manifest, split)
    if video.row['path'] not in warned_of
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
    NotCopiedError: if they are not those that its table tells of.
  """
  try:
    # The reader takes a missing file for an empty one.
    reader = array_record_module.ArrayRecordReader(
      video.shard, options='readahead_buffer_size:0,max_parallelism:0'
    )
    last = video.first + video.row['num_frames']
    for start in range(video.first, last, _CHUNK):
      for frame in reader.read([*range(start, min(start + _CHUNK, last))]):
        frames.write(frame)
        report_progress()
  except (RuntimeError, IndexError) as error:
    raise NotCopiedError(str(error)) from error
  if frames.digest.hexdigest() != video.row['frames_sha256']:
    raise NotCopiedError('other frames than in its table')
  return VideoFacts(**{name: video.row[name] for name in _FACTS})


def _check_same(folder, key, old, new):
  """Refuses frames that were made in another way."""
  old = old if isinstance(old, dict) else {}
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
  warnings = read_json(folder / 'warnings.json')
  is_list = isinstance(warnings, list)
  if not is_list or not all(isinstance(each, dict) for each in warnings):
    raise InputError(f'--reuse: {folder / "warnings.json"} is damaged or gone')
  return {each.get('path') for each in warnings}


def _videos(folder, manifest, split):
  """Yields the EarlierVideo of each row of a split whose shard is known."""
  name = f'{split}/videos.parquet'
  try:
    rows = read_videos(folder, name, manifest['labels']).to_pylist()
  except (OSError, tables.TableError) as error:
    raise InputError(
      f'--reuse: {folder / name} cannot be read: {error}'
    ) from error
  shards = _shards(manifest, split)
  for row in rows:
    while shards and row['first_frame'] >= shards[0][2]:
      shards.pop(0)
    if shards and row['first_frame'] >= shards[0][1]:
      shard, first, _ = shards[0]
      path = os.path.abspath(folder / shard)
      yield EarlierVideo(path, row['first_frame'] - first, row)


def _shards(manifest, split):
  """Returns (name, first frame, last + 1) of each shard of a split."""
  shards, first = [], 0
  for name, entry in sorted(manifest['files'].items()):
    if name.startswith(f'{split}/') and 'records' in entry:
      shards.append((name, first, first + entry['records']))
      first += entry['records']
  return shards
