"""One machine: processes, their variables, signals, and a real training."""

import argparse
import json
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


def test_two_processes_have_gpus_of_their_own(capsys):
  first, second = dry(
    capsys, '--processes=2', '--devices-per-process=4', '--port=2345'
  )
  for number, command in enumerate((first, second)):
    assert 'JAX_COORDINATOR_ADDRESS=localhost:2345 ' in command
    assert 'JAX_NUM_PROCESSES=2 ' in command
    assert f'JAX_PROCESS_ID={number} ' in command
  assert 'CUDA_VISIBLE_DEVICES=0,1,2,3 ' in first
  assert 'CUDA_VISIBLE_DEVICES=4,5,6,7 ' in second


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
    'print("variables", os.environ["JAX_NUM_PROCESSES"])\n'
    'sys.exit(action)\n'
  )
  return local.run(options, ['-c', program])


@pytest.mark.parametrize(
  'codes, expected', [((0, 0), 0), ((0, 75), 75), ((75, 2), 2), ((0, 1), 1)]
)
def test_one_exit_code(monkeypatch, capsys, codes, expected):
  assert run_group(monkeypatch, codes) == expected
  lines = capsys.readouterr().out.splitlines()
  assert sorted(lines) == ['[0] variables 2', '[1] variables 2']


def test_what_hangs_after_another_has_ended_is_ended(monkeypatch, capsys):
  started = time.monotonic()
  assert run_group(monkeypatch, (75, 'hang'), patience=0.5) == 75
  assert time.monotonic() - started < 30
  assert 'sending SIGTERM' in capsys.readouterr().out


def tiny_command(workdir, dataset, *options):
  """launch/local.py with the tiny run of the tests."""
  overrides = tiny_run.overrides_of('vie_single', dataset)
  return [
    *(sys.executable, SCRIPT, *options, '--'),
    '--config=configs/vie_single.py',
    f'--workdir={workdir}',
    *(f'--config.{field}={value}' for field, value in overrides.items()),
  ]


TWO = ('--processes=2', '--devices-per-process=2', '--cpu')


def environment():
  """That of the tests, without devices of its own."""
  variables = tiny_run.environment()
  variables['XLA_FLAGS'] = '--xla_backend_optimization_level=0'
  return variables


def losses(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return {
    record['step']: record['train/loss']
    for record in map(json.loads, lines)
    if 'train/loss' in record
  }


def test_two_processes_train_as_one_does(tmp_path, demo_dataset):
  """2 processes of 2 devices, over gloo; and the same with one process."""
  together, alone = tmp_path / 'together', tmp_path / 'alone'
  for workdir, options in ((together, TWO), (alone, ('--cpu',))):
    done = subprocess.run(
      tiny_command(workdir, demo_dataset, *options),
      env=environment(),
      capture_output=True,
      text=True,
      timeout=tiny_run.PATIENCE_SECONDS,
      check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
  assert '[0]' in done.stdout or options == ('--cpu',)
  steps = str(tiny_run.NUM_STEPS)
  for workdir in (together, alone):
    assert (workdir / 'checkpoints' / steps).is_dir()
  expected = losses(alone)
  assert losses(together) == pytest.approx(expected, rel=1e-4)
  assert len(expected) == tiny_run.NUM_STEPS


def test_sigterm_reaches_the_processes(tmp_path):
  """And the launcher ends with them."""
  program = (
    'import os, signal, sys, time\n'
    'signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n'
    'print("ready", flush=True)\n'
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
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 75, output
