"""Kinetics-400: downloaded clips, by the official lists or by class folders."""

import collections
import dataclasses
import os
import posixpath
import re

from dataset.dataset_layout import SPLITS, file_digest
from errors import InputError
from media.segments import Segment, parse_segment
from wording import counted

from sources import known_counts
from sources.folder_source import list_videos
from sources.labels_and_splits import FOLDER_COLUMN, SPLIT_NAMES, split_by_hash
from sources.list_rows import name_in, read_rows
from sources.safe_paths import escaped
from sources.source import Source, warning

_LAYOUT = (
  'files lie in folders of classes, or are called ID_000010_000020.mp4, by id, '
  'start and end, or ID.mp4, and are found with --train-csv and --val-csv'
)
_COLUMNS = ('label', 'youtube_id', 'time_start', 'time_end')
# A further one, which may be missing, and what the official lists have in it.
_SPLIT_COLUMN = 'split'
# Clips that were broken are handed out again in a folder of such a name.
_REPLACEMENT = 'replacement'
# Such as train_256 or videos_val; not 'training_dog', which is a class.
_SPLIT_FOLDER = re.compile(
  r'((videos|k400|kinetics[_-]?(400)?)[_-])?(?P<split>[a-z]+)(_\d+\w*)?'
)


@dataclasses.dataclass(frozen=True)
class Clip:
  """A row of an official list.

  Attributes:
    youtube_id: str.
    class_name: str, as in the list.
    segment: Segment of the video on the web.
    split: 'train' or 'val'.
  """

  youtube_id: str
  class_name: str
  segment: Segment
  split: str

  @property
  def stems(self):
    """Names that its file may have, without suffix, the usual one first."""
    start, end = int(self.segment.start), int(self.segment.end)
    return (
      f'{self.youtube_id}_{start:06d}_{end:06d}',
      f'{self.youtube_id}_{start}_{end}',
      self.youtube_id,
    )


@dataclasses.dataclass(frozen=True)
class _Choice:
  """A file that was taken for a clip.

  Attributes:
    video: VideoFile.
    class_name: str.
    split: 'train' or 'val', at first also 'test', or None where not known.
    listed_seconds: float, of the clip in the list; None where there is no list.
  """

  video: object
  class_name: str
  split: str | None
  listed_seconds: float | None = None


def read_kinetics400(
  videos,
  *,
  train_csv=None,
  val_csv=None,
  whole_videos=False,
  val_percent=10,
  name='kinetics400',
  follow_links=False,
):
  """Reads a folder of clips of Kinetics-400.

  With lists, a clip is found by the name of its file, wherever it lies, and
  its class is that of the list. Without, the classes are the folders that the
  clips lie in, below train and val where there are such folders; test is val
  where there is no val, else it is left out.

  Args:
    videos: path of the folder.
    train_csv: path of the official list of the train split, or None.
    val_csv: path of the official list of the validation split, or None.
    whole_videos: whether files named by the id alone are whole videos from
      the web, of which the times of the list are taken.
    val_percent: share of val where neither lists nor folders tell the split.
    name: of the data set.
    follow_links: whether to follow symlinks out of the folder.

  Returns:
    Source.

  Raises:
    InputError: if the lists or the videos cannot be used.
  """
  files = [file for file in (train_csv, val_csv) if file]
  if whole_videos and not files:
    raise InputError('--whole-videos needs the times of the official lists')
  warnings = []
  clips = [
    clip
    for file, split in ((train_csv, 'train'), (val_csv, 'val'))
    if file
    for clip in _clips(file, split, warnings)
  ]
  listing = list_videos(videos, follow_links=follow_links)
  if files:
    chosen, missing, repeated = _by_lists(listing.videos, clips, whole_videos)
  else:
    chosen, missing, repeated = _by_folders(listing.videos), None, []
  if not chosen:
    sought = ''
    if clips:
      sought = (
        f' the first one that is listed, {clips[0].stems[0]!r}, is not there;'
      )
    raise InputError(
      f'no clip of Kinetics-400 found in {videos};{sought} {_LAYOUT}'
    )
  digests = [file_digest(file) for file in files]
  is_split = any(choice.split for choice in chosen)
  return Source(
    folder=os.path.realpath(videos),
    name=name,
    splits=_splits(chosen, is_split, val_percent),
    labels={FOLDER_COLUMN: {c.video.path: c.class_name for c in chosen}},
    options={
      'definition': 'kinetics400',
      'whole_videos': whole_videos,
      'val_percent': None if is_split else val_percent,
      'labels_sha256': None,
      'lists_sha256': digests,
    },
    skipped=sorted(listing.skipped + repeated, key=lambda entry: entry['path']),
    other_files=listing.other_files,
    file_of_digest=dict(zip(digests, files, strict=True)),
    num_left_out=len(
      {video.file for video in listing.videos}
      - {choice.video.file for choice in chosen}
    ),
    warnings=warnings,
    missing=missing,
    expected=known_counts.KINETICS400,
    listed_seconds={
      choice.video.path: choice.listed_seconds
      for choice in chosen
      if choice.listed_seconds is not None
    },
  )


