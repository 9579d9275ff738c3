"""What a run says of itself, in files and checkpoints; whether two runs agree."""

import json
import pathlib
from typing import Any

from vie_jax.checkpoint import CheckpointError
from vie_jax.config import config_roles
from vie_jax.files import disk
from vie_jax.processes import agreement

CONFIG_FILE = 'config.json'


def write_config(
  folder: pathlib.Path, writer: Any, step: int, config: dict
) -> str:
  """Writes a resolved config to TensorBoard and, as a whole, to `config.json`.

  Args:
    folder: of the run.
    writer: of its figures, which takes texts, too.
    step: that it begins with or goes on from.
    config: JSON-compatible.

  Returns:
    Its text.
  """
  text = json.dumps(config, indent=2)
  writer.write_texts(step, {'config': f'```\n{text}\n```'})
  if agreement.is_first():
    with disk.replacing(folder / CONFIG_FILE) as fresh:
      fresh.write_text(text + '\n')
  return text


def differing_fields(old: dict, new: dict, prefix: str = '') -> dict:
  """Compares two configs given as nested dicts.

  Returns:
    dotted field name -> (old value, new value), None where absent.
  """
  differing = {}
  for name in sorted({*old, *new}):
    before, after = old.get(name), new.get(name)
    if isinstance(before, dict) and isinstance(after, dict):
      differing |= differing_fields(before, after, f'{prefix}{name}.')
    elif before != after:
      differing[prefix + name] = (before, after)
  return differing


def _check_dataset(record: dict, fingerprint: str) -> None:
  """Refuses a memory bank whose rows stand for other videos.

  Raises:
    CheckpointError: with both fingerprints and the remedy.
  """
  if record['fingerprint'] != fingerprint:
    raise CheckpointError(
      'The checkpoint was trained on another data set: its fingerprint is '
      f'{record["fingerprint"][:16]}, that of config.dataset is '
      f'{fingerprint[:16]}. Use the data set of old, or a new --workdir: with '
      '--config.init_from=WORKDIR it begins with the weights of an old one, and '
      'with memory_bank.init="embeddings" or "uniform" with a bank of its own.'
    )


def differing_model(record: dict, model: dict) -> dict:
  """Compares fields of `config.model` with those of a checkpoint.

  Args:
    record: of the checkpoint.
    model: the fields that matter, as they are expected.

  Returns:
    field -> (its value there, the value expected), of those that differ.
  """
  saved = record['config']['model']
  return differing_fields({name: saved.get(name) for name in model}, model)


def check_record(record: dict, *, config: dict, fingerprint: str) -> dict:
  """Checks that a run may go on from a checkpoint.

  Args:
    record: of the checkpoint, with `config` and `fingerprint`.
    config: of this run, JSON-compatible.
    fingerprint: of this run's training videos.

  Returns:
    What has changed in the config and does no harm: field -> (old, new).

  Raises:
    CheckpointError: if the videos are others, so that bank rows would belong
      to the wrong ones, or a field that shapes the state has changed.
  """
  _check_dataset(record, fingerprint)
  changed = differing_fields(record['config'], config)
  fixed = {
    name: values
    for name, values in changed.items()
    if config_roles.role_of(name) is config_roles.Role.STATE
    or (name == 'clip.num_frames' and config['model']['name'] == 'vie_trn')
  }
  if fixed:
    listing = '; '.join(
      f'{name} was {old!r}, is {new!r}' for name, (old, new) in fixed.items()
    )
    raise CheckpointError(
      f'The checkpoint was trained with another config: {listing}. Use a '
      'new --workdir, or the values of old.'
    )
  return changed
