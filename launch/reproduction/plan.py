"""What a plan is: commands, in an order, for the cells of the paper's tables."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
from job import config_files
from job.repository import REPOSITORY

from vie_jax import option_parser
from vie_jax.evaluation.paper_roles import Role


@dataclasses.dataclass(frozen=True)
class Data:
  """A data set that takes the place of one of the paper's.

  Attributes:
    path: a prepared data set, an image folder, or 'tfds:NAME'.
    name: as it stands in results.
    column: label column; '' for the only one.
    train: videos or images to train on; 0 if that is not known beforehand.
    val: to test on.
    prepared_by: arguments of data/prepare.py that make it; () if the user
      brings it.
  """

  path: str
  name: str
  column: str = ''
  train: int = 0
  val: int = 0
  prepared_by: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
  """One command.

  Attributes:
    name: unique in the plan.
    needs: names of steps that come before it.
    mode: of main.py; 'data' for data/prepare.py.
    workdir: of main.py; of 'data', what is made.
    config_file: such as 'configs/vie_single.py:ir'; '' for 'data'.
    fields: config field -> value, on top of the file.
    arguments: of data/prepare.py.
  """

  name: str
  needs: tuple[str, ...]
  mode: str
  workdir: str
  config_file: str = ''
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  arguments: tuple[str, ...] = ()

  @property
  def command(self) -> tuple[str, ...]:
    """What comes behind `python`, from the repository's root."""
    if self.mode == 'data':
      return ('data/prepare.py', *self.arguments)
    mode = () if self.mode == 'train' else (f'--mode={self.mode}',)
    return (
      'main.py',
      f'--config={self.config_file}',
      f'--workdir={self.workdir}',
      *mode,
      *(f'--config.{name}={value}' for name, value in self.fields.items()),
    )

  @property
  def folder(self) -> pathlib.Path:
    """Where its result.json, or the checkpoints of a training, go."""
    if self.mode in ('data', 'train'):
      return pathlib.Path(self.workdir)
    return pathlib.Path(self.workdir, self.mode, self.fields['result_name'])

  def config(self) -> ml_collections.ConfigDict:
    """What main.py makes of config file and fields.

    Raises:
      ValueError: naming a field that does not exist, or a wrong value.
    """
    config = config_files.read(self.config_file)
    for field, value in self.fields.items():
      try:
        config.update_from_flattened_dict({field: value})
      except (KeyError, AttributeError, TypeError, ValueError) as error:
        known = config_files.flat(config.to_dict()).keys()
        near = option_parser.near(field, known)
        reason = ' '.join(str(error).split())[:200]
        if field not in known and near:
          reason = f'there is no such field; did you mean {near}?'
        raise ValueError(
          f'--config.{field}={value} does not fit {self.config_file}: {reason}'
        ) from error
    return config


@dataclasses.dataclass(frozen=True)
class Plan:
  """Steps for the cells of the tables.

  Attributes:
    name: 'paper' or 'demo'.
    out: folder of everything.
    data: role -> data set; roles that are missing have no cells in it.
    steps: by name, each after those that it needs.
    step_of: cell name -> name of the step that fills it.
    bins: frames of a bin, by row of table 3.
  """

  name: str
  out: str
  data: Mapping[str, Data]
  steps: Mapping[str, Step]
  step_of: Mapping[str, str]
  bins: Mapping[str, int]

  def roles(self) -> dict[str, Role]:
    """What stands for the paper's data sets, for the report."""
    return {
      role: dataclasses.replace(
        role_of(data.path), dataset=data.name, column=data.column
      )
      for role, data in self.data.items()
    }

  def needed(self, cells: Iterable[str]) -> list[Step]:
    """The steps for some cells, in the order in which to run them."""
    wanted: set[str] = set()
    queue = [self.step_of[cell] for cell in cells]
    while queue:
      name = queue.pop()
      if name not in wanted:
        wanted.add(name)
        queue += self.steps[name].needs
    return [step for name, step in self.steps.items() if name in wanted]


def name_of(path: str) -> str:
  """What results call a data set."""
  if path.startswith('tfds:'):
    name, _, _ = path.removeprefix('tfds:').partition(':')
    return f'tfds-{name.replace("/", "-")}'
  return str(_manifest(path).get('name') or pathlib.Path(path).name)


def role_of(path: str) -> Role:
  """A data set as it is now, of which no more than dataset.json is read."""
  fingerprint = str(_manifest(path).get('fingerprint') or '')
  return Role(name_of(path), fingerprint=fingerprint, path=path)


def _manifest(path: str) -> Mapping[str, Any]:
  """What a prepared data set says of itself; {} where there is none."""
  try:
    manifest = json.loads((REPOSITORY / path / 'dataset.json').read_text())
  except (OSError, ValueError):
    return {}
  return manifest if isinstance(manifest, Mapping) else {}
