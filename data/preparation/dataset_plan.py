"""Decides the whole content of a data set, but for the frames."""

import collections
import unicodedata

from dataset.dataset_layout import SPLITS
from errors import InputError
from sources.find_videos import named_suffixes
from sources.labels_and_splits import number_classes
from sources.source import warning
from wording import counted

from preparation.resume import content_digest, listing_digest

# A file that is longer than a list says by both is more than was listed.
_MUCH_LONGER = 1.5
_MUCH_LONGER_SECONDS = 2.0

_KEYS = {'name', 'options', 'created_with', 'inputs', 'labels', 'rows'}
_KEYS |= {'skipped', 'warnings'}


def make_plan(source, setup, records):
  """Puts together what `write_dataset` writes.

  Args:
    source: Source.
    setup: dict with 'name', 'options' and 'created_with'.
    records: dict from path to the record of `prepare_video`, of each video.

  Returns:
    dict, as `write_dataset` takes it.

  Raises:
    InputError: if no video could be used.
  """
  rows = {split: _rows(source.splits[split], records) for split in SPLITS}
  all_rows = [row for split in SPLITS for row in rows[split]]
  failed = [
    {'path': path, 'reason': record['reason']}
    for path, record in records.items()
    if 'reason' in record
  ]
  skipped = sorted(source.skipped + failed, key=lambda entry: entry['path'])
  if not all_rows:
    raise InputError(
      f'of {counted(len(records), "video file")} none could be used. '
      + '; '.join(f'{e["path"]!r}: {e["reason"]}' for e in skipped[:20])
    )
  paths = [row['path'] for row in all_rows]
  class_names, numbers = number_classes(source.labels, paths)
  for column, values in numbers.items():
    for row, value in zip(all_rows, values, strict=True):
      row[f'label_{column}'] = value
  longer = _longer_than_listed(source, all_rows)
  plan = setup | {
    'inputs': _inputs(source, records),
    'labels': class_names,
    'rows': rows,
    'skipped': skipped,
    'warnings': [
      *_warnings(source, records, all_rows),
      *longer,
      *_about_spellings(class_names),
    ],
  }
  if longer:
    plan['inputs']['longer_than_listed'] = len(longer)
  if source.missing is not None:
    plan['missing'] = source.missing
    plan['inputs']['missing'] = len(source.missing)
  if source.expected is not None:
    found = {split: len(rows[split]) for split in SPLITS}
    found['classes'] = max(map(len, class_names.values()), default=0)
    plan['expected'] = {
      key: {'expected': number, 'found': found[key]}
      for key, number in source.expected.items()
    }
  return plan


def is_plan(value):
  """Tells whether a value has the keys of a plan."""
  return isinstance(value, dict) and value.keys() >= _KEYS


def _rows(videos, records):
  """Returns the rows of a split by path, numbered through."""
  rows, first_frame = [], 0
  for video in videos:
    if 'row' in records[video.path]:
      row = records[video.path]['row'] | {'first_frame': first_frame}
      first_frame += row['num_frames']
      rows.append(row)
  return rows


def _inputs(source, records):
  digests = {path: record['source_sha256'] for path, record in records.items()}
  return {
    'files': len(source.videos),
    'bytes': sum(video.size for video in source.videos),
    'listing_sha256': listing_digest(source.videos),
    'content_sha256': content_digest(digests),
    'other_files': sum(source.other_files.values()),
    'other_kinds': named_suffixes(source.other_files),
    'left_out': source.num_left_out,
  }


def _warnings(source, records, rows):
  warnings = list(source.warnings)
  for path in sorted(records):
    warnings += [
      warning(path, text) for text in records[path].get('warnings', [])
    ]
  segments = {video.path: video.segment for video in source.videos}
  first_path = {}
  for row in sorted(rows, key=lambda row: row['path']):
    content = row['source_sha256'], segments[row['path']]
    first = first_path.setdefault(content, row['path'])
    if first != row['path']:
      warnings.append(warning(row['path'], f'same content as {first}'))
  return warnings


def _longer_than_listed(source, rows):
  """Warns of files that hold more than a list says."""
  warnings = []
  for row in sorted(rows, key=lambda row: row['path']):
    found, listed = (
      row['duration_seconds'],
      source.listed_seconds.get(row['path']),
    )
    if listed is None:
      continue
    if found > max(listed * _MUCH_LONGER, listed + _MUCH_LONGER_SECONDS):
      text = f'lasts {found:.1f} s, and {listed:.1f} s by the list'
      warnings.append(warning(row['path'], text))
  return warnings


def _about_spellings(class_names):
  """Warns of classes whose names are one text in two forms of Unicode.

  A Mac may write folders in another form than the list that names them.

  Args:
    class_names: dict from column to list of str.
  """
  warnings = []
  for column in sorted(class_names):
    spellings = collections.defaultdict(list)
    for name in class_names[column]:
      spellings[unicodedata.normalize('NFC', name)].append(name)
    warnings += [
      warning(
        names[0],
        f'a class of {column!r}, and another one looks the same: '
        f'{" and ".join(map(ascii, names))} are two spellings (Unicode NFC and '
        'NFD) of one name; write it one way where they should be one class',
      )
      for names in spellings.values()
      if len(names) > 1
    ]
  return warnings
