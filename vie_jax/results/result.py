"""What an evaluation leaves behind: `WORKDIR/MODE/NAME/result.json`."""

import datetime
import json
import os
import pathlib
import platform

import jax
import ml_collections

from vie_jax import code_version, run_record, weights
from vie_jax.files import disk
from vie_jax.results import result_file
from vie_jax.untrusted import json_text
from vie_jax.weights import Weights

FILE = result_file.NAME


class ResultError(ValueError):
  """A result is missing or damaged, or is of other settings."""


def folder(
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  mode: str,
  dataset: str,
  *suffixes: str,
) -> pathlib.Path:
  """The folder that an evaluation writes to, and nowhere else.

  Weights of a training on labels had a shorter name. Where there is a folder
  of that which is of them, and none of the name of now, it is the one.

  Args:
    config: `result_name` names the folder, if it is set; else its name is
      made of the following.
    workdir: of the run.
    mode: of main.py.
    dataset: name of the data set that is evaluated on.
    *suffixes: what else tells this evaluation from others of the mode.
  """
  if config.result_name:
    return pathlib.Path(workdir) / mode / config.result_name
  now, before = (
    pathlib.Path(workdir)
    / mode
    / _safe('_'.join(filter(None, (dataset, *suffixes, name))))
    for name in _names_of_weights(config)
  )
  is_old = not now.is_dir() and _is_of_weights(before, config.init_from)
  return before if is_old else now


def _is_of_weights(folder, source):
  """Whether what is in a folder says that it is of a source of weights."""
  for name in (FILE, run_record.CONFIG_FILE):
    try:
      found = json_text.read(folder / name)
    except (OSError, ValueError):
      continue
    if isinstance(found, dict):
      found = found.get('config', found)
    if isinstance(found, dict) and 'init_from' in found:
      return weights.name_of(str(found['init_from'])) == weights.name_of(source)
  return False


def _names_of_weights(config):
  """What the weights are called, and what they were before."""
  if config.embeddings:
    return [pathlib.Path(config.embeddings).stem] * 2
  if config.init_from == 'random':
    return [f'random_seed{config.seed}' if config.seed else 'random'] * 2
  if config.init_from == 'workdir':
    return ['', '']
  return [
    weights.name_of(config.init_from, is_short=is_short)
    for is_short in (False, True)
  ]


def _safe(name):
  safe = ''.join(c if c.isalnum() or c in '._-' else '-' for c in name)
  # Not '..', which a data set may be called.
  hidden = len(safe) - len(safe.lstrip('.'))
  return '-' * hidden + safe[hidden:] or '-'


def network(config: ml_collections.ConfigDict, found: Weights) -> dict:
  """The facts of a network: what it is, and how it came to be.

  Args:
    config: that it was built from.
    found: its weights.
  """
  clip = config.clip
  source = str(found.workdir or config.model.streams or config.init_from)
  if found.training == 'random':
    source = 'random'
  return {
    'name': config.model.name,
    **found.facts(source),
    'input': {
      'sampler': clip.sampler,
      'num_frames': clip.num_frames,
      'frame_step': clip.frame_step,
      'size': config.crop.size,
    },
  }


def write(folder: str | pathlib.Path, facts: dict) -> dict:
  """Writes a result as a whole or not at all, and to the disk.

  Args:
    folder: receives `result.json`.
    facts: JSON-compatible: `mode`, `dataset`, `network`, `accuracy` and what
      else the mode has to say.

  Returns:
    The facts with commit, date, hardware and versions.
  """
  devices = jax.devices()
  result = {
    'format_version': result_file.FORMAT_VERSION,
    **facts,
    'commit': code_version.commit(),
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'hardware': {
      'devices': f'{len(devices)} x {devices[0].device_kind}',
      'processes': jax.process_count(),
      'cores': os.cpu_count(),
      'machine': platform.machine(),
    },
    'versions': code_version.versions(),
  }
  if jax.process_index() == 0:
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with disk.replacing(folder / FILE) as fresh:
      fresh.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
  return result


def read(path: str | pathlib.Path) -> dict:
  """Reads a result.

  Args:
    path: of the file.

  Raises:
    ResultError: naming the file and the remedy.
  """
  try:
    return result_file.read(path)
  except ValueError as error:
    raise ResultError(f'{path} {error}.') from None
