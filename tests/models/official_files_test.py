import functools
import io
import os
import sys
import tarfile
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from vie_jax.models import networks, official_checkpoint, official_files

NAME = 'vie_3dresnet'
Error = official_checkpoint.OfficialCheckpointError


@pytest.fixture(scope='module')
def network():
  """A narrow VIE-3DResNet's variables, and a memory."""
  model = networks.build(NAME, embedding_size=6, width=4)
  clip = jax.ShapeDtypeStruct((1, 16, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), clip
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda leaf: np.abs(rng.standard_normal(leaf.shape, np.float32)), shapes
  )
  bank = rng.standard_normal((5, 6), np.float32)
  clusters = rng.integers(0, 3, (2, 5))
  memory = official_checkpoint.Memory(bank, rng.integers(0, 9, 5), clusters)
  return variables, memory


@pytest.fixture(scope='module')
def expected(network):
  """What is to be read: a network, its memory, the step."""
  variables, memory = network
  arrays = official_checkpoint.to_official(variables, NAME, memory)
  return arrays | {'global_step': np.int64(1_450_000)}


def save(folder, arrays, *, steps=(1_450_000,), version=2):
  """Writes checkpoints with TensorFlow, with the optimiser's slots."""
  v1 = tf.compat.v1
  slots = {
    f'{name}/Momentum': np.zeros_like(array)
    for name, array in arrays.items()
    if name.endswith(('kernel', 'gamma', 'beta', 'bias'))
  }
  slots['__tfutils_opt__/learning_rate'] = np.float32(0.01)
  folder.mkdir()
  with tf.Graph().as_default(), v1.Session() as session:
    variables = {
      name: v1.Variable(array, use_resource=False)
      for name, array in (arrays | slots).items()
    }
    session.run(v1.global_variables_initializer())
    saver = v1.train.Saver(variables, write_version=version)
    for step in steps:
      saver.save(session, str(folder / 'checkpoint'), step)
  return folder


@pytest.fixture(scope='module')
def saved(tmp_path_factory, expected):
  """Folder of a checkpoint written by TensorFlow."""
  return save(tmp_path_factory.mktemp('official') / 'saved', expected)


def pack(archive, mode, folder, inside=''):
  with tarfile.open(archive, mode) as tar:
    for path in sorted(folder.iterdir()):
      tar.add(path, inside + path.name)
  return archive


@pytest.fixture(
  params=[
    'checkpoint-1450000',
    'checkpoint-1450000.index',
    'checkpoint-1450000.meta',
    'checkpoint-1450000.data-00000-of-00001',
    'folder',
    'folder without state',
    'checkpoint-1450000.tar',
    'checkpoint-1450000.tar.gz',
    'arrays.npz',
  ]
)
def source(request, saved, expected, tmp_path):
  """One of the paths that a checkpoint can be read from."""
  if request.param == 'folder':
    return saved
  if request.param == 'folder without state':
    for path in saved.iterdir():
      if path.name != 'checkpoint':
        os.link(path, tmp_path / path.name)
    return tmp_path
  if request.param.endswith('.tar'):
    return pack(tmp_path / request.param, 'w', saved)
  if request.param.endswith('.tar.gz'):
    return pack(tmp_path / request.param, 'w:gz', saved, 'some/folder/')
  if request.param.endswith('.npz'):
    np.savez(
      tmp_path / request.param,
      **expected,
      **{'resnet_model/dense/bias/Momentum': np.zeros(6)},
    )
    return tmp_path / request.param
  return saved / request.param


def test_a_checkpoint_is_read_from_every_kind_of_path(
  source, expected, network
):
  arrays = official_files.read(source)
  assert sorted(arrays) == sorted(expected)
  for name, array in expected.items():
    np.testing.assert_array_equal(arrays[name], array)
    assert arrays[name].dtype == array.dtype
  variables, memory = official_checkpoint.to_flax(arrays, NAME, network[0])
  assert jax.tree.structure(variables) == jax.tree.structure(network[0])
  jax.tree.map(np.testing.assert_array_equal, variables, network[0])
  np.testing.assert_array_equal(memory.bank, network[1].bank)


def test_variables_that_are_no_numbers_are_not_read(expected, tmp_path):
  # The index does not say how long texts are.
  others = {'a/text': np.array(['x'], object), 'a/pair': np.zeros(3, complex)}
  folder = save(tmp_path / 'saved', expected | others)
  assert sorted(official_files.read(folder)) == sorted(expected)


def test_a_folder_stands_for_its_newest_checkpoint(tmp_path):
  folder = save(tmp_path / 'a', {'x': np.float32(1)}, steps=(9, 10))
  (folder / 'checkpoint-9.index').rename(folder / 'checkpoint-99.index')
  state = folder / 'checkpoint'
  state.write_text(
    'model_checkpoint_path: "/where/it/was/trained/checkpoint-10"\n'
  )
  assert set(official_files.read(folder)) == {'x'}
  state.write_text('model_checkpoint_path: "checkpoint-11"\n')
  with pytest.raises(Error, match=r'no checkpoint-11\.index'):
    official_files.read(folder)
  state.unlink()
  with pytest.raises(Error, match='checkpoint-10, checkpoint-99'):
    official_files.read(folder)


def test_an_archive_of_several_checkpoints_is_refused(tmp_path):
  folder = save(tmp_path / 'a', {'x': np.float32(1)}, steps=(9, 10))
  archive = pack(tmp_path / 'two.tar', 'w', folder)
  with pytest.raises(Error, match='checkpoint-10, checkpoint-9'):
    official_files.read(archive)


