import json
import pathlib
import shutil

import prepare
import pytest
import sample_archives
import sample_videos
from sources import action_source

from vie_jax.input_pipeline import frame_store

_UCF = ('Archery', 'BoxingPunchingBag')
_HMDB = ('brush_hair', 'cartwheel')


@pytest.fixture(scope='module')
def ucf(tmp_path_factory):
  """UCF-101/CLASS/NAME.avi and the lists of all three splits."""
  folder = tmp_path_factory.mktemp('ucf')
  names = [
    f'{name}/v_{name}_g{group:02d}_c01.avi'
    for name in _UCF
    for group in range(1, 4)
  ]
  for seed, name in enumerate(names):
    path = folder / 'videos' / 'UCF-101' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = sample_videos.moving(3 + seed, 32, 48, seed=seed)
    sample_videos.write(path, frames, codec='mpeg4')
  lists = folder / 'ucfTrainTestlist'
  lists.mkdir()
  (lists / 'classInd.txt').write_text('1 Archery\r\n2 BoxingPunchingBag\r\n')
  for split in (1, 2, 3):
    tested = [name for name in names if f'_g{split:02d}_' in name]
    trained = [
      f'{name} {1 + (name > "B")}' for name in names if name not in tested
    ]
    (lists / f'trainlist{split:02d}.txt').write_text('\r\n'.join(trained))
    (lists / f'testlist{split:02d}.txt').write_text('\n'.join(tested) + '\n')
  return folder


@pytest.fixture(scope='module')
def hmdb(tmp_path_factory):
  """CLASS/NAME.avi and the lists of split 1 in testTrainMulti_7030_splits."""
  folder = tmp_path_factory.mktemp('hmdb')
  lists = folder / 'lists' / 'testTrainMulti_7030_splits'
  lists.mkdir(parents=True)
  for number, name in enumerate(_HMDB):
    lines = []
    for mark in (1, 2, 0):
      # The same name in both classes, and signs of the real ones.
      path = folder / 'videos' / name / f"#20_Rhythm_(c)'s_{mark}_med_0.avi"
      path.parent.mkdir(parents=True, exist_ok=True)
      frames = sample_videos.moving(3 + number * 3 + mark, 32, 48, seed=mark)
      sample_videos.write(path, frames, codec='mpeg4')
      lines.append(f'{path.name} {mark} ')
    (lists / f'{name}_test_split1.txt').write_text('\n'.join(lines) + '\n')
  return folder


def _prepare(name, videos, splits, out, *options):
  return prepare.main(
    [name, '--videos', str(videos), '--splits', str(splits), '--out', str(out)]
    + ['--processes', '1', *options]
  )


def _videos(out):
  """dict from path to (split, class)."""
  found = {}
  for split in ('train', 'val'):
    with frame_store.FrameStore.open(out, split) as store:
      numbers, names = store.label('label')
      for path, number in zip(store.paths, numbers, strict=True):
        found[path] = split, names[number]
  return found


def _manifest(out, name='dataset'):
  return json.loads((pathlib.Path(out) / f'{name}.json').read_text())


def test_each_split_of_ucf101_holds_out_its_own_videos(ucf, tmp_path, capsys):
  lists = ucf / 'ucfTrainTestlist'
  for split in (1, 2, 3):
    out = tmp_path / str(split)
    assert (
      _prepare('ucf101', ucf / 'videos', lists, out, f'--split={split}') == 0
    )
    found = _videos(out)
    assert len(found) == 6
    for path, (part, name) in found.items():
      assert path.split('/')[1] == name
      assert (part == 'val') == (f'_g{split:02d}_' in path)
    name = 'ucf101' if split == 1 else f'ucf101-split{split}'
    assert _manifest(out)['name'] == name
  assert prepare.main(['check', str(out), '--full']) == 0
  assert _manifest(tmp_path / '2')['expected'] == {
    'train': {'expected': 9586, 'found': 4},
    'val': {'expected': 3734, 'found': 2},
    'classes': {'expected': 101, 'found': 2},
  }
  assert _manifest(out, 'missing') == []
  printed = capsys.readouterr().out.split()
  start = printed.index('9586')
  assert printed[start - 1 : start + 3] == ['train', '9586', '4', '-9582']


