"""Random access to the JPEG frames of a prepared data set.

The layout is written by `data/prepare.py` and described in `data/README.md`.
`frame_records` reads the frames.
"""

import numpy as np

from vie_jax.input_pipeline import dataset_folder, frame_records, remote_shards


class FrameStore(frame_records.FrameRecords):
  """The videos of one split, readable one frame at a time by index.

  The row of a video in `videos.parquet` is its `instance_index`, in
  [0, num_videos). All attributes but `lost` are fixed once the store is open.

  Attributes, beside those of FrameRecords:
    split: 'train' or 'val'.
    ids: N strings, unique, made from the paths.
    paths: N strings, relative to the folder that was prepared.
    name: of the data set, as it was prepared.
    frame_rate_hz: frames in a second of video.
    max_short_side: largest short side of a stored frame, all splits.
    max_long_side: largest long side of a stored frame, all splits.
    lost: video -> what is wrong with it, of those that `sound_frames` has found
      no sound frame of, whatever part of it is looked at.
  """

  def __init__(self, directory, split, manifest, table):
    super().__init__(
      directory,
      dataset_folder.shards_of(directory, split, manifest),
      fingerprint=manifest['fingerprint'],
      num_frames=_column(table, 'num_frames', np.int32),
      height=_column(table, 'height', np.int32),
      width=_column(table, 'width', np.int32),
      first_frame=_column(table, 'first_frame', np.int64),
    )
    self.split = split
    self.name = manifest['name']
    self.frame_rate_hz = manifest['options']['fps']
    self.max_short_side = manifest['max_short_side']
    self.max_long_side = manifest['max_long_side']
    self.ids = table['id'].to_pylist()
    self.paths = table['path'].to_pylist()
    self.lost = {}
    self._class_names = manifest['labels']
    self._labels = {
      column: _column(table, f'label_{column}', np.int32)
      for column in self._class_names
    }

  @classmethod
  def open(cls, directory, split):
    """Opens one split of a prepared data set and checks its outer shape.

    Sizes of files are checked, their bytes are not: that is the work of
    `python data/prepare.py check`.

    Args:
      directory: str or path of the prepared data set, or the URL of one,
        such as 's3://bucket/dataset'.
      split: 'train' or 'val'.

    Returns:
      FrameStore.

    Raises:
      dataset_folder.DatasetError: if the directory is missing or incomplete, a
        file is missing or of the wrong size, the format version is unknown, or
        access to a URL is refused.
      dataset_folder.UnreachableError: if a URL does not answer.
      dataset_folder.UnansweredError: if a file may be sound, but cannot be read.
    """
    try:
      return cls._open(dataset_folder.find(directory), split)
    except remote_shards.AwayError as error:
      raise dataset_folder.UnreachableError(
        f'{error}. When it can be, the same command goes on.'
      ) from error
    except remote_shards.RemoteError as error:
      raise dataset_folder.DatasetError(f'{error}.') from error

  @classmethod
  def _open(cls, directory, split):
    manifest = dataset_folder.read_manifest(directory)
    dataset_folder.check_split(directory, split, manifest)
    dataset_folder.check_sizes(directory, split, manifest)
    table = dataset_folder.read_table(
      directory, f'{split}/videos.parquet', manifest
    )
    store = cls(directory, split, manifest, table)
    store._check_counts(manifest['splits'][split])
    return store

  def __enter__(self):
    return self

  def __exit__(self, *unused_exception):
    self.close()

  @property
  def label_columns(self):
    """Names of the label columns, sorted."""
    return sorted(self._labels)

  def label(self, column):
    """Gives the labels of every video in one label column.

    Args:
      column: one of `label_columns`.

    Returns:
      (labels, class_names): int32 [N], -1 where unknown, and the list of
      str that the other values index.

    Raises:
      dataset_folder.DatasetError: if there is no such column.
    """
    if column not in self._labels:
      known = ', '.join(self.label_columns) or 'none'
      raise dataset_folder.DatasetError(
        f'{self.directory} has no label column {column!r}. '
        f'Label columns: {known}.'
      )
    return self._labels[column], list(self._class_names[column])

  def _check_counts(self, split):
    frames = int(self.num_frames.sum(dtype=np.int64))
    stored = int(self._shard_start[-1])
    if self.num_videos == split['videos'] and (
      frames == stored == split['frames']
    ):
      return
    raise dataset_folder.DatasetError(
      f'{self.directory}, split {self.split}: the table has '
      f'{self.num_videos} videos with {frames} frames, the shards hold '
      f'{stored}, dataset.json says {split["videos"]} and '
      f'{split["frames"]}. {dataset_folder.REMEDY}'
    )


def _column(table, name, dtype):
  return np.asarray(table[name].to_numpy(), dtype)
