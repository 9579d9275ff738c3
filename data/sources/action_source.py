"""UCF101 and HMDB51: a folder of clips, and the official lists of a split."""

import collections
import dataclasses
import hashlib
import os
import posixpath

from errors import InputError
from wording import counted

from sources import known_counts
from sources.archives import read_texts
from sources.folder_source import list_videos
from sources.labels_and_splits import FOLDER_COLUMN, check_apart
from sources.source import Source

_HMDB_MARKS = {'0': None, '1': 'train', '2': 'val'}


@dataclasses.dataclass(frozen=True)
class Entry:
  """A clip of an official list.

  Attributes:
    path: str, CLASS/NAME.avi.
    split: 'train' or 'val'.
  """

  path: str
  split: str

  @property
  def class_name(self):
    """The class: the folder."""
    return self.path.split('/')[0]


def read_ucf101(videos, *, splits, split, name=None, follow_links=False):
  """Reads UCF101 with one of its three official splits.

  Args:
    videos: path of the folder of videos.
    splits: path of the folder or archive with trainlist01.txt and so on.
    split: 1, 2 or 3; the split's test list is val.
    name: of the data set; None for 'ucf101', with the number behind it for
      splits 2 and 3.
    follow_links: whether to follow symlinks out of the folder.

  Returns:
    Source.

  Raises:
    InputError: if the lists or the videos cannot be used.
  """
  entries = ucf101_entries(read_texts(splits), splits, split)
  listing = list_videos(videos, follow_links=follow_links)
  source = _source(
    videos, listing, 'ucf101', split, name, entries, known_counts.UCF101[split]
  )
  return _with_lists(source, splits)


def read_hmdb51(videos, *, splits, split, name=None, follow_links=False):
  """Reads HMDB51 with one of its three official splits.

  Args:
    videos: path of the folder of videos.
    splits: path of the folder or archive with CLASS_test_split1.txt and so
      on.
    split: 1, 2 or 3; the split's test list is val.
    name: of the data set; None for 'hmdb51', likewise.
    follow_links: whether to follow symlinks out of the folder.

  Returns:
    Source.

  Raises:
    InputError: if the lists or the videos cannot be used.
  """
  entries = hmdb51_entries(read_texts(splits), splits, split)
  listing = list_videos(videos, follow_links=follow_links)
  source = _source(
    videos, listing, 'hmdb51', split, name, entries, known_counts.HMDB51
  )
  return _with_lists(source, splits)


def ucf101_entries(texts, place, split):
  """Reads trainlist0N.txt and testlist0N.txt.

  Args:
    texts: dict from name of a file to its text.
    place: where they are from, for messages.
    split: 1, 2 or 3.

  Returns:
    list of Entry.

  Raises:
    InputError: naming the line.
  """
  classes = None
  if 'classInd.txt' in texts:
    classes = {
      cells[-1] for _, cells in _lines(texts['classInd.txt'], 'classInd.txt')
    }
  entries = []
  for part, word in (('train', 'train'), ('val', 'test')):
    name = f'{word}list{split:02d}.txt'
    if name not in texts:
      raise InputError(
        f'{place} holds no {name}; it is in UCF101TrainTestSplits-'
        'RecognitionTask.zip, beside UCF101.rar'
      )
    for line, cells in _lines(texts[name], name):
      entry = Entry(cells[0], part)
      if cells[0].count('/') != 1 or len(cells) > 2:
        raise InputError(f'{line}: must be CLASS/NAME.avi, not {cells[0]!r}')
      if classes is not None and entry.class_name not in classes:
        raise InputError(f'{line}: {entry.class_name!r} is not in classInd.txt')
      entries.append(entry)
  return entries


