import pathlib

import pytest

from tests.benchmarks import benchmark_modules


@pytest.fixture
def modules(monkeypatch):
  """(turns, two_variants), on the path of the processes, too."""
  monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent))
  return benchmark_modules.load(monkeypatch, 'measuring.turns', 'two_variants')


def test_each_variant_runs_once_in_a_round_after_one_that_does_not_count(
  modules,
):
  turns, two_variants = modules
  found = turns.take_turns(
    {
      'quick': (two_variants.prepare, {'seconds': 0.0}),
      'slow': (two_variants.prepare, {'seconds': 0.2}),
    },
    rounds=3,
    environment={'TURNS_TEST': 'here'},
  )
  assert list(found) == ['quick', 'slow']
  for name, seconds in (('quick', 0.0), ('slow', 0.2)):
    variant = found[name]
    assert variant.facts == {'seconds': seconds}
    assert variant.first == (1, 'here')
    assert variant.results == [(2, 'here'), (3, 'here'), (4, 'here')]
    assert len(variant.wall) == len(variant.cpu) == 3
  assert found['slow'].milliseconds >= 200
  # It sleeps, which takes no CPU time.
  assert found['slow'].cpu_milliseconds < found['slow'].milliseconds
  assert found['slow'].ratio(found['slow']) == 1.0


def test_the_failure_of_a_variant_is_told_with_its_name(modules):
  turns, two_variants = modules
  with pytest.raises(RuntimeError, match=r'(?s)bad: .*out of luck'):
    turns.take_turns({'bad': (two_variants.fail, {})}, rounds=1)
