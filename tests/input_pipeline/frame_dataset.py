"""Small prepared data sets whose pictures say which frame they are."""

import hashlib
import io
import json

import numpy as np
import pyarrow
import pyarrow.parquet
from array_record.python import array_record_module
from PIL import Image

LENGTHS = (20, 1, 33, 40, 7, 16, 17, 25, 12, 30, 9, 21, 18)
# Height and width of each video's frames.
SIDES = [(36 + 2 * v, 40 + v) if v % 2 else (38, 60) for v in range(13)]


def frame_jpeg(video, number):
  """One colour that tells the video and the number of the frame."""
  height, width = SIDES[video]
  picture = np.full((height, width, 3), (18 * video, 6 * number, 99), np.uint8)
  file = io.BytesIO()
  Image.fromarray(picture).save(file, 'JPEG', quality=95, subsampling=0)
  return file.getvalue()


def write_training(directory):
  """Writes a data set of videos as long as LENGTHS, none for validation."""
  videos = [
    [frame_jpeg(video, number) for number in range(length)]
    for video, length in enumerate(LENGTHS)
  ]
  write_dataset(directory, videos, [])


def video_and_frame(window):
  """What frame_jpeg wrote, from uint8 [..., H, W, 3]."""
  # What the crop does not need is black.
  is_shown = (window[..., 2:] > 50).astype(np.float64)
  color = (window * is_shown).sum((-3, -2)) / is_shown.sum((-3, -2))
  return np.round(color[..., 0] / 18), np.round(color[..., 1] / 6)


def write_split(directory, split, videos):
  """Writes one split; videos: lists of JPEG files."""
  folder = directory / split
  folder.mkdir(parents=True)
  shard = folder / 'frames-00000-of-00001.array_record'
  writer = array_record_module.ArrayRecordWriter(
    str(shard), 'group_size:1,uncompressed'
  )
  for frames in videos:
    for frame in frames:
      writer.write(frame)
  writer.close()
  lengths = np.array([len(frames) for frames in videos], np.int32)
  sides = np.array(SIDES[: len(videos)], np.int32).reshape(-1, 2)
  table = {
    'id': [f'{video:016x}' for video in range(len(videos))],
    'path': [f'kind/video {video}.mp4' for video in range(len(videos))],
    'num_frames': lengths,
    'first_frame': np.cumsum(lengths, dtype=np.int64) - lengths,
    'height': sides[:, 0],
    'width': sides[:, 1],
    'label_kind': np.arange(len(videos), dtype=np.int32) % 3 - 1,
  }
  index = folder / 'videos.parquet'
  pyarrow.parquet.write_table(pyarrow.table(table), index)
  return shard, index, int(lengths.sum())


def write_dataset(directory, train, val):
  """Writes a data set of one label column; see write_split."""
  files, splits = {}, {}
  for split, videos in [('train', train), ('val', val)]:
    shard, index, records = write_split(directory, split, videos)
    splits[split] = {'videos': len(videos), 'frames': records}
    for path in (shard, index):
      content = path.read_bytes()
      entry = {
        'bytes': len(content),
        'sha256': hashlib.sha256(content).hexdigest(),
      }
      if path == shard:
        entry['records'] = records
      files[path.relative_to(directory).as_posix()] = entry
  manifest = {
    'format_version': 1,
    'name': 'tiny',
    'options': {'fps': 25},
    'splits': splits,
    'labels': {'kind': ['a', 'b']},
    'max_short_side': max(min(sides) for sides in SIDES),
    'max_long_side': max(max(sides) for sides in SIDES),
    'files': files,
    'fingerprint': '0' * 64,
  }
  (directory / 'dataset.json').write_text(json.dumps(manifest))
