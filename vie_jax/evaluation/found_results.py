"""Finds what evaluations left behind: every `result.json` below some folders.

Reports read results of any age and origin, so nothing here stops at a file
that is broken or of something else: it is named, with the reason.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vie_jax.results import result_file
from vie_jax.telemetry import metrics_file
from vie_jax.untrusted import urls

CHECKPOINTS = 'checkpoints'
# What a result must have to be read at all, and of which type.
_REQUIRED = {
  'mode': str,
  'dataset': dict,
  'network': dict,
  'accuracy': dict,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
  """One evaluation.

  Attributes:
    name: of its folder, short and unique among those found.
    path: of the file.
    facts: what is in it.
  """

  name: str
  path: pathlib.Path
  facts: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """The curves of a training, of whatever kind.

  Attributes:
    name: of its folder, as in `Result`.
    curves: figure -> (steps, values).
    result: of the evaluation that it is; None in pretraining, or where it is
      not finished.
  """

  name: str
  curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]
  result: Result | None


@dataclasses.dataclass(frozen=True)
class Skipped:
  """A file or folder that nothing was taken from, and why."""

  name: str
  reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
  """Everything below some folders.

  Attributes:
    results: by name.
    runs: with curves, by name.
    skipped: files and folders that nothing was taken from.
    unread: folders that cannot be looked into, and what lies there is not known.
  """

  results: list[Result]
  runs: list[Run]
  skipped: list[Skipped]
  unread: list[Skipped] = dataclasses.field(default_factory=list)


def _reason_against(facts: dict) -> str:
  """Says what makes a result none that can be shown; '' if it is one."""
  if 'query' in facts:
    return 'answers a query of your own, which has no accuracy'
  for name, kind in _REQUIRED.items():
    if not isinstance(facts.get(name), kind):
      return f'is no result: {name!r} is missing or no {kind.__name__}'
  for column, by_name in facts['accuracy'].items():
    figures = by_name.values() if isinstance(by_name, dict) else [None]
    for figure in figures:
      if not isinstance(figure, dict) or not _is_share(figure.get('top1')):
        return f'is no result: the accuracy of {column!r} is no share'
  return ''


def _is_share(value: Any) -> bool:
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return is_number and math.isfinite(value) and 0 <= value <= 1


def read_result(path: pathlib.Path) -> tuple[dict | None, str]:
  """Reads a result, or says why there is none.

  Returns:
    (facts, ''), or (None, reason).
  """
  try:
    facts = result_file.read(path)
  except ValueError as error:
    return None, str(error)
  reason = _reason_against(facts)
  return (None, reason) if reason else (facts, '')


def _read_curves(folder: pathlib.Path) -> tuple[metrics_file.Curves, str]:
  """Curves, or {} and why there are none."""
  try:
    return metrics_file.curves(folder), ''
  except OSError as error:
    return {}, f'cannot be read: {error.strerror}'
  except metrics_file.MetricsError as error:
    return {}, f'has curves that are not shown: {error}'


def _folders(
  root: pathlib.Path, unread: list[Skipped]
) -> Iterator[tuple[pathlib.Path, set[str]]]:
  """Walks through folders with what is in each; not into checkpoints.

  Args:
    root: where to begin.
    unread: receives those that cannot be looked into.
  """

  def note(error):
    # What is removed meanwhile is of a run that goes on.
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
      unread.append(Skipped(error.filename, error.strerror))

  for folder, subfolders, files in os.walk(root, onerror=note):
    names = {*subfolders, *files}
    subfolders[:] = sorted(
      name
      for name in subfolders
      if name != CHECKPOINTS and not name.startswith('.')
    )
    yield pathlib.Path(folder), names


def _names(roots: list[pathlib.Path]) -> dict[pathlib.Path, str]:
  """What to call each root: nothing, its last part, or more of it."""
  if len(roots) == 1:
    return {roots[0]: ''}
  last = [root.resolve().name for root in roots]
  common = os.path.commonpath([root.resolve().parent for root in roots])
  return {
    root: name
    if last.count(name) == 1
    else os.path.relpath(root.resolve(), common)
    for root, name in zip(roots, last, strict=True)
  }


def collect(paths: Iterable[str | pathlib.Path]) -> Found:
  """Reads all results and curves below some folders.

  Args:
    paths: workdirs, or folders of them. One that is below another, or is named
      twice, is read once.
  """
  roots = list(dict.fromkeys(pathlib.Path(path) for path in paths))
  names = _names(roots)
  results, runs, skipped, unread, seen = [], [], [], [], set()
  for root in roots:
    before = len(results) + len(skipped)
    begun: dict[pathlib.Path, str] = {}
    finished = set()
    for folder, inside in _folders(root, unread):
      if folder.resolve() in seen:
        continue
      seen.add(folder.resolve())
      relative = folder.relative_to(root).as_posix()
      name = '/'.join(p for p in (names[root], relative) if p not in ('', '.'))
      name = name or root.resolve().name
      result = None
      if result_file.NAME in inside:
        facts, reason = read_result(folder / result_file.NAME)
        if facts is None:
          skipped.append(Skipped(f'{name}/{result_file.NAME}', reason))
        else:
          result = Result(name, folder / result_file.NAME, facts)
          results.append(result)
        finished |= {folder, *folder.parents}
      if metrics_file.NAME in inside:
        curves, reason = _read_curves(folder)
        if reason:
          skipped.append(Skipped(f'{name}/{metrics_file.NAME}', reason))
        if curves:
          runs.append(Run(name, curves, result))
      if {metrics_file.NAME, CHECKPOINTS} & inside:
        begun[folder] = name
    if len(results) + len(skipped) == before and not begun:
      skipped.append(
        Skipped(urls.shown(root), f'has no {result_file.NAME} in it')
      )
    skipped += [
      Skipped(name, 'has no result: not evaluated yet, or not finished')
      for folder, name in begun.items()
      if folder not in finished
    ]
  return Found(
    sorted(results, key=lambda result: result.name),
    sorted(runs, key=lambda run: run.name),
    skipped,
    unread,
  )


def part(facts: Mapping, name: str) -> Mapping:
  """A part of a result, empty where it is missing."""
  found = facts.get(name)
  return found if isinstance(found, Mapping) else {}
