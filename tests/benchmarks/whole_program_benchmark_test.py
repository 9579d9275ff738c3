import pytest

from tests.benchmarks import benchmark_modules


@pytest.fixture
def program_runs(monkeypatch):
  return benchmark_modules.load(monkeypatch, 'measuring.program_runs')[0]


@pytest.fixture
def trace_shares(monkeypatch):
  return benchmark_modules.load(monkeypatch, 'measuring.trace_shares')[0]


def test_the_phases_of_a_start_follow_the_log_and_add_up(program_runs):
  said = [
    (4.0, '2026-01-01 00:00:00 Data set demo: 36 training videos.'),
    (5.0, '2026-01-01 00:00:00 vie_single: 9 parameters, listed with'),
    (5.5, '  "seed": 0,'),
    (7.5, '2026-01-01 00:00:00 [0] knn/motion_top1=0.1, eval/seconds=1'),
    (7.75, '2026-01-01 00:00:00 Compiling the step of instance recognition.'),
    (9.75, '2026-01-01 00:00:00 [1] train/learning_rate=0.1, train/loss=5'),
    (11.0, '2026-01-01 00:00:00 [1] knn/motion_top1=0.2'),
  ]
  phases = program_runs.phases(said)
  assert phases == {
    'imports and data set': 4.0,
    'first state': 1.0,
    'first evaluation': 2.5,
    'first batch': 0.25,
    'compilation and first step': 2.0,
    'launch to first step': 9.75,
  }
  # A run that goes on from a checkpoint has no first evaluation.
  without = program_runs.phases(said[:3] + said[4:])
  assert 'first evaluation' not in without
  assert without['first batch'] == 2.75
  assert without['launch to first step'] == 9.75


def test_the_speed_is_that_of_the_steps_asked_for(program_runs):
  lines = [
    {'step': 10, 'steps_per_sec': 2.0},
    {'step': 20, 'steps_per_sec': 8.0},
    {'step': 20, 'train/loss': 1.0},
    {'step': 20, 'eval/seconds': 3.0},
  ]
  assert program_runs.steps_per_second(lines, 20) == 8.0
  assert program_runs.evaluation_seconds(lines, 20) == 3.0
  with pytest.raises(ValueError):
    program_runs.steps_per_second(lines, 30)


def test_the_share_of_evaluations_is_of_steps_and_evaluations(program_runs):
  # 10 s after each 30 s of steps.
  share = program_runs.share_of_evaluations(
    clips=500, clips_per_second=50, steps=60, step_seconds=0.5
  )
  assert share == pytest.approx(0.25)


class _Item:
  """A plane, line or event, as `jax.profiler.ProfileData` has them."""

  def __init__(self, name, **values):
    self.name = name
    self.__dict__.update(values)


def _event(name, start, end):
  return _Item(name, start_ns=start, end_ns=end)


def _host(*events):
  return _Item('/host:CPU', lines=[_Item('python', events=list(events))])


def test_the_shares_of_a_trace_are_of_the_time_between_its_steps(trace_shares):
  host = _host(
    _event('train', 100, 150),
    _event('train', 150, 200),
    _event('input wait', 90, 110),  # begins before the first step
    _event('input wait', 150, 155),
    _event('step', 160, 180),
  )
  device = _Item(
    '/device:GPU:0',
    lines=[
      # What overlaps counts once, in any order.
      _Item('Stream #1', events=[_event('a', 130, 180), _event('b', 140, 150)]),
      _Item('Stream #2', events=[_event('copy', 100, 140)]),
      _Item('Steps', events=[_event('1', 0, 1000)]),
    ],
  )
  shares = trace_shares.shares([host, device])
  assert shares['device idle'] == pytest.approx(0.2)
  assert shares['input wait'] == pytest.approx(0.15)
  assert shares['step'] == pytest.approx(0.2)
  assert shares['figures'] == 0


@pytest.mark.slow
def test_a_tiny_run_prints_every_figure():
  lines = benchmark_modules.run(
    *('whole_program.py', '--configs', 'configs/demo.py:single'),
    *('--rounds', '1', '--steps', '4', '--videos', '24', '--batch-size', '8'),
  )
  found = {
    (line['case'].partition(', 8 clips of 1 x 32 px')[2], line['variant'])
    + (line['metric'],): line
    for line in lines
  }
  speed = {
    variant: line['value']
    for (_, variant, metric), line in found.items()
    if metric == 'clips per second' and variant != '30 clips here'
  }
  assert set(speed) == {
    *('main.py', 'input alone', 'step alone', 'slower part', 'parts in turn')
  }
  assert min(speed.values()) > 0
  slower = min(speed['input alone'], speed['step alone'])
  assert speed['slower part'] == slower
  ours = found['', 'main.py', 'clips per second']
  assert ours['ratio_to'] == 'slower part'
  assert ours['ratio'] == pytest.approx(speed['main.py'] / slower, rel=0.01)
  # 8 windows of one frame, and some numbers beside them.
  sent = found['', 'main.py', 'MB to the device in a step']['value']
  assert sent * 1e6 > 8 * 32 * 32 * 3
  idle = found[', trace', 'main.py', 'device idle, %']['value']
  assert 0 <= idle < 100
  compiling, starting = (
    {
      variant: line['value']
      for (_, variant, metric), line in found.items()
      if metric == phase
    }
    for phase in ('compilation and first step, s', 'launch to first step, s')
  )
  assert compiling['full cache'] < compiling['empty cache']
  assert starting['full cache'] > compiling['full cache']
  shares = [
    line['value']
    for (case, _, metric), line in found.items()
    if case == ', evaluation' and metric == '% of the training'
  ]
  assert len(shares) == 2
  assert 0 < shares[0] < shares[1] < 100
