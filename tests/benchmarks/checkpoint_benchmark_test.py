import pytest

from tests.benchmarks import benchmark_modules


@pytest.mark.slow
def test_saving_and_restoring_is_compared_with_orbax_alone(tmp_path):
  lines = benchmark_modules.run(
    *('checkpoint.py', '--rounds', '1', '--videos', '1000'),
    *('--folder', tmp_path / 'saves'),
  )
  found = {(line['variant'], line['metric']): line for line in lines}
  for variant in ('vie_jax', 'orbax alone'):
    for metric in ('blocking ms', 'commit s', 'restore s', 'MB on the disk'):
      assert found[variant, metric]['value'] > 0
