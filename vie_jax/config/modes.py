"""What can be done with a config, by name; only what is asked for is imported.

Modes that read data take TensorFlow along, and its seconds.
"""

import dataclasses
import importlib
from collections.abc import Callable

import ml_collections


@dataclasses.dataclass(frozen=True)
class Mode:
  """What has to be known of a mode before it is imported.

  Attributes:
    function: module and name.
    train_batch: config field of the size of its training batches; '' if it has
      none.
    eval_batch: likewise, of all others.
    has_rows: whether rows of a memory bank or a readout are split over the
      devices, as batches are.
    reads_dataset: whether it opens the data set at `config.dataset.dir`,
      whatever else is set.
    reads_weights: whether it begins with the weights that `config.init_from`
      names.
    trains_on_labels: whether it trains on labelled videos and tests on others.
  """

  function: str
  train_batch: str = ''
  eval_batch: str = ''
  has_rows: bool = True
  reads_dataset: bool = False
  reads_weights: bool = False
  trains_on_labels: bool = False

  @property
  def batches(self) -> tuple[str, ...]:
    """Config fields of the batches that are split over the devices."""
    return tuple(filter(None, (self.train_batch, self.eval_batch)))


MODES = {
  'convert': Mode('convert.convert', has_rows=False),
  'describe': Mode('describe.describe', has_rows=False),
  'embed': Mode(
    'embed.embed', '', 'embed.batch_size', has_rows=False, reads_weights=True
  ),
  'export': Mode('export.export', has_rows=False, reads_weights=True),
  'finetune': Mode(
    'finetune.finetune',
    'finetune.batch_size',
    'finetune.eval_batch_size',
    reads_weights=True,
    trains_on_labels=True,
  ),
  'knn_eval': Mode(
    'evaluate.knn_eval',
    '',
    'knn.batch_size',
    reads_dataset=True,
    reads_weights=True,
  ),
  'linear_eval': Mode(
    'linear_eval.linear_eval',
    'linear_eval.batch_size',
    'linear_eval.eval_batch_size',
    reads_weights=True,
    trains_on_labels=True,
  ),
  'retrieve': Mode(
    'retrieve.retrieve',
    '',
    'knn.batch_size',
    reads_dataset=True,
    reads_weights=True,
  ),
  'supervised': Mode(
    'finetune.supervised',
    'supervised.batch_size',
    'supervised.eval_batch_size',
    trains_on_labels=True,
  ),
  'train': Mode(
    'train.train_and_evaluate',
    'batch_size',
    'knn.batch_size',
    reads_dataset=True,
  ),
}
"""What main.py's `--mode` can be."""


def find(mode: str) -> Callable[[ml_collections.ConfigDict, str], None]:
  """The function of a mode: (config, workdir) -> None.

  Args:
    mode: of `MODES`.
  """
  module, _, name = MODES[mode].function.partition('.')
  return getattr(importlib.import_module(f'vie_jax.{module}'), name)
