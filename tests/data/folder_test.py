import contextlib
import csv
import dataclasses
import errno
import fcntl
import hashlib
import io
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import command_options
import folder_content
import numpy as np
import prepare
import pyarrow.parquet
import pytest
import sample_videos
from dataset import dataset_layout, dataset_writer, summary
from PIL import Image
from preparation import prepare_dataset
from sources import folder_source

from vie_jax.input_pipeline import frame_store

_SCRIPT = pathlib.Path(prepare.__file__)
_CLASSES = ('ball', 'cup', 'dog')


@pytest.fixture(scope='session')
def class_folder(tmp_path_factory):
  """Twelve videos in three class folders, of several containers."""
  folder = tmp_path_factory.mktemp('videos') / 'toys'
  for number in range(12):
    path = folder / _CLASSES[number % 3]
    path.mkdir(parents=True, exist_ok=True)
    suffix = ('mp4', 'mkv', 'avi', 'MOV')[number % 4]
    sample_videos.write(
      path / f'{number:02d}.{suffix}',
      sample_videos.moving(10 + number, seed=number),
      codec='mpeg4' if suffix == 'avi' else 'libx264',
    )
  return folder


@pytest.fixture
def videos(class_folder, tmp_path):
  """A copy of the class folder that a test may change."""
  return pathlib.Path(shutil.copytree(class_folder, tmp_path / 'toys'))


def _prepare(videos, out, *options):
  return prepare.main(
    ['folder', '--videos', str(videos), '--out', str(out)]
    + ['--processes', '1', *options]
  )


def _command(*arguments):
  return [sys.executable, str(_SCRIPT), *map(str, arguments)]


def _rows(out, split='train'):
  table = pyarrow.parquet.read_table(out / split / 'videos.parquet')
  return table.to_pylist()


def _manifest(out):
  return json.loads((out / 'dataset.json').read_text())


def _warnings(out):
  return json.loads((out / 'warnings.json').read_text())


@pytest.fixture(scope='session')
def prepared(class_folder, tmp_path_factory):
  out = tmp_path_factory.mktemp('prepared') / 'toys'
  assert _prepare(class_folder, out, '--val-percent', '30') == 0
  return out


def test_a_folder_becomes_a_data_set_that_the_store_reads(
  class_folder, prepared
):
  seen = {}
  for split in ('train', 'val'):
    with frame_store.FrameStore.open(prepared, split) as store:
      labels, names = store.label('label')
      assert names == list(_CLASSES)
      assert store.paths == sorted(store.paths)
      for index, path in enumerate(store.paths):
        number = int(path.split('/')[1][:2])
        assert path.startswith(names[labels[index]])
        assert store.num_frames[index] == 10 + number
        frames = store.read_frames(index, range(10 + number))
        image = np.asarray(Image.open(io.BytesIO(frames[2])))
        assert image.shape == (64, 96, 3)
        assert (image[4, 10].astype(int) - (250, 240, 20) < 40).all()
        seen[path] = split
  assert len(seen) == 12
  assert set(seen.values()) == {'train', 'val'}
  for path, split in seen.items():
    digest = hashlib.sha256(path.encode()).hexdigest()
    assert (int(digest[:8], 16) % 100 < 30) == (split == 'val')


def test_rows_tell_about_the_source(class_folder, prepared):
  row = _rows(prepared)[0]
  source = class_folder / row['path']
  assert row['source_sha256'] == (
    hashlib.sha256(source.read_bytes()).hexdigest()
  )
  assert row['id'] == hashlib.sha256(row['path'].encode()).hexdigest()[:16]
  assert row['source_fps'] == 25
  assert (row['source_height'], row['source_width']) == (64, 96)
  assert row['duration_seconds'] == pytest.approx(row['num_frames'] / 25)


def test_the_layout_is_the_documented_one(prepared):
  assert sorted(folder_content.digests(prepared)) == [
    'dataset.json',
    'skipped.json',
    'train/frames-00000-of-00001.array_record',
    'train/videos.parquet',
    'val/frames-00000-of-00001.array_record',
    'val/videos.parquet',
    'warnings.json',
  ]
  manifest = _manifest(prepared)
  assert manifest['format_version'] == 1
  assert manifest['name'] == 'toys'
  assert manifest['options']['fps'] == 25
  assert manifest['labels'] == {'label': list(_CLASSES)}
  assert manifest['max_short_side'] == 64
  assert manifest['max_long_side'] == 96
  for name, entry in manifest['files'].items():
    assert folder_content.digests(prepared)[name] == entry['sha256']


def test_the_bytes_do_not_depend_on_the_number_of_processes(
  class_folder, prepared, tmp_path
):
  options = ('--val-percent', '30', '--processes', '3')
  assert _prepare(class_folder, tmp_path / 'out', *options) == 0
  assert folder_content.digests(tmp_path / 'out') == folder_content.digests(
    prepared
  )


def test_a_flat_folder_has_no_labels_and_val_may_be_empty(tmp_path, capsys):
  videos = tmp_path / 'flat'
  videos.mkdir()
  sample_videos.write(videos / 'one.mp4', sample_videos.moving(5))
  assert _prepare(videos, tmp_path / 'out', '--val-percent', '0') == 0
  with frame_store.FrameStore.open(tmp_path / 'out', 'val') as store:
    assert store.num_videos == 0
    assert store.label_columns == []
  assert 'labels' not in capsys.readouterr().out


def test_outputs_may_have_any_name_that_is_utf_8(tmp_path, monkeypatch, capsys):
  videos = tmp_path / 'v'
  videos.mkdir()
  sample_videos.write(videos / 'one.mp4', sample_videos.moving(5))
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  names = ('a:b', 's3:x', '~x', '~', '%41', 'ä ö')
  for name in names:
    # `~` alone is the home of the user, also where a shell has left it.
    arguments = ['folder', '--videos', 'v', f'--out={name}', '--processes', '1']
    assert prepare.main(arguments) == 0
    out = tmp_path / ('home' if name == '~' else name)
    with frame_store.FrameStore.open(out, 'train') as train:
      assert train.num_videos == 1
    assert prepare.main(['check', name if name != '~' else str(out)]) == 0
  for name in names[:3]:
    # By a relative path, as Arrow would take it for a URL.
    with frame_store.FrameStore.open(name, 'train') as train:
      assert train.num_frames.tolist() == [5]
  capsys.readouterr()
  assert _prepare('v', os.fsdecode(b'b\xff')) == 2
  assert '--out must be UTF-8' in capsys.readouterr().err
  assert not os.path.exists(b'b\xff')


