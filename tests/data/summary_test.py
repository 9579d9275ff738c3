import json

import pytest
from dataset.summary import duration, preparation_warnings, skipped_files


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


@pytest.mark.parametrize(
  'damage', [None, {'x': 1}, [1, 2], ['a'], [[]], [{'x': 1}], [{'path': 'b'}]]
)
def test_a_damaged_list_of_what_was_skipped_is_left_out(tmp_path, damage):
  sound = {'path': 'a.mp4', 'reason': 'the file is empty'}
  found = [sound] if isinstance(damage, list) else []
  content = [sound, *damage] if isinstance(damage, list) else damage
  (tmp_path / 'skipped.json').write_text(json.dumps(content))
  assert skipped_files(tmp_path) == found


def test_older_data_sets_have_their_warnings_in_the_manifest(tmp_path):
  old, new = ({'path': 'a.mp4', 'warning': word} for word in ('old', 'new'))
  (tmp_path / 'warnings.json').write_text(json.dumps([new, 'damaged']))
  assert preparation_warnings(tmp_path, {'warnings': [old]}) == [old]
  assert preparation_warnings(tmp_path, {}) == [new]
  for damage in (5, 'abc', {'a': 1}):
    assert preparation_warnings(tmp_path, {'warnings': damage}) == []
  damaged = {'warnings': [1, {'path': 3}, {'path': 'x'}, old]}
  assert preparation_warnings(tmp_path, damaged) == [old]
