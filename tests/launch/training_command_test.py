"""main.py's arguments are checked before anything is started or paid for."""

import argparse
import importlib
import operator
import os
import subprocess
import sys

import cloud_tpu
import gke
import local
import pytest
import slurm
from absl import flags
from job import training_command
from job.training_command import LaunchError

from configs import vie_slowfast
from vie_jax.config import config_check
from vie_jax.objective import memory_bank

CONFIG = '--config=configs/demo.py:single'
REMOTE = (CONFIG, '--workdir=/w', '--config.dataset.dir=/data')
SLOWFAST = ('--config=configs/vie_slowfast.py', *REMOTE[1:])


def check(*arguments, is_remote=True):
  return training_command.check(arguments, is_remote=is_remote)


def test_flags_are_those_of_main():
  importlib.import_module('main')
  found = flags.FLAGS.flags_by_module_dict()['main']
  assert set(training_command.FLAGS) == {f'--{flag.name}' for flag in found}


def test_arguments_are_handed_on_as_they_are():
  arguments = (*REMOTE, '--config.dataset.label_columns=(\'a b\', "c")')
  training = check(*arguments)
  assert training.words == ('main.py', *arguments)
  assert (training.workdir, training.dataset_dir) == ('/w', '/data')


def test_split_at_the_first_dashes():
  assert training_command.split(['--a', '--', '--b', '--', 'c']) == (
    ['--a'],
    ['--b', '--', 'c'],
  )
  assert training_command.split(['--a']) == (['--a'], [])


@pytest.mark.parametrize(
  'arguments, words',
  [
    ((), '--config is missing'),
    ((CONFIG,), '--workdir is missing'),
    ((CONFIG, '--workdir='), '--workdir needs a value'),
    ((CONFIG, '--workdir=/runs/vie[lr=0.1]'), 'has [ in it'),
    ((CONFIG, '--workdir'), '--workdir needs a value'),
    ((*REMOTE, '--mode=trian'), '--mode=trian must be one of'),
    ((*REMOTE, '--mode=trian'), 'train; did you mean train?'),
    ((*REMOTE, '--modes=train'), 'of main.py; did you mean --mode?'),
    (
      ('--config=configs/vie_slowfst.py', *REMOTE[1:]),
      'did you mean configs/vie_slowfast.py?',
    ),
    ((*REMOTE, '--distributed=maybe'), '--distributed must be'),
    ((*REMOTE, '--nodes=2'), '--nodes=2 is no argument of main.py'),
    ((*REMOTE, 'rm -rf /'), 'rm -rf / is no argument'),
    ((*REMOTE, '--config.batch_size'), 'not understood'),
    ((*REMOTE, '--config.batch_sise=4'), 'batch_sise'),
    (('--config.seed=1', *REMOTE), '--config.seed must stand behind --config='),
    (
      (*REMOTE, '--config.optimizer.name=adam', "--config.optimizer={'a': 1}"),
      'will overwrite the value',
    ),
    ((*REMOTE, '--config.batch_size=many'), "batch_size=many: 'many' is no"),
    ((*REMOTE, '--config.batch_size=0'), 'config.batch_size is 0; it must'),
    (
      (*REMOTE, '--mode=finetune', '--config.finetune.batch_size=-8'),
      'config.finetune.batch_size is -8',
    ),
    ((*REMOTE, '--config.num_devices=-1'), 'config.num_devices is -1'),
    ((*REMOTE, '--config.result_name=a\x7f'), r'a\x7f has a character'),
    ((*REMOTE, '--config.result_name=a\udcff'), r'a\udcff has a character'),
    (
      ('--config=configs/vie_slow.py:big', '--workdir=/w'),
      'configs/vie_slow.py has no variants; leave ":big" out',
    ),
    (('--config=configs/no.py', '--workdir=/w'), 'no config configs/no.py'),
    (('--config=../x.py', '--workdir=/w'), 'no config ../x.py'),
    (('--config=configs/demo.py:no', '--workdir=/w'), 'demo.py:no does not'),
    ((CONFIG, '--workdir=gs://b/w'), 'workdir must be a path'),
    ((*REMOTE, '--workdir=/v'), '--workdir is given 2 times'),
    (
      (*REMOTE, '--config.seed=1', '--config.seed=1'),
      '--config.seed is given 2 times',
    ),
    ((CONFIG, '--workdir=w', REMOTE[2]), 'must begin with "/"'),
    ((CONFIG, '--workdir=/w'), '--config.dataset.dir=demo/data must begin'),
    *(
      ((*REMOTE, f'--config.{field}={value}'), f'--config.{field}={value} must')
      for field, value in {
        'init_from': 'other',
        'finetune.dataset': 'relative/x',
        'linear_eval.dataset': '~/x',
        'embed.source': 'videos',
        'embed.clips': 'gs://bucket/clips.npz',
        'embeddings': 'rows.npy',
        'retrieve.query': 'a.mp4',
        'retrieve.beside': '/w/1, w2',
      }.items()
    ),
  ],
)
def test_mistakes_are_one_line(arguments, words):
  with pytest.raises(LaunchError) as error:
    check(*arguments)
  assert words in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'field, value',
  [
    ('plan.accelerator', 'nope'),
    ('optimizer.learning_rate', -1.0),
    ('seed', -3),
    ('model.alpha', 3),
  ],
)
def test_what_a_run_would_refuse_is_refused_in_the_same_words(field, value):
  config = vie_slowfast.get_config()
  config.update_from_flattened_dict({field: value, 'dataset.dir': '/data'})
  with pytest.raises(config_check.ConfigError) as expected:
    config_check.check(config)
  with pytest.raises(LaunchError) as error:
    check(*SLOWFAST, f'--config.{field}={value}')
  assert str(error.value) == str(expected.value)


