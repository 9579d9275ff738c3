"""Frames of an earlier data set: copied, and the same as if decoded again."""

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import shutil
import signal
from unittest import mock

import command_options
import folder_content
import prepare
import pyarrow
import pyarrow.parquet
import pytest
import sample_videos
from media import video_frames
from preparation import prepare_dataset, prepare_video

from vie_jax.files import disk

NUM_VIDEOS = 8
SMALL = ('--short-side', '48')


# In worker processes.


def dies_of_earlier_frames(task, report_progress):
  if task.earlier:
    os.kill(os.getpid(), signal.SIGKILL)
  return prepare_video.prepare_video(task, report_progress)


def _stale(*unused_arguments, **unused_options):
  raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def is_away_at_first(task, report_progress):
  os.stat = _stale
  return prepare_video.prepare_video(task, report_progress)


def is_away_when_it_is_read(task, report_progress):
  prepare_video.file_digest = _stale
  return prepare_video.prepare_video(task, report_progress)


def is_away_when_it_is_decoded(task, report_progress):
  with mock.patch('media.open_video.av.open', _stale):
    return prepare_video.prepare_video(task, report_progress)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A folder of videos, and a data set of it."""
  place = tmp_path_factory.mktemp('earlier')
  videos = place / 'videos'
  videos.mkdir()
  for number in range(NUM_VIDEOS):
    # Of one, frames are read in several pieces.
    num_frames = 300 if number == 5 else 6 + number
    frames = sample_videos.moving(num_frames, seed=number)
    sample_videos.write(videos / f'{number}.mp4', frames)
  assert _prepare(videos, place / 'old') == 0
  return place


@pytest.fixture
def place(made, tmp_path):
  """A copy of both that a test may change."""
  return pathlib.Path(shutil.copytree(made, tmp_path / 'copy'))


def _prepare(videos, out, *options):
  return prepare.main(
    ['folder', '--videos', str(videos), '--out', str(out)]
    + ['--processes', '1', *options]
  )


def _num_copied(place, capsys, *options):
  """Prepares with the old data set and without; returns how many it had."""
  capsys.readouterr()
  assert (
    _prepare(
      place / 'videos',
      place / 'new',
      '--reuse',
      str(place / 'old'),
      *options,
    )
    == 0
  )
  said = capsys.readouterr().err
  assert _prepare(place / 'videos', place / 'plain', *options) == 0
  assert folder_content.digests(place / 'new') == folder_content.digests(
    place / 'plain'
  )
  assert prepare.main(['check', str(place / 'new'), '--full']) == 0
  [line] = [line for line in said.splitlines() if 'The frames of' in line]
  assert line.endswith(f'from {place / "old"}.')
  return int(line.split('The frames of ')[1].split()[0])


def test_only_what_is_new_or_has_changed_is_decoded(place, capsys):
  videos = place / 'videos'
  sample_videos.write(videos / 'new.mp4', sample_videos.moving(9, seed=50))
  sample_videos.write(videos / '0.mp4', sample_videos.moving(6, seed=51))
  (videos / '1.mp4').rename(videos / 'renamed.mp4')
  (videos / '2.mp4').unlink()
  os.utime(videos / '3.mp4')  # Its content is what counts.
  assert _num_copied(place, capsys) == NUM_VIDEOS - 3


def test_another_split_takes_all_frames(place, capsys):
  assert _num_copied(place, capsys, '--val-percent', '70') == NUM_VIDEOS
  # Once more from what is made of copies, which has other places of them.
  shutil.rmtree(place / 'old')
  (place / 'new').rename(place / 'old')
  shutil.rmtree(place / 'plain')
  assert _num_copied(place, capsys, '--val-percent', '40') == NUM_VIDEOS


def test_shards_may_be_many(place, capsys, monkeypatch):
  @dataclasses.dataclass(frozen=True)
  class Small(command_options.Settings):
    shard_bytes: int = 20_000

  with monkeypatch.context() as patch:
    patch.setattr(command_options, 'Settings', Small)
    assert _prepare(place / 'videos', place / 'old', '--restart') == 0
  assert len([*(place / 'old' / 'train').glob('*.array_record')]) > 3
  assert _num_copied(place, capsys) == NUM_VIDEOS


def test_a_stopped_run_counts_what_it_had_copied(place, capsys, monkeypatch):
  def stop(*unused_arguments, **unused_options):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(prepare_dataset, 'write_dataset', stop)
    reuse = ('--reuse', str(place / 'old'))
    assert _prepare(place / 'videos', place / 'new', *reuse) == 130
  [*_, record] = (place / 'new' / '.staging').glob('????????????????.json')
  record.unlink()
  (place / 'new' / '.staging' / 'plan.json').unlink()
  assert _num_copied(place, capsys) == NUM_VIDEOS


def test_damaged_frames_are_decoded_again(place, capsys):
  [shard] = (place / 'old' / 'train').glob('*.array_record')
  content = bytearray(shard.read_bytes())
  # Among the pixels of a frame: the record is sound, its frame another one.
  content[content.index(b'\xff\xd8') + 700] ^= 1
  shard.write_bytes(content)
  assert 0 < _num_copied(place, capsys) < NUM_VIDEOS


@pytest.mark.parametrize('damage', ['gone', 'cut', 'text'])
def test_a_damaged_shard_is_as_if_it_were_not_there(place, capsys, damage):
  [shard] = (place / 'old' / 'train').glob('*.array_record')
  if damage == 'gone':
    shard.unlink()
  else:
    content = shard.read_bytes()[: 2**16 + 5] if damage == 'cut' else b'text'
    shard.write_bytes(content)
  manifest = json.loads((place / 'old' / 'dataset.json').read_text())
  num_left = manifest['splits']['val']['videos']
  assert num_left <= _num_copied(place, capsys) < NUM_VIDEOS


def test_what_was_warned_of_is_decoded_and_warned_of_again(place, capsys):
  videos = place / 'videos'
  shutil.copy(videos / '3.mp4', videos / 'copy.mp4')
  assert _prepare(videos, place / 'old', '--restart') == 0
  assert _num_copied(place, capsys) == NUM_VIDEOS
  [warning] = json.loads((place / 'new' / 'warnings.json').read_text())
  assert warning['path'] == 'copy.mp4'


def test_the_old_data_set_is_needed_only_for_decoding(place, capsys):
  reuse = ('--reuse', str(place / 'old'))
  assert _prepare(place / 'videos', place / 'new', *reuse) == 0
  shutil.rmtree(place / 'old')
  assert _prepare(place / 'videos', place / 'new', *reuse) == 0
  assert 'already complete' in capsys.readouterr().out


@pytest.mark.parametrize(
  'options, message',
  [
    (['--reuse', 'nothing'], 'there is no directory nothing'),
    (['--reuse', 's3://bucket/old'], 'name a data set in a folder of this'),
    (['--reuse', 'new'], '--reuse must be another data set than --out'),
    (
      ['--reuse', 'old', '--short-side', '48'],
      '--reuse old was made with other settings, options: short_side 320, and '
      'here 48; use the same as there, or leave --reuse out',
    ),
  ],
)
def test_mistakes_are_one_line(place, capsys, monkeypatch, options, message):
  monkeypatch.chdir(place)
  assert _prepare('videos', 'new', *options) == 2
  assert message in capsys.readouterr().err
  # Without the mistake the same output is taken.
  assert _prepare('videos', 'new', '--reuse', 'old') == 0


def test_other_versions_are_refused(place, capsys):
  path = place / 'old' / 'dataset.json'
  manifest = json.loads(path.read_text())
  manifest['created_with'] |= {'av': '1.0', 'pyarrow': '1.0'}
  path.write_text(json.dumps(manifest))
  reuse = ('--reuse', str(place / 'old'))
  assert _prepare(place / 'videos', place / 'new', *reuse) == 2
  said = capsys.readouterr().err
  assert "created_with: av '1.0', and here" in said
  assert 'pyarrow' not in said
  # That of the code is not known of data sets of before.
  assert (
    manifest['created_with'].pop('vie_jax frames')
    == video_frames.FRAMES_VERSION
  )
  path.write_text(json.dumps(manifest))
  assert _prepare(place / 'videos', place / 'new', *reuse) == 2
  assert 'is of an earlier version of this code' in capsys.readouterr().err


@pytest.mark.parametrize('version', ['1', video_frames.FRAMES_VERSION])
def test_a_stopped_preparation_that_names_no_code_is_of_the_first(
  place, capsys, monkeypatch, version
):
  def stop(*unused_arguments, **unused_options):
    raise KeyboardInterrupt

  monkeypatch.setattr(prepare_dataset, 'FRAMES_VERSION', version)
  with monkeypatch.context() as patch:
    patch.setattr(prepare_dataset, 'write_dataset', stop)
    assert _prepare(place / 'videos', place / 'new') == 130
  path = place / 'new' / '.staging' / 'setup.json'
  setup = json.loads(path.read_text())
  assert setup['created_with'].pop('vie_jax frames') == version
  path.write_text(json.dumps(setup))
  if version == '1':
    assert _prepare(place / 'videos', place / 'new') == 0
  else:
    assert _prepare(place / 'videos', place / 'new') == 2
    assert f"vie_jax frames '1' -> '{version}'" in capsys.readouterr().err


@pytest.mark.parametrize(
  'options',
  [['--reuse', 'nothing'], ['--reuse', 'new'], ['--reuse', 'old', *SMALL]],
)
def test_a_mistake_throws_nothing_away(place, monkeypatch, options):
  monkeypatch.chdir(place)
  assert _prepare('videos', 'new') == 0
  before = folder_content.digests(place / 'new')
  assert _prepare('videos', 'new', '--restart', *options) == 2
  assert folder_content.digests(place / 'new') == before


@pytest.mark.parametrize('name', ['dataset.json', 'warnings.json'])
@pytest.mark.parametrize('kind', ['folder', 'other'])
def test_files_of_the_old_data_set_that_are_none_are_named(
  place, capsys, name, kind
):
  path = place / 'old' / name
  path.unlink()
  if kind == 'folder':
    path.mkdir()
  else:
    path.write_text('[{"path": ["a"]}]')
  reuse = ('--reuse', str(place / 'old'))
  assert _prepare(place / 'videos', place / 'new', *reuse) == 2
  said = capsys.readouterr().err
  assert said.count('Error: ') == 1
  assert str(path) in said


@pytest.mark.parametrize(
  'changes',
  [
    {'num_frames': -5, 'frames_sha256': hashlib.sha256().hexdigest()},
    {'num_frames': 0, 'frames_sha256': hashlib.sha256().hexdigest()},
    {'height': 4000},
    {'width': -3},
    {'duration_seconds': float('nan')},
    {'duration_seconds': None},
    {'source_fps': float('inf')},
    {'source_height': -1},
  ],
)
def test_facts_that_cannot_be_are_not_taken(place, capsys, changes):
  path = place / 'old' / 'train' / 'videos.parquet'
  table = pyarrow.parquet.read_table(path)
  rows = table.to_pylist()
  rows[0] |= changes
  pyarrow.parquet.write_table(
    pyarrow.Table.from_pylist(rows, schema=table.schema), path
  )
  assert _num_copied(place, capsys) == NUM_VIDEOS - 1


def test_a_video_is_not_lost_to_frames_that_end_its_process(
  place, capsys, monkeypatch
):
  monkeypatch.setattr(prepare_dataset, 'prepare_video', dies_of_earlier_frames)
  assert _num_copied(place, capsys) == 0


def test_what_is_away_is_what_the_package_calls_so():
  # FFmpeg has its own use for these.
  assert {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EREMOTEIO,
  } == disk.AWAY - prepare_video._AWAY
  assert prepare_video._AWAY < disk.AWAY


@pytest.mark.parametrize(
  'work',
  [is_away_at_first, is_away_when_it_is_read, is_away_when_it_is_decoded],
)
def test_videos_on_a_file_system_that_is_away_stop_a_preparation(
  place, capsys, monkeypatch, work
):
  monkeypatch.setattr(prepare_dataset, 'prepare_video', work)
  assert _prepare(place / 'videos', place / 'new') == 2
  said = capsys.readouterr().err
  assert 'tale file handle' in said
  assert 'run the same command again when it can be read' in said
  monkeypatch.undo()
  assert _prepare(place / 'videos', place / 'new') == 0
  assert not json.loads((place / 'new' / 'skipped.json').read_text())


def test_a_table_that_tells_other_places_costs_only_the_copies(place, capsys):
  path = place / 'old' / 'train' / 'videos.parquet'
  table = pyarrow.parquet.read_table(path)
  rows = table.to_pylist()
  rows[0]['first_frame'] = -5
  rows[1]['first_frame'] = 2**40
  rows[2]['num_frames'] = 2**31 - 1
  pyarrow.parquet.write_table(
    pyarrow.Table.from_pylist(rows, schema=table.schema), path
  )
  assert _num_copied(place, capsys) < NUM_VIDEOS
