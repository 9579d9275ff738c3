"""Lists, archives and data sets of strangers, given to the tools."""

import contextlib
import json
import shutil
import time

import check_dataset
import hostile_files
import hostile_tars
import pyarrow.parquet
import pytest
from errors import InputError
from hostile_files import check_refused
from sources import archives, kinetics_source, list_rows, list_source


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


def test_a_number_of_too_many_digits_is_said(tmp_path):
  path = tmp_path / 'list.jsonl'
  path.write_text('{"path": "a.mp4", "start": ' + '9' * 5000 + '}')
  message = check_refused(lambda: _rows(path), InputError, path)
  assert message.endswith('line 1: not JSON: a number of 5000 digits')


@pytest.mark.parametrize(
  'start', ['1e-999999999', '1E-50000000', '1e999999999']
)
def test_a_time_with_a_large_exponent_takes_no_time(tmp_path, start):
  files = {
    'list': f'path,start,end\na.mp4,{start},1\n',
    'kinetics': f'label,youtube_id,time_start,time_end,split\nx,a,{start},1,t\n',
  }
  for name, text in files.items():
    (tmp_path / f'{name}.csv').write_text(text)
  began = time.process_time()
  with pytest.raises(InputError):
    list_source.read_list(tmp_path / 'list.csv')
  (tmp_path / 'a.mp4').write_bytes(b'x')
  with contextlib.suppress(InputError):
    kinetics_source.read_kinetics400(
      tmp_path, train_csv=tmp_path / 'kinetics.csv'
    )
  assert time.process_time() - began < 5


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
