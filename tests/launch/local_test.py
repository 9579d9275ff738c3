"""One machine: processes, their variables, signals, and a real training."""

import argparse
import os
import signal
import subprocess
import sys
import time

import local
import pytest
import tiny_run

SCRIPT = str(tiny_run.REPOSITORY / 'launch' / 'local.py')
CONFIG = ('--', '--config=configs/demo.py:single', '--workdir=/a workdir')


def dry(capsys, *options):
  assert local.main(['--dry-run', *options, *CONFIG]) == 0
  folder, *commands = capsys.readouterr().out.splitlines()
  assert folder == f'$ cd {tiny_run.REPOSITORY}'
  return commands


def test_one_process_is_the_plain_command(capsys):
  assert dry(capsys) == [
    f'$ {sys.executable} main.py --config=configs/demo.py:single '
    "'--workdir=/a workdir'"
  ]


def test_two_processes_have_gpus_of_their_own(capsys, monkeypatch):
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  first, second = dry(
    capsys, '--processes=2', '--devices-per-process=4', '--port=2345'
  )
  for number, command in enumerate((first, second)):
    assert 'JAX_COORDINATOR_ADDRESS=localhost:2345 ' in command
    assert 'JAX_NUM_PROCESSES=2 ' in command
    assert f'JAX_PROCESS_ID={number} ' in command
  assert 'CUDA_VISIBLE_DEVICES=0,1,2,3 ' in first
  assert 'CUDA_VISIBLE_DEVICES=4,5,6,7 ' in second


def test_processes_share_the_gpus_that_are_left_to_them(capsys, monkeypatch):
  options = ('--processes=2', '--devices-per-process=2')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5, 6,GPU-8932f937')
  first, second = dry(capsys, *options)
  assert 'CUDA_VISIBLE_DEVICES=4,5 ' in first
  assert 'CUDA_VISIBLE_DEVICES=6,GPU-8932f937 ' in second
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5,6')
  assert local.main(['--dry-run', *options, *CONFIG]) == 2
  captured = capsys.readouterr()
  assert '4 GPUs are asked for, and CUDA_VISIBLE_DEVICES=4,5,6 leaves 3' in (
    captured.err
  )
  assert '$' not in captured.out


@pytest.mark.parametrize('visible', ['0,0', '1,-1,2', '-1'])
def test_gpus_that_cuda_would_not_show(capsys, monkeypatch, visible):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
  options = ('--processes=2', '--devices-per-process=1')
  assert local.main(['--dry-run', *options, *CONFIG]) == 2
  captured = capsys.readouterr()
  (line,) = captured.err.splitlines()
  assert f'CUDA_VISIBLE_DEVICES={visible} names a GPU twice' in line
  assert '$' not in captured.out


def test_a_dry_run_does_not_name_a_port_that_may_be_taken(capsys):
  (first, _) = dry(capsys, '--processes=2', '--cpu', '--devices-per-process=2')
  assert 'JAX_COORDINATOR_ADDRESS=localhost:PORT ' in first
  assert 'JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=2 ' in first


@pytest.mark.parametrize(
  'options, words',
  [
    (('--processes=2',), 'several processes need --devices-per-process'),
    (('--processes=0',), 'at least 1'),
    (('--port=80',), 'at least 1024'),
  ],
)
def test_mistakes(capsys, options, words):
  with pytest.raises(SystemExit) as end:
    local.main([*options, *CONFIG])
  assert end.value.code == 2
  assert words in capsys.readouterr().err


@pytest.mark.parametrize(
  'options, arguments, words',
  [
    ((), ('--config.num_devices=3',), 'not over 3'),
    (
      ('--processes=2', '--cpu'),
      ('--config.batch_size=63',),
      '63, which does not split over 2 devices',
    ),
    (('--processes=3', '--cpu'), (), 'not over 3'),
    (('--cpu',), ('--config.num_devices=2',), 'is 2, and 1 x 1 devices'),
  ],
)
def test_what_is_known_of_the_devices_is_checked(
  capsys, monkeypatch, options, arguments, words
):
  # Which the tests themselves use to have eight devices.
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  monkeypatch.delenv('JAX_NUM_CPU_DEVICES', raising=False)
  assert local.main(['--dry-run', *options, *CONFIG, *arguments]) == 2
  captured = capsys.readouterr()
  assert words in captured.err
  assert captured.out == ''


