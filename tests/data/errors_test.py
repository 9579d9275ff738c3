import pytest
from errors import words_of


@pytest.mark.parametrize(
  ('error', 'words'),
  [
    (ValueError('a mistake.'), 'a mistake (ValueError)'),
    (PermissionError('Forbidden'), 'Forbidden (PermissionError)'),
    (RuntimeError('in\n two lines'), 'in two lines (RuntimeError)'),
    (EOFError(), 'EOFError'),
  ],
)
def test_what_it_says_comes_before_what_kind_it_is(error, words):
  assert words_of(error) == words
