import os

import pytest
from sources import find_videos


def _touch(path, content=b'x'):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def _paths(folder):
  return [video.path for video in find_videos.find_videos(folder).videos]


def _skipped(folder):
  skipped = find_videos.find_videos(folder).skipped
  return {entry['path']: entry['reason'] for entry in skipped}


def test_files_are_found_by_suffix_in_any_case_and_sorted(tmp_path):
  for name in ('b/2.MP4', 'b/10.mkv', 'a.WebM', 'c/d/e.ogv', 'z.txt', 'mp4'):
    _touch(tmp_path / name)
  assert _paths(tmp_path) == ['a.WebM', 'b/10.mkv', 'b/2.MP4', 'c/d/e.ogv']
  others = find_videos.find_videos(tmp_path).other_files
  assert others == {'.txt': 1, 'no suffix': 1}


def test_files_that_are_passed_over_are_counted_by_suffix(tmp_path):
  names = ('a.SRT', 'b/c.srt', 'd.txt', '.e.mp4', 'f.', 'g. A whole sentence')
  for name in names:
    _touch(tmp_path / name)
  others = find_videos.find_videos(tmp_path).other_files
  assert others == {'.srt': 2, '.txt': 1, 'hidden': 1, 'no suffix': 2}
  assert find_videos.named_suffixes(others) == (
    '.srt 2, no suffix 2, .txt 1, hidden 1'
  )
  many = {f'.{number}': 1 for number in range(9)}
  assert find_videos.named_suffixes(many) == '.0 1, .1 1, .2 1, .3 1, .4 1, ...'


def test_hidden_files_and_folders_are_passed_over(tmp_path):
  for name in ('.a.mp4', '.cache/b.mp4', '._c.mp4', 'd.mp4'):
    _touch(tmp_path / name)
  assert _paths(tmp_path) == ['d.mp4']


def test_a_folder_with_a_video_suffix_is_an_ordinary_folder(tmp_path):
  _touch(tmp_path / 'x.mp4' / 'y.mp4')
  assert _paths(tmp_path) == ['x.mp4/y.mp4']


def test_symlinks_out_of_the_folder_are_skipped_with_a_reason(tmp_path):
  folder = tmp_path / 'videos'
  _touch(folder / 'a.mp4')
  _touch(tmp_path / 'outside' / 'secret.mp4')
  (folder / 'file.mp4').symlink_to(tmp_path / 'outside' / 'secret.mp4')
  (folder / 'dir').symlink_to(tmp_path / 'outside')
  (folder / 'dots.mp4').symlink_to('../outside/secret.mp4')
  (folder / 'absent.mp4').symlink_to('nowhere.mp4')
  assert _paths(folder) == ['a.mp4']
  skipped = _skipped(folder)
  for name in ('file.mp4', 'dir', 'dots.mp4'):
    assert 'leads out' in skipped[name]
    assert '(prepare.py --follow-links takes it)' in skipped[name]
  assert 'with everything in it' in skipped['dir']
  assert 'with everything in it' not in skipped['file.mp4']
  assert 'No such file' in skipped['absent.mp4']


def test_symlinks_out_of_the_folder_can_be_followed(tmp_path):
  folder, outside = tmp_path / 'videos', tmp_path / 'outside'
  for path in (folder / 'a.mp4', outside / 'b.mp4', outside / 'c' / 'd.mp4'):
    _touch(path)
  os.mkfifo(outside / 'pipe.mp4')
  (folder / 'dogs').symlink_to(outside)
  (folder / 'e.mp4').symlink_to(outside / 'c' / 'd.mp4')
  (folder / 'zero.mp4').symlink_to('/dev/zero')
  # Loops: back into the folder, to what it is in, and to themselves.
  (outside / 'back').symlink_to(folder)
  (outside / 'c' / 'up').symlink_to(outside)
  (folder / 'parent').symlink_to(tmp_path)
  listing = find_videos.find_videos(folder, follow_links=True)
  assert {video.path: video.file for video in listing.videos} == {
    'a.mp4': 'a.mp4',
    'dogs/b.mp4': '../outside/b.mp4',
    'dogs/c/d.mp4': '../outside/c/d.mp4',
  }
  assert {entry['path']: entry['reason'] for entry in listing.skipped} == {
    'dogs/pipe.mp4': 'not a regular file',
    'e.mp4': 'the same file as dogs/c/d.mp4',
    'zero.mp4': 'not a regular file',
  }


