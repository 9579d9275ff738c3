import errno
import json
import os
import resource
import time

import jax
import jax.numpy as jnp
import pytest

from vie_jax import checkpoint, sharding
from vie_jax.saved_steps import commit_record, step_folders
from vie_jax.saved_steps.commit_record import DamagedError, Leaf


@pytest.fixture
def step(tmp_path):
  """A folder with a file and a commit record."""
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model' / 'values').write_bytes(b'values')
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'large').write_bytes(os.urandom(2**16 + 1))
  commit_record.write(
    tmp_path,
    step=3,
    record={'config': {}},
    items={'model': {'w': Leaf((2, 3), 'float32', '0' * 16)}},
    saved_by={},
  )
  return tmp_path


def rewrite(folder, change):
  """Changes a record as somebody would who knows how it is made."""
  path = folder / commit_record.FILE
  content = json.loads(path.read_text())
  del content['sha256']
  change(content)
  content['sha256'] = commit_record._checksum(content)
  path.write_text(json.dumps(content))


def test_what_was_written_is_read(step):
  found = commit_record.read(step)
  assert found.step == 3
  assert found.record == {'config': {}}
  assert found.items == {'model': {'w': Leaf((2, 3), 'float32', '0' * 16)}}
  assert found.files.keys() == {'model/values', 'other/large'}
  assert found.files['model/values'][0] == 6
  # Digests stand for the bytes of large files.
  assert found.files['other/large'] == (2**16 + 1, None)
  commit_record.check_files(step, found, ['model', 'other'])


def test_only_the_files_of_the_items_asked_for_are_looked_at(step):
  (step / 'other' / 'large').unlink()
  found = commit_record.read(step)
  commit_record.check_files(step, found, ['model'])
  with pytest.raises(DamagedError, match='other/large is missing'):
    commit_record.check_files(step, found, ['other'])


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'null',
    b'[]',
    b'3',
    b'{"format_version": 3}',
    b'\xff\xfe',
    b'[' * 10**6,
    b'{"a":' * 10**5,
    b'{"step": ' + b'9' * 10**5 + b'}',
    b' ' * (2**24 + 1),
  ],
  ids=range(10),
)
def test_junk_is_refused_in_no_time(step, content):
  (step / commit_record.FILE).write_bytes(content)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  started = time.process_time()
  with pytest.raises(DamagedError, match=r'commit\.json'):
    commit_record.read(step)
  assert time.process_time() - started < 1
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000


@pytest.mark.parametrize(
  'change',
  [
    lambda content: content.pop('step'),
    lambda content: content.update(step=None),
    lambda content: content.update(record=[]),
    lambda content: content.update(items=[]),
    lambda content: content['items'].update(model=3),
    lambda content: content['items']['model']['w'].update(shape=[-1]),
    lambda content: content['items']['model']['w'].update(shape=['a']),
    lambda content: content['items']['model']['w'].pop('digest'),
    lambda content: content.update(files=[1]),
    lambda content: content['files'].update({'model/values': 6}),
  ],
  ids=range(10),
)
def test_a_record_that_lacks_something_is_refused(step, change):
  rewrite(step, change)
  with pytest.raises(DamagedError, match='lacks what a commit record has'):
    commit_record.read(step)


@pytest.mark.parametrize('name', ['../outside', 'model/../../x', '/etc/passwd'])
def test_files_outside_of_the_step_are_not_looked_at(step, name):
  rewrite(step, lambda content: content['files'].update({name: [1, None]}))
  with pytest.raises(DamagedError, match='outside of the step'):
    commit_record.check_files(step, commit_record.read(step), ['model', '..'])


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(step, make):
  (step / commit_record.FILE).unlink()
  make(step / commit_record.FILE)
  with pytest.raises(DamagedError, match='is no regular file'):
    commit_record.read(step)
  (step / 'record').mkdir()
  make(step / 'record' / 'metadata')
  assert step_folders.old_version(step) is None


def test_another_version_is_told_from_damage(step):
  rewrite(step, lambda content: content.update(format_version=4))
  with pytest.raises(commit_record.VersionError, match='4'):
    commit_record.read(step)


@pytest.mark.parametrize('shape', [[10**12], [2**62, 2**62], [4, 4]])
def test_shapes_that_are_not_expected_are_refused_before_reading(step, shape):
  """A stranger's checkpoint cannot make this process ask for memory."""
  folder = step / 'W' / 'checkpoints' / '3'
  folder.mkdir(parents=True)
  commit_record.write(
    folder,
    step=3,
    record={},
    items={'model': {'params/w': Leaf(tuple(shape), 'float32', '0' * 16)}},
    saved_by={},
  )
  whole = sharding.replicated(sharding.make_mesh(1))
  wanted = jax.ShapeDtypeStruct((3,), jnp.float32, sharding=whole)
  started = time.process_time()
  with (
    checkpoint.Checkpoints(
      step / 'W', read_only=True, items={'model': ('params',)}
    ) as checkpoints,
    pytest.raises(checkpoint.CheckpointError, match='params/w was float32'),
  ):
    checkpoints._restore(3, {'model': {'params': {'w': wanted}}})
  assert time.process_time() - started < 1


@pytest.mark.parametrize(
  'number, error_type',
  [
    (errno.ESTALE, OSError),
    (errno.EACCES, OSError),
    (errno.EHOSTUNREACH, OSError),
    (errno.ENOTCONN, OSError),
    (errno.ECONNRESET, OSError),
    # A bad block stays one.
    (errno.EIO, commit_record.UnreadError),
    (errno.EISDIR, DamagedError),
  ],
)
def test_a_file_system_that_does_not_answer_is_no_damage(
  step, monkeypatch, number, error_type
):
  record = commit_record.read(step)

  def stat(path, **unused):
    raise OSError(number, os.strerror(number), str(path))

  monkeypatch.setattr(type(step), 'stat', stat)
  for read in (
    lambda: commit_record.read(step),
    lambda: commit_record.check_files(step, record, record.items),
  ):
    with pytest.raises(error_type) as error:
      read()
    # Whoever follows the causes of an error comes to an end.
    assert error.value.__cause__ is None
