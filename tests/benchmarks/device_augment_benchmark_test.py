import pytest

from tests.benchmarks import benchmark_modules


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_share_of_crop_and_noise_is_that_of_the_steps(dtype):
  lines = benchmark_modules.run(
    *('device_augment.py', '--configs', 'vie_single', '--batch-size', '2'),
    *('--width', '8', '--crop-size', '32', '--rounds', '1', '--steps', '2'),
    *('--dtype', dtype),
  )
  found = {(line['variant'], line['metric']): line for line in lines}
  whole, without = (
    found[variant, 'ms']['value']
    for variant in ('whole step', 'step without them')
  )
  share = found['crop and noise alone', 'share of the whole step, %']['value']
  assert min(whole, without, found['crop and noise alone', 'ms']['value']) > 0
  assert share == pytest.approx(100 * (1 - without / whole), abs=0.5)
  assert all(f', {dtype}, on ' in line['case'] for line in lines)
