"""main.py's arguments are checked before anything is started or paid for."""

import argparse

import cloud_tpu
import gke
import local
import pytest
import slurm
import training_command
from absl import flags
from training_command import LaunchError

import main
from vie_jax.objective import memory_bank

CONFIG = '--config=configs/demo.py:single'
REMOTE = (CONFIG, '--workdir=/w', '--config.dataset.dir=/data')


def check(*arguments, is_remote=True):
  return training_command.check(arguments, is_remote=is_remote)


def test_modes_are_those_of_main():
  assert set(training_command.MODES) == set(main.MODES)


def test_flags_are_those_of_main():
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
    ((CONFIG, '--workdir'), '--workdir needs a value'),
    ((*REMOTE, '--mode=trian'), '--mode=trian must be one of'),
    ((*REMOTE, '--distributed=maybe'), '--distributed must be'),
    ((*REMOTE, '--nodes=2'), '--nodes=2 is no argument of main.py'),
    ((*REMOTE, 'rm -rf /'), 'rm -rf / is no argument'),
    ((*REMOTE, '--config.batch_size'), 'not understood'),
    ((*REMOTE, '--config.batch_sise=4'), 'batch_sise'),
    ((*REMOTE, '--config.batch_size=many'), 'batch_size=many does not fit'),
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
  ],
)
def test_mistakes_are_one_line(arguments, words):
  with pytest.raises(LaunchError) as error:
    check(*arguments)
  assert words in str(error.value)
  assert '\n' not in str(error.value)


def test_here_paths_may_be_relative():
  training = check(CONFIG, '--workdir=w', is_remote=False)
  assert training.dataset_dir == 'demo/data'


def test_a_data_set_may_be_in_a_bucket():
  check(CONFIG, '--workdir=/w', '--config.dataset.dir=gs://bucket/name')


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


SLOWFAST = ('--config=configs/vie_slowfast.py', *REMOTE[1:])


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


@pytest.mark.parametrize(
  'arguments, number',
  [((), 64), (('--config.batch_size=512',), 256), (('--mode=knn_eval',), 12)],
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


def test_one_process_may_be_alone():
  training_command.check_processes(check(*REMOTE, '--distributed=off'), 1)
  training_command.check_processes(check(*REMOTE, '--distributed=on'), 2)
