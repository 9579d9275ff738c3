import json
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import sample_archives
from dataset import folder_lock
from errors import InputError
from sources import archives

_MEMBERS = {'a/1.avi': b'one' * 1000, 'a/b c/#2;$(x).avi': b'two', '3.avi': b''}
_WRITERS = {
  '.zip': sample_archives.write_zip,
  '.tar.gz': sample_archives.write_tar,
  '.rar': sample_archives.write_rar,
}


@pytest.fixture(params=_WRITERS)
def suffix(request):
  if request.param == '.rar':
    pytest.importorskip('unrar.cffi')
  return request.param


def _write(path, members, **more):
  suffix = next(s for s in _WRITERS if path.name.endswith(s))
  _WRITERS[suffix](path, members, **more)
  return path


def _content(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file() and path.name != '.extracted.json'
  }


def test_an_archive_is_unpacked_byte_by_byte(tmp_path, suffix):
  archive = _write(tmp_path / f'x{suffix}', _MEMBERS)
  archives.extract_archive(archive, tmp_path / 'out')
  assert _content(tmp_path / 'out') == _MEMBERS


def test_archives_inside_are_unpacked_and_removed(tmp_path, suffix):
  inner = _write(tmp_path / f'one{suffix}', {'one/1.avi': b'1'})
  outer = {f'deep/one{suffix}': inner.read_bytes(), 'x.avi': b'x'}
  archive = _write(tmp_path / f'all{suffix}', outer)
  archives.extract_archive(archive, tmp_path / 'out')
  assert _content(tmp_path / 'out') == {
    'deep/one/1.avi': b'1',
    'x.avi': b'x',
  }


@pytest.mark.parametrize(
  'outer, message',
  [
    ({}, "a.zip and b.zip in it both hold 'c/x.avi'"),
    ({'c/x.avi': b'0'}, "all.zip and a.zip in it both hold 'c/x.avi'"),
  ],
)
def test_archives_inside_that_hold_the_same_file_are_refused(
  tmp_path, outer, message
):
  for name in 'ab':
    _write(tmp_path / f'{name}.zip', {'c/x.avi': name.encode()})
    outer = {**outer, f'{name}.zip': (tmp_path / f'{name}.zip').read_bytes()}
  archive = _write(tmp_path / 'all.zip', outer)
  for _ in range(2):
    with pytest.raises(InputError, match=message):
      archives.extract_archive(archive, tmp_path / 'out')
    assert _content(tmp_path / 'out') == outer


def test_archives_inside_in_folders_of_their_own_keep_apart(tmp_path):
  outer = {}
  for name in 'ab':
    _write(tmp_path / f'{name}.zip', {'c/x.avi': name.encode()})
    content = (tmp_path / f'{name}.zip').read_bytes()
    outer[f'{name}/videos.zip'] = content
  archives.extract_archive(
    _write(tmp_path / 'all.zip', outer), tmp_path / 'out'
  )
  assert _content(tmp_path / 'out') == {'a/c/x.avi': b'a', 'b/c/x.avi': b'b'}


