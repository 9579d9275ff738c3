"""vie_jax from the command line.

  python main.py --config=configs/vie_slowfast.py --workdir=W
  python main.py --config=configs/vie_slowfast.py --workdir=W --mode=knn_eval
  python main.py --config=configs/vie_slowfast.py --workdir=W \
      --mode=linear_eval --config.linear_eval.dataset=tfds:imagenet2012

Modes that evaluate write to WORKDIR/MODE/ and touch nothing else. The same
command again goes on where it stopped. Several processes, on one machine or
many, are one run: docs/multihost.md.
"""

import json
import os

from vie_jax.processes import preemption

if __name__ == '__main__':
  # Before the slow imports: the signal that ends a job may come at any time.
  preemption.SIGNALS.listen()

# TensorFlow only decodes pictures here, and need not talk about it.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import jax
from absl import app, flags, logging
from jax.experimental import multihost_utils
from ml_collections import config_flags

from vie_jax import (
  command_line,
  compilation_cache,
  convert,
  describe,
  embed,
  evaluate,
  finetune,
  linear_eval,
  retrieve,
  run_errors,
  run_log,
  train,
)
from vie_jax.processes import (
  agreement,
  distributed,
  peers,
  process_environment,
  watchdog,
)

MODES = {
  'train': train.train_and_evaluate,
  'convert': convert.convert,
  'describe': describe.describe,
  'embed': embed.embed,
  'finetune': finetune.finetune,
  'knn_eval': evaluate.knn_eval,
  'linear_eval': linear_eval.linear_eval,
  'retrieve': retrieve.retrieve,
  'supervised': finetune.supervised,
}

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'A file of configs/, such as configs/vie_slowfast.py.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder of the run. Default: workdir/ and the name of the config.',
)
_MODE = flags.DEFINE_enum('mode', 'train', sorted(MODES), 'What to do.')
_DISTRIBUTED = flags.DEFINE_enum(
  'distributed',
  'auto',
  process_environment.CHOICES,
  'Whether this is one of several processes: as the environment says, or not.',
)
_TIMEOUTS = {
  name: flags.DEFINE_integer(f'{name}_seconds', seconds, text, lower_bound=1)
  for name, seconds, text in (
    ('connect', 300, 'How long to wait for all processes to start.'),
    ('heartbeat', 20, 'After so long without a sign a process counts as lost.'),
    ('shutdown', 60, 'How long to wait for the others when all are done.'),
  )
}


def main(unused_argv):
  """Runs one mode; expected errors are one line, not a traceback."""
  workdir = command_line.workdir(_WORKDIR.value)
  run_log.to_terminal()
  fault = _CONFIG.value.fault
  preemption.SIGNALS.listen_to(fault)
  compilation_cache.use()
  try:
    with (
      preemption.SIGNALS.raising(),
      watchdog.Watchdog(fault.watchdog_seconds, fault.watchdog_slow_seconds),
    ):
      _start_processes(workdir)
      MODES[_MODE.value](_CONFIG.value, workdir)
  except (Exception, preemption.Stopped) as error:
    run_errors.leave(error, workdir)
    raise
  distributed.finish()


def _start_processes(workdir):
  """Connects the processes of the run, and sees that they are alike."""
  seconds = {name: flag.value for name, flag in _TIMEOUTS.items()}
  distributed.initialize(_DISTRIBUTED.value, distributed.Timeouts(**seconds))
  if jax.distributed.is_initialized():
    preemption.SIGNALS.agree_by(multihost_utils.reached_preemption_sync_point)
  if not peers.is_shared():
    return
  run_log.to_terminal(f'[{peers.index()}] ')
  logging.info('This is %s.', peers.describe())
  agreement.check_same(
    {
      'JAX': jax.__version__,
      '--mode': _MODE.value,
      '--workdir': workdir,
      'config': json.loads(_CONFIG.value.to_json_best_effort()),
    }
  )


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  app.run(main, flags_parser=command_line.parse)
