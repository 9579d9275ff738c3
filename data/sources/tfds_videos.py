"""Writes the videos of a TFDS data set as files, and a list of them.

TFDS stores frames, not files: each video is written once more, without loss,
so that it goes the way of all others.
"""

import fractions
import json
import os
import pathlib
import re
import sys

# TensorFlow only reads here, and need not talk about it.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import av
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from dataset.folder_lock import TOKEN, locked_in_turn, remove_leftovers
from dataset.staging import output_errors, read_json, write_json
from errors import InputError
from progress import progress_bar

LIST_FILE = 'list.jsonl'
SKIPPED_FILE = 'skipped.json'
_MARK = '.tfds.json'
# How configs name a data set of TFDS.
_PREFIX = 'tfds:'
# What each split is called, the first that is there being taken.
_SPLITS = {'train': ('train',), 'val': ('validation', 'val', 'test')}


def write_tfds_videos(
  name, folder, *, data_dir=None, video=None, label=None, frame_rate_hz=25
):
  """Writes the videos of a TFDS data set that is prepared on this machine.

  Nothing is downloaded. A run that was stopped goes on.

  Args:
    name: what `tfds.builder` takes, such as 'ucf101/ucf101_1:2.0.0'; with or
      without 'tfds:' in front.
    folder: path of a new folder, or of one that this function was given
      before with the same arguments; afterwards with LIST_FILE in it, in which
      rows have a split if the data set has both, and SKIPPED_FILE, a list of
      dict with 'path' and 'reason'.
    data_dir: where TFDS keeps its data sets; None for where it looks itself.
    video: the feature with the video: frames, uint8 [T, H, W, 1 or 3], or an
      encoded file, bytes; None for the only tfds.features.Video.
    label: the feature with the class, text or a number, as 'meta/label' where
      it is inside of another; None for the only ClassLabel, if any.
    frame_rate_hz: int or float, of the stored frames, which TFDS does not
      tell.

  Returns:
    str, the name and version of the data set.

  Raises:
    InputError: if there is no such data set, or no video in it.
    OutputError: if the folder cannot be written.
  """
  name = name.removeprefix(_PREFIX)
  builder = _builder(name, data_dir)
  features = builder.info.features
  video = video or _only(features, tfds.features.Video, name, '--video')
  label = label or _only(features, tfds.features.ClassLabel, name, None)
  _check_features(features, video, label, name)
  folder = pathlib.Path(folder)
  mark = {
    'data_set': builder.info.full_name,
    'video': video,
    'label': label,
    'frame_rate_hz': frame_rate_hz,
  }
  with locked_in_turn(folder) as is_alone:
    if is_alone:
      remove_leftovers(folder, f'{_MARK}.*.tmp')
    _claim(folder, mark)
    if is_alone:
      # The folder is ours, and so are these.
      remove_leftovers(folder, f'{SKIPPED_FILE}.*.tmp', '.*.tmp', '*/.*.tmp')
    if not (folder / LIST_FILE).exists():
      _write_all(builder, folder, name, video, label, frame_rate_hz)
  return builder.info.full_name


def _builder(name, data_dir):
  try:
    builder = tfds.builder(name, data_dir=data_dir)
  except Exception as error:  # TFDS raises whatever it comes across
    reason = str(error).strip().split('\n')[0].rstrip('.')
    raise InputError(
      f'tfds {name} cannot be opened: {reason}{_others(name, data_dir)}'
    ) from error
  if not builder.info.splits:
    where = f', data_dir={data_dir!r}' if data_dir else ''
    raise InputError(
      f'tfds {name} is not prepared in {builder.data_dir}; name another folder '
      'with --data-dir, or download it once in Python, with "import '
      f'tensorflow_datasets as tfds; tfds.builder({name!r}{where}).'
      'download_and_prepare()"'
    )
  return builder


def _others(name, data_dir):
  """Says which configs and versions of a data set are prepared, if any."""
  base = re.match(r'\w+', name)
  if base is None:
    return ''
  folder = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR)
  found = [
    path.parent.relative_to(folder)
    for depth in ('*', '*/*')
    for path in sorted((folder / base[0]).glob(f'{depth}/dataset_info.json'))
  ]
  if not found:
    return ''
  names = ', '.join(f'{path.parent}:{path.name}' for path in found)
  return f'; in {folder} there is {names}'


def _only(features, kind, name, option):
  """Returns the path of the only feature of a kind; None if that is no error.

  Those inside of others count where there is none outside of them.
  """
  leaves = dict(_leaves(features))
  found = [path for path, leaf in leaves.items() if isinstance(leaf, kind)]
  outside = [path for path in found if path in features]
  if len(outside or found) == 1:
    return (outside or found)[0]
  if option:
    raise InputError(
      f'tfds {name} has {len(found)} video features; name one of '
      f'{", ".join(found or leaves)} with {option}'
    )
  if found:
    print(
      f'Note: tfds {name} has the classes {", ".join(outside or found)}; none is '
      'taken, name one with --label.',
      file=sys.stderr,
    )
  return None


def _check_features(features, video, label, name):
  leaves = dict(_leaves(features))
  if video not in features and video not in leaves:
    raise InputError(
      f'tfds {name} has no feature {video!r}, only {", ".join(features)}'
    )
  if label is None:
    return
  possible = [path for path in leaves if _is_one_value(leaves[path])]
  if label not in possible:
    others = f'; possible are {", ".join(possible)}' if possible else ''
    is_there = label in features or label in leaves
    problem = 'is not one text or number' if is_there else 'is not there'
    raise InputError(f'tfds {name}: the feature {label!r} {problem}{others}')


