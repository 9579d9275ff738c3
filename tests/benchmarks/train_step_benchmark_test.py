import pathlib
import subprocess
import sys

import pytest

from tests.benchmarks import benchmark_modules

_SCRIPT = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'train_step.py'


@pytest.mark.parametrize(
  'name, num_frames', [('vie_single', 1), ('vie_3dresnet', 16), ('vie_slow', 4)]
)
def test_clips_are_large_enough_from_4_values_of_a_channel_on(
  monkeypatch, name, num_frames
):
  (train_step,) = benchmark_modules.load(monkeypatch, 'train_step')

  def is_large_enough(batch_size, size):
    case = {'batch_size': batch_size, 'size': size}
    case |= {'name': name, 'num_frames': num_frames}
    return not train_step.why_too_small(case)

  is_slow = name == 'vie_slow'
  assert [is_large_enough(n, 32) for n in (1, 3, 4)] == [is_slow, is_slow, True]
  assert [is_large_enough(1, size) for size in (32, 33)] == [is_slow, True]


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
