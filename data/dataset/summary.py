"""The table that closes a run."""

from wording import chosen, counted, named, printable, quoted

from dataset import dataset_facts
from dataset.dataset_layout import SPLITS
from dataset.manifest import FRAMES
from dataset.remote import place_of, read_json_at

_MAX_LISTED = 20
_MAX_CLASSES = 6
# Of fewer validation videos, each is more than a tenth of any figure.
_FEW_VIDEOS = 10
# What a split without a class has none of, and what follows for one and several.
_WITHOUT = {
  'train': ('training', 'it cannot be learnt', 'they cannot be learnt'),
  'val': (
    'validation',
    'evaluations tell nothing of it',
    'evaluations tell nothing of them',
  ),
}
_LABELS_REMEDY = (
  'see whether the table of labels names all videos, by the paths that they '
  'have, or whether they lie in the folders of their classes'
)
_UNITS = (('hours', 3600), ('minutes', 60), ('seconds', 1))


def print_summary(out, manifest):
  """Prints what a prepared data set holds and what was left out.

  Args:
    out: path of the data set, or its URL.
    manifest: dict, the content of dataset.json.
  """
  print(f'Data set {printable(manifest["name"])!r} in {out}:')
  print(table(_split_rows(manifest)))
  _print_split_folders(manifest)
  labels = _labels(out, manifest)
  for each in labels:
    _print_labels(each, manifest)
  _print_expected(manifest)
  _print_rest(out, manifest)
  sizes = list(_about_sizes(manifest))
  notes = sizes + list(_about_labels(labels, manifest))
  if sizes or (notes and _is_by_hash(manifest)):
    notes.append(_remedy(manifest))
  for note in notes:
    print(f'  Note: {note}')


def _print_split_folders(manifest):
  """Says which folders are the splits, where folders are."""
  folders = manifest['options'].get('split_folders') or {}
  named = [
    f'{split} is {printable(folder)}/'
    for split in SPLITS
    for folder in folders
    if folders[folder] == split
  ]
  if named:
    print(f'  split by folders: {", ".join(named)}')


def _about_sizes(manifest):
  """Says which splits are empty, or too small to tell much."""
  counts = {split: manifest['splits'][split]['videos'] for split in SPLITS}
  for split in SPLITS:
    if not counts[split]:
      yield f'the {split} split is empty.'
  total = sum(counts.values())
  asked = manifest['options'].get('val_percent') or 0
  is_half = counts['val'] * 200 >= asked * total
  if not counts['val'] or (counts['val'] >= _FEW_VIDEOS and is_half):
    return
  share = '' if is_half else f', and {asked}% was asked for'
  yield (
    f'{counted(counts["val"], "video")} of {total:,} '
    f'{chosen(counts["val"], "is", "are")} in val{share}; figures on so few '
    'mean little.'
  )


def _labels(out, manifest):
  """Counts the videos of each class: list of Labels, by name of the column."""
  if not manifest['labels']:
    return []
  tables = dataset_facts.read_tables(place_of(out), manifest)
  return dataset_facts.count_labels(tables, manifest['labels'])


def _print_labels(labels, manifest):
  names = manifest['labels'][labels.column]
  unknown = sum(labels.unknown.values())
  print(
    f'  labels {quoted(labels.column)}: '
    f'{counted(len(names), "class", "classes")} '
    f'({named(names, _MAX_CLASSES)})'
    + (f'; {_of_videos(unknown, manifest)} without a label' if unknown else '')
  )


def _of_videos(number, manifest):
  """A number of videos, out of all of both splits."""
  return f'{number:,} of {counted(_num_videos(manifest), "video")}'


def _num_videos(manifest):
  return sum(manifest['splits'][split]['videos'] for split in SPLITS)


def _about_labels(labels, manifest):
  """Says what evaluations will miss: labels, and classes of a split."""
  splits = [s for s in SPLITS if manifest['splits'][s]['videos']]
  for each in labels:
    column, unknown = quoted(each.column), sum(each.unknown.values())
    if len(each.classes) == 1:
      yield (
        f'{column} has one class only, which every answer is right about: '
        'evaluations tell nothing of it.'
      )
    if 2 * unknown > _num_videos(manifest):
      yield (
        f'{_of_videos(unknown, manifest)} {chosen(unknown, "has", "have")} no '
        f'label {column}, and evaluations leave '
        f'{chosen(unknown, "it", "them")} out; {_LABELS_REMEDY}.'
      )
    for split in splits:
      if text := without_videos(each, split):
        yield text


def without_videos(labels, split):
  """Says which classes a split has no video of, and what follows.

  Args:
    labels: dataset_facts.Labels.
    split: 'train' or 'val'.

  Returns:
    str; empty where it has all.
  """
  absent = sorted(labels.absent(split))
  if not absent:
    return ''
  kind, one, several = _WITHOUT[split]
  classes = counted(len(labels.classes), 'class', 'classes')
  return (
    f'{len(absent)} of {classes} of {quoted(labels.column)} '
    f'{chosen(len(absent), "has", "have")} no {kind} video '
    f'({named(absent, _MAX_CLASSES)}); {chosen(len(absent), one, several)}.'
  )