def _leaves(features, prefix=''):
  """Yields (path, feature) of what is no group: ('meta/label', ...)."""
  for key, feature in features.items():
    if isinstance(feature, tfds.features.FeaturesDict):
      yield from _leaves(feature, f'{prefix}{key}/')
    else:
      yield f'{prefix}{key}', feature


def _is_one_value(feature):
  # ClassLabel, Text and Scalar are Tensors of no axes, too.
  return isinstance(feature, tfds.features.Tensor) and feature.shape == ()


def _at(values, path):
  """Returns what is at a path in an example, or in the features."""
  if path in values:
    return values[path]
  first, _, rest = path.partition('/')
  return _at(values[first], rest)


def _claim(folder, mark):
  """Marks a new folder, or finds one that was begun with the same mark."""
  with output_errors(folder):
    found, is_empty = read_json(folder / _MARK), not any(folder.iterdir())
  if found != mark and not is_empty:
    raise InputError(
      f'{folder} is not empty and holds other videos; name another folder with '
      '--extract-to'
    )
  write_json(folder / _MARK, mark, aside=folder)


def _write_all(builder, folder, name, video, label, frame_rate_hz):
  """Writes the videos of all splits, what was skipped, and then the list."""
  rows, skipped = [], []
  splits = _splits(builder, name)
  if len(splits) == 1:
    splits = {source: source for source in splits.values()}
  for split, source in splits.items():
    rows += _write_split(
      builder, source, folder, split, video, label, frame_rate_hz, skipped
    )
  if len(splits) == 1:
    # A split of the list would leave train or val empty.
    rows = [{k: row[k] for k in row if k != 'split'} for row in rows]
  write_json(folder / SKIPPED_FILE, skipped, aside=folder)
  lines = ''.join(f'{json.dumps(row)}\n' for row in rows)
  _write_aside(folder / LIST_FILE, lines.encode(), _write_bytes)


def _splits(builder, name):
  there = builder.info.splits
  splits = {
    split: next((name for name in names if name in there), None)
    for split, names in _SPLITS.items()
  }
  splits = {split: source for split, source in splits.items() if source}
  if not splits:
    raise InputError(
      f'tfds {name} has none of the splits train, validation, val and test, '
      f'only {", ".join(there)}'
    )
  return splits


def _write_split(
  builder, source, folder, split, video, label, frame_rate_hz, skipped
):
  """Writes one split; returns its rows of the list, adds to `skipped`."""
  with output_errors(folder):
    (folder / split).mkdir(exist_ok=True)
  rows = []
  total = builder.info.splits[source].num_examples
  with progress_bar(f'reading {split}', 'video', total) as bar:
    for number, example in enumerate(_examples(builder, source)):
      bar.update()
      path = f'{split}/{number:08d}'
      content = _at(example, video)
      if isinstance(content, bytes):
        path += '.video'
        _write_aside(folder / path, content, _write_bytes)
      else:
        path += '.mkv'
        content = _frames(content, builder.info.name)
        if not content.size:
          skipped.append({'path': path, 'reason': 'no frame in it'})
          continue
        _write_aside(
          folder / path,
          content,
          lambda file, frames: _write_lossless(file, frames, frame_rate_hz),
        )
      row = {'path': path, 'split': split}
      if label is not None:
        feature = _at(builder.info.features, label)
        row['label'] = _class_name(feature, _at(example, label))
      rows.append(row)
  return rows


def _examples(builder, source):
  read_config = tfds.ReadConfig(interleave_cycle_length=1)
  try:
    yield from tfds.as_numpy(
      builder.as_dataset(
        split=source, shuffle_files=False, read_config=read_config
      )
    )
  except (tf.errors.OpError, OSError) as error:
    reason = str(error).strip().split('\n')[0]
    raise InputError(
      f'tfds {builder.info.full_name} cannot be read: {reason}'
    ) from error


def _frames(value, name):
  frames = np.asarray(value)
  if (
    frames.dtype != np.uint8
    or frames.ndim != 4
    or frames.shape[3] not in (1, 3)
  ):
    raise InputError(
      f'tfds {name}: a video is {frames.dtype} {list(frames.shape)}, not uint8 '
      '[T, H, W, 3]'
    )
  return np.broadcast_to(frames, (*frames.shape[:3], 3))


def _class_name(feature, value):
  if isinstance(feature, tfds.features.ClassLabel):
    return '' if value < 0 else feature.int2str(int(value))
  if isinstance(value, bytes):
    return value.decode('utf-8', 'replace')
  return str(value)


def _write_aside(path, content, write):
  """Writes a file that is complete or not there; keeps one that is there."""
  if path.exists():
    return
  temporary = path.with_name(f'.{path.name}.{TOKEN}.tmp')
  with output_errors(path):
    write(temporary, content)
    os.replace(temporary, path)


def _write_bytes(path, content):
  path.write_bytes(content)


def _write_lossless(path, frames, frame_rate_hz):
  """Writes frames, uint8 [T, H, W, 3], to the last bit, as FFV1."""
  rate = fractions.Fraction(frame_rate_hz).limit_denominator(1001)
  with av.open(str(path), 'w', format='matroska') as out:
    stream = out.add_stream('ffv1', rate=rate)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'bgr0'
    for number, array in enumerate(frames):
      array = np.ascontiguousarray(array)
      frame = av.VideoFrame.from_ndarray(array, 'rgb24')
      frame.pts, frame.time_base = number, 1 / rate
      out.mux(stream.encode(frame))
    out.mux(stream.encode())
