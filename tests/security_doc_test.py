"""SECURITY.md: each line of what is defended names tests that there are."""

import pathlib
import re

REPOSITORY = pathlib.Path(__file__).parents[1]
PAGE = (REPOSITORY / 'SECURITY.md').read_text()


def test_each_defended_line_names_tests_that_exist():
  part = PAGE.split('## What is defended')[1].split('\n## ')[0]
  rows = [line for line in part.splitlines() if line.startswith('| ')][1:]
  assert len(rows) >= 15
  for row in rows:
    tests = re.findall(r'`(tests/[\w/]+_test\.py)`', row.split('|')[-2])
    assert tests, row
    for name in tests:
      assert 'def test_' in (REPOSITORY / name).read_text(), name


def test_what_it_tells_to_run_is_there():
  makefile = (REPOSITORY / 'Makefile').read_text()
  for target in re.findall(r'`make (\w+)`', PAGE):
    assert re.search(rf'^{target}:', makefile, re.MULTILINE), target
  for name in ('constraints.txt', 'requirements.lock'):
    assert name in PAGE
    assert (REPOSITORY / name).is_file()
  # No address is made up.
  assert not re.search(r'[\w.]+@[\w.]+|https?://', PAGE)
