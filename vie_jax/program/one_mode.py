"""One mode, from its start to its exit code: alone, or with other processes."""

import functools
import json
import os
from collections.abc import Mapping

import jax
import ml_collections
from absl import logging
from jax.experimental import multihost_utils

from vie_jax import code_version
from vie_jax.config import modes
from vie_jax.files import config_origin
from vie_jax.machine import compilation_cache, environment
from vie_jax.processes import (
  agreement,
  distributed,
  peers,
  preemption,
  process_environment,
  watchdog,
)
from vie_jax.program import early_refusals, run_errors
from vie_jax.telemetry import run_log


def run(
  mode: str,
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  config_file: str,
  is_default_workdir: bool,
  choice: str,
  timeouts: Mapping[str, int],
) -> None:
  """Runs one mode; expected errors are one line, not a traceback.

  Args:
    mode: of `modes.MODES`.
    config: see configs/default.py.
    workdir: folder of the run.
    config_file: path of the file that the config is from.
    is_default_workdir: whether the workdir has its name from that file.
    choice: whether this is one of several processes, see
      `process_environment.find_start`.
    timeouts: seconds, see `distributed.Timeouts`.
  """
  run_log.to_terminal()
  fault = config.fault
  compilation_cache.use()
  try:
    origin = config_origin.of(config_file)
    is_alone = process_environment.find_start(choice, os.environ) is None
    may_be_of_another = is_default_workdir and mode != 'describe'
    # Of several processes, the others would wait for one that leaves here.
    if is_alone:
      if may_be_of_another:
        early_refusals.check_origin(workdir, origin)
      early_refusals.check(mode, config, workdir)
    start = modes.find(mode)
    if mode == 'train':
      start = functools.partial(start, origin=origin)
    with (
      preemption.SIGNALS.raising(),
      watchdog.Watchdog(fault.watchdog_seconds, fault.watchdog_slow_seconds),
    ):
      distributed.initialize(choice, distributed.Timeouts(**timeouts))
      _agree(mode, config, workdir)
      early_refusals.check_settings()
      if may_be_of_another and not is_alone:
        early_refusals.check_origin(workdir, origin)
      start(config, workdir)
  except (Exception, preemption.Stopped) as error:
    run_errors.leave(error, workdir)
    raise
  distributed.finish()


def _agree(mode, config, workdir):
  """Sees that the processes of the run are alike, if there are several."""
  if jax.distributed.is_initialized():
    preemption.SIGNALS.agree_by(multihost_utils.reached_preemption_sync_point)
  if not peers.is_shared():
    return
  run_log.to_terminal(f'[{peers.index()}] ')
  logging.info('This is %s.', peers.describe())
  agreement.check_same(
    {
      'the code of vie_jax, its SHA-256,': code_version.digest(),
      **environment.settings(),
      '--mode': mode,
      '--workdir': workdir,
      'config': json.loads(config.to_json_best_effort()),
    }
  )
