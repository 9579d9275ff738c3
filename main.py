r"""vie_jax from the command line.

  python main.py --config=configs/vie_slowfast.py --workdir=W
  python main.py --config=configs/vie_slowfast.py --workdir=W --mode=knn_eval
  python main.py --config=configs/vie_slowfast.py --workdir=W \
      --mode=linear_eval --config.linear_eval.dataset=tfds:imagenet2012
  python main.py --version

Modes that evaluate write to WORKDIR/MODE/ and touch nothing else. The same
command again goes on where it stopped. Several processes, on one machine or
many, are one run: docs/multihost.md.
"""

import os
import pathlib
import sys
import traceback

# Beside this file are the configs, which Python may be told not to look for.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from vie_jax.processes import preemption

if __name__ == '__main__':
  # Before the slow imports: the signal that ends a job may come at any time.
  preemption.SIGNALS.listen()

# TensorFlow only decodes pictures here, and need not talk about it.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

from absl import app, flags
from ml_collections import config_flags

from configs import default
from vie_jax.config import config_check, config_fields, modes
from vie_jax.processes import exit_codes, process_environment
from vie_jax.program import command_line

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'A file of configs/, such as configs/vie_slowfast.py. Its fields are set by '
  '--config.FIELD=VALUE; configs/default.py says what each is.',
)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder of the run. Default: workdir/ and the name of the config.',
)
_MODE = flags.DEFINE_enum('mode', 'train', sorted(modes.MODES), 'What to do.')
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
  """Runs one mode, see `one_mode.run`."""
  workdir = command_line.workdir(_WORKDIR.value)
  try:
    config_fields.check(_CONFIG.value, default.get_config())
    config_check.check(_CONFIG.value)
  except config_check.ConfigError as error:
    command_line.refuse(str(error))
  preemption.SIGNALS.listen_to(_CONFIG.value.fault)
  # Not at the top: TensorFlow takes seconds, and a mistake in the command line
  # is said before.
  from vie_jax.processes import ending
  from vie_jax.program import one_mode

  try:
    one_mode.run(
      _MODE.value,
      _CONFIG.value,
      workdir,
      config_file=command_line.config_file(),
      is_default_workdir=_WORKDIR.value is None,
      choice=_DISTRIBUTED.value,
      timeouts={name: flag.value for name, flag in _TIMEOUTS.items()},
    )
    code = exit_codes.DONE
  except SystemExit as end:
    code = end.code
  except Exception:
    traceback.print_exc()
    code = 1
  # A library's thread may wait for what never comes: after a failed save
  # orbax's do, for minutes, and Python would wait for them.
  ending.exit_now(code)


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  app.run(main, flags_parser=command_line.parse)
