import pathlib
import subprocess
import sys

import pytest

from tests.benchmarks import benchmark_modules

_SCRIPT = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'train_step.py'


@pytest.mark.slow
def test_both_compute_the_same_and_all_figures_are_printed():
  pytest.importorskip('torch')
  result = subprocess.run(
    [
      *(sys.executable, _SCRIPT, '--networks', 'vie_single', '--rounds', '1'),
      *('--size', '64', '--batch-size', '8', '--peak-tflops', '1'),
    ],
    capture_output=True,
    text=True,
    check=False,
    timeout=600,
  )
  assert result.returncode == 0, result.stderr
  lines = benchmark_modules.figures(result.stdout)
  ours = {
    line['metric']: line['value']
    for line in lines
    if line['variant'] == 'vie_jax'
  }
  assert ours['GFLOP of a step'] > 1
  assert ours['compile s'] > 0
  assert ours['memory MiB'] > 1
  (compared,) = (
    line
    for line in lines
    if line['variant'] == 'vie_jax' and line['metric'] == 'wall ms'
  )
  assert compared['ratio_to'] == 'PyTorch'
