import errno
import json
import os
import pathlib
import shutil
import signal

import check_dataset
import interrupts
import other_user
import prepare
import pyarrow.parquet
import pytest
import sample_videos


@pytest.fixture(scope='module')
def original(tmp_path_factory):
  folder = tmp_path_factory.mktemp('check')
  for number in range(6):
    path = folder / 'videos' / ('cat', 'dog')[number % 2]
    path.mkdir(parents=True, exist_ok=True)
    sample_videos.write(path / f'{number}.mp4', sample_videos.moving(8))
  arguments = ['folder', '--videos', str(folder / 'videos')]
  arguments += ['--out', str(folder / 'out'), '--val-percent', '40']
  assert prepare.main([*arguments, '--processes', '1']) == 0
  return folder / 'out'


@pytest.fixture
def dataset(original, tmp_path):
  return pathlib.Path(shutil.copytree(original, tmp_path / 'out'))


def _check(dataset, *options):
  return prepare.main(['check', str(dataset), *options])


def _shard(dataset):
  return next((dataset / 'train').glob('*.array_record'))


def test_a_sound_data_set_passes(dataset, capsys):
  assert _check(dataset) == 0
  assert _check(dataset, '--full') == 0
  printed = capsys.readouterr().out
  assert 'All is well' in printed
  assert '18' in printed, '3 frames of each of 6 videos'
  assert '48' in printed, 'all 8 frames of each of 6 videos'


def test_every_flipped_byte_is_found(dataset, capsys):
  for name in ('train/videos.parquet', 'skipped.json', 'shard'):
    path = _shard(dataset) if name == 'shard' else dataset / name
    content = path.read_bytes()
    for position in (0, len(content) // 3, len(content) - 1):
      damaged = bytearray(content)
      damaged[position] ^= 4
      path.write_bytes(damaged)
      assert _check(dataset) == 1, (name, position)
      assert path.name in capsys.readouterr().out
    path.write_bytes(content)
  assert _check(dataset) == 0


def _remove_manifest(dataset):
  (dataset / 'dataset.json').unlink()


def _garble_manifest(dataset):
  (dataset / 'dataset.json').write_text('{')


def _shorten_manifest(dataset):
  _edit(dataset, lambda manifest: manifest.pop('files'))


def _change_version(dataset):
  _edit(dataset, lambda manifest: manifest.update(format_version=7))


def _change_fingerprint(dataset):
  _edit(dataset, lambda manifest: manifest.update(fingerprint='0' * 64))


def _change_counts(dataset):
  _edit(dataset, lambda manifest: manifest['splits']['val'].update(videos=9))


def _change_name(dataset):
  _edit(dataset, lambda manifest: manifest.update(name='another'))


def _empty_digest(dataset):
  _edit(dataset, lambda manifest: manifest.update(manifest_sha256=None))


def _change_rate(dataset):
  _edit(dataset, lambda manifest: manifest['options'].update(fps=35))


def _change_largest_side(dataset):
  _edit(dataset, lambda manifest: manifest.update(max_short_side=1))


def _remove_shard(dataset):
  _shard(dataset).unlink()


def _cut_shard(dataset):
  _shard(dataset).write_bytes(_shard(dataset).read_bytes()[:-1000])


def _cut_table(dataset):
  path = dataset / 'train' / 'videos.parquet'
  path.write_bytes(path.read_bytes()[:-10])


def _add_shard(dataset):
  shutil.copy(_shard(dataset), dataset / 'train' / 'extra.array_record')


def _remove_directory(dataset):
  shutil.rmtree(dataset)


def _edit(dataset, change):
  path = dataset / 'dataset.json'
  manifest = json.loads(path.read_text())
  change(manifest)
  path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
  'damage, message',
  [
    (_remove_manifest, 'dataset.json is missing'),
    (_garble_manifest, 'dataset.json is damaged'),
    (_shorten_manifest, 'lacks or garbles files'),
    (_change_version, 'unknown format version 7'),
    (_change_fingerprint, 'fingerprint'),
    (_change_counts, 'dataset.json says 9'),
    (_change_name, 'dataset.json is not what was written'),
    (_change_rate, 'dataset.json is not what was written'),
    (_empty_digest, 'dataset.json is not what was written'),
    (_change_largest_side, 'max_short_side is 1'),
    (_remove_shard, 'No such file'),
    (_cut_shard, 'frames-00000-of-00001.array_record has'),
    (_cut_table, 'train/videos.parquet cannot be read'),
    (_add_shard, 'extra.array_record is not part'),
    (_remove_directory, 'no directory'),
  ],
)
def test_damage_is_found_and_named(dataset, capsys, damage, message):
  damage(dataset)
  assert _check(dataset) == 1
  said = capsys.readouterr().out
  assert message in said
  # Nothing of a preparation that was stopped is to be thrown away.
  has_manifest = (dataset / 'dataset.json').exists()
  assert ('--restart' in said) == has_manifest


def test_a_data_set_of_before_the_digest_is_checked_as_before(dataset, capsys):
  _edit(dataset, lambda manifest: manifest.pop('manifest_sha256'))
  assert _check(dataset, '--full') == 0
  _change_fingerprint(dataset)
  assert _check(dataset) == 1
  assert 'not what was written' not in capsys.readouterr().out


