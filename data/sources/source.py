"""What one preparation starts from, whoever found it out."""

import dataclasses

from dataset.dataset_layout import SPLITS


@dataclasses.dataclass(frozen=True)
class Source:
  """The input of a preparation, read and checked before anything is written.

  Attributes:
    folder: str, absolute path of the folder of videos.
    name: of the data set.
    splits: dict with the list of VideoFile of 'train' and of 'val'.
    labels: dict from column to dict from path to class name.
    options: dict, what decides about splits and labels; a data set that was
      prepared with others has to be prepared anew.
    skipped: list of dict with 'path' and 'reason', sorted by path.
    other_files: dict from suffix to number of files in the folder that are no
      videos.
    num_left_out: videos in the folder that belong to no split.
    warnings: list of dict with 'path' and 'warning'.
    missing: list of dict with 'path' and 'split': videos that a list names
      and that are not there. None where there is no list.
    expected: dict of numbers that are known of this data set, 'train', 'val'
      and 'classes', or None.
    file_of_digest: dict from each digest in `options` to the path of the list or
      table that it is of, for messages.
    listed_seconds: dict from path to float, how long a list says that a file
      is.
  """

  folder: str
  name: str
  splits: dict
  labels: dict
  options: dict
  skipped: list
  other_files: dict = dataclasses.field(default_factory=dict)
  num_left_out: int = 0
  warnings: list = dataclasses.field(default_factory=list)
  missing: list | None = None
  expected: dict | None = None
  file_of_digest: dict = dataclasses.field(default_factory=dict)
  listed_seconds: dict = dataclasses.field(default_factory=dict)

  @property
  def videos(self):
    """List of VideoFile of both splits, sorted by path."""
    videos = [video for split in SPLITS for video in self.splits[split]]
    return sorted(videos, key=lambda video: video.path)


def warning(path, text):
  """Returns an entry of the list of warnings."""
  return {'path': path, 'warning': text}