def test_symlinks_inside_the_folder_are_followed(tmp_path):
  _touch(tmp_path / '.pool' / '1.mp4')
  _touch(tmp_path / '.pool' / 'more' / '2.mp4')
  (tmp_path / 'cats').mkdir()
  (tmp_path / 'cats' / 'a.mp4').symlink_to('../.pool/1.mp4')
  (tmp_path / 'dogs').symlink_to('.pool/more')
  assert _paths(tmp_path) == ['cats/a.mp4', 'dogs/2.mp4']


def test_a_file_is_taken_once_under_its_own_path(tmp_path):
  _touch(tmp_path / 'z' / 'real.mp4')
  (tmp_path / 'a.mp4').symlink_to('z/real.mp4')
  (tmp_path / 'b').symlink_to('z')
  assert _paths(tmp_path) == ['z/real.mp4']
  assert _skipped(tmp_path) == {'a.mp4': 'the same file as z/real.mp4'}


def test_loops_of_symlinks_end(tmp_path):
  _touch(tmp_path / 'a' / 'x.mp4')
  (tmp_path / 'a' / 'up').symlink_to(tmp_path)
  (tmp_path / 'a' / 'self').symlink_to('self')
  (tmp_path / 'b').symlink_to('c')
  (tmp_path / 'c').symlink_to('b')
  (tmp_path / 'loop.mp4').symlink_to('loop.mp4')
  assert _paths(tmp_path) == ['a/x.mp4']


def test_a_folder_given_through_a_symlink_is_listed(tmp_path):
  _touch(tmp_path / 'real' / 'a.mp4')
  (tmp_path / 'link').symlink_to('real')
  assert _paths(tmp_path / 'link') == ['a.mp4']


def test_a_named_pipe_is_not_opened(tmp_path):
  os.mkfifo(tmp_path / 'pipe.mp4')
  assert _paths(tmp_path) == []
  assert _skipped(tmp_path) == {'pipe.mp4': 'not a regular file'}


def test_names_that_are_not_utf8_are_written_with_escapes(tmp_path):
  names = [
    b'bad\xff.mp4',
    b'bad\\xff.mp4',
    b'\xe9t\xe9/v.mp4',
    b'line\nbreak "quoted".mp4',
  ]
  try:
    for name in names:
      _touch(tmp_path / os.fsdecode(name))
  except OSError:
    pytest.skip('the file system takes UTF-8 names only')
  videos = find_videos.find_videos(tmp_path).videos
  assert [(video.path, os.fsencode(video.file)) for video in videos] == [
    ('\\xe9t\\xe9/v.mp4', b'\xe9t\xe9/v.mp4'),
    ('bad\\xff.mp4', b'bad\\xff.mp4'),
    ('line\nbreak "quoted".mp4', b'line\nbreak "quoted".mp4'),
  ]
  assert 'that of another file' in _skipped(tmp_path)['bad\\xff.mp4']


def test_the_id_depends_on_the_relative_path_alone(tmp_path):
  for folder in ('one', 'two'):
    _touch(tmp_path / folder / 'a' / 'x.mp4', content=folder.encode())
  ids = [
    find_videos.find_videos(tmp_path / folder).videos[0].id
    for folder in ('one', 'two')
  ]
  assert ids == ['07f9074150ae6c44'] * 2
