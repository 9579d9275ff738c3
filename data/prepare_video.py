"""What a worker process does with one video file."""

import dataclasses
import os

from dataset_writer import file_digest
from find_videos import VideoFile
from open_video import VideoError
from staging import FramesFile, OutputError, Staging, write_json
from video_frames import FrameOptions, write_frames


@dataclasses.dataclass(frozen=True)
class Task:
  """One video to prepare.

  Attributes:
    folder: str, the folder of videos.
    video: VideoFile, as listed.
    out: str, the output directory.
    options: FrameOptions.
  """

  folder: str
  video: VideoFile
  out: str
  options: FrameOptions


def prepare_video(task):
  """Decodes one video into the staging directory.

  Args:
    task: Task.

  Returns:
    dict, the record of the video: with 'row' and 'warnings', or with the
    'reason' why it cannot be used. Or str, an error that concerns the
    output and must stop the run.
  """
  record = {
    'path': task.video.path,
    'size': task.video.size,
    'mtime_ns': task.video.mtime_ns,
    'source_sha256': '',
  }
  staging = Staging(task.out)
  try:
    record |= _decode(task, staging)
    path = staging.record_path(task.video.id)
    write_json(path, record, aside=staging.directory)
  except OutputError as error:
    return str(error)
  return record


def is_current(record, video):
  """Tells whether a record was made from the file as it is now."""
  return (
    record is not None
    and record['path'] == video.path
    and record['size'] == video.size
    and record['mtime_ns'] == video.mtime_ns
  )


def _decode(task, staging):
  source = os.path.join(task.folder, task.video.file)
  try:
    source_sha256 = file_digest(source)
  except OSError as error:
    return {'reason': f'cannot be read: {error.strerror}'}
  try:
    with FramesFile(staging.frames_path(task.video.id)) as frames:
      facts = write_frames(
        source, task.options, frames.write, segment=task.video.segment
      )
  except VideoError as error:
    return {'source_sha256': source_sha256, 'reason': error.reason}
  row = dataclasses.asdict(facts)
  warnings = row.pop('warnings')
  row |= {
    'id': task.video.id,
    'path': task.video.path,
    'source_sha256': source_sha256,
    'frames_sha256': frames.digest.hexdigest(),
    'num_bytes': frames.num_bytes,
  }
  return {'source_sha256': source_sha256, 'row': row, 'warnings': warnings}