@pytest.mark.parametrize('suffix', ['zip', 'rar'])
def test_ucf101_is_prepared_from_its_archives(ucf, tmp_path, suffix, capsys):
  if suffix == 'rar':
    pytest.importorskip('unrar.cffi')
  pack = {'zip': sample_archives.write_zip, 'rar': sample_archives.write_rar}
  for name, folder in (('v', ucf / 'videos'), ('l', ucf)):
    pattern = '*.avi' if name == 'v' else '*.txt'
    members = {
      path.relative_to(folder).as_posix(): path.read_bytes()
      for path in sorted(folder.rglob(pattern))
    }
    pack[suffix](tmp_path / f'{name}.{suffix}', members)
  files = (tmp_path / f'v.{suffix}', tmp_path / f'l.{suffix}')
  out = tmp_path / 'out'
  assert _prepare('ucf101', *files, out, '--split=1') == 0
  assert len(_videos(out)) == 6
  before = _manifest(out)
  assert (tmp_path / 'out-videos' / 'UCF-101' / 'Archery').is_dir()
  assert _prepare('ucf101', *files, out, '--split=1') == 0
  assert 'already complete' in capsys.readouterr().out
  # The unpacked folder gives the same data set as the archive.
  again = tmp_path / 'again'
  folders = (tmp_path / 'out-videos', ucf / 'ucfTrainTestlist')
  assert _prepare('ucf101', *folders, again, '--split=1') == 0
  assert _manifest(again) == before


def test_moved_and_encoded_anew_videos_are_found_and_missing_ones_named(
  ucf, tmp_path, capsys
):
  videos = tmp_path / 'flat'
  videos.mkdir()
  for path in (ucf / 'videos').rglob('*_g0[13]_*.avi'):
    shutil.copy(path, videos / path.name)
  sample_videos.write(
    videos / 'v_Archery_g02_c01.mp4', sample_videos.moving(4, 32, 48)
  )
  sample_videos.write(videos / 'holiday.mp4', sample_videos.moving(4, 32, 48))
  out = tmp_path / 'out'
  assert (
    _prepare('ucf101', videos, ucf / 'ucfTrainTestlist', out, '--split=1') == 0
  )
  assert _videos(out)['v_Archery_g02_c01.mp4'] == ('train', 'Archery')
  assert _manifest(out, 'missing') == [
    {
      'path': 'BoxingPunchingBag/v_BoxingPunchingBag_g02_c01.avi',
      'split': 'train',
    }
  ]
  assert _manifest(out)['inputs']['missing'] == 1
  assert _manifest(out)['inputs']['left_out'] == 1
  printed = capsys.readouterr().out
  assert 'missing: 1 of 6 listed videos (16.7%), named in missing' in printed


@pytest.mark.parametrize('name', ['ucf101', 'hmdb51'])
def test_a_line_that_is_there_twice_is_listed_again_and_not_missing(
  tmp_path, name
):
  (tmp_path / 'v' / 'A').mkdir(parents=True)
  for clip in ('x.avi', 'y.avi'):
    (tmp_path / 'v' / 'A' / clip).write_bytes(clip.encode())
  (tmp_path / 'l').mkdir()
  files = {
    'trainlist01.txt': 'A/x.avi 1\nA/x.avi 1\nA/z.avi 1\nA/z.avi 1\n',
    'testlist01.txt': 'A/y.avi\n',
    'A_test_split1.txt': 'x.avi 1\nx.avi 1\nz.avi 1\nz.avi 1\ny.avi 2\n',
  }
  for file, text in files.items():
    (tmp_path / 'l' / file).write_text(text)
  read = getattr(action_source, f'read_{name}')
  source = read(tmp_path / 'v', splits=tmp_path / 'l', split=1)
  assert [video.path for video in source.videos] == ['A/x.avi', 'A/y.avi']
  assert source.skipped == [
    {'path': f'A/{clip}.avi', 'reason': 'listed again in train'}
    for clip in 'xz'
  ]
  assert source.missing == [{'path': 'A/z.avi', 'split': 'train'}]


def test_a_clip_that_is_listed_is_not_taken_for_one_of_another_class(tmp_path):
  """Its name is the only one of that kind, as the other one is missing."""
  (tmp_path / 'v' / 'B').mkdir(parents=True)
  (tmp_path / 'v' / 'B' / 'x.avi').write_bytes(b'x')
  (tmp_path / 'l').mkdir()
  (tmp_path / 'l' / 'trainlist01.txt').write_text('A/x.avi 1\n')
  (tmp_path / 'l' / 'testlist01.txt').write_text('B/x.avi\n')
  source = action_source.read_ucf101(
    tmp_path / 'v', splits=tmp_path / 'l', split=1
  )
  assert source.labels == {'label': {'B/x.avi': 'B'}}
  assert source.missing == [{'path': 'A/x.avi', 'split': 'train'}]


