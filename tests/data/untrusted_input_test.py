"""Lists, archives and data sets of strangers, given to the tools."""

import json
import shutil

import archives
import check_dataset
import hostile_files
import hostile_tars
import list_rows
import pyarrow.parquet
import pytest
from hostile_files import check_refused
from labels_and_splits import InputError


def test_lists_in_parquet(tmp_path):
  columns = {'id': ['a', 'b'], 'path': ['a.mp4', 'b.mp4']}
  for kind, path in hostile_files.hostile_parquet(tmp_path, columns):
    if kind not in ('nulls', 'sound'):
      check_refused(lambda path=path: _rows(path), InputError, path)
  assert len(_rows(tmp_path / 'sound.parquet')[1]) == 2


def _rows(path):
  return list_rows.read_rows(path, lambda column: True)


@pytest.mark.parametrize(
  'line', ['[' * 50_000, '{"path":' * 2000, '{"path": ' + '9' * 10**6 + '}']
)
def test_lists_in_json_lines(tmp_path, line):
  path = tmp_path / 'list.jsonl'
  path.write_text(f'{{"path": "a.mp4"}}\n{line}\n')
  message = check_refused(lambda: _rows(path), InputError, path)
  assert 'line 2' in message


def test_archives_with_large_headers(tmp_path):
  for number, kind in enumerate(hostile_tars.KINDS):
    path = tmp_path / f'{number}.tar.gz'
    hostile_tars.write_large_header(path, kind)
    check_refused(
      lambda path=path: archives.extract_archive(path, tmp_path / 'out'),
      InputError,
      path,
    )
  path = tmp_path / 'member.tar.gz'
  hostile_tars.write_large_member(path)
  check_refused(
    lambda: archives.extract_archive(path, tmp_path / 'out'), InputError, path
  )
  assert not (tmp_path / 'out').exists()


def test_a_garbled_data_set_is_a_problem_and_nothing_more(
  demo_dataset, tmp_path, capsys
):
  folder = tmp_path / 'data'
  shutil.copytree(demo_dataset, folder)
  path = folder / 'dataset.json'
  sound = json.loads(path.read_text())
  entry = {'bytes': 8, 'sha256': 'x', 'records': 1}
  contents = [
    json.dumps(sound | changes)
    for changes in (
      {'files': {'train/../../secret': entry}},
      {'files': {'/etc/passwd': entry}},
      {'files': {'train/videos.parquet': {'bytes': 'x', 'sha256': 'x'}}},
      {'files': {'train/videos.parquet': None}},
      {'labels': {'motion': 5}},
      {'splits': {'train': None, 'val': None}},
      {'options': {'fps': '25'}},
    )
  ]
  for content in [*contents, '[' * 50_000, '{"a":' * 5000, '']:
    path.write_text(content)
    problems = check_dataset.check_dataset(folder, full=False)
    assert len(problems) == 1
    assert str(path) in problems[0]
  path.write_text(json.dumps(sound))
  table = folder / 'train' / 'videos.parquet'
  columns = pyarrow.parquet.read_table(table).to_pydict()
  for kind, hostile in hostile_files.hostile_parquet(tmp_path, columns):
    shutil.copy(hostile, table)
    problems = check_dataset.check_dataset(folder, full=False)
    assert any('train/videos.parquet' in text for text in problems), kind
  assert 'Traceback' not in capsys.readouterr().err
