"""Whole preparations of folders that hold trouble, by the real command."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import prepare
import pyarrow.parquet
import pytest
import sample_videos
from sources.find_videos import VideoFile

from vie_jax.input_pipeline import frame_store

_SCRIPT = pathlib.Path(prepare.__file__)
_NAMES = [
  b'with space.mp4',
  b'-rf.mp4',
  b'line\nbreak.mp4',
  b'"quotes\' <b onclick=x>.mp4',
  b'$(touch owned); `touch owned` & |.mp4',
  b'percent %03d *.mp4',
  b'a:b=c,d\\e.mp4',
  'right\u202eleft.mp4'.encode(),
  'Umläute 日本語 🎬.mp4'.encode(),
  b'bytes\xff\xfe.mp4',
  b'http:x.mp4',
  b'concat:a|b.mp4',
  b'tab\t\x1b[31m.mp4',
  b'~root.mp4',
  b'n' * 251 + b'.mp4',
]


def _command(videos, out, *options):
  return [
    sys.executable,
    str(_SCRIPT),
    'folder',
    f'--videos={videos}',
    f'--out={out}',
    '--val-percent=0',
    *options,
  ]


def _run(videos, out, *options):
  return subprocess.run(
    _command(videos, out, *options), capture_output=True, timeout=120
  )


def _skipped(out):
  return {
    entry['path']: entry['reason']
    for entry in json.loads((out / 'skipped.json').read_text())
  }


def test_names_of_any_bytes_go_from_end_to_end(tmp_path):
  videos, out = tmp_path / 'videos', tmp_path / 'out'
  videos.mkdir()
  sample_videos.write(tmp_path / 'x.mp4', sample_videos.moving(3))
  try:
    for number, name in enumerate(_NAMES):
      # Of different content, or they would be warned about.
      path = videos / os.fsdecode(name)
      shutil.copy(tmp_path / 'x.mp4', path)
      with path.open('ab') as file:
        file.write(b'\0\0\0\x09free' + bytes([number]))
    (videos / os.fsdecode(b'bad\xff.mp4')).write_bytes(b'no video')
  except OSError:
    pytest.skip('the file system takes other names only')
  done = _run(videos, out, '--processes=1')
  assert done.returncode == 0, done.stderr
  expected = sorted(name.decode('utf-8', 'backslashreplace') for name in _NAMES)
  with frame_store.FrameStore.open(out, 'train') as store:
    assert store.paths == expected
    assert all(store.read_frames(row, [2])[0] for row in range(len(expected)))
  table = pyarrow.parquet.read_table(out / 'train' / 'videos.parquet')
  assert table.column('path').to_pylist() == expected
  assert list(_skipped(out)) == ['bad\\xff.mp4']
  assert json.loads((out / 'warnings.json').read_text()) == []
  check = [sys.executable, str(_SCRIPT), 'check', str(out), '--full']
  checked = subprocess.run(check, capture_output=True, timeout=60)
  assert checked.returncode == 0, checked.stdout
  for printed in (done.stdout, done.stderr, checked.stdout):
    assert b'\x1b' not in printed
    assert '\u202e'.encode() not in printed
  assert not list(tmp_path.rglob('owned'))
  assert not pathlib.Path('owned').exists()
  # What was written names the same files to the next run.
  again = _run(videos, out, '--processes=1')
  assert b'already complete' in again.stdout


def _worker_of(process):
  """Process id of the worker that a preparation has, or None."""
  path = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
  for child in path.read_text().split():
    # It may have ended since.
    with contextlib.suppress(OSError):
      command = pathlib.Path(f'/proc/{child}/cmdline').read_bytes()
      if b'spawn_main' in command:
        return int(child)
  return None


def test_videos_whose_decoding_is_killed_are_named_and_the_rest_is_done(
  tmp_path,
):
  videos, out = tmp_path / 'videos', tmp_path / 'out'
  videos.mkdir()
  for number in range(5):
    sample_videos.write(
      videos / f'{number}.mp4',
      sample_videos.moving(1000, 64, 96, seed=number),
      options={'preset': 'ultrafast'},
    )
  process = subprocess.Popen(
    _command(videos, out, '--processes=1'),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  killed = set()
  end = time.monotonic() + 60
  while len(killed) < 3 and time.monotonic() < end:
    worker = _worker_of(process)
    # At work: it has begun to write frames.
    if list((out / '.staging').glob(f'*.frames.{worker}.tmp')):
      os.kill(worker, signal.SIGSEGV if killed else signal.SIGKILL)
      killed.add(worker)
    time.sleep(0.01)
  assert process.wait(60) == 0
  reasons = _skipped(out)
  assert len(killed) == 3
  assert len(reasons) == 3
  assert all('crashed (SIG' in reason for reason in reasons.values())
  with frame_store.FrameStore.open(out, 'train') as store:
    assert set(store.paths) | set(reasons) == {f'{n}.mp4' for n in range(5)}


@pytest.mark.slow
def test_a_video_whose_decoding_stands_still_is_skipped_long_before_timeout(
  tmp_path,
):
  videos, out = tmp_path / 'videos', tmp_path / 'out'
  videos.mkdir()
  for number in range(2):
    sample_videos.write(
      videos / f'{number}.mp4',
      sample_videos.moving(1000, 64, 96, seed=number),
      options={'preset': 'ultrafast'},
    )
  process = subprocess.Popen(
    _command(videos, out, '--processes=1', '--max-stall=2'),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  stopped = None
  end = time.monotonic() + 60
  while stopped is None and time.monotonic() < end:
    worker = _worker_of(process)
    if list((out / '.staging').glob(f'*.frames.{worker}.tmp')):
      os.kill(worker, signal.SIGSTOP)
      stopped = worker
    time.sleep(0.01)
  assert process.wait(60) == 0
  (reason,) = _skipped(out).values()
  assert reason == 'no new picture for 2 s (--max-stall)'
  with frame_store.FrameStore.open(out, 'train') as store:
    assert store.num_videos == 1


def test_a_video_that_changes_or_vanishes_meanwhile_is_skipped(
  tmp_path, monkeypatch
):
  from dataset.staging import Staging
  from media.video_frames import FrameOptions
  from preparation import prepare_video

  outside = tmp_path / 'outside.mp4'
  sample_videos.write(outside, sample_videos.moving(3))
  videos = tmp_path / 'videos'
  videos.mkdir()
  Staging(tmp_path).start({})
  real = prepare_video.write_frames

  def append(path):
    with open(path, 'ab') as file:
      file.write(b'more')

  def link_out(path):
    os.remove(path)
    os.symlink(outside, path)

  def pipe(path):
    os.remove(path)
    os.mkfifo(path)

  def outcome(change, when):
    path = videos / 'x.mp4'
    path.unlink(missing_ok=True)
    shutil.copy(outside, path)
    status = path.stat()
    video = VideoFile('x.mp4', 'x.mp4', status.st_size, status.st_mtime_ns)

    def write_frames(*arguments, **options):
      facts = real(*arguments, **options)
      change(path)
      return facts

    with monkeypatch.context() as patch:
      if when == 'before':
        change(path)
      else:
        patch.setattr(prepare_video, 'write_frames', write_frames)
      return prepare_video.prepare_video(
        prepare_video.Task(
          folder=os.path.realpath(videos),
          video=video,
          out=str(tmp_path),
          options=FrameOptions(),
        )
      )

  assert 'row' in outcome(lambda path: None, 'before')
  (frames,) = (tmp_path / '.staging').glob('*.frames')
  frames.unlink()
  for change, when, words in (
    (os.remove, 'before', 'No such file'),
    (append, 'before', 'changed after it was listed'),
    (link_out, 'before', 'a symlink that leads out'),
    (pipe, 'before', 'not a regular file'),
    (os.remove, 'meanwhile', 'vanished while it was read'),
    (append, 'meanwhile', 'changed after it was listed'),
  ):
    assert words in outcome(change, when)['reason'], (change, when)
    assert not list((tmp_path / '.staging').glob('*.frames*'))


def test_classes_on_another_disk_are_taken_if_that_is_asked_for(tmp_path):
  videos, disk = tmp_path / 'videos', tmp_path / 'disk'
  for folder in (videos, disk / 'cats'):
    folder.mkdir(parents=True)
  for number in range(2):
    path = disk / 'cats' / f'{number}.mp4'
    sample_videos.write(path, sample_videos.moving(3, seed=number))
  (videos / 'cats').symlink_to(disk / 'cats')
  result = _run(videos, tmp_path / 'o')
  assert result.returncode == 2
  assert b"'cats': a symlink that leads out of the folder" in result.stderr
  assert b'--follow-links' in result.stderr
  result = _run(videos, tmp_path / 'o', '--follow-links')
  assert result.returncode == 0
  with frame_store.FrameStore.open(tmp_path / 'o', 'train') as store:
    assert store.paths == ['cats/0.mp4', 'cats/1.mp4']
    assert store.label('label')[1] == ['cats']


def test_a_file_elsewhere_is_not_followed_further_than_it_was_listed(tmp_path):
  from dataset.staging import Staging
  from media.video_frames import FrameOptions
  from preparation import prepare_video
  from sources import find_videos

  videos = tmp_path / 'videos'
  videos.mkdir()
  secret, listed = tmp_path / 'secret.mp4', tmp_path / 'disk' / 'a.mp4'
  listed.parent.mkdir()
  sample_videos.write(secret, sample_videos.moving(3))
  shutil.copy2(secret, listed)
  (videos / 'a.mp4').symlink_to(listed)
  listing = find_videos.find_videos(videos, follow_links=True)
  task = prepare_video.Task(
    folder=os.path.realpath(videos),
    video=listing.videos[0],
    out=str(tmp_path),
    options=FrameOptions(),
  )
  Staging(tmp_path).directory.mkdir()
  assert 'row' in prepare_video.prepare_video(task)
  listed.unlink()
  listed.symlink_to(secret)
  assert 'leads out' in prepare_video.prepare_video(task)['reason']


def test_a_run_with_too_many_bad_videos_stops_early_with_a_list(tmp_path):
  videos, out = tmp_path / 'videos', tmp_path / 'out'
  videos.mkdir()
  for number in range(150):
    (videos / f'{number:03d}.mp4').write_text('no video')
  for number in range(5):
    sample_videos.write(
      videos / f'good{number}.mp4', sample_videos.moving(2, seed=number)
    )
  done = _run(videos, out, '--processes=2')
  assert done.returncode == 2
  (error,) = [
    line for line in done.stderr.decode().splitlines() if 'Error' in line
  ]
  assert '--max-bad-percent' in error
  assert 'no video, damaged, or cut off' in error
  listed = json.loads((out / '.staging' / 'skipped.json').read_text())
  assert 50 < len(listed) <= 100
  assert all(entry['path'] and entry['reason'] for entry in listed)
  assert not (out / 'dataset.json').exists()
  # The same command comes to the same end, a larger share goes on.
  assert _run(videos, out, '--processes=2').returncode == 2
  done = _run(videos, out, '--processes=2', '--max-bad-percent=100')
  assert done.returncode == 0, done.stderr
  assert len(_skipped(out)) == 150
  assert not (out / '.staging').exists()


@pytest.mark.slow
def test_thousands_of_files_that_are_no_videos_are_given_up_soon(tmp_path):
  videos, out = tmp_path / 'videos', tmp_path / 'out'
  videos.mkdir()
  for number in range(5000):
    (videos / f'{number:04d}.mp4').write_text('no video')
  before = _processor_seconds_of_children()
  done = _run(videos, out, '--processes=2')
  seconds = _processor_seconds_of_children() - before
  assert done.returncode == 2
  listed = json.loads((out / '.staging' / 'skipped.json').read_text())
  assert len(listed) == 100
  assert seconds <= 10
  print(f'5,000 text files: {seconds:.1f} s of the processor')


def _processor_seconds_of_children():
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def test_a_small_folder_is_prepared_however_many_are_bad(tmp_path):
  videos, out = tmp_path / 'videos', tmp_path / 'out'
  videos.mkdir()
  for number in range(30):
    (videos / f'{number}.mp4').write_text('no video')
  sample_videos.write(videos / 'good.mp4', sample_videos.moving(2))
  assert _run(videos, out, '--processes=1').returncode == 0
  assert len(_skipped(out)) == 30