def _clips(file, split, warnings):
  """Reads an official list; adds to `warnings` what it says of its split."""
  columns, rows = read_rows(
    file, lambda column: column in (*_COLUMNS, _SPLIT_COLUMN)
  )
  absent = [name for name in _COLUMNS if name not in columns]
  if absent:
    raise InputError(
      f'{file} has no column {absent[0]}; an official list begins with '
      '"label,youtube_id,time_start,time_end,split"'
    )
  warnings += _about_split(file, split, rows)
  clips = []
  for row in rows:
    label = name_in(row, 'label')
    youtube_id = row.cells.get('youtube_id', '').strip()
    start, end = row.cells.get('time_start'), row.cells.get('time_end')
    try:
      segment = parse_segment(start, end)
    except ValueError as error:
      raise InputError(f'{row.place}: {error}') from error
    if segment is None or segment.end is None or not (label and youtube_id):
      raise InputError(f'{row.place}: a cell is empty')
    clips.append(Clip(youtube_id, label, segment, split))
  return clips


def _about_split(file, split, rows):
  """Compares the column split with the option; test may be held out.

  Returns:
    list of warnings.

  Raises:
    InputError: if all rows that name a split are of the other one.
  """
  named = [
    known
    for row in rows
    if (
      known := SPLIT_NAMES.get(row.cells.get(_SPLIT_COLUMN, '').strip().lower())
    )
  ]
  others = [
    found for found in named if (found == 'train') != (split == 'train')
  ]
  if not others:
    return []
  said = ' and '.join(sorted(set(others)))
  if len(others) == len(named):
    raise InputError(
      f'{file} is a list of {said}, by its column {_SPLIT_COLUMN!r}, and is '
      f'given with --{split}-csv; were the lists exchanged? where it is meant '
      f'so, remove that column'
    )
  text = (
    f'{len(others)} of {counted(len(rows), "row")} are of {said}, by the column '
    f'{_SPLIT_COLUMN!r}; all are taken for {split}'
  )
  return [warning(os.path.basename(file), text)]


def _by_lists(videos, clips, whole_videos):
  """Finds the clips of the lists.

  Returns:
    (chosen, missing, repeated): list of _Choice, of dict with 'path' and
    'split', and of dict with 'path' and 'reason'. Repeated are rows whose file
    was taken for an earlier one; of a whole video, each part is taken.
  """
  by_stem = collections.defaultdict(list)
  for video in videos:
    by_stem[_stem(video)].append(video)
  chosen, missing, repeated, taken = [], [], [], {}
  for clip in clips:
    stem = next((stem for stem in clip.stems if stem in by_stem), None)
    path = escaped(f'{clip.class_name}/{clip.stems[0]}.mp4')
    if stem is None:
      missing.append({'path': path, 'split': clip.split})
      continue
    is_part = whole_videos and stem == clip.youtube_id
    video = min(by_stem[stem], key=lambda video: _rank(video, clip.split))
    if is_part:
      video = dataclasses.replace(video, segment=clip.segment)
    first = taken.setdefault((stem, clip.segment if is_part else None), clip)
    if first is not clip:
      repeated.append({'path': path, 'reason': _repetition(first, video)})
      continue
    seconds = float(clip.segment.end - clip.segment.start)
    chosen.append(_Choice(video, clip.class_name, clip.split, seconds))
  return chosen, missing, repeated


def _repetition(first, video):
  """Says why a row of a list is left out."""
  return (
    f'listed again: {video.path} is taken for {first.class_name}/'
    f'{first.stems[0]} of {first.split}'
  )


def _rank(video, split):
  """Orders copies of a clip: replacements first, then by the split."""
  return not _is_replacement(video), _split_of(video) != split, video.path


def _by_folders(videos):
  """Takes the folder of a clip for its class.

  Returns:
    list of _Choice, without a split where no folder tells it.
  """
  replacements = {_stem(v): v for v in videos if _is_replacement(v)}
  chosen = []
  for video in videos:
    folder = posixpath.basename(posixpath.dirname(video.path))
    if _is_replacement(video) or not folder or _split_named(folder):
      continue
    # One replacement stands in for one clip.
    used = replacements.pop(_stem(video), video)
    chosen.append(_Choice(used, folder.replace('_', ' '), _split_of(video)))
  given = {choice.split for choice in chosen}
  if not given & set(SPLITS):
    return [dataclasses.replace(choice, split=None) for choice in chosen]
  held_out = 'val' if 'val' in given else 'test'
  part_of = {'train': 'train', held_out: 'val'}
  return [
    dataclasses.replace(choice, split=part_of[choice.split])
    for choice in chosen
    if choice.split in part_of
  ]


def _splits(chosen, is_split, val_percent):
  videos = sorted((c.video for c in chosen), key=lambda video: video.path)
  if not is_split:
    return split_by_hash(videos, val_percent=val_percent)
  split_of_path = {choice.video.path: choice.split for choice in chosen}
  return {
    split: [video for video in videos if split_of_path[video.path] == split]
    for split in SPLITS
  }


def _stem(video):
  return posixpath.splitext(posixpath.basename(video.path))[0]


def _folders(video):
  return posixpath.dirname(video.path).lower().split('/')


def _split_of(video):
  """Returns the split that a folder above a clip names, or None."""
  for folder in _folders(video):
    if split := _split_named(folder):
      return split
  return None


def _split_named(folder):
  """Returns the split that the name of a folder is of, or None."""
  match = _SPLIT_FOLDER.fullmatch(folder.lower())
  return SPLIT_NAMES.get(match['split']) if match else None


def _is_replacement(video):
  return any(folder.startswith(_REPLACEMENT) for folder in _folders(video))
