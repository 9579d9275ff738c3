"""What networks find near the validation videos, kept for other pages."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vie_jax.files import disk
from vie_jax.input_pipeline.frame_store import FrameStore
from vie_jax.results import result
from vie_jax.untrusted import arrays as untrusted_arrays

FILE = 'neighbors.npz'


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
  """What a network finds near Q queries.

  Attributes:
    index: int [Q, K], rows of training videos in their store, the nearest
      first.
    similarity: float32 [Q, K], in [-1, 1].
    predicted: label column -> class numbers int32 [Q], -1 for none.
    queries: int [Q], rows of the queries in their store, ascending; None if
      they are all of its videos.
    heading: what a page calls the network; '' if none shows it.
    result: of the network, see `result.write`; likewise.
  """

  index: np.ndarray
  similarity: np.ndarray
  predicted: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  queries: np.ndarray | None = None
  heading: str = ''
  result: dict = dataclasses.field(default_factory=dict)

  def place(self, row: int) -> int:
    """Where a query is, by its row in the store."""
    return row if self.queries is None else np.searchsorted(self.queries, row)


def write(
  folder: pathlib.Path, train: FrameStore, val: FrameStore, own: Findings
) -> None:
  """Keeps findings for other pages, and for other programs.

  Args:
    folder: receives `neighbors.npz`, of any mode: `query_ids` bytes [Q] and
      `fingerprint` of the queries, `index`, `ids` (bytes) and `similarity`
      [Q, K] of their neighbours, and `predicted` int32 [C, Q] class numbers by
      the C label columns that `columns` names.
    train: the training videos.
    val: the queries.
    own: found for them.
  """
  columns = list(own.predicted)
  folder.mkdir(parents=True, exist_ok=True)
  with disk.replacing(folder / FILE) as fresh, fresh.open('wb') as file:
    np.savez(
      file,
      fingerprint=np.array(val.fingerprint),
      query_ids=_encoded(val.ids)[_rows(own, val)],
      ids=_encoded(train.ids)[own.index],
      index=own.index,
      similarity=own.similarity,
      columns=np.array(columns, 'U'),
      predicted=np.array([own.predicted[c] for c in columns], np.int32),
    )


def _encoded(ids: Sequence[str]) -> np.ndarray:
  """Ids as UTF-8: bytes [n]."""
  return np.array([name.encode() for name in ids], 'S')


def _rows(found: Findings, val: FrameStore) -> np.ndarray:
  """The rows of the queries in their store: int [Q]."""
  return np.arange(val.num_videos) if found.queries is None else found.queries


def common_queries(findings: Sequence[Findings], val: FrameStore) -> np.ndarray:
  """The rows of the queries of all networks, ascending: int [Q]."""
  rows = [_rows(found, val) for found in findings]
  return functools.reduce(np.intersect1d, rows)


def read_beside(
  entries: str, train: FrameStore, val: FrameStore, *, mode: str, name: str
) -> list[Findings]:
  """Reads the results of other networks on the same videos.

  Args:
    entries: workdirs, or folders of results, with commas between.
    train: the training videos.
    val: the queries.
    mode: whose results they are.
    name: of the folder of results that is meant, if a workdir has several.

  Raises:
    result.ResultError: if there are none, or they are damaged or of other
      videos, with the remedy.
  """
  return [
    _read(_folder(entry.strip(), val, mode, name), train, val, mode)
    for entry in entries.split(',')
    if entry.strip()
  ]


def _folder(entry, val, mode, name):
  """The folder of results that an entry names."""
  path = pathlib.Path(os.path.expanduser(entry))
  if (path / FILE).is_file():
    return path
  folders = [
    found.parent
    for found in sorted((path / mode).glob(f'*/{FILE}'))
    if _fingerprint(found.parent) == val.fingerprint
  ]
  same = [folder for folder in folders if folder.name == name]
  if len(same or folders) == 1:
    return (same or folders)[0]
  if not folders:
    raise result.ResultError(
      f'{entry} (config.retrieve.beside) has no results of {mode} on the '
      f'videos of {val.directory}; make them with "python main.py '
      f'--config=CONFIG --workdir={entry} --mode={mode} '
      f'--config.dataset.dir={val.directory}", CONFIG being the one it was '
      'trained with.'
    )
  listing = ', '.join(map(str, folders))
  raise result.ResultError(
    f'{entry} (config.retrieve.beside) has several results of {mode} on the '
    f'videos of {val.directory}; name one of {listing} instead.'
  )


def _fingerprint(folder):
  """Of the data set that results are of; None if that is unknown."""
  try:
    return result.read(folder / result.FILE)['dataset']['fingerprint']
  except (result.ResultError, LookupError, TypeError):
    return None


def _read(folder, train, val, mode):
  """Reads findings, which must be of these queries."""
  facts = result.read(folder / result.FILE)
  if facts.get('mode') != mode:
    raise result.ResultError(
      f'{folder} (config.retrieve.beside) has results of another mode; name '
      f'those of --mode={mode}.'
    )
  path = folder / FILE
  try:
    arrays = untrusted_arrays.read_npz(path)
    fingerprint = str(arrays['fingerprint'])
    index, similarity = arrays['index'], arrays['similarity']
    predicted = dict(
      zip(arrays['columns'].tolist(), arrays['predicted'], strict=True)
    )
    found = Findings(
      index,
      similarity,
      predicted,
      heading=facts['heading'],
      result=facts,
    )
    if fingerprint == val.fingerprint:
      row_of = {name.encode(): row for row, name in enumerate(val.ids)}
      rows = [row_of[name] for name in arrays['query_ids'].tolist()]
      found = dataclasses.replace(found, queries=np.array(rows, np.int64))
      _check(found, train, val)
  except (OSError, ValueError, LookupError, TypeError) as error:
    raise result.ResultError(
      f'{path} is damaged ({error}); run --mode=retrieve there again.'
    ) from error
  if fingerprint != val.fingerprint:
    raise result.ResultError(
      f'{folder} (config.retrieve.beside) is of other videos than '
      f'{val.directory}; run --mode=retrieve there with '
      f'--config.dataset.dir={val.directory}.'
    )
  return found


def _check(found, train, val):
  """Refuses what does not fit to the videos, with a ValueError."""
  index, similarity = found.index, found.similarity
  num_queries = len(found.queries)
  if len(index) != num_queries:
    raise ValueError(f'{len(index)} queries instead of {num_queries}')
  if (np.diff(found.queries) <= 0).any():
    raise ValueError('the queries are not in order')
  _check_numbers('index', index, 0, train.num_videos)
  if index.ndim != 2 or similarity.shape != index.shape:
    raise ValueError('index and similarity are not both [Q, K]')
  if similarity.dtype.kind != 'f' or not np.isfinite(similarity).all():
    raise ValueError('similarity has values that are no numbers')
  for column, numbers in found.predicted.items():
    if numbers.shape != (num_queries,):
      raise ValueError(f'the predictions of {column!r} are not [Q]')
    if column in val.label_columns:
      _check_numbers(column, numbers, -1, len(val.label(column)[1]))


def _check_numbers(name, numbers, low, stop):
  is_whole = numbers.dtype.kind in 'iu'
  if not is_whole or ((numbers < low) | (numbers >= stop)).any():
    raise ValueError(f'{name} has numbers that are not in [{low}, {stop})')


def distinct(findings: Sequence[Findings]) -> list[Findings]:
  """Gives networks of one heading another each, so that none hides another."""
  named = {}
  for found in findings:
    heading, number = found.heading, 1
    while heading in named:
      number += 1
      heading = f'{found.heading} ({number})'
    named[heading] = dataclasses.replace(found, heading=heading)
  return [*named.values()]
