"""What can be done with a config, by name; only what is asked for is imported.

Modes that read data take TensorFlow along, and its seconds.
"""

import importlib
from collections.abc import Callable

import ml_collections

MODES = {
  'convert': 'convert.convert',
  'describe': 'describe.describe',
  'embed': 'embed.embed',
  'finetune': 'finetune.finetune',
  'knn_eval': 'evaluate.knn_eval',
  'linear_eval': 'linear_eval.linear_eval',
  'retrieve': 'retrieve.retrieve',
  'supervised': 'finetune.supervised',
  'train': 'train.train_and_evaluate',
}
"""What main.py's `--mode` can be -> module and function."""
READ_DATASET = ('knn_eval', 'retrieve', 'train')
"""Those that open the data set at `config.dataset.dir`, whatever else is set."""
READ_WEIGHTS = ('embed', 'finetune', 'knn_eval', 'linear_eval', 'retrieve')
"""Those that begin with the weights that `config.init_from` names."""


def find(mode: str) -> Callable[[ml_collections.ConfigDict, str], None]:
  """The function of a mode: (config, workdir) -> None.

  Args:
    mode: of `MODES`.
  """
  module, _, name = MODES[mode].partition('.')
  return getattr(importlib.import_module(f'vie_jax.{module}'), name)
