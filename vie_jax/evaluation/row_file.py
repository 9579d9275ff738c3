"""An .npy file that is written row by row, and goes on after a kill.

While it is incomplete it has another name, X.npy.part, so that no half of it
is taken for the whole. X.json beside it says what the rows are of, and how
many are safely on the disk. No more than a block of rows is in memory.
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Iterable, Iterator

import numpy as np
from absl import logging

from vie_jax.evaluation import row_progress
from vie_jax.files import disk
from vie_jax.untrusted import json_text

# Of X.json; it names damaged frames.
MAX_RECORD_BYTES = 2**26
# Saving may take this share of the time.
_SAVING_SHARE = 0.05


class RowFile:
  """A float32 array on the disk, filled from its first row to its last.

  Args:
    path: of the .npy file. An unfinished one of the same identity is gone on
      with; whatever is there of another is replaced.
    shape: of the array; the last axis is a row.
    identity: JSON-compatible facts of which the rows are a function.
    notes: JSON-compatible facts about the rows, which the caller adds to while
      they are made: saved with them, and updated by those of rows that are
      there.
  """

  def __init__(
    self,
    path: str | pathlib.Path,
    *,
    shape: tuple[int, ...],
    identity: dict,
    notes: dict | None = None,
  ):
    self.path = pathlib.Path(path)
    self._part = self.path.with_suffix('.npy.part')
    self._record = self.path.with_suffix('.json')
    self._shape = tuple(map(int, shape))
    self._identity = {
      **json.loads(json.dumps(identity)),
      'shape': list(self._shape),
    }
    self._notes = {} if notes is None else notes
    self._num_done = self._find()

  @property
  def num_rows(self) -> int:
    """Rows in all."""
    return math.prod(self._shape[:-1])

  @property
  def num_done(self) -> int:
    """Rows that are there, all of them before the others."""
    return self._num_done

  @property
  def is_complete(self) -> bool:
    """Whether nothing is left to do."""
    return self.path.exists() and self._num_done == self.num_rows

  def fill(self, blocks: Iterable[np.ndarray], unit: str = 'rows') -> None:
    """Writes the rows that are missing.

    Args:
      blocks: float32 [b, D], the rows from `num_done` on, in order.
      unit: what the log calls a row.

    Raises:
      ValueError: if there are fewer or more rows than are missing.
    """
    with disk.naming(self._part):
      self._fill(blocks, unit)
    if self._num_done < self.num_rows:
      raise ValueError(
        f'{self.path} has {self.num_rows} rows, and only {self._num_done} came.'
      )
    self._part.replace(self.path)

  def _fill(self, blocks, unit):
    if not self._num_done:
      self._begin()
    if 0 < self._num_done < self.num_rows:
      logging.info(
        'Going on from %d of %d %s.', self._num_done, self.num_rows, unit
      )
    progress = row_progress.RowProgress(
      'Embedded',
      self.num_rows,
      unit,
      num_done=self._num_done,
      tells_end=True,
    )
    offset = self._part.stat().st_size - self._row_bytes * self.num_rows
    with self._part.open('r+b') as file:
      file.seek(offset + self._row_bytes * self._num_done)
      saved, cost = time.monotonic(), 0.0
      for block in blocks:
        self._check(block)
        file.write(np.ascontiguousarray(block, '<f4').data)
        self._num_done += len(block)
        progress.report(self._num_done)
        started = time.monotonic()
        if cost < _SAVING_SHARE * (started - saved):
          self._save(file)
          saved = time.monotonic()
          cost = saved - started
      self._save(file)

  def save_notes(self) -> None:
    """Saves notes that came after the last row."""
    self._save_record()

  @property
  def _row_bytes(self):
    return 4 * self._shape[-1]

  def _find(self):
    """How many rows of this identity are on the disk."""
    try:
      record = json_text.read(self._record, max_bytes=MAX_RECORD_BYTES)
      identity, num_done = record['identity'], int(record['num_done'])
    except (OSError, ValueError, LookupError, TypeError):
      return 0
    if identity != self._identity:
      differing = ', '.join(
        name
        for name in sorted({*identity, *self._identity})
        if identity.get(name) != self._identity.get(name)
      )
      logging.info('%s is made anew: %s changed.', self.path, differing)
      return 0
    if num_done == self.num_rows and self._is_whole(self._part):
      self._part.replace(self.path)
    found = self.path if num_done == self.num_rows else self._part
    if not self._is_whole(found):
      return 0
    self._notes.update(record.get('notes', {}))
    return num_done

  def _is_whole(self, path):
    """Whether a file is there, with room for every row."""
    try:
      array = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError):
      return False
    return array.dtype == np.float32 and array.shape == self._shape

  def _begin(self):
    """Makes an empty file, which takes no room yet."""
    # The record first: what it is of must never seem to be of another.
    for old in (self._record, self.path, self._part):
      old.unlink(missing_ok=True)
    if self.num_rows:
      np.lib.format.open_memmap(
        self._part, mode='w+', dtype='<f4', shape=self._shape
      )
    else:
      with self._part.open('wb') as file:
        np.save(file, np.zeros(self._shape, '<f4'))

  def _check(self, block):
    if block.ndim != 2 or block.shape[1] != self._shape[-1]:
      raise ValueError(
        f'rows of {list(block.shape)} do not fit into {list(self._shape)}.'
      )
    if self._num_done + len(block) > self.num_rows:
      raise ValueError(
        f'{self.path} has {self.num_rows} rows, and more of them came.'
      )

  def _save(self, file):
    """Brings all rows to the disk, and only then says so."""
    file.flush()
    os.fsync(file.fileno())
    self._save_record()

  def _save_record(self):
    record = {
      'identity': self._identity,
      'num_done': self._num_done,
      'notes': self._notes,
    }
    fresh = self._record.with_suffix('.json.tmp')
    fresh.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')
    fresh.replace(self._record)


def read_blocks(
  path: str | pathlib.Path, *, block_bytes: int = 2**24
) -> Iterator[np.ndarray]:
  """Reads the rows of a file in order, a few at a time.

  Args:
    path: of an .npy file, C order, of at least two axes.
    block_bytes: about what is in memory at once; at least a row.

  Yields:
    [b, D], of the file's type.
  """
  array = np.load(path, mmap_mode='r', allow_pickle=False)
  row = math.prod(array.shape[-1:])
  num_rows = array.size // max(row, 1)
  step = max(1, block_bytes // max(row * array.itemsize, 1))
  # Not slices of the memory map: its pages would stay in memory.
  with open(path, 'rb') as file:
    file.seek(array.offset)
    for start in range(0, num_rows, step):
      count = min(step, num_rows - start)
      yield np.fromfile(file, array.dtype, count * row).reshape(count, row)
