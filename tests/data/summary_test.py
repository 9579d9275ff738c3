import pytest
from summary import duration


@pytest.mark.parametrize(
  ('seconds', 'words'),
  [
    (0, '0.0 seconds'),
    (0.04, '0.0 seconds'),
    (24, '24.0 seconds'),
    (90, '1.5 minutes'),
    (3600, '1.0 hours'),
    (5_000_000, '1,388.9 hours'),
  ],
)
def test_a_duration_has_the_unit_that_fits(seconds, words):
  assert duration(seconds) == words
