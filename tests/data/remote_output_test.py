"""Data sets that are prepared behind a URL: a real S3 server, and file://."""

import hashlib
import pathlib
import signal
import socket
import subprocess
import sys

import prepare
import pytest
import sample_videos
from dataset import remote, remote_target

from vie_jax.input_pipeline import frame_store

_SCRIPT = pathlib.Path(prepare.__file__)
_NUM_VIDEOS = 6


@pytest.fixture(scope='session')
def few_videos(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos') / 'few'
  for number in range(_NUM_VIDEOS):
    path = folder / 'ab'[number % 2]
    path.mkdir(parents=True, exist_ok=True)
    sample_videos.write(
      path / f'{number}.mp4', sample_videos.moving(8 + number, seed=number)
    )
  return folder


@pytest.fixture(scope='session')
def expected(few_videos, tmp_path_factory):
  """Relative path and digest of each file of the local data set."""
  out = tmp_path_factory.mktemp('local') / 'out'
  assert _prepare(few_videos, out) == 0
  return _digests(out)


def _digests(out):
  return {
    path.relative_to(out).as_posix(): hashlib.sha256(
      path.read_bytes()
    ).hexdigest()
    for path in out.rglob('*')
    if path.is_file()
  }


def _arguments(videos, out, *options):
  return ['folder', f'--videos={videos}', f'--out={out}', '--processes=1'] + [
    '--val-percent=40',
    *options,
  ]


def _prepare(videos, out, *options):
  return prepare.main(_arguments(videos, out, *options))


@pytest.fixture
def target(s3, tmp_path):
  """URL and the options of a preparation into it."""
  return f'{s3.url}/sets/few', f'--staging={tmp_path / "staging"}'


def _writes(s3):
  return [row[1] for row in s3.server.requests() if row[0] in ('PUT', 'POST')]


def test_the_bytes_are_those_of_a_local_preparation(
  few_videos, expected, s3, target, tmp_path, capsys
):
  url, staging = target
  assert _prepare(few_videos, url, staging) == 0
  assert s3.content('sets/few') == expected
  assert not (tmp_path / 'staging').exists()
  writes = _writes(s3)
  assert writes[-1].endswith('/few/dataset.json')
  capsys.readouterr()
  assert _prepare(few_videos, url, staging) == 0
  assert 'already complete' in capsys.readouterr().out
  assert _writes(s3) == writes
  with frame_store.FrameStore.open(url, 'train') as store:
    assert store.read_frames(0, [0])[0][:2] == b'\xff\xd8'


def test_the_staging_folder_has_a_place_of_its_own(
  few_videos, expected, s3, tmp_path, monkeypatch
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  folder = remote_target.default_staging(f'{s3.url}/set/')
  assert folder == remote_target.default_staging(f'{s3.url}/set')
  assert folder.parent == tmp_path / 'cache/vie_jax'
  assert _prepare(few_videos, f'{s3.url}/set/') == 0
  assert s3.content('set') == expected


# Kills itself before or after the N-th call of what changes files or the store.
_KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import prepare
from dataset import remote

left = {number}

def count():
  global left
  left -= 1
  if not left:
    os.kill(os.getpid(), signal.SIGKILL)

def counted(module, name):
  function = getattr(module, name)
  def call(*arguments, **options):
    count()
    result = function(*arguments, **options)
    count()
    return result
  setattr(module, name, call)

if __name__ == '__main__':
  for name in ('upload', 'write_json', 'remove'):
    counted(remote.RemoteFolder, name)
  counted(os, 'replace')
  counted(os, 'rmdir')
  sys.exit(prepare.main({arguments!r}))
"""


def _killed(folder, number, arguments):
  """Runs a preparation that kills itself; returns whether it did."""
  script = folder / 'killed.py'
  script.write_text(
    _KILLED.format(
      folder=str(_SCRIPT.parent), number=number, arguments=arguments
    )
  )
  code = subprocess.run(
    [sys.executable, str(script)], capture_output=True, check=False
  ).returncode
  assert code in (0, -signal.SIGKILL)
  return code != 0


@pytest.mark.slow
def test_a_run_killed_again_and_again_goes_on(
  few_videos, expected, s3, target, tmp_path
):
  arguments = _arguments(few_videos, *target)
  number, kills = 7, 0
  while _killed(tmp_path, number, arguments):
    present = s3.content('sets/few')
    if 'dataset.json' in present:
      present.pop(remote_target.NOTE, None)
      assert present == expected
    kills, number = kills + 1, number + 5
  assert kills >= 3
  assert s3.content('sets/few') == expected
  assert not (tmp_path / 'staging').exists()


@pytest.mark.slow
def test_a_delivered_shard_is_not_delivered_again(
  few_videos, expected, s3, target, tmp_path
):
  arguments = _arguments(few_videos, *target)
  before = len(_writes(s3))
  number = 20
  while not any('train/frames' in path for path in _writes(s3)[before:]):
    assert _killed(tmp_path, number, arguments)
    number += 4
  assert _killed(tmp_path, 8, arguments)
  assert _prepare(few_videos, *target) == 0
  shards = [path for path in _writes(s3)[before:] if 'train/frames' in path]
  assert len(shards) == 1
  assert s3.content('sets/few') == expected


def test_a_shard_of_another_size_is_never_taken_for_whole(
  few_videos, expected, s3, target, tmp_path, capsys
):
  arguments = _arguments(few_videos, *target)
  number = 30
  while not any('train/frames' in name for name in s3.content('sets/few')):
    assert _killed(tmp_path, number, arguments)
    number += 4
  (shard,) = (n for n in s3.content('sets/few') if 'train/frames' in n)
  s3.files.pipe(f'{target[0]}/{shard}', b'half')
  for path in (tmp_path / 'staging/train').glob('frames*'):
    path.unlink()
  code = _prepare(few_videos, *target)
  error = capsys.readouterr().err
  assert code == 2
  assert 'run the same command again' in error
  assert 'dataset.json' not in s3.content('sets/few')
  assert _prepare(few_videos, *target) == 0
  assert s3.content('sets/few') == expected


def test_foreign_objects_are_refused_and_never_removed(
  few_videos, expected, s3, target, capsys
):
  url, _ = target
  s3.files.pipe(f'{url}/notes.txt', b'mine')
  for more in ((), ('--restart',)):
    assert _prepare(few_videos, *target, *more) == 2
    assert 'choose another --out' in capsys.readouterr().err
  assert list(s3.content('sets/few')) == ['notes.txt']
  s3.files.rm(f'{url}/notes.txt')
  assert _prepare(few_videos, *target) == 0
  foreign = (
    'notes.txt',
    'train/mine.txt',
    'train/frames-1-of-2.array_record.x',
  )
  for name in foreign:
    s3.files.pipe(f'{url}/{name}', b'mine')
  stale = 'train/frames-00004-of-00009.array_record'
  s3.files.pipe(f'{url}/{stale}', b'old')
  assert _prepare(few_videos, *target, '--jpeg-quality=50') == 2
  assert '--restart' in capsys.readouterr().err
  assert _prepare(few_videos, *target, '--restart') == 0
  content = s3.content('sets/few')
  assert {name: content.pop(name) for name in foreign}
  assert content == expected


@pytest.mark.slow
def test_a_second_machine_is_refused_and_may_take_over(
  few_videos, expected, s3, target, tmp_path, capsys
):
  url, first = target
  assert _killed(tmp_path, 14, _arguments(few_videos, url, first))
  second = f'--staging={tmp_path / "second"}'
  assert _prepare(few_videos, url, second) == 2
  error = capsys.readouterr().err
  assert f'is being prepared on {socket.gethostname()}' in error
  assert str(tmp_path / 'staging') in error
  # Taken over, and killed; then the first one must not go on.
  arguments = _arguments(few_videos, url, second, '--restart')
  assert _killed(tmp_path, 14, arguments)
  assert _prepare(few_videos, url, first) == 2
  assert str(tmp_path / 'second') in capsys.readouterr().err
  assert _prepare(few_videos, url, second) == 0
  assert s3.content('sets/few') == expected


def test_a_staging_folder_is_that_of_one_target(
  few_videos, s3, target, tmp_path, capsys
):
  url, staging = target
  assert _killed(tmp_path, 14, _arguments(few_videos, url, staging))
  assert _prepare(few_videos, f'{url}-2', staging) == 2
  assert f'holds the preparation of {url};' in capsys.readouterr().err
  foreign = tmp_path / 'foreign'
  foreign.mkdir()
  (foreign / 'notes.txt').write_text('mine')
  assert _prepare(few_videos, f'{url}-2', f'--staging={foreign}') == 2
  assert 'choose another --staging' in capsys.readouterr().err


def test_a_missing_bucket_is_one_line(few_videos, s3, tmp_path, capsys):
  staging = f'--staging={tmp_path / "staging"}'
  assert _prepare(few_videos, 's3://no-such-bucket/set', staging) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith('Error: cannot write s3://no-such-bucket/set/')
  assert not s3.files.exists('s3://no-such-bucket')


@pytest.mark.parametrize('protocol', ['file', 'memory'])
def test_folders_are_made_where_a_store_has_some(tmp_path, protocol):
  (tmp_path / 'x').write_bytes(b'content')
  place = remote.RemoteFolder(f'{protocol}://{tmp_path}/not/there')
  place.write_json('note.json', [1])
  place.upload(tmp_path / 'x', 'train/x')
  place.upload(tmp_path / 'x', 'train/y')
  assert place.read_json('note.json') == [1]
  assert place.read('train/x') == b'content'
  assert set(place.sizes()) == {'note.json', 'train/x', 'train/y'}


@pytest.mark.slow
def test_a_data_set_behind_a_file_url_is_made_checked_and_read(
  few_videos, expected, tmp_path, capsys
):
  out = tmp_path / 'not' / 'there' / 'out'
  staging = f'--staging={tmp_path / "staging"}'
  assert _prepare(few_videos, f'file://{out}', staging) == 0
  assert _digests(out) == expected
  assert prepare.main(['check', f'file://{out}', '--full']) == 0
  with frame_store.FrameStore.open(f'file://{out}', 'train') as store:
    assert store.read_frames(0, [0])[0][:2] == b'\xff\xd8'
  capsys.readouterr()
  assert _prepare(few_videos, f'file://{out}', staging) == 0
  assert 'already complete' in capsys.readouterr().out


@pytest.mark.parametrize(
  'command, remedy',
  [
    ('demo', '--videos'),
    ('demo-images', 'images are written here only'),
    ('tfds --name=any', '--extract-to'),
  ],
)
def test_what_is_made_beside_the_data_set_needs_a_place(
  command, remedy, capsys
):
  assert prepare.main([*command.split(), '--out=memory://set']) == 2
  assert remedy in capsys.readouterr().err


@pytest.mark.parametrize('url', ['memory://set/x', 'dir::memory://set'])
def test_memory_is_no_place_for_a_data_set(few_videos, url, tmp_path, capsys):
  assert _prepare(few_videos, url, f'--staging={tmp_path / "staging"}') == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith(f'Error: --out is {url}, which is memory of this')
  assert not (tmp_path / 'staging').exists()


def test_an_archive_that_is_not_there_is_one_line(tmp_path, capsys):
  url = f'zip://set::{tmp_path}/none.zip'
  assert prepare.main(['check', url]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f'Error: {url} cannot be opened: ')
  assert 'none.zip' in line


def test_check_and_show_read_what_is_remote(
  few_videos, s3, target, tmp_path, capsys
):
  url, _ = target
  assert _prepare(few_videos, *target) == 0
  assert prepare.main(['check', url, '--full']) == 0
  page = tmp_path / 'page.html'
  assert prepare.main(['show', url, f'--out={page}', '--num-clips=1']) == 0
  assert 'few' in page.read_text()
  name = next(n for n in s3.content('sets/few') if 'train/frames' in n)
  content = bytearray(s3.files.cat_file(f'{url}/{name}'))
  content[content.index(b'\xff\xd8') + 400] ^= 1
  s3.files.pipe(f'{url}/{name}', bytes(content))
  s3.files.rm(f'{url}/val/videos.parquet')
  s3.files.pipe(f'{url}/val/other', b'foreign')
  capsys.readouterr()
  assert prepare.main(['check', url]) == 1
  printed = capsys.readouterr().out
  assert f'{name} has another checksum' in printed
  assert 'val/videos.parquet cannot be read' in printed
  assert 'val/other is not part of the data set' in printed
  assert prepare.main(['check', f'{url}-none']) == 1
  assert 'dataset.json is missing' in capsys.readouterr().out
