import pytest

from tests.benchmarks import benchmark_modules


def test_the_machine_is_as_fast_as_was_measured(monkeypatch):
  bank_programs = benchmark_modules.load(
    monkeypatch, 'measuring.bank_programs'
  )[0]
  machine = bank_programs.measured_machine(rounds=1)
  device = machine.accelerator
  assert device.exact_flops > 0
  assert device.memory_bandwidth > 0
  # What was measured is all there is, whatever share of it that was.
  assert machine.multiply(device.exact_flops) == 1
  assert machine.move(device.memory_bandwidth) == pytest.approx(1)


@pytest.mark.slow
def test_scaling_is_measured_and_drawn(tmp_path):
  picture = tmp_path / 'scaling.png'
  lines = benchmark_modules.run(
    'scaling.py', '--rounds', '1', '--figure', picture
  )
  assert picture.read_bytes().startswith(b'\x89PNG')
  cases = {line['case'] for line in lines}
  assert 'local aggregation, devices' in cases
  memory = [x for x in lines if x['metric'] == 'temporary MB of a device']
  assert len(memory) > 10
  assert all(0.5 < line['ratio'] < 1.5 for line in memory)