def test_devices_that_the_environment_has(capsys, monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '2')
  options = ['--dry-run', '--cpu', *CONFIG, '--config.num_devices=2']
  assert local.main(options) == 0
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')
  assert local.main(options) == 2
  monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=4')
  assert local.main(options) == 0


def test_a_mistake_in_the_config_starts_nothing(capsys):
  assert local.main([*CONFIG, '--config.batch_sise=1']) == 2
  error = capsys.readouterr().err
  assert 'batch_sise' in error
  assert len(error.splitlines()) == 1


def run_group(monkeypatch, codes, *, patience=60, processes=2):
  """Runs small programs in place of main.py; returns the exit code."""
  monkeypatch.setattr(local, 'REPOSITORY', os.getcwd())
  options = argparse.Namespace(
    processes=processes,
    devices_per_process=1,
    cpu=True,
    port=None,
    patience=patience,
  )
  program = (
    'import os, sys, time\n'
    'process = int(os.environ["JAX_PROCESS_ID"])\n'
    f'action = {codes!r}[process]\n'
    'if action == "hang": time.sleep(60)\n'
    # Whole, whatever the other one writes.
    'line = f"process {process} of {os.environ[\'JAX_NUM_PROCESSES\']}\\n"\n'
    'os.write(1, line.encode())\n'
    'sys.exit(action)\n'
  )
  return local.run(options, ['-c', program])


@pytest.mark.parametrize(
  'codes, expected', [((0, 0), 0), ((0, 75), 75), ((75, 2), 2), ((0, 1), 1)]
)
def test_one_exit_code(monkeypatch, capfd, codes, expected):
  assert run_group(monkeypatch, codes) == expected
  lines = capfd.readouterr().out.splitlines()
  assert sorted(lines) == ['process 0 of 2', 'process 1 of 2']


def test_what_hangs_after_another_has_ended_is_ended(monkeypatch, capsys):
  started = time.monotonic()
  assert run_group(monkeypatch, (75, 'hang'), patience=0.5) == 75
  assert time.monotonic() - started < 30
  assert 'sending SIGTERM' in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_train_together(tmp_path, demo_dataset):
  """Two processes of two devices each, over gloo, as main.py connects them."""
  overrides = tiny_run.overrides_of(
    'vie_single',
    demo_dataset,
    num_steps=4,
    objective__instance_recognition_steps=2,
    eval_every_steps=100,
  )
  variables = tiny_run.environment()
  # Devices are those that the launcher gives.
  variables['XLA_FLAGS'] = '--xla_backend_optimization_level=0'
  process = subprocess.Popen(
    [
      *(sys.executable, SCRIPT, '--processes=2', '--devices-per-process=2'),
      *('--cpu', '--', '--config=configs/vie_single.py'),
      f'--workdir={tmp_path}',
      *(f'--config.{field}={value}' for field, value in overrides.items()),
    ],
    env=variables,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  try:
    output, _ = process.communicate(timeout=tiny_run.PATIENCE_SECONDS)
  finally:
    # Passed on to both.
    process.terminate()
    process.wait()
  assert process.returncode == 0, output
  assert 'process 0 of 2, 2 of 4 devices' in output
  assert '[1] ' in output
  assert (tmp_path / 'checkpoints' / '4').is_dir()


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT', 'SIGUSR1', 'SIGHUP'])
def test_a_signal_reaches_the_processes(name):
  """And the launcher ends with them, not before."""
  program = (
    'import os, signal, sys, time\n'
    f'signal.signal(signal.{name}, lambda *_: sys.exit(75))\n'
    # In one piece, whatever the other process writes meanwhile.
    'os.write(1, b"ready\\n")\n'
    'time.sleep(60)\n'
  )
  code = (
    'import argparse, sys\n'
    f'sys.path.insert(0, {os.path.dirname(SCRIPT)!r})\n'
    'import local\n'
    'options = argparse.Namespace(processes=2, devices_per_process=1, '
    'cpu=True, port=None, patience=60)\n'
    f'sys.exit(local.run(options, ["-c", {program!r}]))\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True
  )
  for _ in range(2):
    assert 'ready' in process.stdout.readline()
  process.send_signal(signal.Signals[name])
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 75, output
