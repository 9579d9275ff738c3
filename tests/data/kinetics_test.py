import json
import pathlib
import shutil

import prepare
import pytest
import sample_videos
from errors import InputError
from sources import kinetics_source

from vie_jax.input_pipeline import frame_store

_HEADER = 'label,youtube_id,time_start,time_end,split\n'
# Ids may begin with a dash and hold underscores.
_TRAIN = (
  'air drumming,-3B32lodo2M,59,69,train\n'
  'training dog,a_b_000010_x,0,10,train\n'
  '"massaging person\'s head",gone0000000,5,15,train\n'
)
_VAL = 'air drumming,0wR5jVB-WPk,417,427,val\n'


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  """A file of 75 frames, 3 seconds."""
  path = tmp_path_factory.mktemp('clip') / 'x.mp4'
  sample_videos.write(path, sample_videos.moving(75, 32, 48))
  return path


@pytest.fixture
def lists(tmp_path):
  (tmp_path / 'train.csv').write_text(_HEADER + _TRAIN)
  (tmp_path / 'val.csv').write_text(_HEADER + _VAL)
  return (
    f'--train-csv={tmp_path / "train.csv"}',
    f'--val-csv={tmp_path / "val.csv"}',
  )


def _put(clip, folder, *names):
  for number, name in enumerate(names):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(clip, path)
    with open(path, 'ab') as file:
      file.write(bytes(number))  # no two files are the same
  return folder


def _prepare(videos, out, *options):
  arguments = ['kinetics400', '--videos', str(videos), '--out', str(out)]
  return prepare.main([*arguments, '--processes', '1', *options])


def _videos(out):
  found = {}
  for split in ('train', 'val'):
    with frame_store.FrameStore.open(out, split) as store:
      numbers, names = store.label('label')
      for index, path in enumerate(store.paths):
        label = names[numbers[index]]
        found[path] = split, label, int(store.num_frames[index])
  return found


def _manifest(out, name='dataset'):
  return json.loads((pathlib.Path(out) / f'{name}.json').read_text())


@pytest.mark.parametrize(
  'names',
  [
    [
      'air drumming/-3B32lodo2M_000059_000069.mp4',
      'training dog/a_b_000010_x_000000_000010.mp4',
      'air drumming/0wR5jVB-WPk_000417_000427.mp4',
    ],
    [
      'train/air_drumming/-3B32lodo2M_000059_000069.mkv',
      'train/training_dog/a_b_000010_x_000000_000010.mp4',
      'val/air_drumming/0wR5jVB-WPk_000417_000427.mp4',
    ],
    ['-3B32lodo2M.mp4', 'a_b_000010_x.webm', '0wR5jVB-WPk.mp4'],
  ],
)
def test_clips_are_found_in_the_usual_layouts(
  clip, lists, tmp_path, capsys, names
):
  videos = _put(clip, tmp_path / 'v', *names, 'other.mp4')
  assert _prepare(videos, tmp_path / 'o', *lists) == 0
  assert _videos(tmp_path / 'o') == {
    names[0]: ('train', 'air drumming', 75),
    names[1]: ('train', 'training dog', 75),
    names[2]: ('val', 'air drumming', 75),
  }
  assert _manifest(tmp_path / 'o', 'missing') == [
    {
      'path': "massaging person's head/gone0000000_000005_000015.mp4",
      'split': 'train',
    }
  ]
  assert _manifest(tmp_path / 'o')['inputs']['left_out'] == 1
  assert _manifest(tmp_path / 'o')['expected']['train'] == {
    'expected': 239888,
    'found': 2,
  }
  printed = capsys.readouterr().out
  assert 'missing: 1 of 4 listed videos (25.0%)' in printed
  assert '-239886' in printed


def test_spaces_after_the_commas_of_a_list_are_passed_over(clip, tmp_path):
  videos = _put(clip, tmp_path / 'v', '--3ouPhoy2A_000020_000030.mp4')
  file = tmp_path / 'train.csv'
  file.write_text(
    (_HEADER + 'yoga,--3ouPhoy2A,20,30,train\n').replace(',', ', ')
  )
  assert _prepare(videos, tmp_path / 'o', f'--train-csv={file}') == 0
  assert [row[:2] for row in _videos(tmp_path / 'o').values()] == [
    ('train', 'yoga')
  ]


def test_whole_videos_are_cut_by_the_times_of_the_list(clip, tmp_path):
  (tmp_path / 'l.csv').write_text(f'{_HEADER}yoga,abc,1,2,val\n')
  videos = _put(clip, tmp_path / 'v', 'abc.mp4')
  options = (f'--val-csv={tmp_path / "l.csv"}', '--whole-videos')
  assert _prepare(videos, tmp_path / 'o', *options) == 0
  assert _videos(tmp_path / 'o') == {'abc.mp4#t=1,2': ('val', 'yoga', 25)}


