"""The batch script: what it asks for, and what it does with exit codes."""

import argparse
import os
import pathlib
import re
import signal
import subprocess
import time

import linters
import pytest
import slurm

TRAINING = (
  '--',
  '--config=configs/vie_slowfast.py',
  '--workdir=/shared/it is here',
  '--config.dataset.dir=/shared/data',
  "--config.dataset.label_columns=('a','$HOME')",
)


def rendered(capsys, *options):
  """The script that a dry run shows."""
  assert slurm.main(['--time=24:00:00', '--dry-run', *options, *TRAINING]) == 0
  output = capsys.readouterr().out
  begin, end = output.index('#!/bin/bash'), output.index('# end of ')
  return output[begin:end]


def directives(script):
  lines = [line for line in script.splitlines() if line.startswith('#SBATCH ')]
  options = [line.removeprefix('#SBATCH --') for line in lines]
  return dict(option.partition('=')[::2] for option in options)


def test_one_task_for_each_node(capsys):
  script = rendered(capsys, '--nodes=2', '--gpus-per-node=8', '--name=vie')
  asked = directives(script)
  assert asked['nodes'] == '2'
  assert asked['ntasks-per-node'] == '1'
  assert asked['gpus-per-node'] == '8'
  assert asked['time'] == '24:00:00'
  assert asked['signal'] == 'TERM@180'
  assert asked['open-mode'] == 'append'
  assert 'requeue' in asked
  assert '--gpu-bind' not in script


def test_one_task_for_each_gpu(capsys):
  script = rendered(capsys, '--gpus-per-node=4', '--task-per-gpu')
  assert directives(script)['ntasks-per-node'] == '4'
  assert '--gpu-bind=none' in script


@pytest.mark.parametrize(
  'option, value',
  [
    ('partition', 'gpu,debug'),
    ('constraint', 'a100&nvlink'),
    ('constraint', '[(knl&snc4)*4|haswell*1],(ssd)'),
  ],
)
def test_several_partitions_and_features_are_quoted(capsys, option, value):
  script = rendered(capsys, f'--{option}={value}')
  # sbatch takes the quotes off, as it does at the command line.
  assert directives(script)[option] == f'"{value}"'
  assert linters.shellcheck(script) == ''


def test_without_gpus_none_are_asked_for(capsys):
  asked = directives(rendered(capsys, '--partition=cpu', '--memory=20G'))
  assert 'gpus-per-node' not in asked
  assert (asked['partition'], asked['mem']) == ('cpu', '20G')


@pytest.mark.parametrize(
  'options',
  [
    (),
    ('--nodes=2', '--gpus-per-node=8', '--task-per-gpu', '--cpus-per-task=4'),
    ('--module=cuda/12.4', '--module=gcc', "--env=A=it's $HOME; `ls`"),
  ],
)
def test_shellcheck_has_nothing_against_it(capsys, options):
  assert linters.shellcheck(rendered(capsys, *options)) == ''


def test_a_dry_run_writes_and_submits_nothing(capsys, tmp_path, stand_ins):
  stand_ins.install('sbatch')
  rendered(capsys, f'--logs={tmp_path / "logs"}')
  assert stand_ins.calls == []
  assert not (tmp_path / 'logs').exists()


def test_what_is_submitted_is_what_a_dry_run_shows(capsys, tmp_path, stand_ins):
  stand_ins.install('sbatch', answers={'': [{'out': '42;cluster\n'}]})
  logs = tmp_path / 'logs'
  options = ['--time=24:00:00', f'--logs={logs}', '--name=a', *TRAINING]
  shown = rendered(capsys, f'--logs={logs}', '--name=a')
  assert slurm.main(options) == 0
  assert (logs / 'a.sh').read_text() == shown
  assert stand_ins.calls == [['sbatch', '--parsable', str(logs / 'a.sh')]]
  output = capsys.readouterr().out
  assert f'{logs}/a-42.log' in output
  assert 'scancel 42' in output