def test_a_stopped_run_goes_on_and_a_finished_one_is_left_alone(
  tmp_path, suffix, monkeypatch, capsys
):
  archive, out = _write(tmp_path / f'x{suffix}', _MEMBERS), tmp_path / 'out'
  replaced = []

  def replace(source, target, *, real=os.replace):
    if len(replaced) == 2:  # the mark and one file
      raise KeyboardInterrupt
    replaced.append(target)
    real(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', replace)
    with pytest.raises(KeyboardInterrupt):
      archives.extract_archive(archive, out)
  done = replaced[1]
  time = done.stat().st_mtime_ns
  archives.extract_archive(archive, out)
  assert _content(out) == _MEMBERS
  assert done.stat().st_mtime_ns == time
  done.unlink()
  assert 'is used as it is' not in capsys.readouterr().err
  archives.extract_archive(archive, out)
  assert not done.exists()
  assert f'Note: {out} was unpacked from {archive}' in capsys.readouterr().err


@pytest.mark.parametrize('is_finished', [True, False])
def test_another_archive_of_the_same_name_and_size_is_not_taken_for_it(
  tmp_path, suffix, monkeypatch, is_finished
):
  archive, out = tmp_path / f'x{suffix}', tmp_path / 'out'
  _write(archive, {'a.avi': b'one', 'b.avi': b'two'})
  with monkeypatch.context() as patch:
    if not is_finished:
      # The mark is there, and nothing else.
      patch.setattr(archives, '_unpack', lambda *unused: 1 / 0)
      with pytest.raises(ZeroDivisionError):
        archives.extract_archive(archive, out)
    else:
      archives.extract_archive(archive, out)
  before, size = _content(out), archive.stat().st_size
  _write(archive, {'a.avi': b'eno', 'b.avi': b'owt'})
  archive.write_bytes(archive.read_bytes().ljust(size, b'\0')[:size])
  os.utime(archive, (1, 1))
  with pytest.raises(
    InputError, match=r'another size or time than .* remove that'
  ):
    archives.extract_archive(archive, out)
  assert _content(out) == before


def test_a_mark_of_before_has_no_time_and_is_believed(tmp_path, capsys):
  archive, out = tmp_path / 'x.zip', tmp_path / 'out'
  _write(archive, {'a.avi': b'one'})
  archives.extract_archive(archive, out)
  mark = out / archives._MARK
  content = json.loads(mark.read_text())
  assert content.pop('mtime_ns') == archive.stat().st_mtime_ns
  mark.write_text(json.dumps(content))
  archives.extract_archive(archive, out)
  assert 'is used as it is' in capsys.readouterr().err
  mark.write_text(json.dumps(content | {'bytes': 1}))
  with pytest.raises(InputError, match='another size or time'):
    archives.extract_archive(archive, out)


@pytest.mark.parametrize(
  'name, message',
  [
    ('../evil.avi', 'leads out'),
    ('a/../../evil.avi', 'leads out'),
    ('a\\..\\..\\evil.avi', 'leads out'),
    ('/tmp/evil.avi', 'absolute path'),
    ('C:/evil.avi', 'absolute path'),
    ('.extracted.json', 'cannot be'),
  ],
)
def test_a_member_that_leads_out_is_refused_before_anything_is_written(
  tmp_path, suffix, name, message
):
  members = {'good.avi': b'x', name: b'evil'}
  (tmp_path / 'in').mkdir()
  archive = _write(tmp_path / 'in' / f'x{suffix}', members)
  out = tmp_path / 'in' / 'out'
  with pytest.raises(InputError, match=message) as caught:
    archives.extract_archive(archive, out)
  assert len(str(caught.value).splitlines()) == 1
  assert _content(out) == {}
  assert not list(tmp_path.rglob('evil*'))


def test_links_and_devices_are_refused(tmp_path):
  zipped, packed = tmp_path / 'x.zip', tmp_path / 'x.tar.gz'
  sample_archives.write_zip(zipped, {'l': b'/etc/passwd'}, links=['l'])
  with pytest.raises(InputError, match="'l' is a link"):
    archives.extract_archive(zipped, tmp_path / 'o')
  for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
    content = {'l': b'/etc/passwd'}
    sample_archives.write_tar(packed, content, kinds={'l': kind})
    with pytest.raises(InputError, match="'l' is a link or a device"):
      archives.extract_archive(packed, tmp_path / 'o2')
  pytest.importorskip('unrar.cffi')
  sample_archives.write_rar(tmp_path / 'x.rar', content, links=['l'])
  with pytest.raises(InputError, match="'l' is a link"):
    archives.extract_archive(tmp_path / 'x.rar', tmp_path / 'o3')


@pytest.mark.parametrize('names', [('a', 'a/b'), ('a/b/c', 'a/b'), ('a/', 'a')])
def test_a_file_that_is_a_folder_too_is_refused_before_anything_is_written(
  tmp_path, names
):
  path = tmp_path / 'x.tar'
  with tarfile.open(path, 'w') as archive:
    for name in names:
      member = tarfile.TarInfo(name)
      member.type = tarfile.DIRTYPE if name.endswith('/') else tarfile.REGTYPE
      archive.addfile(member)
  with pytest.raises(
    InputError, match=r"'a.*' .*is (there twice|a file and a)"
  ):
    archives.extract_archive(path, tmp_path / 'out')
  assert not _content(tmp_path / 'out')


def test_a_file_inside_over_a_folder_is_refused(tmp_path):
  inner = _write(tmp_path / 'one.zip', {'d': b'1'})
  outer = {'one.zip': inner.read_bytes(), 'd/x.avi': b'x'}
  archive = _write(tmp_path / 'all.zip', outer)
  with pytest.raises(
    InputError, match=r"'d' is a file of one\.zip, and a folder"
  ):
    archives.extract_archive(archive, tmp_path / 'out')


@pytest.mark.parametrize('name', ['a/' * 30_000 + 'v', 'a' * 60_000])
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
  archive = _write(tmp_path / 'x.zip', {name: b'1', 'b.avi': b'2'})
  with pytest.raises(InputError, match='has a name that is too long'):
    archives.extract_archive(archive, tmp_path / 'out')


def test_an_archive_without_files_is_refused(tmp_path, suffix):
  archive = _write(tmp_path / f'x{suffix}', {})
  with pytest.raises(InputError, match='no file is found in it'):
    archives.extract_archive(archive, tmp_path / 'out')


def test_a_rar_of_which_no_header_can_be_read_is_refused(tmp_path):
  pytest.importorskip('unrar.cffi')
  path = tmp_path / 'x.rar'
  content = np.random.default_rng(0).bytes(1000)
  path.write_bytes(b'Rar!\x1a\x07\x01\x00' + content)
  with pytest.raises(InputError, match=str(path)):
    archives.extract_archive(path, tmp_path / 'out')


def test_bombs_are_refused(tmp_path):
  sample_archives.write_zip(tmp_path / 'x.zip', {'x': bytes(100_000_000)})
  assert (tmp_path / 'x.zip').stat().st_size < 200_000
  with pytest.raises(InputError, match='bytes would become 100000000'):
    archives.extract_archive(tmp_path / 'x.zip', tmp_path / 'o')


@pytest.mark.parametrize(
  ('method', 'name'),
  [(9, 'deflate64'), (93, 'an unknown one'), (98, 'ppmd')],
)
def test_a_method_that_is_not_read_is_no_damage(tmp_path, method, name):
  archive = _write(tmp_path / 'x.zip', {'good.avi': b'g', 'a.avi': b'a' * 99})
  content = bytearray(archive.read_bytes())
  # The method is a uint16 in the header of a file, and in the directory.
  for mark, offset in ((b'PK\x03\x04', 8), (b'PK\x01\x02', 10)):
    place = content.rindex(mark) + offset
    content[place : place + 2] = method.to_bytes(2, 'little')
  archive.write_bytes(content)
  with pytest.raises(InputError) as caught:
    archives.extract_archive(archive, tmp_path / 'o')
  message = str(caught.value)
  assert "'a.avi' is packed with a method that is not read" in message
  assert f'({method}, {name}); unpack it yourself' in message
  assert 'damaged' not in message
  assert not (tmp_path / 'o').exists()


def test_what_the_library_does_not_read_is_no_damage(tmp_path):
  archive = _write(tmp_path / 'x.zip', {'a.avi': b'a' * 99})
  content = bytearray(archive.read_bytes())
  # Flags: a patch of another file, which nobody writes.
  for mark, offset in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
    content[content.index(mark) + offset] |= 0x20
  archive.write_bytes(content)
  with pytest.raises(InputError, match='of a kind that is not read') as caught:
    archives.extract_archive(archive, tmp_path / 'o')
  assert 'unpack it yourself' in str(caught.value)
  assert 'damaged' not in str(caught.value)


def test_a_name_twice_is_refused(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
    file.writestr('a', b'1')
    with pytest.warns(UserWarning, match='Duplicate'):
      file.writestr('a', b'2')
  with pytest.raises(InputError, match="'a' is there twice"):
    archives.extract_archive(tmp_path / 'x.zip', tmp_path / 'o')
  sample_archives.write_zip(tmp_path / 'y.zip', {'b/a': b'1', 'b/./a': b'2'})
  with pytest.raises(InputError, match=r"'b/\./a' is there twice"):
    archives.extract_archive(tmp_path / 'y.zip', tmp_path / 'o')


def test_damage_is_one_line_that_names_the_archive(tmp_path, suffix):
  archive = _write(tmp_path / f'x{suffix}', _MEMBERS)
  content = archive.read_bytes()
  for damaged in (
    content[: len(content) // 2],
    b'no archive at all',
    content.replace(b'oneone', b'oneTwo', 1) if suffix == '.rar' else b'',
  ):
    archive.write_bytes(damaged)
    with pytest.raises(InputError, match='x') as caught:
      archives.extract_archive(archive, tmp_path / 'o')
    assert len(str(caught.value).splitlines()) == 1
  archive.unlink()
  with pytest.raises(InputError, match='No such file'):
    archives.extract_archive(archive, tmp_path / 'o')


def test_a_folder_of_other_things_is_left_alone(tmp_path):
  archive = _write(tmp_path / 'x.zip', _MEMBERS)
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'mine.txt').write_text('mine')
  with pytest.raises(InputError, match='--extract-to'):
    archives.extract_archive(archive, tmp_path / 'out')
  assert _content(tmp_path / 'out') == {'mine.txt': b'mine'}


def test_lists_are_read_from_folders_and_archives_alike(tmp_path, suffix):
  lists = {'d/a.txt': b'one\n', 'd/._a.txt': b'\xff', 'd/x.avi': b'\xff'}
  archive = _write(tmp_path / f'x{suffix}', lists)
  assert archives.read_texts(archive) == {'a.txt': 'one\n'}
  archives.extract_archive(archive, tmp_path / 'out')
  assert archives.read_texts(tmp_path / 'out') == {'a.txt': 'one\n'}
  with pytest.raises(InputError, match='neither a folder nor'):
    archives.read_texts(tmp_path / 'absent')
  with pytest.raises(InputError, match='one list, and all are needed') as error:
    archives.read_texts(tmp_path / 'out' / 'd' / 'a.txt')
  assert str(error.value).endswith(f'folder, {tmp_path}/out/d')


@pytest.mark.parametrize('as_archive', [False, True])
def test_lists_of_one_name_are_taken_if_they_do_not_differ(
  tmp_path, as_archive
):
  members = {'v1/a.txt': b'one\n', 'v2/a.txt': b'one\n', 'b.txt': b'two\n'}
  # No lists, of whatever version.
  members |= {'v1/README.txt': b'1', 'v2/README.txt': b'2'}
  texts = {'a.txt': 'one\n', 'b.txt': 'two\n', 'README.txt': '2'}

  def place():
    if as_archive:
      sample_archives.write_zip(tmp_path / 'a.zip', members)
      return tmp_path / 'a.zip'
    for name, content in members.items():
      (tmp_path / name).parent.mkdir(exist_ok=True)
      (tmp_path / name).write_bytes(content)
    return tmp_path

  assert archives.read_texts(place()) == texts
  members['v2/a.txt'] = b'another\n'
  with pytest.raises(InputError, match=r'a\.txt .*v1/a\.txt and v2/a\.txt'):
    archives.read_texts(place())


def test_without_the_library_the_command_to_run_is_said(tmp_path):
  sample_archives.write_rar(tmp_path / 'x.rar', _MEMBERS)
  program = """
import sys
sys.modules['unrar'] = None
sys.path.insert(0, sys.argv[1])
from sources import archives
from errors import InputError
try:
  archives.extract_archive(sys.argv[2], sys.argv[3])
except InputError as error:
  print(error)
"""
  folder = str(pathlib.Path(archives.__file__).parents[1])
  arguments = [folder, str(tmp_path / 'x.rar'), str(tmp_path / 'o')]
  printed = subprocess.run(
    [sys.executable, '-c', program, *arguments],
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  assert 'pip install unrar2-cffi' in printed
  assert f'unrar x {tmp_path}/x.rar' in printed


_EXTRACT = """
import sys
sys.path[:0] = sys.argv[1:2]
from sources import archives
archives.extract_archive(sys.argv[2], sys.argv[3])
"""


def _extracting(archive, out):
  """A process that unpacks an archive."""
  folder = str(pathlib.Path(archives.__file__).parents[1])
  return subprocess.Popen(
    [sys.executable, '-c', _EXTRACT, folder, str(archive), str(out)],
    stderr=subprocess.PIPE,
    text=True,
  )


def _many_members():
  return {f'c{n % 5}/{n}.avi': os.urandom(1) * (50_000 + n) for n in range(400)}


def test_runs_that_share_a_folder_take_turns(tmp_path):
  members = _many_members()
  inner = _write(tmp_path / 'inner.zip', members)
  archive = _write(tmp_path / 'x.zip', {'d/inner.zip': inner.read_bytes()})
  runs = [_extracting(archive, tmp_path / 'out') for _ in range(3)]
  said = [run.communicate(timeout=60)[1] for run in runs]
  assert [run.returncode for run in runs] == [0, 0, 0], said
  expected = {f'd/{name}': content for name, content in members.items()}
  assert _content(tmp_path / 'out') == expected
  assert sum('was unpacked from' in text for text in said) == 2


def test_a_run_waits_for_one_that_unpacks_and_says_so(tmp_path):
  archive, out = _write(tmp_path / 'x.zip', _MEMBERS), tmp_path / 'out'
  with folder_lock.locked_in_turn(out) as is_alone:
    assert is_alone
    run = _extracting(archive, out)
    assert f'another run is writing to {out}' in run.stderr.readline()
    assert run.poll() is None
    assert not list(out.iterdir())
  run.communicate(timeout=60)
  assert run.returncode == 0
  assert _content(out) == _MEMBERS


def test_a_folder_that_is_removed_while_a_run_waits_is_made_anew(tmp_path):
  archive, out = _write(tmp_path / 'x.zip', _MEMBERS), tmp_path / 'out'
  with folder_lock.locked_in_turn(out):
    run = _extracting(archive, out)
    run.stderr.readline()
    out.rmdir()
  run.communicate(timeout=60)
  assert run.returncode == 0
  assert _content(out) == _MEMBERS


def test_what_a_killed_run_leaves_is_not_in_the_way(tmp_path):
  members = _many_members()
  archive, out = _write(tmp_path / 'x.zip', members), tmp_path / 'out'
  run = _extracting(archive, out)
  while not list(out.glob('c*/*.avi')):
    assert run.poll() is None
  run.kill()
  run.communicate()
  archives.extract_archive(archive, out)
  assert _content(out) == members


def test_a_kill_before_the_first_mark_is_not_in_the_way(tmp_path):
  archive, out = _write(tmp_path / 'x.zip', _MEMBERS), tmp_path / 'out'
  out.mkdir()
  (out / '.extracted.json.123.tmp').write_text('{"arch')
  (out / '.extracting.part').write_bytes(b'of before')
  archives.extract_archive(archive, out)
  assert _content(out) == _MEMBERS
