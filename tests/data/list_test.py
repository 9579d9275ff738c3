import datetime
import decimal
import gzip
import json
import lzma
import os
import pathlib
import re
import shutil

import file_watch
import prepare
import pyarrow
import pyarrow.parquet
import pytest
import sample_videos
from errors import InputError
from sources import list_source

from vie_jax.input_pipeline import frame_store


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Two videos, of 50 and 20 frames at 25 a second."""
  folder = tmp_path_factory.mktemp('listed')
  (folder / 'sub').mkdir()
  sample_videos.write(folder / 'a.mp4', sample_videos.moving(50, 32, 48))
  sample_videos.write(
    folder / 'sub' / 'b "q",\n.mp4', sample_videos.moving(20, 32, 48, seed=1)
  )
  return folder


def _prepare(file, out, *options):
  return prepare.main(
    ['list', '--list', str(file), '--out', str(out), '--processes', '1']
    + [str(option) for option in options]
  )


def _write(path, text):
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


def _videos(out):
  """dict from path to (split, label or None, frames as bytes)."""
  found = {}
  for split in ('train', 'val'):
    with frame_store.FrameStore.open(out, split) as store:
      labels = [None] * store.num_videos
      if 'label' in store.label_columns:
        numbers, names = store.label('label')
        labels = [names[n] if n >= 0 else None for n in numbers]
      for index, path in enumerate(store.paths):
        frames = store.read_frames(index, range(store.num_frames[index]))
        found[path] = split, labels[index], frames
  return found


def _manifest(out, name='dataset'):
  return json.loads((pathlib.Path(out) / f'{name}.json').read_text())


_ROWS = [
  {'path': 'a.mp4', 'label': 'one', 'split': 'train', 'start': 0.4, 'end': 1.2},
  {'path': 'a.mp4', 'label': 'two', 'split': 'val', 'start': 1.2, 'end': None},
  {'path': 'a.mp4', 'label': None, 'split': 'train', 'start': None},
  {'path': 'sub/b "q",\n.mp4', 'label': 'one', 'split': 'validation'},
]


def _csv(path):
  text = 'path,label,split,start,end\n'
  for row in _ROWS:
    cells = [row.get(k) for k in ('path', 'label', 'split', 'start', 'end')]
    quoted = [str('' if c is None else c).replace('"', '""') for c in cells]
    text += ','.join(f'"{cell}"' for cell in quoted) + '\n'
  return _write(path / 'three.csv', text)


def _json_lines(path):
  return _write(
    path / 'three.jsonl', '\n\n'.join(json.dumps(row) for row in _ROWS)
  )


def _twice(column):
  """The bytes of a table with two columns of one name."""
  arrays, sink = [pyarrow.array(['a.mp4'])] * 3, pyarrow.BufferOutputStream()
  table = pyarrow.Table.from_arrays(arrays, ['path', column, column])
  pyarrow.parquet.write_table(table, sink)
  return sink.getvalue().to_pybytes()


def _parquet(path):
  pyarrow.parquet.write_table(
    pyarrow.Table.from_pylist(_ROWS), path / 'three.parquet'
  )
  return path / 'three.parquet'


@pytest.mark.parametrize('write', [_csv, _json_lines, _parquet])
def test_every_format_gives_whole_videos_and_segments_of_them(
  videos, tmp_path, write, capsys
):
  out = tmp_path / 'out'
  assert _prepare(write(tmp_path), out, '--root', videos) == 0
  found = _videos(out)
  assert {path: row[:2] for path, row in found.items()} == {
    'a.mp4#t=0.4,1.2': ('train', 'one'),
    'a.mp4': ('train', None),
    'a.mp4#t=1.2': ('val', 'two'),
    'sub/b "q",\n.mp4': ('val', 'one'),
  }
  whole = found['a.mp4'][2]
  assert len(whole) == 50
  assert found['a.mp4#t=0.4,1.2'][2] == whole[10:30]
  assert found['a.mp4#t=1.2'][2] == whole[30:]
  assert _manifest(out)['name'] == 'three'
  assert _manifest(out, 'warnings') == []
  assert prepare.main(['check', str(out), '--full']) == 0
  capsys.readouterr()
  assert _prepare(write(tmp_path), out, '--root', videos) == 0
  assert 'already complete' in capsys.readouterr().out


def test_times_in_a_table_may_be_decimal_numbers(videos, tmp_path):
  times = {'start': [decimal.Decimal('0.40')], 'end': [decimal.Decimal('1.2')]}
  table = pyarrow.table({'path': ['a.mp4'], **times})
  pyarrow.parquet.write_table(table, tmp_path / 'l.parquet')
  assert _prepare(tmp_path / 'l.parquet', tmp_path / 'o', '--root', videos) == 0
  assert list(_videos(tmp_path / 'o')) == ['a.mp4#t=0.4,1.2']


def test_several_label_columns_and_a_column_of_no_use(videos, tmp_path):
  file = _write(
    tmp_path / 'l.csv', 'path,label_how,label_what,note\na.mp4,left,cup,x\n'
  )
  out = tmp_path / 'out'
  assert _prepare(file, out, '--root', videos, '--val-percent', 0) == 0
  assert _manifest(out)['labels'] == {'how': ['left'], 'what': ['cup']}
  assert _manifest(out, 'warnings') == [
    {'path': 'l.csv', 'warning': "the column 'note' is not used"}
  ]


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl', '.parquet'])
def test_columns_and_splits_are_known_in_any_case(videos, tmp_path, suffix):
  row = {
    'Path': 'a.mp4',
    'START': '0.4',
    'End': '1.2',
    'Split': 'Valid',
    'LABEL_How': 'Left',
    'Label': 'cup',
  }
  file = tmp_path / f'l{suffix}'
  if suffix == '.csv':
    file.write_text(f'{",".join(row)}\n{",".join(row.values())}\n')
  elif suffix == '.jsonl':
    file.write_text(json.dumps(row))
  else:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), file)
  source = list_source.read_list(file, root=videos)
  assert [video.path for video in source.splits['val']] == ['a.mp4#t=0.4,1.2']
  assert source.labels == {
    'How': {'a.mp4#t=0.4,1.2': 'Left'},
    'label': {'a.mp4#t=0.4,1.2': 'cup'},
  }
  assert source.warnings == []


@pytest.mark.parametrize('list_file', ['none/l.csv', 's3://bucket/l.csv'])
def test_a_list_that_is_not_there_is_what_is_said(
  tmp_path, monkeypatch, list_file
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=f'^{list_file} cannot be read: No such'):
    list_source.read_list(list_file)


def test_columns_that_differ_in_case_only_are_refused(videos, tmp_path):
  file = _write(tmp_path / 'l.csv', 'path,start,Start\na.mp4,0,1\n')
  with pytest.raises(InputError, match="columns 'start' and 'Start' differ in"):
    list_source.read_list(file, root=videos)


def test_columns_of_no_use_may_hold_anything(videos, tmp_path):
  rows = [
    {'path': 'a.mp4', 'meta': {'a': 1}, 'tags': ['x'], 'taken': 0.5},
    {'path': 'sub/b "q",\n.mp4', 'meta': None, 'tags': [], 'taken': None},
  ]
  lines = '\n'.join(map(json.dumps, rows))
  plain = _write(tmp_path / 'l.jsonl', lines)
  taken = datetime.datetime(2020, 1, 2, 3, 4)
  table = pyarrow.Table.from_pylist([{**row, 'taken': taken} for row in rows])
  pyarrow.parquet.write_table(table, tmp_path / 'l.parquet')
  for file in (plain, tmp_path / 'l.parquet'):
    source = list_source.read_list(file, root=videos)
    assert len(source.videos) == 2
    assert [entry['warning'] for entry in source.warnings] == [
      f'the column {name!r} is not used' for name in ('meta', 'tags', 'taken')
    ]


def test_a_column_of_use_that_holds_something_else_is_named(videos, tmp_path):
  taken = datetime.datetime(2020, 1, 2, 3, 4)
  table = pyarrow.table({'path': ['a.mp4'], 'label': [taken]})
  pyarrow.parquet.write_table(table, tmp_path / 'l.parquet')
  with pytest.raises(InputError, match='row 1: label is a datetime, neither'):
    list_source.read_list(tmp_path / 'l.parquet', root=videos)


def test_a_file_by_two_names_is_one_video(videos, tmp_path):
  os.link(videos / 'a.mp4', tmp_path / 'a.mp4')
  (tmp_path / 'b.mp4').symlink_to('a.mp4')
  (tmp_path / 'again').symlink_to('.')
  text = 'path,split,start\nb.mp4,train,\na.mp4,val,\nagain/a.mp4,val,1\n'
  source = list_source.read_list(_write(tmp_path / 'l.csv', text))
  assert [video.path for video in source.videos] == ['b.mp4']
  assert source.skipped == [
    {'path': 'a.mp4', 'reason': 'the same file as b.mp4'},
    {'path': 'again/a.mp4#t=1', 'reason': 'the same file as b.mp4'},
  ]


def test_a_video_that_is_listed_twice_is_skipped_with_the_label_that_differs(
  videos, tmp_path
):
  text = 'path,label,label_how\na.mp4,x,left\na.mp4,y,left\na.mp4,x,\n'
  file = _write(tmp_path / 'l.csv', f'{text}a.mp4,x,left\n')
  source = list_source.read_list(file, root=videos)
  assert source.labels == {'label': {'a.mp4': 'x'}, 'how': {'a.mp4': 'left'}}
  already = f'already in {file}, line 2'
  assert [entry['reason'] for entry in source.skipped] == [
    f"{already}, with another label: 'x' there, 'y' here",
    f"{already}, with another label_how: 'left' there, '' here",
    already,
  ]


def test_a_video_that_is_listed_for_two_splits_is_skipped_with_both(
  videos, tmp_path
):
  text = 'path,split\na.mp4,val\na.mp4,train\na.mp4,\na.mp4,valid\n'
  file = _write(tmp_path / 'l.csv', text)
  source = list_source.read_list(file, root=videos)
  already = f'already in {file}, line 2'
  assert [entry['reason'] for entry in source.skipped] == [
    f'{already}, with another split: val there, train here',
    f'{already}, with another split: val there, none here',
    already,
  ]


def test_a_file_of_many_parts_is_looked_up_once(videos, tmp_path, monkeypatch):
  looks = []
  find = list_source.regular_file
  monkeypatch.setattr(
    list_source,
    'regular_file',
    lambda root, path: looks.append(path) or find(root, path),
  )
  rows = ''.join(f'a.mp4,{n / 100}\n' for n in range(100))
  file = _write(tmp_path / 'l.csv', f'path,start\n{rows}')
  assert len(list_source.read_list(file, root=videos).videos) == 100
  assert looks == ['a.mp4']


def test_columns_without_a_name_are_not_used(videos, tmp_path):
  file = _write(tmp_path / 'l.csv', 'path,label,,\na.mp4,x,y,\n')
  source = list_source.read_list(file, root=videos)
  assert source.labels == {'label': {'a.mp4': 'x'}}
  assert [w['warning'] for w in source.warnings] == [
    "the column '' is not used"
  ]


def test_a_list_that_has_changed_is_named(videos, tmp_path, capsys):
  file = _write(tmp_path / 'l.csv', 'path\na.mp4\n')
  assert _prepare(file, tmp_path / 'o', '--root', videos) == 0
  _write(file, 'path,label\na.mp4,x\n')
  assert _prepare(file, tmp_path / 'o', '--root', videos) == 2
  assert (
    f'options: {file} has changed, or is another; use'
    in capsys.readouterr().err
  )


def test_the_folder_of_the_list_is_the_root_and_segments_share_a_side(
  videos, tmp_path
):
  rows = [f'a.mp4,{n / 10},{n / 10 + 0.1}' for n in range(10)]
  os.link(videos / 'a.mp4', tmp_path / 'a.mp4')
  file = _write(tmp_path / 'l.csv', 'path,start,end\n' + '\n'.join(rows))
  assert _prepare(file, tmp_path / 'out', '--val-percent', 50) == 0
  found = _videos(tmp_path / 'out')
  assert len(found) == 10
  assert len({split for split, _, _ in found.values()}) == 1


def test_test_is_val_where_there_is_no_val_and_else_left_out(videos, tmp_path):
  text = 'path,start,split\na.mp4,0,train\na.mp4,0.1,test\n'
  file = _write(tmp_path / 'l.csv', text)
  assert _prepare(file, tmp_path / 'o', '--root', videos) == 0
  splits = {p: v[0] for p, v in _videos(tmp_path / 'o').items()}
  assert splits == {'a.mp4#t=0': 'train', 'a.mp4#t=0.1': 'val'}
  file = _write(tmp_path / 'm.csv', text + 'a.mp4,0.2,val\na.mp4,0.3,\n')
  assert _prepare(file, tmp_path / 'p', '--root', videos) == 0
  splits = {p: v[0] for p, v in _videos(tmp_path / 'p').items()}
  assert splits == {'a.mp4#t=0': 'train', 'a.mp4#t=0.2': 'val'}
  assert _manifest(tmp_path / 'p')['inputs']['left_out'] == 2


def test_paths_that_must_not_be_followed_are_refused_by_name(
  videos, tmp_path, capsys
):
  root = tmp_path / 'root'
  root.mkdir()
  os.link(videos / 'a.mp4', root / 'a.mp4')
  os.link(videos / 'a.mp4', tmp_path / 'secret.mp4')
  (root / 'link.mp4').symlink_to(tmp_path / 'secret.mp4')
  (root / 'up').symlink_to(tmp_path)
  (root / 'inside.mp4').symlink_to('a.mp4')
  (root / 'dir').mkdir()
  os.mkfifo(root / 'pipe.mp4')
  refused = {
    '../secret.mp4': 'leads out',
    str(tmp_path / 'secret.mp4'): 'leads out',
    'dir/../../secret.mp4': 'leads out',
    'link.mp4': 'leads out',
    'up/secret.mp4': 'leads out',
    '/dev/zero': 'leads out',
    'pipe.mp4': 'not a regular file',
    'dir': 'not a regular file',
    'zero\0.mp4': 'zero byte',
    '': 'empty path',
    'inside.mp4': 'the same file as a.mp4',
  }
  used = ['a.mp4']
  missing = ['gone.mp4', 'http://127.0.0.1:9/x.mp4', 'concat:a.mp4|a.mp4']
  lines = [json.dumps({'path': path}) for path in [*used, *refused, *missing]]
  # The same file again, by other names for it.
  lines += [
    json.dumps({'path': 'dir/../a.mp4'}),
    json.dumps({'path': str(root / 'a.mp4')}),
  ]
  content = '\n'.join(lines).encode() + b'\n{"path": "bad\xff.mp4"}'
  content += b'\n{"path": "\\ud800.mp4"}'
  file = _write(tmp_path / 'l.jsonl', content)
  assert _prepare(file, tmp_path / 'o', '--root', root) == 0
  assert set(_videos(tmp_path / 'o')) == {'a.mp4'}
  skipped = {
    entry['path']: entry['reason']
    for entry in _manifest(tmp_path / 'o', 'skipped')
  }
  assert f'{file}, line 11' in skipped['']
  for path, reason in refused.items():
    assert reason in skipped.pop(path)
  assert skipped.pop('bad\\xff.mp4') == 'its name is not UTF-8'
  assert skipped.pop('\\ud800.mp4') == 'its name is not UTF-8'
  assert 'already in' in skipped.pop('a.mp4')
  assert not skipped
  names = [e['path'] for e in _manifest(tmp_path / 'o', 'missing')]
  assert names == ['gone.mp4', 'http:/127.0.0.1:9/x.mp4', missing[2]]
  printed = capsys.readouterr().out
  assert 'missing: 3 of 4 listed videos (75.0%)' in printed
  assert 'skipped: 15' in printed


def test_no_name_in_a_list_opens_a_file_outside(videos, tmp_path):
  outside, root = tmp_path / 'outside', tmp_path / 'root'
  outside.mkdir()
  root.mkdir()
  decoy = outside / 'decoy.mp4'
  shutil.copy(videos / 'a.mp4', decoy)
  shutil.copy(videos / 'a.mp4', root / 'a.mp4')
  (root / 'link.mp4').symlink_to(decoy)
  (root / 'chain.mp4').symlink_to('link.mp4')
  (root / 'up').symlink_to(outside)
  os.mkfifo(root / 'pipe.mp4')
  os.mkfifo(outside / 'pipe.mp4')
  names = [
    *('../outside/decoy.mp4', 'a.mp4/../../outside/decoy.mp4', str(decoy)),
    *(f'//{decoy}', f'{root}/../outside/decoy.mp4', 'link.mp4', 'chain.mp4'),
    *('up/decoy.mp4', 'up/../outside/decoy.mp4', './/..//outside/decoy.mp4'),
    *('/dev/zero', '/dev/stdin', '/proc/self/environ', '/etc/passwd'),
    *('pipe.mp4', 'up/pipe.mp4', '..', '.', '/', 'up'),
    *(f'file:{decoy}', f'file://{decoy}', f'concat:{decoy}', '~/x.mp4'),
  ]
  assert len(names) >= 20
  file = _write(
    tmp_path / 'l.jsonl',
    '\n'.join(json.dumps({'path': name}) for name in ['a.mp4', *names]),
  )
  watch = file_watch.Watch(outside)
  decoy.read_bytes()
  assert watch.opened(), 'a watch that sees nothing proves nothing'
  assert _prepare(file, tmp_path / 'o', '--root', root, '--val-percent', 0) == 0
  assert watch.opened() == 0
  assert set(_videos(tmp_path / 'o')) == {'a.mp4'}
  named = [
    entry['path']
    for kind in ('skipped', 'missing')
    for entry in _manifest(tmp_path / 'o', kind)
  ]
  assert len(named) == len(names)


def test_a_segment_behind_the_end_is_skipped_and_a_short_one_warned_about(
  videos, tmp_path
):
  text = 'path,start,end\na.mp4,1.5,9\na.mp4,8,9\n'
  file = _write(tmp_path / 'l.csv', text)
  assert _prepare(file, tmp_path / 'o', '--root', videos) == 0
  assert len(_videos(tmp_path / 'o')['a.mp4#t=1.5,9'][2]) == 12
  (entry,) = _manifest(tmp_path / 'o', 'skipped')
  assert entry['path'] == 'a.mp4#t=8,9'
  assert 'no picture' in entry['reason']
  (entry,) = _manifest(tmp_path / 'o', 'warnings')
  assert entry['warning'].startswith('truncated: 0.5')


@pytest.mark.parametrize(
  'name, text, message',
  [
    ('l.csv', '', 'is empty'),
    ('l.csv', 'path,label\n', 'no rows'),
    ('l.csv', 'file,label\na.mp4,x\n', 'no column "path"'),
    ('l.csv', 'path,path\na.mp4,x\n', 'two columns'),
    ('l.csv', 'path,label_\na.mp4,x\n', 'label columns'),
    ('l.csv', 'path,label\na.mp4\n', 'line 2: 1 cell, not 2'),
    ('l.csv', 'path\n"a.mp4\n', 'line 2: unexpected end'),
    ('l.csv', 'path,split\na.mp4,dev\n', "line 2: the split 'dev'"),
    ('l.csv', 'path,start\na.mp4,soon\n', "line 2: 'soon' is not a number"),
    ('l.csv', 'path,start\na.mp4,-1\n', "line 2: '-1' is not a number"),
    ('l.csv', 'path,start\na.mp4,nan\n', 'line 2'),
    ('l.csv', 'path,end\na.mp4,1e99\n', 'line 2'),
    ('l.csv', 'path,start,end\na.mp4,2,1\n', 'must be after the start'),
    ('l.csv', b'path,label\na.mp4,\xff\n', 'line 2: label is not UTF-8'),
    ('l.csv', 'path,split\na.mp4,\n', 'no video of the list is in a split'),
    ('l.csv', 'path\nb.mp4\n', "missing one is 'b.mp4'"),
    ('l.csv', 'path\n../b.mp4\n', "'../b.mp4': leads out"),
    ('l.jsonl', '\n', 'is empty'),
    ('l.jsonl', '{"path": "a.mp4"}\n{', 'line 2: not JSON'),
    ('l.jsonl', '["a.mp4"]', 'line 1: must be an object'),
    ('l.jsonl', '{"path": "a.mp4", "path": "c"}', "line 1: .*'path' twice"),
    ('l.jsonl', '{"path": ["a.mp4"]}', 'line 1: path is a list, neither text'),
    ('l.csv', 'path,label\na.mp4,x\n'.encode('utf-16'), 'is UTF-16 or UTF-32;'),
    ('l.csv', 'path,label\na.mp4,x\n'.encode('utf-16-be'), 'save it as UTF-8'),
    (
      'l.csv',
      gzip.compress(b'path\na.mp4\n', mtime=0),
      r'packed \(gzip\); unpack it',
    ),
    ('l.jsonl', lzma.compress(b'{"path": "a.mp4"}'), r'packed \(xz\); unpack'),
    ('l.parquet', 'no parquet', 'cannot be read'),
    ('l.parquet', _twice('label'), "two columns are called 'label'"),
    ('l.txt', 'a.mp4', 'a list is a .csv, .jsonl or .parquet'),
  ],
)
def test_a_mistake_in_a_list_is_one_line(
  videos, tmp_path, capsys, name, text, message
):
  file = _write(tmp_path / name, text)
  assert _prepare(file, tmp_path / 'o', '--root', videos) == 2
  printed = capsys.readouterr().err
  assert printed.startswith('Error: ')
  assert len(printed.splitlines()) == 1
  assert re.search(message, printed)
  assert not (tmp_path / 'o').exists()