@pytest.mark.parametrize('said', ['Welcome!\n42;c\n', '42\nuse scratch\n'])
def test_a_site_says_more_than_the_number(capsys, tmp_path, stand_ins, said):
  stand_ins.install('sbatch', answers={'': [{'out': said}]})
  assert slurm.main(['--time=1:00:00', f'--logs={tmp_path}', *TRAINING]) == 0
  assert 'scancel 42\n' in capsys.readouterr().out


def test_a_site_says_no_number(capsys, tmp_path, stand_ins):
  stand_ins.install('sbatch', answers={'': [{'out': 'Thanks.\n'}]})
  assert slurm.main(['--time=1:00:00', f'--logs={tmp_path}', *TRAINING]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert 'squeue --me' in line


def test_a_server_that_is_busy_may_be_asked_again(capsys, tmp_path, stand_ins):
  busy = 'sbatch: error: Batch job submission failed: Socket timed out\n'
  stand_ins.install('sbatch', answers={'': [{'err': busy, 'code': 1}]})
  code = slurm.main(['--time=1:00:00', f'--logs={tmp_path}', *TRAINING])
  assert code == 75
  assert 'Socket timed out' in capsys.readouterr().err


def test_no_variable_of_the_script_or_of_bash_is_set(capsys):
  script = rendered(capsys)
  names = {*re.findall(r'^(?:readonly )?(\w+)=', script, re.MULTILINE)}
  names |= {*re.findall(r'\$\{(\w+)', script)}
  said = subprocess.run(
    ['bash', '-c', 'readonly -p'], capture_output=True, text=True, check=True
  ).stdout
  names |= {*re.findall(r'^declare -\w+ (\w+)', said, re.MULTILINE)}
  assert {'restarts', 'SLURM_JOB_ID', 'UID'} <= names
  for name in names:
    with pytest.raises(SystemExit):
      slurm.main(['--time=1:00:00', '--dry-run', f'--env={name}=0', *TRAINING])
    assert f'{name} is a variable of the script' in capsys.readouterr().err


def test_sbatch_refuses(capsys, tmp_path, stand_ins):
  refusal = 'sbatch: error: invalid partition specified: x\n'
  stand_ins.install('sbatch', answers={'': [{'err': refusal, 'code': 1}]})
  code = slurm.main(['--time=1:00:00', f'--logs={tmp_path}', *TRAINING])
  assert code == 2
  assert 'invalid partition' in capsys.readouterr().err


def test_a_script_that_cannot_be_written_is_one_line(capsys, tmp_path):
  (tmp_path / 'file').touch()
  logs = f'--logs={tmp_path}/file/logs'
  assert slurm.main(['--time=1:00:00', logs, *TRAINING]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert 'vie.sh cannot be written: Not a directory' in line


def test_there_is_no_slurm(capsys, tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  code = slurm.main(['--time=1:00:00', f'--logs={tmp_path}', *TRAINING])
  assert code == 2
  assert 'sbatch cannot be run' in capsys.readouterr().err


@pytest.mark.parametrize(
  'options, words',
  [
    (('--time=24',), 'is no time'),
    (('--time=0:02:00',), 'leaves nothing to train'),
    (('--time=1:00:00', '--task-per-gpu'), 'needs --gpus-per-node'),
    (('--time=1:00:00', '--logs=here'), '--logs=here must begin with "/"'),
    (('--time=1:00:00', '--logs=/logs/%x'), '--logs=/logs/%x must'),
    (('--time=1:00:00', f'--name={"v" * 64}'), 'at most 63 letters'),
    (('--time=1:00:00', '--memory=١G'), 'is not an amount'),
    (('--time=1:00:00', '--nodes=0'), 'at least 1'),
    (('--time=1:00:00', '--partition=a;b'), 'is not a name'),
    (('--time=1:00:00', '--partition=a,'), 'is not a name'),
    (('--time=1:00:00', '--partition=a&b'), 'is not a name'),
    (('--time=1:00:00', '--constraint=a b'), 'is not a name of a feature'),
    (('--time=1:00:00', '--constraint=a"&b'), 'is not a name of a feature'),
    (('--time=1:00:00', '--constraint=$(b)'), 'is not a name of a feature'),
    (('--time=1:00:00', '--module=cuda/１２'), 'is not a module'),
    (('--time=1:00:00', '--env=A B'), 'is not a variable'),
    ((), '--time'),
  ],
)
def test_mistakes(capsys, options, words):
  try:
    code = slurm.main([*options, '--dry-run', *TRAINING])
  except SystemExit as end:
    code = end.code
  assert code == 2
  assert words in capsys.readouterr().err


@pytest.mark.parametrize(
  'time, seconds',
  [('24:00:00', 86400), ('1-02:03:04', 93784), ('0:00:30', 30)],
)
def test_times(time, seconds):
  assert slurm.seconds_of(time) == seconds


def test_a_time_without_seconds_is_none():
  with pytest.raises(argparse.ArgumentTypeError):
    slurm.seconds_of('24:00')


# The script itself, with a srun that ends in some way.


@pytest.fixture
def job(capsys, tmp_path, stand_ins):
  """Starts the script as Slurm does."""
  path = tmp_path / 'job.sh'
  options = ('--max-restarts=3', '--env=A=b c', '--cpus-per-task=16')
  path.write_text(rendered(capsys, *options))
  stand_ins.install('scontrol')

  def start(restarts=0):
    environment = os.environ | {
      'SLURM_JOB_ID': '42',
      'SLURM_JOB_NODELIST': 'node[1-2]',
      'SLURM_RESTART_COUNT': str(restarts),
    }
    return subprocess.Popen(
      ['bash', path],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  return start


def requeued(stand_ins):
  return ['scontrol', 'requeue', '42'] in stand_ins.calls


@pytest.mark.parametrize(
  'code, restarts, is_requeued',
  [
    (0, 0, False),
    (75, 0, True),
    (75, 2, True),
    (75, 3, False),
    (2, 0, False),
    (130, 0, False),
    # A task that JAX aborted, because another one is gone.
    (134, 1, True),
    (137, 0, True),
    (1, 0, True),
  ],
)
def test_exit_codes(job, stand_ins, code, restarts, is_requeued):
  stand_ins.install('srun', answers={'': [{'code': code}]})
  process = job(restarts)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == code, output
  assert requeued(stand_ins) == is_requeued


# From Slurm 22.05 on srun does not take it over from sbatch.
def test_the_tasks_get_the_processors_that_are_asked_for(job, stand_ins):
  stand_ins.install_script('srun', 'true')
  job().communicate(timeout=60)
  (call,) = [call for call in stand_ins.calls if call[0] == 'srun']
  assert '--cpus-per-task=16' in call[: -len(TRAINING)]


def test_the_words_of_the_training_arrive_as_they_are(job, stand_ins):
  stand_ins.install_script('srun', 'echo "A is ${A}"; pwd')
  output, _ = job().communicate(timeout=60)
  (call,) = [call for call in stand_ins.calls if call[0] == 'srun']
  assert call[-len(TRAINING) :] == ['main.py', *TRAINING[1:]]
  assert '--kill-on-bad-exit=0' in call
  assert 'A is b c' in output
  assert str(slurm.REPOSITORY) in output


def test_slurm_ends_it_and_it_is_not_put_back(job, stand_ins, tmp_path):
  """A job that is cancelled must not come back."""
  started = tmp_path / 'started'
  stand_ins.install_script('srun', f'touch {started}; sleep 1; exit 75')
  process = job()
  until = time.monotonic() + 60
  while not started.exists() and time.monotonic() < until:
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 75, output
  assert 'ended by Slurm' in output
  assert not requeued(stand_ins)


def test_the_default_python_is_that_of_make_setup(capsys):
  words = rendered(capsys)
  python = pathlib.Path(slurm.REPOSITORY, '.venv', 'bin', 'python')
  assert f'{python} \\\n' in words
