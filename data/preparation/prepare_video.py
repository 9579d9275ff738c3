"""What a worker process does with one video file."""

import dataclasses
import errno
import os
import pathlib

from dataset.dataset_layout import file_digest, table_schema
from dataset.staging import FramesFile, OutputError, Staging, write_json
from media.video_errors import VideoError, require_regular_file
from media.video_frames import FrameOptions, write_frames
from sources.find_videos import VideoFile

from preparation.earlier_dataset import (
  EarlierVideo,
  NotCopiedError,
  copy_frames,
)

_RECORD_KEYS = {'path', 'size', 'mtime_ns', 'source_sha256'}
# The columns of the table that a video has by itself, and what shards need.
_ROW_KEYS = {name for name, _ in table_schema({})} - {'first_frame'}
_ROW_KEYS |= {'num_bytes'}
# vie_jax/embeddings/own_files.py looks for it at the end of an error.
_WHEN_IT_ANSWERS = 'run the same command again when it can be read'
# What a network file system says that does not answer, but may later: those of
# vie_jax/files/disk.py, which this does not import, that FFmpeg has no use for.
_AWAY = {
  errno.ECONNABORTED,
  errno.ECONNREFUSED,
  errno.ECONNRESET,
  errno.EHOSTDOWN,
  errno.EHOSTUNREACH,
  errno.ENETDOWN,
  errno.ENETUNREACH,
  errno.ENOTCONN,
  errno.ESHUTDOWN,
  errno.ESTALE,
  errno.ETIMEDOUT,
}


@dataclasses.dataclass(frozen=True)
class Task:
  """One video to prepare.

  Attributes:
    folder: str, the folder of videos.
    video: VideoFile, as listed.
    out: str, the output directory.
    options: FrameOptions.
    earlier: EarlierVideo, whose frames are these if its file is the same; or
      None.
  """

  folder: str
  video: VideoFile
  out: str
  options: FrameOptions
  earlier: EarlierVideo | None = None


def prepare_video(task, report_progress=lambda: None):
  """Puts the frames of one video into the staging directory.

  Args:
    task: Task.
    report_progress: called without arguments when decoding begins, and after
      each picture of the file and each frame that is kept.

  Returns:
    dict, the record of the video: with 'row' and 'warnings', and 'copied_from'
    where its frames are those of an earlier data set, or 'not_copied', why they
    are not; or with the 'reason' why it cannot be used. Or str, an error that
    must stop the run.
  """
  record = {
    'path': task.video.path,
    'size': task.video.size,
    'mtime_ns': task.video.mtime_ns,
    'source_sha256': '',
  }
  staging = Staging(task.out)
  try:
    record |= _prepared(task, staging, report_progress)
    path = staging.record_path(task.video.id)
    write_json(path, record, aside=staging.directory)
  except OutputError as error:
    return str(error)
  except VideoError as error:
    # Of a file system that does not answer; all else is in the record.
    return f'{error}; {_WHEN_IT_ANSWERS}'
  return record


def is_current(record, video):
  """Tells whether a record is sound, and of the file as it is now."""
  return (
    _is_record(record)
    and record['path'] == video.path
    and record['size'] == video.size
    and record['mtime_ns'] == video.mtime_ns
  )


def _is_record(value):
  """Tells whether a value has the keys of a record of `prepare_video`."""
  if not isinstance(value, dict) or not value.keys() >= _RECORD_KEYS:
    return False
  if 'reason' in value:
    return isinstance(value['reason'], str)
  row, warnings = value.get('row'), value.get('warnings')
  return (
    isinstance(row, dict)
    and row.keys() >= _ROW_KEYS
    and isinstance(warnings, list)
  )


def _prepared(task, staging, report_progress):
  """Returns what a record says of a video beside its path, size and time."""
  source = os.path.join(task.folder, task.video.file)
  source_sha256 = ''
  made, not_copied = None, {}
  try:
    _check_place(source, task.folder)
    source_sha256 = _digest(source)
    report_progress()
    if task.earlier and task.earlier.row['source_sha256'] == source_sha256:
      try:
        made = _copied(task, source, staging, report_progress)
      except NotCopiedError as error:
        earlier = task.earlier.directory
        not_copied = {'not_copied': {'from': earlier, 'reason': str(error)}}
    if made is None:
      made = _decoded(task, source, staging, report_progress)
  except VideoError as error:
    if _is_away(error):
      raise
    return {'source_sha256': source_sha256, 'reason': error.reason}
  made['row']['source_sha256'] = source_sha256
  return made | not_copied | {'source_sha256': source_sha256}


def _is_away(error):
  """Tells whether an error comes of a file system that does not answer."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _AWAY:
      return True
    error = error.__cause__ or error.__context__
  return False


def _copied(task, source, staging, report_progress):
  """Takes the frames of the earlier data set."""

  def copy(frames):
    return copy_frames(task.earlier, frames, report_progress)

  made = _staged(task, source, staging, copy)
  return made | {'copied_from': task.earlier.directory}


def _decoded(task, source, staging, report_progress):
  def decode(frames):
    def write(jpeg):
      frames.write(jpeg)
      report_progress()

    return write_frames(
      source,
      task.options,
      write,
      segment=task.video.segment,
      on_picture=report_progress,
    )

  return _staged(task, source, staging, decode)


def _staged(task, source, staging, write_to):
  """Makes the file of frames by a function that returns VideoFacts."""
  with FramesFile(staging.frames_path(task.video.id)) as frames:
    facts = write_to(frames)
    _check_unchanged(source, task.video)
  row = dataclasses.asdict(facts)
  warnings = row.pop('warnings')
  row |= {
    'id': task.video.id,
    'path': task.video.path,
    'frames_sha256': frames.digest.hexdigest(),
    'num_bytes': frames.num_bytes,
  }
  return {'row': row, 'warnings': warnings}


def _check_place(source, folder):
  """Refuses what has become something else since it was listed.

  What is listed outside of the folder, with --follow-links, is a file without
  symlinks on the way to it.
  """
  require_regular_file(source)
  real = os.path.realpath(source)
  is_inside = pathlib.Path(real).is_relative_to(folder)
  if not is_inside and real != os.path.normpath(source):
    raise VideoError(source, 'a symlink that leads out of the folder')


def _digest(source):
  try:
    return file_digest(source)
  except OSError as error:
    raise VideoError(source, f'cannot be read: {error.strerror}') from error


def _check_unchanged(source, video):
  """Refuses a file that somebody writes to, or that is gone."""
  try:
    status = os.stat(source)
  except OSError as error:
    raise VideoError(
      source, f'vanished while it was read: {error.strerror}'
    ) from error
  if (status.st_size, status.st_mtime_ns) != (video.size, video.mtime_ns):
    raise VideoError(
      source,
      'changed after it was listed; prepare it again when it is finished',
    )