def hmdb51_entries(texts, place, split):
  """Reads the CLASS_test_splitN.txt: 1 is train, 2 is test, 0 is neither.

  Args and result are as in `ucf101_entries`.

  Raises:
    InputError: naming the line.
  """
  ending = f'_test_split{split}.txt'
  entries = []
  for name in sorted(texts):
    if not name.endswith(ending):
      continue
    class_name = name.removesuffix(ending)
    for line, cells in _lines(texts[name], name):
      if len(cells) != 2 or cells[1] not in _HMDB_MARKS or '/' in cells[0]:
        raise InputError(f'{line}: must be a name and 0, 1 or 2')
      part = _HMDB_MARKS[cells[1]]
      if part is not None:
        entries.append(Entry(f'{class_name}/{cells[0]}', part))
  if not entries:
    raise InputError(
      f'{place} holds no CLASS{ending}; they are in test_train_splits.rar, '
      'beside hmdb51_org.rar'
    )
  return entries


def _lines(text, name):
  """Yields (place, list of cells) of each line that is not empty."""
  for number, line in enumerate(text.splitlines(), 1):
    if line.strip():
      yield f'{name}, line {number}', line.split()


def _source(videos, listing, definition, split, name, entries, expected):
  check_apart(
    *(
      {entry.path for entry in entries if entry.split == part}
      for part in ('train', 'val')
    )
  )
  finder = _Finder(listing.videos, entries)
  splits, labels, missing = {'train': [], 'val': []}, {}, []
  repeated, seen = [], set()
  for entry in entries:
    if entry in seen:
      reason = f'listed again in {entry.split}'
      repeated.append({'path': entry.path, 'reason': reason})
      continue
    seen.add(entry)
    if video := finder.take(entry):
      splits[entry.split].append(video)
      labels[video.path] = entry.class_name
    else:
      missing.append({'path': entry.path, 'split': entry.split})
  if not labels:
    raise InputError(
      f'of {counted(len(entries), "video")} in the lists none is in {videos}; they '
      f'are looked for by class and name, such as {entries[0].path!r}'
    )
  return Source(
    folder=os.path.realpath(videos),
    name=name or _default_name(definition, split),
    splits={
      part: sorted(found, key=lambda video: video.path)
      for part, found in splits.items()
    },
    labels={FOLDER_COLUMN: labels},
    options={
      'definition': definition,
      'split': split,
      'val_percent': None,
      'labels_sha256': None,
      'lists_sha256': [_digest(entries)],
    },
    skipped=sorted(listing.skipped + repeated, key=lambda entry: entry['path']),
    other_files=listing.other_files,
    num_left_out=len(listing.videos) - len(labels),
    missing=missing,
    expected=expected,
  )


def _with_lists(source, place):
  """Notes where the lists of a source are from."""
  (digest,) = source.options['lists_sha256']
  return dataclasses.replace(source, file_of_digest={digest: place})


def _default_name(definition, split):
  """The paper's tables are of split 1, and know it by the bare name."""
  return definition if split == 1 else f'{definition}-split{split}'


class _Finder:
  """Finds the clips of a list, each of which is taken once.

  The folders above the class and the suffix do not matter, and where the name
  is unique the class does not, either: clips are often moved and encoded
  anew. What the list names in its own class is not taken for another's.
  """

  def __init__(self, videos, entries):
    self._by_class = {}
    self._by_stem = collections.defaultdict(list)
    for video in videos:
      self._by_class.setdefault(_class_and_stem(video.path), video)
      self._by_stem[_class_and_stem(video.path)[1]].append(video)
    self._listed = {_class_and_stem(entry.path) for entry in entries}
    self._taken = set()

  def take(self, entry):
    """Returns the VideoFile of an entry, or None."""
    key = _class_and_stem(entry.path)
    video = self._by_class.get(key)
    if video is None and len(self._by_stem[key[1]]) == 1:
      (video,) = self._by_stem[key[1]]
      if _class_and_stem(video.path) in self._listed:
        return None
    if video is None or video.path in self._taken:
      return None
    self._taken.add(video.path)
    return video


def _class_and_stem(path):
  """The folder that a clip lies in, and its name without suffix."""
  folder, name = posixpath.split(path)
  return posixpath.basename(folder), posixpath.splitext(name)[0]


def _digest(entries):
  digest = hashlib.sha256()
  for entry in sorted(entries, key=lambda entry: (entry.path, entry.split)):
    digest.update(f'{entry.path} {entry.split}\n'.encode())
  return digest.hexdigest()
