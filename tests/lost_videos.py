"""Prepared data sets of which videos are destroyed, or taken out."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
from array_record.python import array_record_module

from vie_jax.input_pipeline import frame_store


def destroy(folder, split, videos, numbers=None):
  """Changes a bit on the disk in frames of some videos: in all, or in some."""
  with frame_store.FrameStore.open(folder, split) as store:
    frames = [
      store.read_frames(video, [number])[0]
      for video in videos
      for number in numbers or range(store.num_frames[video])
    ]
  for shard in (folder / split).glob('frames-*'):
    content = bytearray(shard.read_bytes())
    frames = [jpeg for jpeg in frames if not _flip(content, jpeg)]
    shard.write_bytes(content)
  assert not frames


def _flip(content, jpeg):
  """Changes a bit of a frame, if it is there."""
  # A shard has headers of its own, some of them within a frame.
  half = len(jpeg) // 2
  for part in (jpeg, jpeg[half:], jpeg[:half]):
    at = content.find(part)
    if at >= 0:
      content[at + len(part) // 2] ^= 4
      return True
  return False


def without(folder, out, split, videos):
  """Writes a data set again, without some videos of a split."""
  shutil.copytree(folder, out)
  with frame_store.FrameStore.open(folder, split) as store:
    kept = np.setdiff1d(np.arange(store.num_videos), videos)
    frames = [
      jpeg
      for video in kept
      for jpeg in store.read_frames(video, range(store.num_frames[video]))
    ]
  index = out / split / 'videos.parquet'
  table = pyarrow.parquet.read_table(index).take(pyarrow.array(kept))
  lengths = table['num_frames'].to_numpy().astype(np.int64)
  place = table.schema.get_field_index('first_frame')
  starts = pyarrow.array(np.cumsum(lengths) - lengths)
  table = table.set_column(place, table.schema.field(place), starts)
  pyarrow.parquet.write_table(table, index)
  for old in (out / split).glob('frames-*'):
    old.unlink()
  shard = out / split / 'frames-00000-of-00001.array_record'
  writer = array_record_module.ArrayRecordWriter(
    str(shard), 'group_size:1,uncompressed'
  )
  for jpeg in frames:
    writer.write(jpeg)
  writer.close()
  _note(out, split, shard, index, len(kept), len(frames))


def _note(out, split, shard, index, num_videos, num_frames):
  """Makes dataset.json say what is there."""
  manifest = json.loads((out / 'dataset.json').read_text())
  files = {
    name: facts
    for name, facts in manifest['files'].items()
    if not name.startswith(f'{split}/frames-')
  }
  for path in (shard, index):
    content = path.read_bytes()
    files[path.relative_to(out).as_posix()] = {
      'bytes': len(content),
      'sha256': hashlib.sha256(content).hexdigest(),
      **({'records': num_frames} if path == shard else {}),
    }
  manifest['files'] = files
  manifest['splits'][split] |= {'videos': num_videos, 'frames': num_frames}
  manifest['fingerprint'] = hashlib.sha256(
    f'{manifest["fingerprint"]} without {split}'.encode()
  ).hexdigest()
  (out / 'dataset.json').write_text(json.dumps(manifest))