def test_files_that_are_much_longer_than_listed_are_warned_about(
  clip, tmp_path, capsys
):
  rows = 'yoga,whole,1,1.9,val\nyoga,near,1,2.5,val\nyoga,part,1,2,val\n'
  (tmp_path / 'l.csv').write_text(_HEADER + rows)
  names = ('whole.mp4', 'near.mp4', 'part_000001_000002.mp4')
  videos = _put(clip, tmp_path / 'v', *names)
  options = [f'--val-csv={tmp_path / "l.csv"}', '--processes=1']
  assert _prepare(videos, tmp_path / 'o', *options) == 0
  # 3 s are more than 1.5 times as long as 1.5 s is, but by less than 2 s.
  assert _manifest(tmp_path / 'o', 'warnings') == [
    {'path': 'whole.mp4', 'warning': 'lasts 3.0 s, and 0.9 s by the list'}
  ]
  printed = capsys.readouterr().out
  assert 'much longer than listed: 1 video, taken whole; where' in printed
  assert '--restart with --whole-videos' in printed
  assert _prepare(videos, tmp_path / 'o', *options) == 0
  assert 'much longer than listed: 1 video' in capsys.readouterr().out
  options.append('--whole-videos')
  assert _prepare(videos, tmp_path / 'p', *options) == 0
  assert _manifest(tmp_path / 'p', 'warnings') == []
  assert 'longer than listed' not in capsys.readouterr().out


def test_clips_of_one_id_are_parts_or_are_said_to_be_listed_again(tmp_path):
  rows = 'yoga,abc,1,2,val\nyoga,abc,5,6,val\nsurfing,abc,1,2,val\n'
  (tmp_path / 'l.csv').write_text(_HEADER + rows)
  (tmp_path / 'v').mkdir()
  (tmp_path / 'v' / 'abc.mp4').write_bytes(b'x')

  def read(whole_videos):
    return kinetics_source.read_kinetics400(
      tmp_path / 'v', val_csv=tmp_path / 'l.csv', whole_videos=whole_videos
    )

  parts = read(True)
  assert [video.path for video in parts.splits['val']] == [
    'abc.mp4#t=1,2',
    'abc.mp4#t=5,6',
  ]
  assert (parts.missing, parts.num_left_out) == ([], 0)
  assert parts.skipped == [
    {
      'path': 'surfing/abc_000001_000002.mp4',
      'reason': 'listed again: abc.mp4#t=1,2 is taken for '
      'yoga/abc_000001_000002 of val',
    }
  ]
  clips = read(False)
  assert [video.path for video in clips.splits['val']] == ['abc.mp4']
  assert clips.missing == []
  assert len(clips.skipped) == 2


def test_a_replacement_stands_in_for_its_clip(clip, lists, tmp_path):
  names = [
    'train/air_drumming/-3B32lodo2M_000059_000069.mp4',
    'replacement_for_corrupted_k400/-3B32lodo2M_000059_000069.mp4',
    'val/air_drumming/0wR5jVB-WPk_000417_000427.mp4',
  ]
  videos = _put(clip, tmp_path / 'v', *names)
  expected = {
    names[1]: ('train', 'air drumming', 75),
    names[2]: ('val', 'air drumming', 75),
  }
  assert _prepare(videos, tmp_path / 'o', *lists) == 0
  assert _videos(tmp_path / 'o') == expected
  assert _prepare(videos, tmp_path / 'p') == 0
  assert _videos(tmp_path / 'p') == expected


def test_without_lists_folders_are_classes_and_splits(clip, tmp_path):
  names = [
    'train_256/training_dog/a_000000_000010.mp4',
    'train_256/air drumming/b_000000_000010.mp4',
    'val_256/training dog/c_000000_000010.mp4',
    'val_256/loose.mp4',
  ]
  videos = _put(clip, tmp_path / 'v', *names)
  assert _prepare(videos, tmp_path / 'o') == 0
  assert _videos(tmp_path / 'o') == {
    names[0]: ('train', 'training dog', 75),
    names[1]: ('train', 'air drumming', 75),
    names[2]: ('val', 'training dog', 75),
  }
  assert not (tmp_path / 'o' / 'missing.json').exists()


@pytest.mark.parametrize(
  'train, val, left_out',
  [
    ('videos_train', 'videos_val', 'videos_test'),
    ('k400_train', 'k400_test', None),
    ('kinetics-400_training', 'kinetics-400_validation', 'test'),
  ],
)
def test_folders_of_splits_have_many_names(
  clip, tmp_path, train, val, left_out
):
  names = [
    f'{folder}/yoga/{number}_000000_000010.mp4'
    for number, folder in enumerate((train, val, left_out))
    if folder
  ]
  videos = _put(clip, tmp_path / 'v', *names)
  assert _prepare(videos, tmp_path / 'o') == 0
  assert _videos(tmp_path / 'o') == {
    names[0]: ('train', 'yoga', 75),
    names[1]: ('val', 'yoga', 75),
  }


