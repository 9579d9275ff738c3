"""vie_jax from the command line.

  python main.py --config=configs/vie_slowfast.py --workdir=W
  python main.py --config=configs/vie_slowfast.py --workdir=W --mode=knn_eval
  python main.py --config=configs/vie_slowfast.py --workdir=W \
      --mode=linear_eval --config.linear_eval.dataset=tfds:imagenet2012

Modes that evaluate write to WORKDIR/MODE/ and touch nothing else. The same
command again goes on where it stopped. Several processes, on one machine or
many, are one run: docs/multihost.md.
"""

import errno
import json
import os
import pathlib
import sys

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
  checkpoint,
  compilation_cache,
  config_check,
  convert,
  describe,
  embed,
  evaluate,
  finetune,
  linear_eval,
  metric_log,
  patient_file,
  result,
  retrieve,
  run_log,
  train,
  workdir_lock,
)
from vie_jax.embeddings import foreign_embeddings
from vie_jax.input_pipeline import frame_store, remote_errors
from vie_jax.models import official_checkpoint
from vie_jax.processes import (
  agreement,
  distributed,
  ending,
  exit_codes,
  peers,
  process_environment,
)
from vie_jax.untrusted import text, urls

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
# Of a mistake on the command line, which may be quoted in full.
MOST_LETTERS = 500
PASSING_ERRORS = (errno.EIO, errno.ENOMEM, errno.ESTALE)
EXPECTED_ERRORS = (
  checkpoint.CheckpointError,
  config_check.ConfigError,
  process_environment.DistributedError,
  embed.ClipsError,
  foreign_embeddings.EmbeddingsError,
  frame_store.DatasetError,
  metric_log.DivergedError,
  official_checkpoint.OfficialCheckpointError,
  result.ResultError,
  workdir_lock.WorkdirLockedError,
)

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


def parse(argv):
  """Parses the command line; a mistake in the config is one line, too."""
  try:
    return flags.FLAGS(argv)
  except Exception as e:  # a config file is code and may raise anything
    # ml_collections quotes the message of one error in another.
    message = str(e).replace('\\n', '\n').replace("\\'", "'")
    while message[:1] == message[-1:] in ('"', "'"):
      message = message[1:-1]
    lines = message.split('\n')
    lines = [line.strip() for line in lines if line.strip()]
    # A config file that fails brings its traceback; its last line says it.
    reason = ' '.join(lines) if len(lines) < 3 else lines[-1]
    if reason.isidentifier():
      reason = f'the config has no field {reason!r}.'
  _refuse(reason)


def _refuse(reason):
  line = text.printable(urls.redacted(reason))
  if len(line) > MOST_LETTERS:
    line = f'{line[:MOST_LETTERS]} ...'
  print(f'Command line: {line}', file=sys.stderr)
  sys.exit(2)


def code_of(error):
  """The exit code of an expected error: whether the same command may go on."""
  # A full disk may have room again, whatever was being written.
  if patient_file.is_no_room(error) or isinstance(
    error, frame_store.UnreachableError
  ):
    return exit_codes.RETRY
  # A network file system that is away for a while, or a machine out of memory;
  # but whoever reads what is printed does not come back.
  is_passing = isinstance(error, OSError) and (
    error.errno in PASSING_ERRORS or remote_errors.may_pass(error)
  )
  if is_passing and not isinstance(error, BrokenPipeError):
    return exit_codes.RETRY
  return exit_codes.REFUSED


def message_of(error, workdir):
  """What an expected error says to the user, and what to do about it."""
  if not patient_file.is_no_room(error):
    return str(error)
  # The system itself often does not say which file it was.
  return (
    f'No room to write to {error.filename or workdir}: {error.strerror}. Make '
    'room, and run the same command again: it goes on from what is saved.'
  )


def main(unused_argv):
  """Runs one mode; expected errors are one line, not a traceback."""
  config_file, _, variant = config_flags.get_config_filename(
    flags.FLAGS['config']
  ).partition(':')
  if not os.path.isfile(config_file):
    _refuse(f'there is no config {config_file}.')
  name = '_'.join(filter(None, (pathlib.Path(config_file).stem, variant)))
  workdir = _WORKDIR.value or os.path.join('workdir', name)
  if problem := urls.problem(workdir):
    _refuse(f'--workdir: {problem}.')
  run_log.to_terminal()
  preemption.SIGNALS.listen_to(_CONFIG.value.fault)
  compilation_cache.use()
  try:
    with preemption.SIGNALS.raising():
      _start_processes(workdir)
      MODES[_MODE.value](_CONFIG.value, workdir)
  except (*EXPECTED_ERRORS, OSError) as error:
    message = urls.redacted(message_of(error, workdir))
    lines = [' '.join(line.split()) for line in message.splitlines()]
    is_list = isinstance(error, official_checkpoint.OfficialCheckpointError)
    message = ('\n' if is_list else ' ').join(lines)
    # Not through '%s', whose newlines the log escapes.
    logging.error(message)
    ending.leave(code_of(error), message)
  except checkpoint.SaveFailedError as error:
    logging.error('%s', error)
    ending.leave(exit_codes.RETRY, str(error))
  except preemption.Stopped as stopped:
    message = f'{stopped} The same command goes on from there.'
    logging.warning('%s', message)
    ending.leave(preemption.SIGNALS.exit_code, message)
  except Exception as error:
    if not peers.is_shared():
      raise
    ending.leave_if_another_has()
    if ending.tells_of_loss(error):
      message = (
        'Another process of the run is gone. Run the same command again on '
        'all machines: it goes on from the last save.'
      )
      logging.error('%s', message)
      ending.leave(exit_codes.RETRY, message, is_loss=True)
    logging.exception('This process has met a mistake in the code.')
    ending.leave(1, f'{type(error).__name__}: {error}')
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
  app.run(main, flags_parser=parse)
