"""Lists the video files below a folder, in a fixed order."""

import collections
import dataclasses
import hashlib
import os
import pathlib
import stat

from media.guarded_container import VIDEO_SUFFIXES
from media.segments import Segment

from sources.safe_paths import escaped

_MAX_NAMED = 5
# What stands for a suffix where a file has none that says what it is.
_HIDDEN, _NO_SUFFIX = 'hidden', 'no suffix'
_LONGEST_SUFFIX = 10
_REMEDY = 'prepare.py --follow-links takes it'


@dataclasses.dataclass(frozen=True)
class VideoFile:
  """A file that may be a video, or a segment of one.

  Attributes:
    name: str, its path relative to the folder, with '/'. Bytes that are not
      UTF-8 are written as \\xNN.
    file: str, relative to the folder, of the file itself, as the file system
      has it; with '..' in front where symlinks out of the folder are followed.
    size: bytes.
    mtime_ns: time of the last change.
    segment: Segment, or None for the whole file.
  """

  name: str
  file: str
  size: int
  mtime_ns: int
  segment: Segment | None = None

  @property
  def path(self):
    """The name and, behind it, the segment: unique in a data set."""
    return self.name + (self.segment.fragment if self.segment else '')

  @property
  def id(self):
    """16 hex digits made from the path alone."""
    return hashlib.sha256(self.path.encode()).hexdigest()[:16]


@dataclasses.dataclass
class Listing:
  """What a folder holds.

  Attributes:
    videos: list of VideoFile, sorted by path.
    skipped: list of dict with 'path' and 'reason', sorted by path.
    other_files: dict from suffix, in lower case, to the number of files with
      it that are passed over; 'hidden' and 'no suffix' are such, too.
  """

  videos: list
  skipped: list
  other_files: dict


def find_videos(folder, *, follow_links=False):
  """Lists the video files below a folder.

  Hidden files and folders are passed over. A symlink is followed when its
  target lies below the folder. A file that can be reached by several paths
  is taken once: under its own path, or else the first of the others. So is a
  folder, with all that lies in it.

  Args:
    folder: str or path.
    follow_links: whether to follow symlinks that lead out of it, too.

  Returns:
    Listing.

  Raises:
    OSError: if the folder itself cannot be listed.
  """
  return _Search(folder, follow_links).run()


def named_suffixes(counts):
  """Names the most common kinds of files.

  Args:
    counts: dict from suffix to number of files.

  Returns:
    str, such as '.qt 2, .txt 1'.
  """
  order = sorted(counts, key=lambda suffix: (-counts[suffix], suffix))
  named = [f'{suffix} {counts[suffix]}' for suffix in order[:_MAX_NAMED]]
  return ', '.join(named + ['...'] * (len(order) > _MAX_NAMED))


class _Search:
  """One walk over a folder; real files first, symlinks after them."""

  def __init__(self, folder, follow_links):
    self._root = os.path.realpath(folder)
    self._follow_links = follow_links
    self._videos = {}
    self._skipped = []
    self._links = collections.deque()
    self._other_files = collections.Counter()
    self._seen_folders = {self._root}
    self._path_of_file = {}

  def run(self):
    self._walk(self._root, '')
    while self._links:
      self._follow(self._links.popleft())
    return Listing(
      videos=[self._videos[path] for path in sorted(self._videos)],
      skipped=sorted(self._skipped, key=lambda entry: entry['path']),
      other_files=dict(self._other_files),
    )

  def _walk(self, folder, prefix):
    """Walks one folder; its paths in the listing start with prefix."""
    waiting = [(folder, prefix)]
    while waiting:
      folder, prefix = waiting.pop()
      try:
        with os.scandir(folder) as entries:
          entries = sorted(entries, key=lambda entry: entry.name)
      except OSError as error:
        if folder == self._root:
          raise
        self._skip(prefix, f'cannot be listed: {error.strerror}')
        continue
      for entry in entries:
        path = prefix + escaped(entry.name)
        if entry.name.startswith('.'):
          if entry.is_file(follow_symlinks=False):
            self._other_files[_HIDDEN] += 1
        elif entry.is_symlink():
          self._links.append((entry.path, path))
        elif entry.is_dir(follow_symlinks=False):
          # A link may have led into it before, or lead to what it is in.
          if entry.path not in self._seen_folders:
            self._seen_folders.add(entry.path)
            waiting.append((entry.path, f'{path}/'))
        else:
          self._add_file(entry.path, path)

  def _follow(self, link):
    link_path, path = link
    target = os.path.realpath(link_path)
    is_inside = pathlib.Path(target).is_relative_to(self._root)
    if not is_inside and not self._follow_links:
      self._skip_link(path, is_folder=os.path.isdir(target))
    elif os.path.isdir(target):
      if target not in self._seen_folders:
        self._seen_folders.add(target)
        self._walk(target, f'{path}/')
    else:
      self._add_file(target, path)

  def _skip_link(self, path, *, is_folder):
    reason = 'a symlink that leads out of the folder'
    if is_folder:
      self._skip(path, f'{reason}, with everything in it ({_REMEDY})')
    elif _is_video_name(path):
      self._skip(path, f'{reason} ({_REMEDY})')

  def _add_file(self, file, path):
    if not _is_video_name(path):
      self._other_files[_kind(path)] += 1
      return
    try:
      status = os.stat(file)
    except OSError as error:
      self._skip(path, f'cannot be read: {error.strerror}')
      return
    if not stat.S_ISREG(status.st_mode):
      self._skip(path, 'not a regular file')
      return
    first_path = self._path_of_file.setdefault(file, path)
    if first_path != path:
      self._skip(path, f'the same file as {first_path}')
      return
    if path in self._videos:
      self._skip(path, 'its name, written as text, is that of another file')
      return
    self._videos[path] = VideoFile(
      path,
      os.path.relpath(file, self._root),
      status.st_size,
      status.st_mtime_ns,
    )

  def _skip(self, path, reason):
    self._skipped.append({'path': path, 'reason': reason})


def _is_video_name(path):
  return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def _kind(path):
  suffix = os.path.splitext(path)[1].lower()
  return suffix if 1 < len(suffix) <= _LONGEST_SUFFIX else _NO_SUFFIX
