import pytest

from vie_jax.evaluation import row_progress


@pytest.fixture
def clock(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(row_progress.time, 'monotonic', lambda: now[0])
  return now


def test_long_work_is_told_of_with_the_time_that_is_left(clock, caplog):
  caplog.set_level('INFO')
  progress = row_progress.RowProgress('Searched', 1000, 'clips', num_done=100)
  for seconds, num_done in ((5, 150), (30, 400), (35, 450), (90, 1000)):
    clock[0] = seconds
    progress.report(num_done)
  assert caplog.messages == [
    'Searched 400 of 1000 clips (40.0 %), 10.0 a second, 1.0 minutes to go.',
    'Searched 1000 of 1000 clips (100.0 %), 10.0 a second, 0.0 minutes to go.',
  ]


@pytest.mark.parametrize('tells_end', [False, True])
def test_short_work_is_told_of_at_its_end_if_that_is_wanted(
  clock, caplog, tells_end
):
  caplog.set_level('INFO')
  progress = row_progress.RowProgress('Searched', 2, 'x', tells_end=tells_end)
  progress.report(1)
  progress.report(2)
  assert len(caplog.messages) == tells_end
