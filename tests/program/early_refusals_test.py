"""What is refused before the slow imports."""

import jax
import pytest
import tiny_run

from vie_jax import checkpoint
from vie_jax.config import config_check
from vie_jax.program import early_refusals


def test_a_run_begins_with_weights_that_are_there_and_goes_on_without(
  demo_dataset, tmp_path
):
  config = tiny_run.config(demo_dataset, init_from=str(tmp_path / 'gone'))
  workdir = tmp_path / 'W'
  with pytest.raises(checkpoint.CheckpointError, match='There is no workdir'):
    early_refusals.check('train', config, str(workdir))
  (workdir / 'checkpoints' / '4.damaged').mkdir(parents=True)
  early_refusals.check('train', config, str(workdir))


def test_numbers_of_64_bits_are_refused():
  early_refusals.check_settings()
  jax.config.update('jax_enable_x64', True)
  try:
    with pytest.raises(config_check.ConfigError, match='JAX_ENABLE_X64 is set'):
      early_refusals.check_settings()
  finally:
    jax.config.update('jax_enable_x64', False)
