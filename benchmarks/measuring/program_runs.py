"""Runs of main.py: their configs, commands and logs."""

import importlib
import os
import pathlib
import re
import subprocess
import sys
import time

from measuring.script import REPOSITORY

NEVER = 10**9
"""Steps between things that are not to happen in a run."""

# What the log says when a phase of a start is done: name of the phase, and
# the message.
_PHASES = (
  ('imports and data set', re.compile(r'Data set ')),
  ('first state', re.compile(r' parameters, listed ')),
  ('first evaluation', re.compile(r'\[0\] ')),
  ('first batch', re.compile(r'Compiling the step of ')),
  ('compilation and first step', re.compile(r'\[1\] .*train/loss')),
)


def config_of(name, overrides=None):
  """The config that a run of main.py has.

  Args:
    name: 'configs/demo.py:slowfast', or without an argument, or 'vie_single'.
    overrides: dotted field -> value.
  """
  path, _, argument = name.partition(':')
  module = importlib.import_module(f'configs.{pathlib.Path(path).stem}')
  config = module.get_config(*([argument] if argument else []))
  config.update_from_flattened_dict(overrides or {})
  return config


def command(name, overrides, workdir):
  """The command line of a training."""
  return [
    *(sys.executable, str(REPOSITORY / 'main.py'), f'--workdir={workdir}'),
    f'--config={REPOSITORY / name}',
    *(f'--config.{field}={value}' for field, value in overrides.items()),
  ]


def environment(cache):
  """Variables of a run that keeps compiled programs in a folder."""
  return os.environ | {'JAX_COMPILATION_CACHE_DIR': str(cache)}


def run(arguments, variables):
  """Runs a command and notes when it says what.

  Returns:
    list of (seconds since the start, line); of standard error.

  Raises:
    RuntimeError: with the end of what it said, if it fails.
  """
  said, start = [], time.perf_counter()
  with subprocess.Popen(
    arguments,
    cwd=REPOSITORY,
    env=variables,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      for line in process.stderr:
        said.append((time.perf_counter() - start, line.rstrip('\n')))
    except KeyboardInterrupt:
      process.kill()
      raise
  if process.returncode:
    end = '\n'.join(line for _, line in said[-20:])
    raise RuntimeError(
      f'{arguments[1]} ended with {process.returncode}:\n{end}'
    )
  return said


def import_seconds():
  """Seconds of a process that imports what a training does, and no more."""
  start = time.perf_counter()
  subprocess.run(
    [sys.executable, '-c', 'import vie_jax.train, vie_jax.program.one_mode'],
    cwd=REPOSITORY,
    check=True,
    stderr=subprocess.DEVNULL,
  )
  return time.perf_counter() - start


def phases(said):
  """How long each phase of a start has taken.

  Args:
    said: list of (seconds, line), see `run`.

  Returns:
    phase -> seconds, in order, which add up to the last entry, 'launch to first
    step'. A phase that the log does not tell of is part of the next one.
  """
  found, last = {}, 0.0
  for name, message in _PHASES:
    times = [seconds for seconds, line in said if message.search(line)]
    if times:
      found[name], last = times[0] - last, times[0]
  return {**found, 'launch to first step': last}


def steps_per_second(lines, step):
  """What a run has written of its speed, over the steps up to one.

  Args:
    lines: dicts of `metrics.jsonl`.
    step: of which there is a figure.
  """
  (speed,) = (
    line['steps_per_sec']
    for line in lines
    if line['step'] == step and 'steps_per_sec' in line
  )
  return speed


def evaluation_seconds(lines, step):
  """What a run has written of its evaluation after a step."""
  (seconds,) = (
    line['eval/seconds']
    for line in lines
    if line['step'] == step and 'eval/seconds' in line
  )
  return seconds


def share_of_evaluations(*, clips, clips_per_second, steps, step_seconds):
  """The share of a training's time that evaluations between steps take.

  Args:
    clips: of an evaluation.
    clips_per_second: of an evaluation.
    steps: from one to the next.
    step_seconds: of one step.
  """
  evaluation = clips / clips_per_second
  return evaluation / (evaluation + steps * step_seconds)
