"""Reads dataset.json of a data set that anybody may have made."""

import math

import unread
from errors import InputError

from dataset.dataset_layout import FORMAT_VERSION, SPLITS, is_dataset_file
from dataset.remote import RemoteFolder, read_json_at

# What `created_with` calls the code that makes frames. Older data sets have none.
FRAMES = 'vie_jax frames'

_MANIFEST_TYPES = {
  'name': str,
  'options': dict,
  'inputs': dict,
  'splits': dict,
  'labels': dict,
  'max_short_side': int,
  'max_long_side': int,
  'files': dict,
  'fingerprint': str,
}


def has_manifest(directory):
  """Tells whether a pathlib.Path or RemoteFolder has a dataset.json."""
  if isinstance(directory, RemoteFolder):
    return 'dataset.json' in directory.sizes()
  return (directory / 'dataset.json').exists()


def read_manifest(directory):
  """Reads dataset.json for a command that cannot do without.

  Args:
    directory: pathlib.Path or RemoteFolder of the data set.

  Returns:
    dict, its content.

  Raises:
    InputError: if there is none, or none of a data set, with the remedy.
  """
  manifest, problems = check_manifest(directory)
  if problems:
    raise InputError(
      f'{problems[0]}; name the --out of a preparation that has ended'
    )
  return manifest


def check_manifest(directory):
  """Reads dataset.json and checks its outer shape.

  Args:
    directory: pathlib.Path or RemoteFolder of the data set.

  Returns:
    (manifest, problems): dict, or None where there is a problem, and list of
    str.

  Raises:
    InputError: if it may be sound, but cannot be read.
  """
  path = directory / 'dataset.json'
  if not isinstance(directory, RemoteFolder) and not directory.is_dir():
    return None, [f'there is no directory {directory}']
  if not has_manifest(directory):
    return None, [
      f'{path} is missing: not a data set, or one whose preparation was stopped'
    ]
  try:
    manifest = read_json_at(directory, 'dataset.json')
  except OSError as error:
    unread.check(path, error)
    return None, [f'{path} cannot be read: {error.strerror}']
  if not isinstance(manifest, dict):
    return None, [f'{path} is damaged']
  version = manifest.get('format_version')
  if version != FORMAT_VERSION:
    return None, [f'{path} has the unknown format version {version!r}']
  wrong = [
    key
    for key, kind in _MANIFEST_TYPES.items()
    if not isinstance(manifest.get(key), kind)
  ]
  if wrong or set(manifest['splits']) != set(SPLITS):
    return None, [f'{path} lacks or garbles {", ".join(wrong) or "splits"}']
  garbled = _garbled_entries(manifest)
  return (None, [f'{path} garbles {garbled}']) if garbled else (manifest, [])


def _garbled_entries(manifest):
  """Says which entry is none that this code writes, or None.

  dataset.json may come from anybody: no name in it leads out of the folder.
  """
  for name, entry in manifest['files'].items():
    keys = ('bytes', 'records') if name.endswith('_record') else ('bytes',)
    if not is_dataset_file(name) or not _has_counts(entry, *keys):
      return f'the entry of the file {name!r}'
    if not isinstance(entry.get('sha256'), str):
      return f'the checksum of the file {name!r}'
  for split in SPLITS:
    if not _has_counts(manifest['splits'][split], 'videos', 'frames'):
      return f'the split {split}'
  for column, names in manifest['labels'].items():
    is_list = isinstance(names, list)
    if not is_list or not all(isinstance(name, str) for name in names):
      return f'the label column {column!r}'
  fps = manifest['options'].get('fps')
  if not isinstance(fps, int | float) or not 0 < fps < math.inf:
    return 'the frame rate'
  return None


def _has_counts(entry, *keys):
  return isinstance(entry, dict) and all(
    type(entry.get(key)) is int and 0 <= entry[key] < 2**62 for key in keys
  )