def _is_by_hash(manifest):
  """Tells whether a hash chose the splits, and no lists or folders."""
  return manifest['options'].get('val_percent') is not None


def _remedy(manifest):
  """What gives the splits other videos."""
  what = 'other lists, or folders called train and val, give'
  if _is_by_hash(manifest):
    what = 'another --val-percent, or a list with the column split, gives'
  reuse = ''
  if FRAMES in manifest.get('created_with', {}):
    reuse = ' and whose --reuse takes its frames'
  return (
    f'{what} the splits other videos: with another --out, which leaves this '
    f'data set as it is{reuse}, or with --restart, which throws it away.'
  )


def _split_rows(manifest):
  fps = manifest['options']['fps']
  rows = [('split', 'videos', 'frames', 'duration')]
  for split in SPLITS:
    counts = manifest['splits'][split]
    seconds = counts['frames'] / fps
    rows.append(
      (split, str(counts['videos']), str(counts['frames']), duration(seconds))
    )
  return rows


def duration(seconds):
  """Writes a time in the largest unit of which it has at least one.

  Args:
    seconds: at least 0.

  Returns:
    str, such as '1.5 minutes'.
  """
  unit, size = next(
    ((unit, size) for unit, size in _UNITS if seconds >= size), _UNITS[-1]
  )
  return f'{seconds / size:,.1f} {unit}'


def _print_expected(manifest):
  """Compares the numbers with those that are known of the data set."""
  if 'expected' not in manifest:
    return
  rows = [('', 'expected', 'found', 'difference')]
  for key, numbers in manifest['expected'].items():
    expected, found = numbers['expected'], numbers['found']
    rows.append((key, str(expected), str(found), f'{found - expected:+d}'))
  print(table(rows))


def _print_missing(inputs):
  if not inputs.get('missing'):
    return
  listed = inputs['files'] + inputs['missing']
  percent = 100 * inputs['missing'] / listed
  print(
    f'  missing: {inputs["missing"]} of {counted(listed, "listed video")} '
    f'({percent:.1f}%), named in missing.json'
  )


def _print_longer(manifest):
  """Says how many files hold more than a list says of them."""
  count = manifest['inputs'].get('longer_than_listed')
  if not count:
    return
  remedy = ''
  if not manifest['options'].get('whole_videos'):
    remedy = (
      '; where ID.mp4 is the whole video of the web, --restart with '
      '--whole-videos takes the times of the list of it'
    )
  print(
    f'  much longer than listed: {counted(count, "video")}, taken whole{remedy}'
  )


def _print_rest(out, manifest):
  inputs = manifest['inputs']
  kinds = inputs.get('other_kinds')  # Not there in older data sets.
  print(
    f'  {counted(inputs["other_files"], "other file")} passed over'
    + (f' ({printable(kinds)})' if kinds else '')
    + (
      f', {counted(inputs["left_out"], "video")} in no split'
      if inputs['left_out']
      else ''
    )
  )
  _print_missing(inputs)
  _print_longer(manifest)
  place = place_of(out)
  _print_list('skipped', skipped_files(place), 'reason')
  _print_list('warnings', preparation_warnings(place, manifest), 'warning')


def skipped_files(place):
  """Reads what was skipped of a prepared data set.

  Args:
    place: of the data set, as `place_of` gives it.

  Returns:
    list of dict with 'path' and 'reason'; without what is damaged.
  """
  return _sound(read_json_at(place, 'skipped.json'), 'reason')


def missing_files(place):
  """Reads what a list names and was not there.

  Args:
    place: as `skipped_files` takes it.

  Returns:
    list of dict with 'path' and 'split', '' where the list has none; without
    what is damaged.
  """
  entries = read_json_at(place, 'missing.json')
  named = [
    entry | {'split': entry.get('split') or ''}
    for entry in (entries if isinstance(entries, list) else [])
    if isinstance(entry, dict)
  ]
  return _sound(named, 'split')


def preparation_warnings(place, manifest):
  """Reads what the preparation of a data set warned about.

  Args:
    place: of the data set, as `place_of` gives it.
    manifest: its dataset.json, where older data sets have them.

  Returns:
    list of dict with 'path' and 'warning'; without what is damaged.
  """
  entries = manifest.get('warnings') or read_json_at(place, 'warnings.json')
  return _sound(entries, 'warning')


def _sound(entries, key):
  return [
    entry
    for entry in (entries if isinstance(entries, list) else [])
    if isinstance(entry, dict)
    and isinstance(entry.get('path'), str)
    and isinstance(entry.get(key), str)
  ]


def _print_list(title, entries, key):
  print(f'  {title}: {len(entries)}')
  for entry in entries[:_MAX_LISTED]:
    print(f'    {printable(entry["path"])}: {printable(entry[key])}')
  if len(entries) > _MAX_LISTED:
    print(f'    ... and {len(entries) - _MAX_LISTED} more')


def table(rows):
  """Aligns rows of cells into lines of text.

  Args:
    rows: list of equally long lists of str; the first is the header.

  Returns:
    str, the first column to the left, the others to the right.
  """
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '
    + rows_cells[0].ljust(widths[0])
    + ''.join(
      f'  {cell:>{width}}'
      for cell, width in zip(rows_cells[1:], widths[1:], strict=True)
    )
    for rows_cells in rows
  )