def test_without_lists_and_splits_a_hash_decides(clip, tmp_path):
  names = [f'training_dog/{n}_000000_000010.mp4' for n in range(6)]
  videos = _put(clip, tmp_path / 'v', *names)
  assert _prepare(videos, tmp_path / 'o', '--val-percent=50') == 0
  found = _videos(tmp_path / 'o')
  assert len(found) == 6
  assert {row[0] for row in found.values()} == {'train', 'val'}
  assert _manifest(tmp_path / 'o')['options']['val_percent'] == 50


@pytest.mark.parametrize(
  'text, options, message',
  [
    (None, (), 'no clip of Kinetics-400'),
    (None, ('--whole-videos',), 'needs the times'),
    ('youtube_id,time_start\nx,1\n', (), 'no column label'),
    (f'{_HEADER}yoga,x,1,2,train\n', (), "listed, 'x_000001_000002', is not"),
    (f'{_HEADER}yoga,flat,2,1,train\n', (), 'line 2: the end'),
    (f'{_HEADER}yoga,flat,,,train\n', (), 'line 2: a cell is empty'),
    (f'{_HEADER}yo\udcffga,flat,1,2,train\n', (), 'line 2: label is not UTF-8'),
  ],
)
def test_mistakes_are_one_line(clip, tmp_path, capsys, text, options, message):
  videos = _put(clip, tmp_path / 'v', 'flat.mp4')
  if text is not None:
    (tmp_path / 'l.csv').write_bytes(text.encode('utf-8', 'surrogateescape'))
    options = (*options, f'--train-csv={tmp_path / "l.csv"}')
  assert _prepare(videos, tmp_path / 'o', *options) == 2
  printed = capsys.readouterr().err
  assert message in printed
  assert len(printed.splitlines()) == 1


@pytest.fixture
def two_clips(tmp_path):
  """Reads a folder of a.mp4 and b.mp4 by lists of the given splits."""
  for name in ('a.mp4', 'b.mp4'):
    (tmp_path / name).write_bytes(name.encode())

  def read(**splits):
    files = {}
    for option, values in splits.items():
      files[option] = tmp_path / f'{option}.csv'
      rows = [
        f'yoga,{name},0,1,{value}\n'
        for name, value in zip('ab', values, strict=False)
      ]
      files[option].write_text(_HEADER + ''.join(rows))
    return kinetics_source.read_kinetics400(tmp_path, **files)

  return read


@pytest.mark.parametrize(
  'option, value, said',
  [
    ('train_csv', 'val', 'a list of val,'),
    ('train_csv', 'validate', 'a list of val,'),
    ('train_csv', 'Test', 'a list of test,'),
    ('val_csv', 'train', 'a list of train,'),
  ],
)
def test_lists_that_are_exchanged_are_refused(two_clips, option, value, said):
  with pytest.raises(InputError, match='were the lists exchanged') as caught:
    two_clips(**{option: [value, '']})
  assert said in str(caught.value)
  assert f'given with --{option.replace("_", "-")};' in str(caught.value)


def test_lists_of_the_known_names_of_splits_are_taken(two_clips):
  for value in ('train', 'TRAIN', '', 'mine'):
    assert two_clips(train_csv=[value, value]).warnings == []
  for value in ('val', 'validate', 'validation', 'valid', 'test', ''):
    assert two_clips(val_csv=[value, value]).warnings == []


def test_some_rows_of_another_split_are_a_warning(two_clips):
  source = two_clips(train_csv=['train', 'val'])
  assert len(source.splits['train']) == 2
  assert source.warnings == [
    {
      'path': 'train_csv.csv',
      'warning': "1 of 2 rows are of val, by the column 'split'; all are taken "
      'for train',
    }
  ]


def test_a_row_of_a_list_without_a_cell_is_one_line(clip, tmp_path, capsys):
  videos = _put(clip, tmp_path / 'v', 'flat.mp4')
  times = {'time_start': 0, 'time_end': 1}
  rows = [{'label': 'a', 'youtube_id': 'flat', **times}, {'label': 'b'}]
  file = tmp_path / 'l.jsonl'
  file.write_text('\n'.join(map(json.dumps, rows)))
  assert _prepare(videos, tmp_path / 'o', f'--train-csv={file}') == 2
  printed = capsys.readouterr().err
  assert 'line 2: a cell is empty' in printed
  assert len(printed.splitlines()) == 1


def test_ids_that_are_no_names_of_files_are_missing(clip, tmp_path, capsys):
  videos = _put(clip, tmp_path / 'v', 'flat.mp4')
  rows = b'yoga,../../etc/passwd,0,1,train\nyoga,fl\xff,0,1,train\n'
  file = tmp_path / 'l.csv'
  file.write_bytes(_HEADER.encode() + rows + b'yoga,flat,0,1,train\n')
  assert _prepare(videos, tmp_path / 'o', f'--train-csv={file}') == 0
  missing = json.loads((tmp_path / 'o' / 'missing.json').read_text())
  names = [entry['path'] for entry in missing]
  assert names == [
    'yoga/../../etc/passwd_000000_000001.mp4',
    'yoga/fl\\xff_000000_000001.mp4',
  ]
  assert set(_videos(tmp_path / 'o')) == {'flat.mp4'}
