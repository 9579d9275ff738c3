"""What may go on, what is finished, and what must be left alone.

A run that goes on must have the input, options and versions of the run that
it goes on with; where it has not, one line says what differs.
"""

import hashlib
import math
import os

from dataset.dataset_layout import file_digest
from dataset.dataset_writer import remove_dataset
from dataset.manifest import FRAMES
from dataset.staging import Staging, output_errors, read_json
from errors import InputError
from progress import progress_bar
from wording import counted

# At the end of the names of options that are digests of files.
_DIGESTS = '_sha256'
# What is compared of dataset.json.
_MANIFEST_KEYS = {'name', 'options', 'inputs'}
# vie_jax/embeddings/own_files.py looks for it at the end of an error.
_RESTART = 'add --restart to throw it away and start again'
# Where what is there is sound, and another data set than is asked for.
_OTHER = f'name another --out, which leaves it as it is, or {_RESTART}'


def is_complete(out, source, setup):
  """Tells whether the same data set is there already.

  Args:
    out: pathlib.Path of the output directory.
    source: Source.
    setup: dict with 'name', 'options' and 'created_with'.

  Returns:
    bool.

  Raises:
    InputError: if another data set is there, or a damaged one.
  """
  path = out / 'dataset.json'
  if not path.exists():
    return False
  check_same_dataset(
    out, read_json(path), path.stat().st_mtime_ns, source, setup
  )
  return True


def check_same_dataset(out, manifest, finished_ns, source, setup):
  """Compares a complete data set with what is asked for.

  Args:
    out: where it is, for messages; `/` finds files in it.
    manifest: the content of its dataset.json, anything where that is damaged.
    finished_ns: when that was written.
    source: Source.
    setup: dict with 'name', 'options' and 'created_with'.

  Raises:
    InputError: if it is another one, or damaged.
  """
  if not isinstance(manifest, dict) or not manifest.keys() >= _MANIFEST_KEYS:
    raise InputError(f'{out / "dataset.json"} is damaged; {_RESTART}')
  for key in ('name', 'options'):
    _check_same(out, key, manifest[key], setup[key], source)
  check_same_inputs(out, manifest['inputs'], source)
  if any(
    _changed_ns(source.folder, video) > finished_ns for video in source.videos
  ):
    digests = {}
    with progress_bar('comparing', 'video', len(source.videos)) as bar:
      for video in source.videos:
        digests[video.path] = digest_or_empty(source.folder, video)
        bar.update()
    if content_digest(digests) != manifest['inputs']['content_sha256']:
      raise InputError(
        f'videos have changed since {out} was prepared; {_OTHER}'
      )


def _changed_ns(folder, video):
  """Returns when a VideoFile was written or put in its place, the later one.

  Whoever copies may keep the first of the two times; the other is the system's.
  """
  try:
    status = os.stat(os.path.join(folder, video.file))
  except OSError:
    return math.inf
  return max(status.st_mtime_ns, status.st_ctime_ns)


def open_staging(out, source, setup, *, restart):
  """Finds or begins the staging directory; never touches foreign files.

  Args:
    out: pathlib.Path of the output directory.
    source: Source.
    setup: dict with 'name', 'options' and 'created_with'.
    restart: whether to throw away what is there.

  Returns:
    Staging.

  Raises:
    InputError: if foreign files are there, or videos decoded by a run with
      another setup, or with one that cannot be told.
  """
  staging = Staging(out)
  is_ours = staging.exists() or (out / 'dataset.json').exists()
  if not is_ours and any(out.iterdir()):
    raise InputError(
      f'{out} is not empty and holds no prepared data set; choose another --out'
    )
  old = staging.setup()
  is_known = isinstance(old, dict) and old.keys() >= setup.keys()
  if not is_known and not restart and staging.has_videos():
    raise InputError(
      f'{staging.directory / "setup.json"} is damaged or gone, and '
      f'{staging.directory} holds decoded videos; {_RESTART}'
    )
  if not is_known or restart or not staging.has_videos():
    with output_errors(out):
      # First the mark that these files are ours, so that a kill in between
      # leaves something this function recognises.
      staging.directory.mkdir(exist_ok=True)
      remove_dataset(out)
      staging.clear()
    staging.start(setup)
  else:
    # Versions before name no code, and their frames are those of the first.
    if isinstance(old['created_with'], dict):
      old['created_with'].setdefault(FRAMES, '1')
    for key in ('name', 'options', 'created_with'):
      _check_same(out, key, old[key], setup[key], source)
  staging.remove_leftovers()
  return staging


