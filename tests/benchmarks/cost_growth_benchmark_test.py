import pytest

from tests.benchmarks import benchmark_modules


@pytest.fixture
def cost_growth(monkeypatch):
  return benchmark_modules.load(monkeypatch, 'cost_growth')[0]


def test_the_exponent_is_that_of_a_power(cost_growth):
  sizes = [2, 4, 8, 16]
  assert cost_growth.exponent(sizes, sizes) == pytest.approx(1)
  squares = [3 * size**2 for size in sizes]
  assert cost_growth.exponent(sizes, squares) == pytest.approx(2)
  assert cost_growth.exponent(sizes, [7] * 4) == pytest.approx(0)


def _row(size, seconds):
  return {
    'size': size,
    'seconds': seconds,
    'formula': size,
    'bytes': size**2,
    'formula_bytes': size,
  }


def test_exponents_of_time_are_of_the_sizes_that_were_run(cost_growth):
  # The formula is no power: a constant is added for the size not run.
  rows = [_row(2, 4.0), _row(4, 16.0), _row(8, None)]
  rows[2]['formula'] = 1000
  found = cost_growth.exponents(rows)
  assert found['exponent of time']['measured'] == pytest.approx(2)
  assert found['exponent of time']['formula'] == pytest.approx(1)
  assert found['exponent of memory']['measured'] == pytest.approx(2)
  assert found['exponent of memory']['formula'] == pytest.approx(1)
  one = cost_growth.exponents([_row(2, 4.0), _row(4, None)])
  assert 'exponent of time' not in one


@pytest.mark.slow
def test_the_smallest_sizes_are_measured_and_drawn(tmp_path):
  picture = tmp_path / 'growth.png'
  lines = benchmark_modules.run(
    *('cost_growth.py', '--rounds', '1', '--sizes', '2'),
    *('--figure', picture, '--most-gib', '0.2'),
  )
  assert picture.read_bytes().startswith(b'\x89PNG')
  cases = dict.fromkeys(line['case'] for line in lines)
  assert list(cases) == [
    'this machine',
    'Local Aggregation, videos N',
    'Local Aggregation, clips in a batch B',
    'whole step, clips in a batch B',
    'whole step, frames of a clip T',
    'whole step, side of the square, pixels',
  ]
  of_videos = {
    (line['variant'], line['metric']): line
    for line in lines
    if line['case'] == 'Local Aggregation, videos N'
  }
  memory = [of_videos[size, 'MB'] for size in ('100,000', '300,000')]
  # More than 0.2 GiB: compiled, and not run.
  assert ('100,000', 'CPU ms') in of_videos
  assert ('300,000', 'CPU ms') not in of_videos
  # At least the bank itself; beside the formula, as tests/planning has it.
  for line, videos in zip(memory, (1e5, 3e5), strict=True):
    assert line['value'] * 1e6 > videos * 128 * 4
    assert 0.5 < line['ratio'] < 1.05