def test_another_locale_is_not_blamed_on_the_path(class_folder, tmp_path):
  done = subprocess.run(
    _command(
      'folder', '--videos', str(class_folder), '--out', f'{tmp_path}/\u00fc'
    ),
    env={
      **os.environ,
      'LC_ALL': 'POSIX',
      'PYTHONUTF8': '0',
      'PYTHONCOERCECLOCALE': '0',
    },
    check=False,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert 'the locale is not UTF-8, which the path is: set PYTHONUTF8=1' in (
    done.stderr
  )


def test_an_empty_train_split_is_said(tmp_path, capsys):
  (tmp_path / 'v').mkdir()
  sample_videos.write(tmp_path / 'v' / 'one.mp4', sample_videos.moving(5))
  assert _prepare(tmp_path / 'v', tmp_path / 'o', '--val-percent', '100') == 0
  assert 'train split is empty' in capsys.readouterr().out


def _notes(capsys):
  lines = capsys.readouterr().out.splitlines()
  return [line for line in lines if line.startswith('  Note:')]


def test_classes_without_a_validation_video_are_named_with_the_remedy(
  tmp_path, capsys
):
  for name in ('ball', 'cup', 'dog'):
    (tmp_path / 'v' / name).mkdir(parents=True)
    for number in range(2):
      path = tmp_path / 'v' / name / f'{number}.mp4'
      sample_videos.write(path, sample_videos.moving(3))
  for split, names in (('train', '01'), ('val', '1')):
    lines = [f'{c}/{n}.mp4' for c in ('ball', 'cup', 'dog') for n in names]
    lines = [
      line for line in lines if (line == 'cup/1.mp4') == (split == 'val')
    ]
    (tmp_path / split).write_text('\n'.join(lines))
  lists = [f'--{split}-list={tmp_path / split}' for split in ('train', 'val')]
  assert _prepare(tmp_path / 'v', tmp_path / 'o', *lists) == 0
  (note,) = (note for note in _notes(capsys) if 'no validation video' in note)
  assert "2 of 3 classes of 'label' have no validation video" in note
  assert note.endswith("('ball', 'dog'); evaluations tell nothing of them.")
  # Where a hash chose the videos, another share of them is the remedy.
  assert _prepare(tmp_path / 'v', tmp_path / 'p', '--val-percent=50') == 0
  with frame_store.FrameStore.open(tmp_path / 'p', 'val') as store:
    known, names = store.label('label')
  assert 0 < len(set(known)) < len(names)
  notes = _notes(capsys)
  assert len([note for note in notes if 'no validation video' in note]) == 1
  assert (
    'another --val-percent, or a list with the column split, gives' in notes[-1]
  )


def test_classes_without_a_training_video_are_named(tmp_path, capsys):
  for name in ('ball', 'cup', "dog's"):
    (tmp_path / 'v' / name).mkdir(parents=True)
    path = tmp_path / 'v' / name / 'a.mp4'
    sample_videos.write(path, sample_videos.moving(3))
  (tmp_path / 'train').write_text('ball/a.mp4')
  (tmp_path / 'val').write_text("cup/a.mp4\ndog's/a.mp4")
  lists = [f'--{split}-list={tmp_path / split}' for split in ('train', 'val')]
  assert _prepare(tmp_path / 'v', tmp_path / 'o', *lists) == 0
  assert _notes(capsys) == [
    '  Note: 2 videos of 3 are in val; figures on so few mean little.',
    "  Note: 2 of 3 classes of 'label' have no training video ('cup', "
    '"dog\'s"); they cannot be learnt.',
    "  Note: 1 of 3 classes of 'label' has no validation video ('ball'); "
    'evaluations tell nothing of it.',
    '  Note: other lists, or folders called train and val, give the splits '
    'other videos: with another --out, which leaves this data set as it is and '
    'whose --reuse takes its frames, or with --restart, which throws it away.',
  ]


def _small_videos(folder, names):
  """Copies of one small video."""
  folder.mkdir()
  sample_videos.write(folder / names[0], sample_videos.moving(3))
  for name in names[1:]:
    os.link(folder / names[0], folder / name)
  return folder


_TWELVE = [f'video{number}.mp4' for number in range(12)]


def _by_hash_alone(videos, *, val_percent):
  """The split of versions before, which has no least number of videos."""
  splits = {'train': [], 'val': []}
  for video in videos:
    digest = hashlib.sha256(video.name.encode()).hexdigest()
    is_val = int(digest[:8], 16) % 100 < val_percent
    splits['val' if is_val else 'train'].append(video)
  return splits


def test_a_small_flat_folder_has_a_validation_video_and_a_note(
  tmp_path, capsys
):
  videos = _small_videos(tmp_path / 'v', _TWELVE)
  assert _prepare(videos, tmp_path / 'o') == 0
  assert [row['path'] for row in _rows(tmp_path / 'o', 'val')] == [
    'video11.mp4'
  ]
  few, remedy = _notes(capsys)
  assert '1 video of 12 is in val; figures on so few mean little.' in few
  assert 'another --val-percent, or a list with the column split' in remedy
  assert 'with another --out, which leaves this data set as it is' in remedy


@pytest.mark.parametrize('is_planned', [True, False])
def test_a_small_data_set_of_a_version_before_is_complete_as_it_is(
  tmp_path, capsys, monkeypatch, is_planned
):
  videos, out = _small_videos(tmp_path / 'v', _TWELVE), tmp_path / 'o'
  with monkeypatch.context() as before:
    before.setattr(folder_source, 'split_by_hash', _by_hash_alone)
    if is_planned:
      _stopped_before_shards(videos, out)
    else:
      assert _prepare(videos, out) == 0
  capsys.readouterr()
  assert _prepare(videos, out) == 0
  assert ('is already complete' in capsys.readouterr().out) != is_planned
  assert (len(_rows(out)), _rows(out, 'val')) == (12, [])
  before = folder_content.digests(out)
  assert _prepare(videos, out) == 0
  assert 'Note: the val split is empty.' in capsys.readouterr().out
  assert folder_content.digests(out) == before


def test_fewer_than_half_of_the_share_are_named(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(summary, '_FEW_VIDEOS', 1)
  videos = _small_videos(tmp_path / 'v', _TWELVE)
  # Two of the three that the hashes put there.
  for name in ('video5.mp4', 'video8.mp4'):
    (videos / name).unlink()
    (videos / name).write_text('no video')
  options = ('--val-percent', '30')
  assert _prepare(videos, tmp_path / 'o', *options) == 0
  (note, _) = _notes(capsys)
  assert 'in val, and 30% was asked for; figures on so few mean lit' in note


def test_two_spellings_of_one_class_are_two_and_warned_about(tmp_path, capsys):
  names = ('caf\u00e9', 'cafe\u0301', 'cafe')
  for name in names:
    (tmp_path / 'v' / name).mkdir(parents=True)
    path = tmp_path / 'v' / name / 'a.mp4'
    sample_videos.write(path, sample_videos.moving(3))
  assert _prepare(tmp_path / 'v', tmp_path / 'o', '--val-percent=0') == 0
  manifest = _manifest(tmp_path / 'o')
  assert manifest['labels']['label'] == sorted(names)
  (text,) = (
    entry['warning']
    for entry in _warnings(tmp_path / 'o')
    if 'looks the same' in entry['warning']
  )
  assert r"'cafe\u0301' and 'caf\xe9' are two spellings" in text
  assert r"'cafe\u0301' and 'caf\xe9' are two" in capsys.readouterr().out


def test_one_of_each_is_counted_as_one(tmp_path, capsys):
  (tmp_path / 'v' / 'cup').mkdir(parents=True)
  sample_videos.write(tmp_path / 'v' / 'cup' / 'a.mp4', sample_videos.moving(3))
  shutil.copy(tmp_path / 'v' / 'cup' / 'a.mp4', tmp_path / 'v' / 'b.mp4')
  (tmp_path / 'v' / 'x.txt').write_text('x')
  (tmp_path / 'train').write_text('cup/a.mp4')
  (tmp_path / 'val').write_text('')
  lists = [f'--{split}-list={tmp_path / split}' for split in ('train', 'val')]
  assert _prepare(tmp_path / 'v', tmp_path / 'o', *lists) == 0
  printed = capsys.readouterr().out
  assert "labels 'label': 1 class ('cup')" in printed
  assert '1 other file passed over (.txt 1), 1 video in no split' in printed


def test_files_at_the_top_of_class_folders_have_no_label(videos, tmp_path):
  shutil.copy(videos / 'cup' / '01.mkv', videos / 'loose.mkv')
  assert _prepare(videos, tmp_path / 'o', '--val-percent', '0') == 0
  with frame_store.FrameStore.open(tmp_path / 'o', 'train') as store:
    labels = dict(zip(store.paths, store.label('label')[0], strict=True))
  assert labels['loose.mkv'] == -1
  assert labels['cup/01.mkv'] == 1


def test_videos_without_a_label_are_counted(videos, tmp_path, capsys):
  shutil.copy(videos / 'cup' / '01.mkv', videos / 'loose.mkv')
  assert _prepare(videos, tmp_path / 'o') == 0
  printed = capsys.readouterr().out
  assert "('ball', 'cup', 'dog'); 1 of 13 videos without a label" in printed
  assert 'has no label' not in printed


def test_a_table_that_names_few_videos_is_noted(videos, tmp_path, capsys):
  table = tmp_path / 'lab.csv'
  table.write_text('path,kind\ncup/01.mkv,x\n')
  options = (f'--labels={table}', '--val-percent=0')
  assert _prepare(videos, tmp_path / 'o', *options) == 0
  printed = capsys.readouterr().out
  kind = "labels 'kind': 1 class ('x'); 11 of 12 videos without a label\n"
  assert kind in printed
  assert "Note: 'kind' has one class only" in printed
  assert "Note: 11 of 12 videos have no label 'kind'" in printed


def test_labels_of_all_videos_are_not_noted(videos, tmp_path, capsys):
  assert _prepare(videos, tmp_path / 'o') == 0
  printed = capsys.readouterr().out
  assert "labels 'label': 3 classes ('ball', 'cup', 'dog')\n" in printed
  assert 'one class only' not in printed
  assert 'no label' not in printed


def test_a_table_of_labels_gives_several_columns(videos, tmp_path, capsys):
  with open(videos / 'labels.csv', 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['path', 'what', 'how'])
    writer.writerow(['cup/01.mkv', 'cup', 'left'])
    writer.writerow(['dog/02.avi', 'dog', ''])
    writer.writerow(['gone.mp4', 'dog', 'left'])
  assert _prepare(videos, tmp_path / 'o', '--val-percent', '0') == 0
  with frame_store.FrameStore.open(tmp_path / 'o', 'train') as store:
    assert store.label_columns == ['how', 'what']
    what = dict(zip(store.paths, store.label('what')[0], strict=True))
    how = dict(zip(store.paths, store.label('how')[0], strict=True))
  assert (what['cup/01.mkv'], what['dog/02.avi']) == (0, 1)
  assert (how['cup/01.mkv'], how['dog/02.avi']) == (0, -1)
  assert what['ball/00.mp4'] == -1
  assert _gone('gone.mp4') in capsys.readouterr().out


def _gone(path):
  return f'{path}: in labels.csv, but there is no such file'


def test_rows_of_a_table_of_labels_say_what_is_wrong_with_them(
  videos, tmp_path, capsys
):
  (videos / 'notes.txt').write_text('x')
  rows = ('cup/01.mkv', 'cup/04.MP4', 'Dog/02.avi', 'notes.txt', 'x\\0.mp4')
  (videos / 'labels.csv').write_text(
    ''.join(f'{row}\n' for row in ('path,kind', *(f'{r},a' for r in rows)))
  )
  assert _prepare(videos, tmp_path / 'o') == 0
  printed = capsys.readouterr().out
  assert f"{_gone('cup/04.MP4')}; did you mean 'cup/04.mp4'?\n" in printed
  assert f"{_gone('Dog/02.avi')}; did you mean 'dog/02.avi'?\n" in printed
  assert f'{_gone(rows[-1])}\n' in printed.replace('\\\\', '\\')
  assert 'notes.txt: in labels.csv, but not a video\n' in printed


def test_a_table_of_other_paths_is_shown_beside_those_of_the_folder(
  videos, tmp_path, capsys
):
  (videos / 'labels.csv').write_text('label, path\na, cup/01.mkv\n')
  assert _prepare(videos, tmp_path / 'o') == 2
  printed = capsys.readouterr().err
  assert "names no video of the folder, but ' cup/01.mkv'; " in printed
  assert "such as 'ball/00.mp4'" in printed


def test_an_output_that_links_to_a_folder_that_is_not_there_is_refused(
  videos, tmp_path, capsys
):
  (tmp_path / 'o').symlink_to(tmp_path / 'unmounted' / 'disk')
  assert _prepare(videos, tmp_path / 'o') == 2
  said = (
    f'is a link to {tmp_path}/unmounted/disk, which is not there; make that'
  )
  assert said in capsys.readouterr().err
  assert not (tmp_path / 'unmounted').exists()


def test_lists_decide_the_split(videos, tmp_path, capsys):
  (tmp_path / 'train.txt').write_text('cup/01.mkv\ncup/04.mp4\n')
  (tmp_path / 'val.txt').write_text('dog/02.avi\nno/such.mp4\n')
  lists = ('--train-list', str(tmp_path / 'train.txt'))
  lists += ('--val-list', str(tmp_path / 'val.txt'))
  assert _prepare(videos, tmp_path / 'o', *lists) == 0
  paths = [row['path'] for row in _rows(tmp_path / 'o')]
  assert paths == ['cup/01.mkv', 'cup/04.mp4']
  assert [row['path'] for row in _rows(tmp_path / 'o', 'val')] == ['dog/02.avi']
  printed = capsys.readouterr().out
  assert '9 videos in no split' in printed
  assert 'no/such.mp4: in val.txt, but not in the folder' in printed


def _layout(folder, *names):
  """Writes a small video of each name, no two of them the same."""
  for number, name in enumerate(names):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    sample_videos.write(folder / name, sample_videos.moving(3, seed=number))
  return folder


def _labels_and_splits(out):
  found = {}
  for split in ('train', 'val'):
    with frame_store.FrameStore.open(out, split) as store:
      numbers, names = store.label('label')
      for path, number in zip(store.paths, numbers, strict=True):
        found[path] = split, names[number] if number >= 0 else None
  return found


_FOUR = ('train/cup/a.mp4', 'train/dog/b.mp4', 'Test/cup/c.mp4', 'Test/d.mp4')


def test_folders_named_train_and_test_are_the_split_and_no_classes(
  tmp_path, capsys
):
  videos = _layout(tmp_path / 'v', *_FOUR, 'loose.mp4')
  assert _prepare(videos, tmp_path / 'o') == 0
  assert _labels_and_splits(tmp_path / 'o') == {
    'train/cup/a.mp4': ('train', 'cup'),
    'train/dog/b.mp4': ('train', 'dog'),
    'Test/cup/c.mp4': ('val', 'cup'),
    'Test/d.mp4': ('val', None),
  }
  printed = capsys.readouterr().out
  assert 'split by folders: train is train/, val is Test/' in printed
  assert 'loose.mp4: in no split: it is in none of Test, train' in printed
  assert '1 video in no split' in printed
  assert _prepare(videos, tmp_path / 'o') == 0
  assert 'already complete' in capsys.readouterr().out


def test_a_test_folder_beside_a_validation_folder_is_left_out_and_named(
  tmp_path, capsys
):
  videos = _layout(tmp_path / 'v', *_FOUR, 'valid/dog/e.mp4')
  assert _prepare(videos, tmp_path / 'o') == 0
  splits = {p: s for p, (s, _) in _labels_and_splits(tmp_path / 'o').items()}
  assert splits == {
    'train/cup/a.mp4': 'train',
    'train/dog/b.mp4': 'train',
    'valid/dog/e.mp4': 'val',
  }
  assert 'Test: in no split: it is left out' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['extra/cup/e.mp4', 'train_256/cup/e.mp4'])
def test_another_folder_beside_train_and_test_makes_all_of_them_classes(
  tmp_path, name, capsys
):
  videos = _layout(tmp_path / 'v', *_FOUR, name)
  assert _prepare(videos, tmp_path / 'o') == 0
  classes = {name for _, name in _labels_and_splits(tmp_path / 'o').values()}
  folder = name.split('/')[0]
  assert classes == {'train', 'Test', folder}
  assert f'{folder}: beside it, train and val are cl' in capsys.readouterr().out


def test_columns_of_a_list_are_no_labels_and_named(tmp_path, capsys):
  videos = _layout(tmp_path / 'v', 'a.mp4', 'b.mp4')
  table = 'path,Split,label,end\na.mp4,train,cup,3\nb.mp4,val,dog,4\n'
  (videos / 'labels.csv').write_text(table)
  assert _prepare(videos, tmp_path / 'o', '--val-percent', '0') == 0
  assert _labels_and_splits(tmp_path / 'o') == {
    'a.mp4': ('train', 'cup'),
    'b.mp4': ('train', 'dog'),
  }
  printed = capsys.readouterr().out
  for column in ('Split', 'end'):
    assert f"labels.csv: the column '{column}' is not used" in printed
  # With none left there are no labels, and that is no mistake, either.
  (videos / 'labels.csv').write_text('path,split\na.mp4,train\n')
  assert _prepare(videos, tmp_path / 'p', '--val-percent', '0') == 0
  assert 'labels' not in _manifest(tmp_path / 'p')['labels']


@pytest.mark.parametrize(
  'options', [('--val-percent', '10'), ('--train-list', 't', '--val-list', 'v')]
)
def test_classes_of_a_version_before_are_not_kept(
  tmp_path, capsys, monkeypatch, options
):
  # It took train and Test for classes, and said nothing of that in options.
  monkeypatch.chdir(tmp_path)
  videos = _layout(tmp_path / 'v', *_FOUR)
  pathlib.Path('t').write_text('train/cup/a.mp4\ntrain/dog/b.mp4\n')
  pathlib.Path('v.txt').write_text('Test/cup/c.mp4\n')
  options = ['v.txt' if option == 'v' else option for option in options]
  assert _prepare(videos, 'o', *options) == 0
  assert set(_manifest(tmp_path / 'o')['labels']['label']) == {'cup', 'dog'}
  manifest = _manifest(tmp_path / 'o')
  assert manifest['options'].pop('class_depth') == 1
  pathlib.Path('o/dataset.json').write_text(json.dumps(manifest))
  capsys.readouterr()
  assert _prepare(videos, 'o', *options) == 2
  assert (
    'folders called train and val are no classes any' in capsys.readouterr().err
  )


def test_without_labels_neither_folders_nor_a_table_give_any(tmp_path, capsys):
  videos = _layout(tmp_path / 'v', *_FOUR)
  # Which would be refused.
  (videos / 'labels.csv').write_text('path,label\nnowhere.mp4,mug\n')
  options = ('--no-labels', '--val-percent', '0')
  assert _prepare(videos, tmp_path / 'o', *options) == 0
  assert _manifest(tmp_path / 'o')['labels'] == {}
  assert 'folders only' not in capsys.readouterr().out
  (videos / 'labels.csv').unlink()
  assert _prepare(videos, tmp_path / 'o', *options) == 0
  assert _prepare(videos, tmp_path / 'o', *options[1:]) == 2
  assert 'was begun with other settings' in capsys.readouterr().err


def test_a_table_gives_the_labels_and_folders_the_split(tmp_path):
  videos = _layout(tmp_path / 'v', *_FOUR)
  (videos / 'labels.csv').write_text('path,label\ntrain/cup/a.mp4,mug\n')
  assert _prepare(videos, tmp_path / 'o') == 0
  assert set(_labels_and_splits(tmp_path / 'o').values()) == {
    ('train', 'mug'),
    ('train', None),
    ('val', None),
  }


def test_a_share_that_is_given_goes_before_folders_with_a_warning(
  tmp_path, capsys
):
  videos = _layout(tmp_path / 'v', *_FOUR)
  assert _prepare(videos, tmp_path / 'o', '--val-percent', '0') == 0
  found = _labels_and_splits(tmp_path / 'o')
  assert {split for split, _ in found.values()} == {'train'}
  assert found['Test/cup/c.mp4'] == ('train', 'cup')
  printed = capsys.readouterr().out
  for folder in ('Test', 'train'):
    assert f'{folder}: is no split: --val-percent has a hash' in printed
  assert 'split by folders' not in printed


def test_lists_go_before_folders(tmp_path):
  videos = _layout(tmp_path / 'v', *_FOUR)
  (tmp_path / 'train.txt').write_text('Test/cup/c.mp4\n')
  (tmp_path / 'val.txt').write_text('train/cup/a.mp4\n')
  lists = [f'--{s}-list={tmp_path / s}.txt' for s in ('train', 'val')]
  assert _prepare(videos, tmp_path / 'o', *lists) == 0
  assert _labels_and_splits(tmp_path / 'o') == {
    'Test/cup/c.mp4': ('train', 'cup'),
    'train/cup/a.mp4': ('val', 'cup'),
  }


@pytest.mark.parametrize(
  'names, folder',
  [
    (('sport/run/a.mp4', 'sport/swim/b.mp4'), 'sport'),
    (('train/sport/run/a.mp4', 'val/sport/run/b.mp4'), 'train/sport'),
  ],
)
def test_classes_that_hold_only_folders_are_warned_about(
  tmp_path, names, folder
):
  videos = _layout(tmp_path / 'v', *names)
  assert _prepare(videos, tmp_path / 'o') == 0
  (entry,) = _warnings(tmp_path / 'o')
  assert entry['path'] == folder
  assert 'its subfolders, such as run, are none' in entry['warning']
  found = _labels_and_splits(tmp_path / 'o').values()
  assert {name for _, name in found} == {'sport'}
  _layout(videos, f'{folder}/c.mp4')
  assert _prepare(videos, tmp_path / 'p') == 0
  assert not [
    entry
    for entry in _warnings(tmp_path / 'p')
    if 'subfolders' in entry['warning']
  ]


def test_several_classes_that_hold_only_folders_are_counted_and_named(
  tmp_path, capsys
):
  names = ('deep/a/x.mp4', 'deep/b/y.mp4', '\xdcn\xefc\xf8d\xe9/run/z.mp4')
  assert _prepare(_layout(tmp_path / 'v', *names), tmp_path / 'o') == 0
  text = (
    "all 2 classes ('deep', '\xdcn\xefc\xf8d\xe9') hold folders only, and "
    'these, such as a, are no classes; where they are the classes, give '
    'labels.csv'
  )
  assert _warnings(tmp_path / 'o') == [{'path': 'deep', 'warning': text}]
  assert f'    deep: {text}' in capsys.readouterr().out


def test_files_that_cannot_be_used_are_skipped_by_name_and_reason(
  videos, tmp_path, capsys
):
  (videos / 'cup' / 'empty.mp4').write_bytes(b'')
  (videos / 'cup' / 'text.mkv').write_text('no video at all')
  (videos / 'cup' / 'line\nbreak.mp4').write_text('x')
  sample_videos.write_sound(videos / 'cup' / 'sound.mp4')
  cut = (videos / 'cup' / '04.mp4').read_bytes()
  (videos / 'cup' / 'cut.mp4').write_bytes(cut[: len(cut) * 9 // 10])
  (videos / 'cup' / 'out.mp4').symlink_to('/etc/passwd')
  (videos / 'notes.txt').write_text('x')
  assert _prepare(videos, tmp_path / 'o') == 0
  printed = capsys.readouterr().out
  skipped = json.loads((tmp_path / 'o' / 'skipped.json').read_text())
  names = [entry['path'] for entry in skipped]
  assert names == [
    f'cup/{name}'
    for name in (
      'cut.mp4',
      'empty.mp4',
      'line\nbreak.mp4',
      'out.mp4',
      'sound.mp4',
      'text.mkv',
    )
  ]
  for entry in skipped:
    assert entry['reason']
    assert entry['reason'] in printed
  assert 'cup/line\\nbreak.mp4' in printed
  assert '1 other file passed over (.txt 1)' in printed
  assert _manifest(tmp_path / 'o')['splits']['train']['videos'] > 0


def test_the_same_content_twice_is_a_warning(videos, tmp_path):
  shutil.copy(videos / 'cup' / '01.mkv', videos / 'dog' / 'copy.mkv')
  assert _prepare(videos, tmp_path / 'o') == 0
  assert _warnings(tmp_path / 'o') == [
    {'path': 'dog/copy.mkv', 'warning': 'same content as cup/01.mkv'}
  ]


# Mistakes.


def _error(capsys):
  printed = capsys.readouterr().err
  lines = [line for line in printed.splitlines() if line.startswith('Error')]
  assert len(lines) == 1
  assert 'Traceback' not in printed
  return lines[0]


def test_a_missing_or_empty_folder_is_said(tmp_path, capsys):
  assert _prepare(tmp_path / 'no', tmp_path / 'o') == 2
  assert 'is not a folder' in _error(capsys)
  (tmp_path / 'v').mkdir()
  (tmp_path / 'v' / 'x.txt').write_text('x')
  assert _prepare(tmp_path / 'v', tmp_path / 'o') == 2
  message = _error(capsys)
  assert '(1 other file: .txt 1; 0 skipped)' in message
  assert '.mp4' in message
  assert not (tmp_path / 'o').exists()


def test_an_archive_is_no_folder_and_to_be_unpacked(tmp_path, capsys):
  (tmp_path / 'v.zip').write_bytes(b'x')
  assert _prepare(tmp_path / 'v.zip', tmp_path / 'o') == 2
  assert 'v.zip is a file, and no folder; where it is' in _error(capsys)


def test_no_usable_video_is_an_error_with_the_reasons(tmp_path, capsys):
  (tmp_path / 'v').mkdir()
  (tmp_path / 'v' / 'x.mp4').write_text('x')
  assert _prepare(tmp_path / 'v', tmp_path / 'o') == 2
  assert "'x.mp4': no video, damaged, or cut off" in _error(capsys)
  assert not (tmp_path / 'o' / 'dataset.json').exists()
  sample_videos.write(tmp_path / 'v' / 'x.mp4', sample_videos.moving(3))
  assert _prepare(tmp_path / 'v', tmp_path / 'o') == 0


@pytest.mark.parametrize(
  'options, message',
  [
    (('--labels', 'absent.csv'), 'absent.csv cannot be read'),
    (('--train-list', 'absent.txt'), 'given together'),
    (('--train-list', 'a.txt', '--val-list', 'b.txt'), 'a.txt cannot be read'),
  ],
)
def test_files_of_options_must_be_there(
  class_folder, tmp_path, capsys, options, message
):
  assert _prepare(class_folder, tmp_path / 'o', *options) == 2
  assert message in _error(capsys)


def test_a_directory_with_other_things_is_never_touched(
  class_folder, tmp_path, capsys
):
  out = tmp_path / 'photos'
  (out / 'train').mkdir(parents=True)
  (out / 'train' / 'videos.parquet').write_text('mine')
  for options in ((), ('--restart',)):
    assert _prepare(class_folder, out, *options) == 2
    assert 'is not empty' in _error(capsys)
  assert (out / 'train' / 'videos.parquet').read_text() == 'mine'
  assert _prepare(class_folder, class_folder) == 2
  assert 'another directory' in _error(capsys)


def test_an_output_that_cannot_be_written_is_one_line(
  class_folder, tmp_path, capsys
):
  (tmp_path / 'file').write_text('x')
  assert _prepare(class_folder, tmp_path / 'file' / 'o') == 2
  assert 'cannot write' in _error(capsys)


def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(
  class_folder, prepared, tmp_path
):
  out = tmp_path / 'o'
  arguments = ('folder', '--videos', class_folder, '--out', out)
  arguments += ('--val-percent', 30, '--processes', 2)

  def limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

  result = subprocess.run(
    _command(*arguments),
    capture_output=True,
    text=True,
    timeout=60,
    preexec_fn=limit_file_size,
  )
  assert result.returncode == 2
  assert 'Error: cannot write' in result.stderr
  assert 'Traceback' not in result.stderr
  assert not (out / 'dataset.json').exists()
  assert subprocess.run(_command(*arguments), timeout=60).returncode == 0
  assert folder_content.digests(out) == folder_content.digests(prepared)


# Resuming.


def test_a_complete_data_set_is_left_alone(class_folder, prepared, capsys):
  before = folder_content.digests(prepared)
  times = {path: path.stat().st_mtime_ns for path in prepared.rglob('*')}
  start = time.monotonic()
  assert _prepare(class_folder, prepared, '--val-percent', '30') == 0
  assert time.monotonic() - start < 2
  assert 'already complete' in capsys.readouterr().out
  assert folder_content.digests(prepared) == before
  for path, mtime_ns in times.items():
    assert path.stat().st_mtime_ns == mtime_ns


def test_other_options_or_videos_ask_for_a_restart(videos, tmp_path, capsys):
  out = tmp_path / 'o'
  assert _prepare(videos, out) == 0
  before = folder_content.digests(out)
  assert _prepare(videos, out, '--short-side', '32') == 2
  either = 'name another --out, which leaves it as it is, or add --restart'
  message = _error(capsys)
  assert 'short_side 320 -> 32' in message
  assert either in message
  later = time.time() + 5
  os.utime(videos / 'cup' / '01.mkv', (later, later))
  assert _prepare(videos, out) == 0, 'touched, but not changed'
  content = bytearray((videos / 'cup' / '01.mkv').read_bytes())
  content[-1] ^= 1
  (videos / 'cup' / '01.mkv').write_bytes(content)
  os.utime(videos / 'cup' / '01.mkv', (later, later))
  assert _prepare(videos, out) == 2
  message = _error(capsys)
  assert 'changed' in message
  assert either in message
  (videos / 'cup' / '01.mkv').unlink()
  assert _prepare(videos, out) == 2
  assert f'12 files then, 11 now); {either}' in _error(capsys)
  assert folder_content.digests(out) == before
  assert _prepare(videos, out, '--restart') == 0
  assert sum(s['videos'] for s in _manifest(out)['splits'].values()) == 11


def test_a_video_of_the_same_size_and_an_older_time_is_noticed(
  videos, tmp_path, capsys
):
  """As `cp -p` and `rsync -t` put it there."""
  out, video = tmp_path / 'o', videos / 'cup' / '01.mkv'
  assert _prepare(videos, out) == 0
  before = folder_content.digests(out)
  status = video.stat()
  other = tmp_path / 'other.mkv'
  content = bytearray(video.read_bytes())
  shutil.copy2(video, other)
  os.replace(other, video)
  assert video.stat().st_mtime_ns == status.st_mtime_ns
  assert _prepare(videos, out) == 0, 'a copy of it'
  content[-1] ^= 1
  other.write_bytes(content)
  os.utime(other, (1, 1))
  os.replace(other, video)
  assert video.stat().st_size == status.st_size
  assert _prepare(videos, out) == 2
  assert 'videos have changed since' in _error(capsys)
  assert folder_content.digests(out) == before


def test_changed_labels_and_lists_are_named(videos, tmp_path, capsys):
  labels, out = videos / 'labels.csv', tmp_path / 'o'
  labels.write_text('path,what\ncup/01.mkv,cup\n')
  files = [tmp_path / 'train.txt', tmp_path / 'val.txt']
  for file, name in zip(files, ('cup/01.mkv', 'dog/02.avi'), strict=True):
    file.write_text(name)
  lists = [f'--train-list={files[0]}', f'--val-list={files[1]}']
  assert _prepare(videos, out, *lists) == 0
  labels.write_text('path,what\ncup/01.mkv,mug\n')
  files[1].write_text('dog/05.mkv')
  assert _prepare(videos, out, *lists) == 2
  message = _error(capsys)
  assert (
    f'options: {labels} has changed, or is another, {files[1]} has' in message
  )
  labels.unlink()
  assert _prepare(videos, out) == 2
  message = _error(capsys)
  assert 'files of labels: 1 then, 0 now' in message
  assert 'files of lists: 2 then, 0 now' in message


def test_a_second_run_on_the_same_output_is_refused(
  class_folder, tmp_path, capsys
):
  out = tmp_path / 'o'
  out.mkdir()
  descriptor = os.open(out, os.O_RDONLY)
  fcntl.flock(descriptor, fcntl.LOCK_EX)
  assert _prepare(class_folder, out) == 2
  assert 'another run' in _error(capsys)
  os.close(descriptor)
  assert _prepare(class_folder, out) == 0


def _start(*arguments):
  return subprocess.Popen(
    _command(*arguments),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,
  )


def _finished(out):
  found = {}
  for path in (out / '.staging').glob('????????????????.json'):
    # At its end a run removes them, between two lines of this.
    with contextlib.suppress(FileNotFoundError):
      found[path.name] = path.stat().st_mtime_ns
  return found


def _wait_for(condition, seconds=30):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'waited in vain'
    time.sleep(0.002)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
  class_folder, prepared, tmp_path
):
  out = tmp_path / 'o'
  arguments = ('folder', '--videos', class_folder, '--out', out)
  arguments += ('--val-percent', 30, '--processes', 1)
  for goal in (1, 4, 8):
    process = _start(*arguments)
    _wait_for(lambda goal=goal: len(_finished(out)) >= goal)
    before = _finished(out)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / 'dataset.json').exists()
    after = _finished(out)
    assert before.items() <= after.items(), 'a finished video was done again'
  before = _finished(out)
  process = _start(*arguments)
  while process.poll() is None:
    now = _finished(out)
    assert all(now.get(name, made) == made for name, made in before.items())
    time.sleep(0.01)
  assert process.returncode == 0
  assert folder_content.digests(out) == folder_content.digests(prepared)


def test_a_kill_while_shards_are_written_does_not_matter(
  class_folder, prepared, tmp_path, monkeypatch
):
  real = dataset_writer.write_json
  for stop_at in (
    'train-frames-00000-of-00001.array_record.json',
    'val-frames-00000-of-00001.array_record.json',
    'skipped.json',
    'dataset.json',
  ):

    def write_json(path, value, *, aside, stop_at=stop_at):
      if path.name == stop_at:
        raise KeyboardInterrupt
      real(path, value, aside=aside)

    out = tmp_path / stop_at
    with monkeypatch.context() as patch:
      patch.setattr(dataset_writer, 'write_json', write_json)
      assert _prepare(class_folder, out, '--val-percent', '30') == 130
    assert not (out / 'dataset.json').exists()
    assert _prepare(class_folder, out, '--val-percent', '30') == 0
    assert folder_content.digests(out) == folder_content.digests(prepared)


@pytest.fixture
def shared_writing(monkeypatch):
  """Lets processes write the shards, however small they are."""
  monkeypatch.setattr(prepare_dataset, 'LEAST_BYTES_TO_SHARE', 0)


def test_processes_write_shards_with_the_same_bytes(
  class_folder, prepared, tmp_path, shared_writing, monkeypatch
):
  out = tmp_path / 'o'
  made_here = []
  real = dataset_writer._copy_frames

  def copy_frames(*arguments):
    made_here.append(arguments)
    real(*arguments)

  monkeypatch.setattr(dataset_writer, '_copy_frames', copy_frames)
  options = ('--val-percent', '30', '--processes', '2')
  assert _prepare(class_folder, out, *options) == 0
  assert not made_here
  assert folder_content.digests(out) == folder_content.digests(prepared)


_SHARE_ALL = """
import sys
import prepare
from preparation import prepare_dataset
from sources import folder_source
if __name__ == '__main__':
  prepare_dataset.LEAST_BYTES_TO_SHARE = 0
  # A pipe is not as large as the frames.
  prepare_dataset.unstaged_rows = lambda *_, **__: []
  sys.exit(prepare.main(sys.argv[1:]))
"""


def test_a_kill_of_processes_that_write_shards_does_not_matter(
  class_folder, prepared, tmp_path, shared_writing
):
  out = tmp_path / 'o'
  staging = out / '.staging'
  options = ('--val-percent', '30', '--processes', '2')
  plan = _stopped_before_shards(class_folder, out, *options)
  # A pipe in place of the last video of each shard: its process waits there.
  held = [
    staging / f'{plan["rows"][split][-1]["id"]}.frames'
    for split in ('train', 'val')
  ]
  for path in held:
    path.rename(tmp_path / path.name)
    os.mkfifo(path)
  script = tmp_path / 'share_all.py'
  script.write_text(_SHARE_ALL)
  arguments = ('folder', '--videos', class_folder, '--out', out, *options)
  process = subprocess.Popen(
    [sys.executable, script, *map(str, arguments)],
    env=dict(os.environ, PYTHONPATH=str(_SCRIPT.parent)),
    start_new_session=True,
    stderr=subprocess.DEVNULL,
  )
  _wait_for(lambda: len(list(staging.glob('*.array_record.*.tmp'))) == 2)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  for path in held:
    path.unlink()
    (tmp_path / path.name).rename(path)
  assert _prepare(class_folder, out, *options) == 0
  assert folder_content.digests(out) == folder_content.digests(prepared)


def _stopped_before_shards(class_folder, out, *options):
  """Decodes all videos and stops; returns the plan."""

  def stop(*unused_arguments, **unused_options):
    raise KeyboardInterrupt

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(prepare_dataset, 'write_dataset', stop)
    assert _prepare(class_folder, out, *options) == 130
  return json.loads((out / '.staging' / 'plan.json').read_text())


def _change_a_length(path):
  content = bytearray(path.read_bytes())
  content[0] ^= 1
  path.write_bytes(content)


def _lower_the_count(path):
  record = json.loads(path.with_suffix('.json').read_text())
  record['row']['num_frames'] -= 1
  path.with_suffix('.json').write_text(json.dumps(record))
  (path.parent / 'plan.json').unlink()


@pytest.mark.parametrize('damage', [_change_a_length, _lower_the_count])
def test_frames_that_were_damaged_are_no_part_of_a_data_set(
  class_folder, prepared, tmp_path, shared_writing, damage, capsys
):
  out = tmp_path / 'o'
  options = ('--val-percent', '30', '--processes', '2')
  plan = _stopped_before_shards(class_folder, out, *options)
  row = plan['rows']['train'][1]
  damage(out / '.staging' / f'{row["id"]}.frames')
  kept = _finished(out)
  assert _prepare(class_folder, out, *options) == 2
  message = _error(capsys)
  assert f"damaged or gone, the first is '{row['path']}'" in message
  assert _finished(out) == {
    name: made for name, made in kept.items() if name != f'{row["id"]}.json'
  }
  assert _prepare(class_folder, out, *options) == 0
  assert folder_content.digests(out) == folder_content.digests(prepared)


def test_frames_that_cannot_be_read_for_a_while_are_kept(
  class_folder, prepared, tmp_path, monkeypatch, capsys
):
  out = tmp_path / 'o'
  options = ('--val-percent', '30', '--processes', '1')
  plan = _stopped_before_shards(class_folder, out, *options)
  kept = _finished(out)
  stat = pathlib.Path.stat

  def stale(path, **options):
    if path.name == f'{plan["rows"]["train"][1]["id"]}.frames':
      raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
    return stat(path, **options)

  with monkeypatch.context() as patched:
    patched.setattr(pathlib.Path, 'stat', stale)
    assert _prepare(class_folder, out, *options) == 2
  message = _error(capsys)
  assert os.strerror(errno.ESTALE) in message
  assert 'or remove it to have its video decoded again' in message
  assert _finished(out) == kept
  assert _prepare(class_folder, out, *options) == 0
  assert folder_content.digests(out) == folder_content.digests(prepared)


@pytest.mark.parametrize('size', [None, 0, 2, 500])
def test_frames_that_are_cut_short_or_gone_are_decoded_again(
  class_folder, prepared, tmp_path, size, capsys
):
  out = tmp_path / 'o'
  plan = _stopped_before_shards(class_folder, out, '--val-percent', '30')
  frames = out / '.staging' / f'{plan["rows"]["train"][0]["id"]}.frames'
  if size is None:
    frames.unlink()
  else:
    os.truncate(frames, size)
  assert _prepare(class_folder, out, '--val-percent', '30') == 0
  assert 'the frames of 1 video in' in capsys.readouterr().err
  assert folder_content.digests(out) == folder_content.digests(prepared)


@pytest.mark.parametrize('text', ['', '{}', '[]', '3', '{"path": 1}'])
def test_damaged_notes_of_a_stopped_run_cost_only_what_they_are_of(
  class_folder, prepared, tmp_path, text
):
  out = tmp_path / 'o'
  plan = _stopped_before_shards(class_folder, out, '--val-percent', '30')
  record = out / '.staging' / f'{plan["rows"]["train"][0]["id"]}.json'
  kept = {name for name in _finished(out) if name != record.name}
  for path in (record, out / '.staging' / 'plan.json'):
    path.write_text(text)
  before = _finished(out)
  _stopped_before_shards(class_folder, out, '--val-percent', '30')
  assert all(_finished(out)[name] == before[name] for name in kept)
  assert _prepare(class_folder, out, '--val-percent', '30') == 0
  assert folder_content.digests(out) == folder_content.digests(prepared)


@pytest.mark.parametrize('text', [None, '', '[]', '{"name": "toys"}'])
def test_decoded_videos_whose_options_are_not_known_are_kept(
  class_folder, tmp_path, text, capsys
):
  out = tmp_path / 'o'
  _stopped_before_shards(class_folder, out)
  setup = out / '.staging' / 'setup.json'
  setup.unlink()
  if text is not None:
    setup.write_text(text)
  before = folder_content.digests(out)
  assert _prepare(class_folder, out) == 2
  message = _error(capsys)
  assert f'{setup} is damaged or gone' in message
  assert '--restart' in message
  assert folder_content.digests(out) == before
  assert _prepare(class_folder, out, '--restart') == 0


@pytest.mark.parametrize('text', ['', '[]', '{}'])
def test_a_damaged_manifest_asks_for_a_restart(
  class_folder, prepared, tmp_path, text, capsys
):
  out = tmp_path / 'o'
  shutil.copytree(prepared, out)
  (out / 'dataset.json').write_text(text)
  assert _prepare(class_folder, out) == 2
  assert 'dataset.json is damaged; add --restart' in _error(capsys)


def _replace(video):
  """Puts another video of the same size in the place of one."""
  content = bytearray(video.read_bytes())
  content[-1] ^= 1
  video.write_bytes(content)


def _digests_are_of(videos, out):
  return all(
    row['source_sha256'] == dataset_layout.file_digest(videos / row['path'])
    for split in ('train', 'val')
    for row in _rows(out, split)
  )


@pytest.mark.parametrize('moment', ['make_plan', 'write_dataset'])
def test_a_video_that_is_replaced_during_a_run_stops_it(
  videos, tmp_path, monkeypatch, moment, capsys
):
  out = tmp_path / 'o'
  real = getattr(prepare_dataset, moment)

  def replaced(*arguments, **options):
    _replace(videos / 'cup' / '01.mkv')
    return real(*arguments, **options)

  with monkeypatch.context() as patch:
    patch.setattr(prepare_dataset, moment, replaced)
    assert _prepare(videos, out) == 2
  message = _error(capsys)
  assert "1 video changed during this run, the first is 'cup/01.mkv'" in message
  assert not (out / 'dataset.json').exists()
  assert _prepare(videos, out) == 0
  assert _digests_are_of(videos, out)


def test_a_video_that_is_replaced_while_a_run_is_stopped_is_decoded_again(
  videos, tmp_path
):
  out = tmp_path / 'o'
  _stopped_before_shards(videos, out)
  _replace(videos / 'cup' / '01.mkv')
  assert _prepare(videos, out) == 0
  assert _digests_are_of(videos, out)


def test_a_finished_shard_that_is_gone_is_made_again(
  class_folder, prepared, tmp_path, monkeypatch, capsys
):
  out, options = tmp_path / 'o', ('--val-percent', '30')

  def stop(*unused_arguments):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(dataset_writer, '_write_table', stop)
    assert _prepare(class_folder, out, *options) == 130
  (shard,) = (out / 'train').glob('frames-*')
  shard.unlink()
  assert _prepare(class_folder, out, *options) == 2
  assert 'run the same command again' in _error(capsys)
  assert _prepare(class_folder, out, *options) == 0
  assert folder_content.digests(out) == folder_content.digests(prepared)


def test_a_shard_of_other_frames_than_planned_is_written_again(
  videos, tmp_path, monkeypatch
):
  out, expected = tmp_path / 'o', tmp_path / 'expected'

  @dataclasses.dataclass(frozen=True)
  class Small(prepare_dataset.Settings):
    shard_bytes: int = 1

  monkeypatch.setattr(command_options, 'Settings', Small)
  options = ('--val-percent', '30')
  real = dataset_writer.write_json

  def write_json(path, value, *, aside):
    if path.name == 'skipped.json':
      raise KeyboardInterrupt
    real(path, value, aside=aside)

  with monkeypatch.context() as patch:
    patch.setattr(dataset_writer, 'write_json', write_json)
    assert _prepare(videos, out, *options) == 130
  (out / '.staging' / 'plan.json').unlink()
  (videos / 'cup' / '01.mkv').write_bytes(b'no video any more')
  assert _prepare(videos, out, *options) == 0
  assert _prepare(videos, expected, *options) == 0
  assert folder_content.digests(out) == folder_content.digests(expected)


def test_other_options_for_a_stopped_run_ask_for_a_restart(
  class_folder, tmp_path, capsys
):
  out = tmp_path / 'o'
  process = _start('folder', '--videos', class_folder, '--out', out)
  _wait_for(lambda: len(_finished(out)) >= 1)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  assert _prepare(class_folder, out, '--jpeg-quality', '50') == 2
  message = _error(capsys)
  assert 'jpeg_quality 90 -> 50' in message
  assert '--restart' in message
  assert _prepare(class_folder, out, '--jpeg-quality', '50', '--restart') == 0


def test_a_termination_signal_ends_the_run_at_once(class_folder, tmp_path):
  out = tmp_path / 'o'
  process = _start('folder', '--videos', class_folder, '--out', out)
  _wait_for(lambda: len(_finished(out)) >= 1)
  process.terminate()
  assert process.wait(10) in (0, 130)


def test_the_demo_goes_through_the_folder_path(tmp_path, capsys):
  out = tmp_path / 'demo'
  arguments = ['demo', '--out', str(out), '--num-videos', '8']
  arguments += ['--processes', '1', '--val-percent', '25']
  assert prepare.main(arguments) == 0
  assert len(list((tmp_path / 'demo-videos').glob('*.mp4'))) == 8
  with frame_store.FrameStore.open(out, 'train') as store:
    assert store.label_columns == ['appearance', 'motion']
  assert prepare.main(arguments) == 0
  assert 'already complete' in capsys.readouterr().out
  assert prepare.main([*arguments, '--seed', '1']) == 2
  assert 'demo files' in _error(capsys)


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (
      ('folder', '--videos=v', '--val-percent=many'),
      "'many' is no whole number",
    ),
    (('folder', '--videos=v', '--val-percent=200'), '200 is not in [0, 100]'),
    (('ucf101', '--videos=v', '--splits=s', '--split=x'), "'x' is no whole"),
    (('ucf101', '--videos=v', '--splits=s', '--split=4'), '4 is not in [1, 3]'),
  ],
)
def test_a_number_that_is_none_is_said_in_words(words, message, capsys):
  with pytest.raises(SystemExit) as end:
    prepare.main([*words, '--out=out'])
  assert end.value.code == 2
  assert message in capsys.readouterr().err.splitlines()[-1]