@pytest.mark.parametrize('name', ['U.tar.bz2', 'U.7z'])
def test_archives_that_are_not_read_are_told_from_those_that_are(
  ucf, tmp_path, capsys, name
):
  file = tmp_path / name
  file.write_bytes(b'x')
  lists = ucf / 'ucfTrainTestlist'
  for arguments in ((file, lists), (ucf / 'videos', file)):
    assert _prepare('ucf101', *arguments, tmp_path / 'o', '--split=1') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f'{file} is neither a folder nor an archive of a kind that' in line
    assert '(.zip .rar .tar .tgz .tar.gz .tar.xz)' in line


def test_marks_of_hmdb51_mean_train_test_and_neither(hmdb, tmp_path):
  out = tmp_path / 'out'
  assert (
    _prepare('hmdb51', hmdb / 'videos', hmdb / 'lists', out, '--split=1') == 0
  )
  assert _videos(out) == {
    f"{name}/#20_Rhythm_(c)'s_{mark}_med_0.avi": (part, name)
    for name in _HMDB
    for mark, part in ((1, 'train'), (2, 'val'))
  }
  assert _manifest(out)['inputs']['left_out'] == 2
  assert _manifest(out)['expected']['val'] == {'expected': 1530, 'found': 2}


def test_hmdb51_is_prepared_from_its_archive_of_archives(hmdb, tmp_path):
  pytest.importorskip('unrar.cffi')
  inner = {}
  for name in _HMDB:
    members = {
      f'{name}/{path.name}': path.read_bytes()
      for path in (hmdb / 'videos' / name).iterdir()
    }
    sample_archives.write_rar(tmp_path / 'one.rar', members)
    inner[f'{name}.rar'] = (tmp_path / 'one.rar').read_bytes()
  sample_archives.write_rar(tmp_path / 'hmdb51_org.rar', inner)
  lists = {
    f'testTrainMulti_7030_splits/{path.name}': path.read_bytes()
    for path in (hmdb / 'lists').rglob('*.txt')
  }
  sample_archives.write_rar(tmp_path / 'test_train_splits.rar', lists)
  files = (tmp_path / 'hmdb51_org.rar', tmp_path / 'test_train_splits.rar')
  extracted = tmp_path / 'here'
  options = ('--split=1', '--extract-to', str(extracted), '--name=films')
  assert _prepare('hmdb51', *files, tmp_path / 'out', *options) == 0
  assert len(_videos(tmp_path / 'out')) == 4
  assert _manifest(tmp_path / 'out')['name'] == 'films'
  assert sorted(p.name for p in extracted.iterdir()) == [
    '.extracted.json',
    *_HMDB,
  ]
  assert not list(extracted.rglob('*.rar'))


@pytest.mark.parametrize(
  'name, files, message',
  [
    ('ucf101', {}, 'holds no trainlist01.txt'),
    ('ucf101', {'trainlist01.txt': 'x.avi 1'}, 'line 1: must be CLASS/'),
    (
      'ucf101',
      {'trainlist01.txt': '\nA/x.avi 1', 'classInd.txt': '1 B'},
      "line 2: 'A' is not in classInd.txt",
    ),
    (
      'ucf101',
      {'trainlist01.txt': 'A/x.avi 1', 'testlist01.txt': 'A/y.avi'},
      'of 2 videos in the lists none is in',
    ),
    (
      'ucf101',
      {'trainlist01.txt': 'A/x.avi 1', 'testlist01.txt': 'A/x.avi'},
      "paths that are in both lists: 1, the first is 'A/x.avi'",
    ),
    ('hmdb51', {'a_test_split2.txt': 'x.avi 1'}, 'no CLASS_test_split1.txt'),
    ('hmdb51', {'a_test_split1.txt': 'x.avi 3'}, 'and 0, 1 or 2'),
    ('hmdb51', {'a_test_split1.txt': b'\xff 1'}, 'is not UTF-8'),
  ],
)
def test_lists_that_are_no_official_ones_are_said(
  ucf, tmp_path, capsys, name, files, message
):
  lists = tmp_path / 'lists'
  lists.mkdir()
  for file, text in files.items():
    content = text if isinstance(text, bytes) else text.encode()
    (lists / file).write_bytes(content)
  out = tmp_path / 'out'
  assert _prepare(name, ucf / 'videos', lists, out, '--split=1') == 2
  printed = capsys.readouterr().err
  assert message in printed
  assert len(printed.splitlines()) == 1
  assert not out.exists()
