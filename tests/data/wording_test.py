import pytest
from wording import counted, named, printable


@pytest.mark.parametrize(
  ('number', 'nouns', 'words'),
  [
    (1, ('video',), '1 video'),
    (0, ('video',), '0 videos'),
    (2, ('video',), '2 videos'),
    (1, ('class', 'classes'), '1 class'),
    (1200, ('class', 'classes'), '1,200 classes'),
  ],
)
def test_a_noun_fits_its_number(number, nouns, words):
  assert counted(number, *nouns) == words


@pytest.mark.parametrize(
  ('names', 'words'),
  [
    ([], ''),
    (['a, b', 'c'], "'a, b', 'c'"),
    (["a', 'b", 'c'], "\"a', 'b\", 'c'"),
    (['a', 'b', 'c'], "'a', 'b', ..."),
    (['two\nlines'], r"'two\nlines'"),
  ],
)
def test_names_in_a_row_can_be_told_apart(names, words):
  assert named(names, 2) == words


@pytest.mark.parametrize(
  ('text', 'printed'),
  [
    ('plain Ł 漢', 'plain Ł 漢'),
    ('two\nlines\x1b', r'two\nlines\x1b'),
    (b'caf\xe9.mp4'.decode('utf-8', 'surrogateescape'), r'caf\xe9.mp4'),
    ('\ud800', r'\ud800'),
  ],
)
def test_what_is_printed_stays_on_its_line(text, printed):
  assert printable(text) == printed