def check_same_inputs(out, inputs, source):
  """Compares the list of files with the one a data set was begun with.

  Args:
    out: path of the output directory.
    inputs: dict with 'files' and 'listing_sha256' of that data set.
    source: Source.

  Raises:
    InputError: if they differ.
  """
  if inputs['listing_sha256'] != listing_digest(source.videos):
    raise InputError(
      f'the video files are not those from which {out} was prepared '
      f'({counted(inputs["files"], "file")} then, {len(source.videos)} now); '
      f'{_OTHER}'
    )


def listing_digest(videos):
  """Hashes paths and sizes of a list of VideoFile; sha256 in hex."""
  return _digest_of([[video.path, video.size] for video in videos])


def times_digest(videos):
  """Hashes paths, sizes and times of a list of VideoFile; sha256 in hex."""
  return _digest_of(
    [[video.path, video.size, video.mtime_ns] for video in videos]
  )


def changed_paths(source, rows):
  """Finds files that are others now than when they were listed.

  Args:
    source: Source.
    rows: list of dict with 'path', of its videos that are looked at.

  Returns:
    list of the paths, without those of files that are gone.
  """
  wanted = {row['path'] for row in rows}
  return [
    video.path
    for video in source.videos
    if video.path in wanted and _has_changed(source.folder, video)
  ]


def _has_changed(folder, video):
  try:
    status = os.stat(os.path.join(folder, video.file))
  except OSError:
    return False
  return (status.st_size, status.st_mtime_ns) != (video.size, video.mtime_ns)


def content_digest(digest_of_path):
  """Hashes the digests of files by path; sha256 in hex."""
  return _digest_of(sorted(digest_of_path.items()))


def digest_or_empty(folder, video):
  """Returns the sha256 of a VideoFile in hex, '' where it cannot be read."""
  try:
    return file_digest(os.path.join(folder, video.file))
  except OSError:
    return ''


def _check_same(out, key, old, new, source):
  if old == new:
    return
  if isinstance(old, dict):
    changed = ', '.join(
      _change(name, old.get(name), new.get(name), source.file_of_digest)
      for name in sorted(old.keys() | new.keys())
      if old.get(name) != new.get(name)
    )
  else:
    changed = f'{old!r} -> {new!r}'
  raise InputError(
    f'{out} was begun with other settings, {key}: {changed}; use the same '
    f'as before, {_OTHER}'
  )


def _change(name, old, new, file_of_digest):
  """Says what is new about an option, of a digest by the name of its file."""
  if name == 'class_depth':
    are = 'are no classes any more' if new else 'are classes now'
    return f'folders called train and val {are}'
  if not name.endswith(_DIGESTS):
    return f'{name} {old!r} -> {new!r}'
  before, now = (
    [value] if isinstance(value, str) else value or [] for value in (old, new)
  )
  if len(before) != len(now):
    kind = name.removesuffix(_DIGESTS)
    return f'files of {kind}: {len(before)} then, {len(now)} now'
  files = [file_of_digest[digest] for digest in now if digest not in before]
  if not files:
    return 'the same lists in another order'
  return ', '.join(f'{file} has changed, or is another' for file in files)


def _digest_of(lines):
  digest = hashlib.sha256()
  for line in lines:
    digest.update(f'{line!r}\n'.encode())
  return digest.hexdigest()
