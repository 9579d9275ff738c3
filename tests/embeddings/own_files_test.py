"""Video files prepared on the way, by the repository's own command."""

import os
import shutil

import pytest
from media import guarded_container
from preparation import prepare_video, resume
from sources import find_videos

from vie_jax.embeddings import own_files
from vie_jax.input_pipeline import dataset_folder, frame_store

IMAGES = ('.jpg', '.png', '.gif')


def test_the_suffixes_are_those_of_the_command():
  known = own_files.VIDEO_SUFFIXES.split()
  assert sorted(known) == sorted(guarded_container.VIDEO_SUFFIXES)


@pytest.fixture
def videos(demo_dataset, tmp_path):
  """A folder of two videos, in subfolders."""
  files = sorted((demo_dataset.parent / 'demo-videos').glob('*.mp4'))
  for number, file in enumerate(files[:2]):
    folder = tmp_path / 'videos' / f'class{number}'
    folder.mkdir(parents=True)
    shutil.copy(file, folder / 'clip.mp4')
  return tmp_path / 'videos'


def contents(folder):
  return {
    path: (path.read_bytes(), path.stat().st_mtime_ns)
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def test_all_videos_are_prepared_once_and_bad_ones_named(
  videos, tmp_path, caplog
):
  (videos / 'broken.mp4').write_bytes(b'no video at all')
  with caplog.at_level('INFO'):
    prepared = own_files.prepare(videos, tmp_path / 'out', 'mine')
  assert 'Skipped: broken.mp4: ' in caplog.text
  assert prepared == tmp_path / 'out' / 'prepared'
  with frame_store.FrameStore.open(prepared, 'train') as store:
    assert store.paths == ['class0/clip.mp4', 'class1/clip.mp4']
    assert store.name == 'mine'
    assert store.label('label')[1] == ['class0', 'class1']
  with frame_store.FrameStore.open(prepared, 'val') as store:
    assert store.num_videos == 0
  before = contents(prepared)
  own_files.prepare(videos, tmp_path / 'out', 'mine')
  assert contents(prepared) == before


def test_other_files_than_before_are_prepared_anew(videos, tmp_path, caplog):
  out = tmp_path / 'out'
  own_files.prepare(videos, out, 'mine')
  shutil.copy(videos / 'class0' / 'clip.mp4', videos / 'new.mp4')
  with caplog.at_level('INFO'):
    prepared = own_files.prepare(videos, out, 'mine')
  assert '(2 files then, 3 now).' in caplog.text
  with frame_store.FrameStore.open(prepared, 'train') as store:
    assert store.num_videos == 3
  # The same name and size.
  path = videos / 'new.mp4'
  path.write_bytes(path.read_bytes()[:-1] + b'?')
  caplog.clear()
  with caplog.at_level('INFO'):
    own_files.prepare(videos, out, 'mine')
  assert 'videos have changed' in caplog.text


def test_the_end_of_an_error_says_what_helps_and_not_a_name(videos, tmp_path):
  """A file may be called like the option; then nothing is thrown away."""
  assert own_files._RESTART == resume._RESTART
  out = tmp_path / 'out'
  before = contents(own_files.prepare(videos, out, 'mine'))
  empty = tmp_path / '--restart'
  empty.mkdir()
  with pytest.raises(own_files.PreparationError) as error:
    own_files.prepare(empty, out, 'mine', check_owner=pytest.fail)
  assert error.value.reason.startswith(f'no video files in {empty} ')
  assert error.value.remedy == f'To start anew, remove {out / "prepared"}.'
  assert contents(out / 'prepared') == before


def test_the_option_of_the_command_for_symlinks_is_named_nowhere():
  assert find_videos._REMEDY in own_files._OF_COMMAND


def test_videos_that_may_be_read_later_are_no_mistake(
  videos, tmp_path, monkeypatch
):
  assert own_files._WHEN_IT_ANSWERS == prepare_video._WHEN_IT_ANSWERS
  error = f'a.mp4: Stale file handle; {prepare_video._WHEN_IT_ANSWERS}.'
  command = tmp_path / 'prepare.py'
  command.write_text(f'import sys\nsys.exit({"Error: " + error!r})\n')
  monkeypatch.setattr(own_files, 'PREPARE', command)
  with pytest.raises(dataset_folder.UnreachableError) as caught:
    own_files.prepare(videos, tmp_path / 'out', 'mine')
  assert str(caught.value) == error


def test_what_is_of_others_is_not_thrown_away(videos, tmp_path):
  def check_owner():
    raise LookupError

  out = tmp_path / 'out'
  prepared = own_files.prepare(videos, out, 'mine')
  before = contents(prepared)
  own_files.prepare(videos, out, 'mine', check_owner=check_owner)
  shutil.copy(videos / 'class0' / 'clip.mp4', videos / 'new.mp4')
  with pytest.raises(LookupError):
    own_files.prepare(videos, out, 'mine', check_owner=check_owner)
  assert contents(prepared) == before
  with pytest.raises(LookupError):
    own_files.prepare(videos, tmp_path / 'new', 'mine', check_owner=check_owner)
  assert not (tmp_path / 'new').exists()


def test_messages_name_what_the_user_has_named(tmp_path):
  path = tmp_path / 'holiday.mp4'
  path.write_bytes(b'no video at all')
  folder = own_files.folder_of(path, tmp_path / 'out')
  with pytest.raises(dataset_folder.DatasetError) as error:
    own_files.prepare(folder, tmp_path / 'out', 'mine', source=path)
  assert str(error.value).startswith(f'{path} cannot be prepared: ')
  assert str(folder) not in str(error.value)


def test_a_folder_without_videos_is_refused(tmp_path):
  (tmp_path / 'videos').mkdir()
  with pytest.raises(dataset_folder.DatasetError, match='no video files in'):
    own_files.prepare(tmp_path / 'videos', tmp_path / 'out', 'mine')
  assert not (tmp_path / 'out').exists()


def test_without_the_repository_it_says_what_to_do(
  videos, tmp_path, monkeypatch
):
  monkeypatch.setattr(own_files, 'PREPARE', tmp_path / 'data' / 'prepare.py')
  with pytest.raises(dataset_folder.DatasetError) as error:
    own_files.prepare(videos, tmp_path / 'out', 'mine')
  assert str(tmp_path / 'data' / 'prepare.py') in str(error.value)
  assert 'copy of the repository' in str(error.value)


def touch(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


@pytest.mark.parametrize(
  'names,is_video',
  [
    (['a.jpg', 'deep/b.PNG'], False),
    (['a.jpg', 'deep/b.MP4'], True),
    (['a.gif'], True),
    (['a.gif', 'b.jpg'], False),
    (['a.jpg', '.hidden.mp4', '.trash/b.mp4', 'notes.txt'], False),
    (['notes.txt'], True),
    ([], True),
  ],
)
def test_what_a_folder_holds_is_seen_from_its_files(tmp_path, names, is_video):
  touch(tmp_path, *names)
  assert own_files.has_videos(tmp_path, IMAGES) == is_video


def test_images_that_are_passed_over_are_counted(tmp_path, caplog):
  touch(tmp_path, 'a.mp4', 'b.jpg', 'c.jpg', 'd.gif')
  with caplog.at_level('INFO'):
    assert own_files.has_videos(tmp_path, IMAGES)
  assert '2 videos and 2 images' in caplog.text


def test_a_file_gets_a_folder_of_its_own(tmp_path):
  (tmp_path / 'a.mp4').write_bytes(b'first')
  (tmp_path / 'b.mp4').write_bytes(b'other')
  out = tmp_path / 'out'
  folder = own_files.folder_of(tmp_path / 'a.mp4', out)
  assert [path.name for path in folder.iterdir()] == ['a.mp4']
  assert (folder / 'a.mp4').read_bytes() == b'first'
  # The same again, a newer one, and another.
  assert own_files.folder_of(tmp_path / 'a.mp4', out) == folder
  (tmp_path / 'new').write_bytes(b'newer!')
  os.replace(tmp_path / 'new', tmp_path / 'a.mp4')
  own_files.folder_of(tmp_path / 'a.mp4', out)
  assert (folder / 'a.mp4').read_bytes() == b'newer!'
  own_files.folder_of(tmp_path / 'b.mp4', out)
  assert [path.name for path in folder.iterdir()] == ['b.mp4']


def test_a_file_is_copied_where_there_can_be_no_link(tmp_path, monkeypatch):
  def link(*unused_paths):
    raise OSError('another file system')

  monkeypatch.setattr(os, 'link', link)
  (tmp_path / 'a.mp4').write_bytes(b'first')
  folder = own_files.folder_of(tmp_path / 'a.mp4', tmp_path / 'out')
  copy = folder / 'a.mp4'
  assert copy.read_bytes() == b'first'
  made = copy.stat().st_ino
  own_files.folder_of(tmp_path / 'a.mp4', tmp_path / 'out')
  assert copy.stat().st_ino == made


def test_a_hidden_file_and_a_symlink_are_taken(tmp_path):
  (tmp_path / '.a.mp4').write_bytes(b'hidden')
  (tmp_path / 'link.mp4').symlink_to(tmp_path / '.a.mp4')
  folder = own_files.folder_of(tmp_path / '.a.mp4', tmp_path / 'out')
  assert (folder / 'a.mp4').read_bytes() == b'hidden'
  folder = own_files.folder_of(tmp_path / 'link.mp4', tmp_path / 'out')
  assert not (folder / 'link.mp4').is_symlink()
  assert (folder / 'link.mp4').read_bytes() == b'hidden'


def test_a_folder_is_its_own_and_nothing_is_refused(tmp_path):
  assert own_files.folder_of(tmp_path, tmp_path / 'out') == tmp_path
  with pytest.raises(dataset_folder.DatasetError, match='no file or folder'):
    own_files.folder_of(tmp_path / 'none', tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