@pytest.mark.parametrize(
  'argument',
  [
    '--config.batch_size=True',
    '--config.batch_sise=4',
    '--heartbeat_seconds=abc',
    '--heartbeat_seconds=-5',
  ],
)
def test_what_main_cannot_read_is_refused_in_its_words(argument):
  program = (
    'import sys\nimport main\nfrom vie_jax.program import command_line\n'
    'command_line.parse(sys.argv)\n'
  )
  arguments = ('--config=configs/vie_slowfast.py', '--workdir=/w', argument)
  done = subprocess.run(
    [sys.executable, '-c', program, *arguments],
    cwd=training_command.REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  with pytest.raises(LaunchError) as error:
    check(*SLOWFAST, argument)
  assert done.stderr == f'Command line: {error.value}\n'


@pytest.mark.parametrize(
  'field, value, expected',
  [
    ('profile', 'true', True),
    ('dataset.dir', '12', '12'),
    ('optimizer.drop_steps', '3', (3,)),
    ('plan.videos', '1e9', 1e9),
    ('result_name', '', ''),
  ],
)
def test_fields_are_read_as_main_reads_them(field, value, expected):
  config = training_command._config(
    SLOWFAST[0].removeprefix('--config='),
    [f'--config.{field}={value}'],
    'train',
  )
  assert operator.attrgetter(field)(config) == expected


@pytest.mark.parametrize('name', training_command.TIMEOUTS)
def test_timeouts_are_those_of_main(name):
  importlib.import_module('main')
  assert flags.FLAGS[name].parser.lower_bound == 1


def test_launchers_need_no_jax():
  code = """
import sys
for name in ('jax', 'flax', 'numpy', 'tensorflow'):
  sys.modules[name] = None  # importing it now fails
import cloud_tpu, gke, local, slurm, supervise
options = ['--dry-run', '--', '--config=configs/demo.py:single', '--workdir=W']
assert local.main(options) == 0
assert local.main([*options, '--config.seed=-3']) == 2
"""
  root = training_command.REPOSITORY
  environment = os.environ | {'PYTHONPATH': f'{root}:{root / "launch"}'}
  subprocess.run([sys.executable, '-c', code], check=True, env=environment)


def test_here_paths_may_be_relative():
  training = check(CONFIG, '--workdir=w', is_remote=False)
  assert training.dataset_dir == 'demo/data'


def test_a_data_set_may_be_in_a_bucket():
  check(CONFIG, '--workdir=/w', '--config.dataset.dir=gs://bucket/name')
  for field, value in {
    'init_from': 'official:/checkpoint',
    'linear_eval.dataset': 'tfds:imagenet2012',
    'finetune.dataset': 's3://bucket/name',
    'retrieve.beside': '/w/1,/w/2',
  }.items():
    check(*REMOTE, f'--config.{field}={value}')


@pytest.mark.parametrize(
  'workdir, is_below',
  [
    ('/mnt/bucket/a', True),
    ('/mnt/bucket/a/b', True),
    ('/mnt/bucket', False),
    ('/mnt/buckets/a', False),
    ('/mnt/bucket/../a', False),
    ('/home/a', False),
  ],
)
def test_a_workdir_must_be_in_the_bucket(workdir, is_below):
  training = training_command.Training((), workdir, '')
  if is_below:
    training_command.check_below(training, '/mnt/bucket')
  else:
    with pytest.raises(LaunchError, match='must lie below'):
      training_command.check_below(training, '/mnt/bucket')


@pytest.mark.parametrize(
  'codes, expected',
  [
    ([0, 0], 0),
    ([0, 75], 75),
    ([75, 2, -6], 2),
    ([130, 75], 130),
    ([-6, 0], 134),
    ([-6, 75], 75),
    ([1, 0], 1),
    # A worker of a Cloud TPU that was restarted.
    ([-1, 0], 129),
  ],
)
def test_one_exit_code_of_many(codes, expected):
  assert training_command.exit_code_of(codes) == expected


def test_numbers_and_names_of_the_command_line():
  assert training_command.number(1, 8)('8') == 8
  for text in ('0', '9', 'x', '1.5', ''):
    with pytest.raises(argparse.ArgumentTypeError, match='at least 1'):
      training_command.number(1, 8)(text)
  convert = training_command.matching('[a-z]+', 'a word')
  assert convert('abc') == 'abc'
  with pytest.raises(argparse.ArgumentTypeError, match='is not a word'):
    convert('abc\n')


def test_rows_split_as_those_of_the_bank():
  assert training_command.ROW_MULTIPLE == memory_bank.ROW_MULTIPLE


@pytest.mark.parametrize(
  'arguments, number, words',
  [
    ((), 12, 'splits over 1, 2, 4 ... 1024 devices, and not over 12'),
    (
      (),
      128,
      '64, which does not split over 128 devices: --config.batch_size=',
    ),
    (('--config.batch_size=100',), 8, '--config.batch_size=104, or'),
    (('--mode=linear_eval',), 256, 'config.linear_eval.batch_size is'),
    (('--config.num_devices=3',), 8, 'not over 3'),
    (('--config.num_devices=3',), None, 'not over 3'),
    (('--config.batch_size=512',), 256, 'config.knn.batch_size is 64'),
    (('--mode=knn_eval',), 12, 'not over 12'),
    (('--mode=retrieve',), 128, 'config.knn.batch_size is 64'),
    (('--mode=embed',), 48, 'config.embed.batch_size is 64'),
    (
      ('--mode=finetune', '--config.finetune.eval_batch_size=9'),
      8,
      'config.finetune.eval_batch_size is 9',
    ),
    (('--config.num_devices=16',), 8, 'is 16, and 1 x 8 devices would start'),
  ],
)
def test_devices_that_nothing_splits_over_are_not_paid_for(
  arguments, number, words
):
  with pytest.raises(LaunchError) as error:
    training_command.check_devices(check(*SLOWFAST, *arguments), number)
  assert words in str(error.value)


def test_several_processes_use_all_devices():
  training = check(*SLOWFAST, '--config.num_devices=4')
  training_command.check_devices(training, 8)
  training_command.check_devices(training, 4, 2)
  with pytest.raises(LaunchError, match='is 4, and 2 x 4 devices would start'):
    training_command.check_devices(training, 8, 2)


def test_what_is_known_of_devices_that_nobody_has_counted():
  training_command.check_devices(check(*SLOWFAST), None)
  training_command.check_devices(check(*SLOWFAST), None, 4)
  training_command.check_devices(
    check(*SLOWFAST, '--config.num_devices=8'), None, 4
  )
  for arguments, processes, words in (
    ((), 3, 'not over 3 processes'),
    (('--config.batch_size=63',), 2, '63, which does not split over 2 proc'),
    (('--config.num_devices=2',), 4, 'is 2, and 4 processes would start'),
  ):
    with pytest.raises(LaunchError, match=words):
      training_command.check_devices(
        check(*SLOWFAST, *arguments), None, processes
      )


@pytest.mark.parametrize(
  'arguments, number',
  [
    ((), 64),
    (('--config.batch_size=512', '--config.knn.batch_size=256'), 256),
    (('--mode=knn_eval',), 32),
    (('--mode=embed',), 64),
    (('--mode=convert',), 12),
  ],
)
def test_devices_that_it_splits_over(arguments, number):
  training_command.check_devices(check(*SLOWFAST, *arguments), number)


# Several processes, and devices that nothing splits over.
LAUNCHERS = pytest.mark.parametrize(
  'launcher, options',
  [
    (local, ('--processes=3', '--devices-per-process=5')),
    (slurm, ('--time=1:00:00', '--nodes=3', '--gpus-per-node=5')),
    (
      gke,
      (
        *('run', '--name=vie', '--image=an/image', '--gpu=nvidia-l4'),
        *('--gpus-per-node=5', '--nodes=3', '--claim=it', '--mount=/w'),
      ),
    ),
    (
      cloud_tpu,
      (
        *('run', '--name=vie', '--zone=us-west4-a', '--bucket=a-bucket'),
        *('--accelerator-type=v5litepod-128', '--mount=/w'),
      ),
    ),
  ],
  ids=['local', 'slurm', 'gke', 'cloud_tpu'],
)


def refused(launcher, options, *more):
  config, _, dataset = SLOWFAST
  training = (config, '--workdir=/w/vie', dataset, *more)
  return launcher.main([*options, '--dry-run', '--', *training]) == 2


@LAUNCHERS
def test_every_launcher_looks_at_the_devices(capsys, launcher, options):
  assert refused(launcher, options)
  captured = capsys.readouterr()
  assert 'split' in captured.err
  assert '$' not in captured.out


@LAUNCHERS
def test_processes_that_would_each_train_alone_are_refused(
  capsys, launcher, options
):
  assert refused(launcher, options, '--distributed=off')
  captured = capsys.readouterr()
  (line,) = captured.err.splitlines()
  assert '--distributed=off is for one process' in line
  assert '$' not in captured.out


SECRET = 'S3cr3t'  # noqa: S105
URLS = (
  f'https://b/k?X-Amz-Signature={SECRET}',
  f's3://user:{SECRET}@b/k',
  f's3://user:a={SECRET}@b/k',
)


@LAUNCHERS
@pytest.mark.parametrize('url', URLS)
@pytest.mark.parametrize(
  'option',
  ['--config.dataset.dir=', '--config.init_from=', '--workdir=', '--x=', ''],
)
def test_a_password_is_neither_written_nor_shown(
  capsys, launcher, options, option, url
):
  arguments = [a for a in SLOWFAST if not option or not a.startswith(option)]
  if option != '--workdir=':
    arguments.append('--workdir=/w/vie')
    arguments.remove('--workdir=/w')
  code = launcher.main(
    [*options, '--dry-run', '--', *arguments, f'{option}{url}']
  )
  captured = capsys.readouterr()
  assert code == 2
  assert SECRET not in captured.out + captured.err
  assert captured.out == ''
  (line,) = captured.err.splitlines()
  assert '***' in line
  if option.startswith('--config.'):
    # As main.py says it.
    assert f'{option[2:-1]}: ' in line


@pytest.mark.parametrize('url', URLS)
def test_nor_is_one_in_the_options_of_a_launcher(capsys, url):
  for launcher, options in (
    (slurm, ('--time=1:00:00', f'--env=PLACE={url}')),
    (slurm, ('--time=1:00:00', '--env', f'PLACE={url}')),
    (slurm, ('--time=1:00:00', f'--logs={url}')),
    (gke, ('run', f'--image={url}')),
    (cloud_tpu, ('run', f'--commit={url}')),
    (local, (f'--port={url}',)),
  ):
    assert launcher.main([*options, '--dry-run', '--', *SLOWFAST]) == 2
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err
    assert '***' in captured.err


def test_one_process_may_be_alone():
  training_command.check_processes(check(*REMOTE, '--distributed=off'), 1)
  training_command.check_processes(check(*REMOTE, '--distributed=on'), 2)