def test_a_missing_shard_behind_a_url_is_named_by_the_url(dataset, capsys):
  name = _shard(dataset).name
  _remove_shard(dataset)
  assert prepare.main(['check', f'file://{dataset}']) == 1
  said = capsys.readouterr().out
  assert f'file://{dataset}/train/{name}' in said
  assert 'copy' not in said


def _replace_table(dataset, change):
  """Changes the table and every checksum that protects it."""
  path = dataset / 'train' / 'videos.parquet'
  table = pyarrow.parquet.read_table(path)
  rows = table.to_pylist()
  change(rows)
  table = pyarrow.Table.from_pylist(rows, schema=table.schema)
  pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda rows: rows[0].update(id='0' * 16), 'id does not belong'),
    (lambda rows: rows[1].update(first_frame=3), 'do not follow'),
    (lambda rows: rows[0].update(label_label=5), 'no such class'),
    (lambda rows: rows[0].update(height=99), 'not RGB'),
    (lambda rows: rows.reverse(), 'not sorted'),
    (lambda rows: rows.pop(), 'dataset.json says'),
  ],
)
def test_rows_that_contradict_the_rest_are_named(
  dataset, capsys, change, message
):
  _replace_table(dataset, change)
  assert _check(dataset) == 1
  assert message in capsys.readouterr().out


@pytest.mark.parametrize(
  'name', ['train/videos.parquet', 'shard', 'skipped.json']
)
def test_a_file_that_nobody_may_read_is_not_damaged(dataset, capsys, name):
  path = _shard(dataset) if name == 'shard' else dataset / name
  path.chmod(0)
  with other_user.running(dataset):
    assert _check(dataset) == 2
  said = capsys.readouterr()
  assert f'{path} cannot be read: Permission denied; give the user' in said.err
  assert '--restart' not in said.out + said.err


@pytest.mark.parametrize(
  'error',
  [
    RuntimeError(os.strerror(errno.EAGAIN)),
    RuntimeError(f'pread() failed: {os.strerror(errno.ENOMEM)}; at byte 7'),
    RuntimeError(f'pread() failed: {os.strerror(errno.ESTALE)}; at byte 7'),
    MemoryError(),
  ],
)
@pytest.mark.parametrize('place', ['open', 'read'])
def test_a_shard_that_cannot_be_read_now_is_not_damaged(
  dataset, capsys, monkeypatch, error, place
):
  class Reader(check_dataset.array_record_module.ArrayRecordReader):
    def __init__(self, *arguments, **options):
      if place == 'open':
        raise error
      super().__init__(*arguments, **options)

    def read(self, records):
      raise error

  monkeypatch.setattr(
    check_dataset.array_record_module, 'ArrayRecordReader', Reader
  )
  assert _check(dataset) == 2
  said = capsys.readouterr()
  assert f'{_shard(dataset)} cannot be read: ' in said.err
  assert 'run the same command again when it can be read' in said.err
  assert '--restart' not in said.out + said.err


@pytest.fixture
def handlers():
  """Handlers of Python, as a command has them, whoever runs the tests."""
  before = {}
  for number in (signal.SIGINT, signal.SIGTERM):
    before[number] = signal.signal(number, signal.default_int_handler)
  yield before
  for number, handler in before.items():
    signal.signal(number, handler)


def test_signals_end_a_check_while_a_library_waits(
  dataset, monkeypatch, handlers
):
  found = []

  def check(*unused, **unused_options):
    found.extend(map(signal.getsignal, handlers))
    return []

  monkeypatch.setattr(prepare, 'check_dataset', check)
  assert _check(dataset) == 0
  assert found == [signal.SIG_DFL, signal.SIG_DFL]
  for number in handlers:
    assert signal.getsignal(number) is signal.default_int_handler


def test_signals_that_are_ignored_do_not_end_a_check(handlers):
  """Whoever runs in the background of a shell does not hear of Ctrl-C."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with interrupts.left_to_the_system():
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
  assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
  assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


@pytest.mark.parametrize('command', ['check', 'show', 'reuse', 'out', 'below'])
def test_a_data_set_of_another_user_is_refused_in_one_line(
  dataset, original, capsys, command
):
  """Of mode 0700, as whoever has a umask of 077 makes it."""
  closed, free = dataset, dataset.parent / 'free'
  free.mkdir(mode=0o777)
  free.chmod(0o777)
  closed.chmod(0)
  prepared = ('folder', '--videos', str(original.parent / 'videos'))
  arguments = {
    'check': ('check', str(closed)),
    'show': ('show', str(closed), '--out', str(free / 'x.html')),
    'reuse': (*prepared, '--out', str(free / 'o'), '--reuse', str(closed)),
    'out': (*prepared, '--out', str(closed)),
    'below': (*prepared, '--out', str(closed / 'below')),
  }[command]
  other_user.let_in(original.parent)
  with other_user.running(dataset.parent):
    assert prepare.main(list(arguments)) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f'Error: {closed}')
  assert 'Permission denied; give the user of the run access' in line