def test_what_is_no_checkpoint_is_refused_with_the_remedy(tmp_path):
  with pytest.raises(Error, match=r'no checkpoint .*/absent.* prefix'):
    official_files.read(tmp_path / 'absent')
  with pytest.raises(Error, match=r'no file ends in \.index'):
    official_files.read(tmp_path)
  page = tmp_path / 'checkpoint-1450000.tar'
  page.write_text('<html>The file is too large to be scanned for viruses.')
  with pytest.raises(Error, match=r'checkpoint-1450000\.tar .*again'):
    official_files.read(page)
  empty = tmp_path / 'empty'
  empty.touch()
  with pytest.raises(Error, match='neither'):
    official_files.read(empty)
  archive = pack(tmp_path / 'other.tar', 'w', tmp_path)
  with pytest.raises(Error, match=r'no file ends in \.index'):
    official_files.read(archive)


def test_a_v1_checkpoint_is_refused_with_the_remedy(tmp_path):
  folder = save(tmp_path / 'a', {'x': np.float32(1)}, version=1)
  with pytest.raises(Error, match=r'format V1: .*write_version'):
    official_files.read(folder / 'checkpoint-1450000')


def damaged_copy(saved, folder, suffix, change):
  """A copy of a checkpoint with one file changed, or removed by None."""
  folder.mkdir()
  for path in saved.iterdir():
    content = path.read_bytes()
    if path.name.endswith(suffix):
      content = change(content)
    if content is not None:
      (folder / path.name).write_bytes(content)
  return folder / 'checkpoint-1450000'


@pytest.mark.parametrize(
  'change',
  [lambda x: None, lambda x: x[: len(x) // 2], lambda x: b'\1' * len(x)],
  ids=['missing', 'cut', 'changed'],
)
def test_damaged_data_is_refused_by_name(saved, tmp_path, change):
  prefix = damaged_copy(saved, tmp_path / 'a', '-of-00001', change)
  with pytest.raises(Error, match=f'{prefix} is damaged or incomplete'):
    official_files.read(prefix)
  archive = pack(tmp_path / 'a.tar', 'w', prefix.parent)
  with pytest.raises(Error, match=f'in {archive} is damaged or incomplete'):
    official_files.read(archive)


def test_a_damaged_or_missing_index_is_refused_by_name(saved, tmp_path):
  prefix = damaged_copy(saved, tmp_path / 'a', '.index', lambda x: x[:20])
  with pytest.raises(Error, match=f'{prefix} is damaged or incomplete'):
    official_files.read(prefix)
  prefix = damaged_copy(saved, tmp_path / 'b', '.index', lambda x: None)
  with pytest.raises(Error, match=r'checkpoint-1450000\.index is missing'):
    official_files.read(f'{prefix}.data-00000-of-00001')


@pytest.mark.parametrize('mode', ['w', 'w:gz', 'w:bz2', 'w:xz'])
def test_an_archive_cut_short_is_refused(saved, tmp_path, mode):
  archive = pack(tmp_path / 'a.tar', mode, saved)
  archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
  with pytest.raises(Error, match=rf'{archive}.*(again|once more)'):
    official_files.read(archive)


@pytest.mark.parametrize('name', ['../a.index', 'b/../../a.index', '/a.index'])
def test_an_archive_writes_nothing_outside_and_leaves_nothing(
  tmp_path, monkeypatch, name
):
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  archive = tmp_path / 'bad.tar'
  with tarfile.open(archive, 'w') as tar:
    tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    link = tarfile.TarInfo('link.index')
    link.type, link.linkname = tarfile.SYMTYPE, str(archive)
    tar.addfile(link)
  with pytest.raises(Error, match=r'bad\.tar'):
    official_files.read(archive)
  assert list(tmp_path.iterdir()) == [archive]


def test_an_archive_that_would_become_far_larger_is_not_unpacked(
  tmp_path, monkeypatch
):
  archive = tmp_path / 'bomb.tar.gz'
  with tarfile.open(archive, 'w:gz') as tar:
    for name in ('a.index', 'a.data-00000-of-00001'):
      member = tarfile.TarInfo(name)
      member.size = 2**26
      tar.addfile(member, io.BytesIO(bytes(member.size)))
  assert archive.stat().st_size < 2**26 / 100
  unpacked = []
  monkeypatch.setattr(
    tarfile.TarFile,
    'extract',
    lambda self, member, *unused, **options: unpacked.append(member.name),
  )
  with pytest.raises(Error, match=r'bomb\.tar\.gz is not unpacked'):
    official_files.read(archive)
  assert unpacked == ['a.index']


def test_arrays_of_python_objects_are_refused(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, a=np.array([{}], dtype=object))
  with pytest.raises(Error, match=r'a\.npz .*savez'):
    official_files.read(path)
  np.save(tmp_path / 'b.npy', np.zeros(3))
  (tmp_path / 'b.npy').rename(path)
  with pytest.raises(Error, match=r'a\.npz .*savez'):
    official_files.read(path)
  path.write_bytes(b'')
  with pytest.raises(Error, match=r'a\.npz .*savez'):
    official_files.read(path)


def test_without_tensorflow_only_arrays_by_name_are_read(
  saved, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  with pytest.raises(Error, match='install tensorflow-cpu'):
    official_files.read(saved)
  np.savez(tmp_path / 'a.npz', x=np.zeros(3))
  assert set(official_files.read(tmp_path / 'a.npz')) == {'x'}
