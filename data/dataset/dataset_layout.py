"""What a prepared data set consists of: its files, columns and digests.

The layout is described in data/README.md.
"""

import hashlib
import json
import os
import re

import pyarrow

FORMAT_VERSION = 1
# Where dataset.json has a digest of the rest of it. Older ones have none.
MANIFEST_DIGEST = 'manifest_sha256'
SPLITS = ('train', 'val')
# Lists of a plan that can be as long as the data set.
LISTS = ('skipped', 'missing', 'warnings')
_OWN_FILES = {
  'dataset.json',
  *(f'{key}.json' for key in LISTS),
  *(f'{split}/videos.parquet' for split in SPLITS),
}
_SHARD_NAME = re.compile(
  rf'({"|".join(SPLITS)})/frames-\d+-of-\d+\.array_record'
)
_SCHEMA = (
  ('id', pyarrow.string()),
  ('path', pyarrow.string()),
  ('num_frames', pyarrow.int32()),
  ('first_frame', pyarrow.int64()),
  ('height', pyarrow.int32()),
  ('width', pyarrow.int32()),
  ('source_fps', pyarrow.float64()),
  ('source_height', pyarrow.int32()),
  ('source_width', pyarrow.int32()),
  ('duration_seconds', pyarrow.float64()),
  ('source_sha256', pyarrow.string()),
  ('frames_sha256', pyarrow.string()),
)


def fingerprint(rows, labels):
  """Hashes the content of a data set.

  Args:
    rows: for each split the rows, with the columns of the table.
    labels: for each label column the class names.

  Returns:
    str, sha256 in hex.
  """
  columns = [name for name, _ in table_schema(labels)]
  content = {
    'labels': labels,
    'rows': {
      split: [[row[name] for name in columns] for row in rows[split]]
      for split in SPLITS
    },
  }
  return _json_digest(content)


def manifest_digest(manifest):
  """Hashes what dataset.json says, but for this digest itself.

  Args:
    manifest: dict, its content.

  Returns:
    str, sha256 in hex.
  """
  rest = {key: manifest[key] for key in manifest if key != MANIFEST_DIGEST}
  return _json_digest(rest)


def file_digest(path):
  """Returns the sha256 of a file in hex; does not wait at a named pipe."""

  def opener(path, flags):
    return os.open(path, flags | os.O_NONBLOCK)

  with open(path, 'rb', buffering=0, opener=opener) as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def is_dataset_file(name):
  """Tells whether a name, relative to a data set, is that of its own files."""
  return name in _OWN_FILES or _SHARD_NAME.fullmatch(name) is not None


def table_schema(labels):
  """Returns (name, type) of each column of a table of videos."""
  return _SCHEMA + tuple(
    (f'label_{column}', pyarrow.int32()) for column in sorted(labels)
  )


def _json_digest(value):
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
