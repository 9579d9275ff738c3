"""Of which data sets the results are that lie in the folders of a plan.

A prepared data set is known by its fingerprint, wherever it lies, and so is a
folder of images, of which every file is looked at. A data set of TFDS is known
by its name and version.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from job.repository import REPOSITORY

from reproduction.plan import Plan, Step, role_of
from vie_jax import training_data
from vie_jax.evaluation import found_results
from vie_jax.evaluation.found_results import part
from vie_jax.evaluation.paper_roles import Role
from vie_jax.input_pipeline import dataset_folder, image_folder
from vie_jax.results import result_file
from vie_jax.saved_steps import commit_record, step_folders

_TFDS = 'tfds:'


class OtherDataError(ValueError):
  """A folder holds what was made of another data set; one line for the user."""


class DataSets:
  """The data sets of a plan, to compare those of results with.

  Args:
    plan: to be run.
  """

  def __init__(self, plan: Plan):
    self._roles = {role.path: role for role in plan.roles().values()}
    self._is_looked_at: set[str] = set()

  def check(self, step: Step, folder: pathlib.Path) -> None:
    """Refuses what is in a step's folder if it is of another data set.

    Args:
      step: a training or an evaluation.
      folder: of the step.

    Raises:
      OtherDataError: naming both data sets, and the remedy.
    """
    for what, found, path in _found(step, folder):
      asked = self._role(path)
      if not _is_same(found, asked):
        there = _words(*map(found.get, ('name', 'path', 'fingerprint')))
        here = _words(asked.dataset, asked.path, asked.fingerprint)
        raise OtherDataError(
          f'{folder} holds {what} {there}, and what is asked for is {here}. '
          'Name another --out, or move that folder away.'
        )

  def roles(self, plan: Plan) -> dict[str, Role]:
    """`plan.roles()`, with what was found out of them."""
    return {
      name: dataclasses.replace(
        role, fingerprint=self._roles[role.path].fingerprint
      )
      for name, role in plan.roles().items()
    }

  def _role(self, path: str) -> Role:
    role = self._roles.get(path) or role_of(path)
    # Only now, as it takes long where there are many files; and only once.
    if not role.fingerprint and path not in self._is_looked_at:
      role = dataclasses.replace(role, fingerprint=_of_images(path))
      self._is_looked_at.add(path)
      self._roles[path] = role
    return role


def _found(
  step: Step, folder: pathlib.Path
) -> Iterator[tuple[str, Mapping[str, Any], str]]:
  """(what it is, facts of its data set, path of that to be) of all inside."""
  config = step.config()
  pretrained = config.dataset.dir
  if step.mode == 'train':
    yield 'a network trained on', _of_training(folder), pretrained
    return
  facts, _ = found_results.read_result(folder / result_file.NAME)
  if facts is None:
    return
  tested = config[step.mode].get('dataset') or pretrained
  yield 'a result on', facts['dataset'], tested
  network, streams = facts['network'], part(facts['network'], 'streams')
  for origin in (network, *(part(streams, name) for name in streams)):
    found = training_data.dataset_of(part(origin, 'trained_on'))
    yield 'a result of a network trained on', found, pretrained


def _of_training(workdir: pathlib.Path) -> Mapping[str, Any]:
  """Facts of the data set of the newest checkpoint; {} where nothing says."""
  folders = step_folders.StepFolders(workdir / 'checkpoints')
  for step in reversed(folders.steps()):
    try:
      record = commit_record.read(folders.of(step)).record
    except (commit_record.DamagedError, commit_record.VersionError, OSError):
      continue
    if 'converted_from' in record:
      return {}
    return training_data.dataset_of(training_data.of_record(record))
  return {}


def _of_images(path: str) -> str:
  """The fingerprint of a folder of images, as results have it; or ''."""
  folder = str(REPOSITORY / path)
  if not image_folder.has_splits(folder):
    return ''
  try:
    with (
      image_folder.open_split(folder, 'train') as train,
      image_folder.open_split(folder, 'val') as val,
    ):
      return train.fingerprint + val.fingerprint
  except dataset_folder.DatasetError:
    # Whoever reads it says what is wrong.
    return ''


def _is_same(found: Mapping[str, Any], asked: Role) -> bool:
  versions = {_tfds_version(found.get('path')), _tfds_version(asked.path)}
  return asked.may_be(found) and len(versions - {''}) < 2


def _tfds_version(path: Any) -> str:
  if not isinstance(path, str) or not path.startswith(_TFDS):
    return ''
  return path.removeprefix(_TFDS).partition(':')[2]


def _words(name: Any, path: Any, fingerprint: Any) -> str:
  """A data set in words, as far as it is known."""
  more = f', fingerprint {str(fingerprint)[:12]}' if fingerprint else ''
  return f'the data set {name or "without a name"} ({path}{more})'
