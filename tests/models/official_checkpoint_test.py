import functools
import io
import os
import re
import sys
import tarfile
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from oracle import official

from vie_jax.models import networks, official_checkpoint

PAPER = {'embedding_size': 128, 'width': 64, 'fast_width': 8}
NARROW = {'embedding_size': 6, 'width': 4, 'fast_width': 2}
FRAMES = {
  'vie_single': 1,
  'vie_3dresnet': 16,
  'vie_trn': 4,
  'vie_slow': 4,
  'vie_slowfast': 16,
  'vie_twostream_s': 4,
  'vie_twostream_sf': 16,
}
VIDEOS = 5
Error = official_checkpoint.OfficialCheckpointError


@functools.cache
def shapes_of(name, width=NARROW['width']):
  """Shapes of a network's variables; the paper's at its width of 64."""
  sizes = PAPER if width == PAPER['width'] else NARROW | {'width': width}
  model = networks.build(name, **sizes)
  clip = jax.ShapeDtypeStruct((1, FRAMES[name], 32, 32, 3), jnp.float32)
  init = functools.partial(model.init, train=False)
  return jax.eval_shape(init, jax.random.key(0), clip)


def random_variables(name, width=NARROW['width']):
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape, np.float32),
    shapes_of(name, width),
  )


def random_memory(clusterings=2):
  rng = np.random.default_rng(1)
  return official_checkpoint.Memory(
    rng.standard_normal((VIDEOS, NARROW['embedding_size']), np.float32),
    rng.integers(0, 9, VIDEOS),
    rng.integers(0, 3, (clusterings, VIDEOS)),
  )


def official_arrays(name='vie_3dresnet', memory=None):
  return official_checkpoint.to_official(random_variables(name), name, memory)


def listing(arrays):
  return [[name, list(array.shape)] for name, array in arrays.items()]


def renamed(pairs, old, new):
  return [[re.sub(f'^{old}/', f'{new}/', name), shape] for name, shape in pairs]


def flat_in_time(name, shape):
  """The shape of VIE-Slow's variable, from VIE-3DResNet's."""
  number = int((re.findall(r'conv3d_(\d+)/', name) or [0])[0])
  if len(shape) < 5:
    return shape
  # First convolutions of the blocks of the last two stages see three frames.
  return [3 if number in (12, 14, 17, 19) else 1, *shape[1:]]


def official_listing(name):
  """[name, shape] in the official order of creation.

  Taken from graphs of the official code for VIE-Single, VIE-3DResNet and
  VIE-SlowFast; the others follow from these.
  """
  if name == 'vie_single':
    return official.load('single_64.json')['variables']
  if name == 'vie_slowfast':
    return official.load('slowfast_64.json')['variables']
  if name == 'vie_3dresnet':
    stored = official.load('checkpoint_3dresnet_LA.json')['variables']
    return [
      [name, shape]
      for name, shape, _ in stored
      if re.match('resnet_model/.*(?<!Momentum)$', name)
    ]
  single = official_listing('vie_single')
  if name == 'vie_trn':
    return [
      [name, [2048, 128] if name == 'resnet_model/dense/kernel' else shape]
      for name, shape in single
    ]
  if name == 'vie_slow':
    return [
      [name, flat_in_time(name, shape)]
      for name, shape in official_listing('vie_3dresnet')
    ]
  if name == 'vie_twostream_s':
    slow = official_listing('vie_slow')
    return single + renamed(slow, 'resnet_model', 'resnet_model_slow')
  assert name == 'vie_twostream_sf'
  return single + official_listing('vie_slowfast')


def assert_same_tree(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)
  assert {leaf.dtype for leaf in jax.tree.leaves(one)} == {np.dtype('float32')}


@pytest.mark.parametrize('name', networks.NAMES)
def test_names_shapes_and_order_are_the_official_ones(name):
  arrays = official_checkpoint.to_official(
    random_variables(name, PAPER['width']), name
  )
  assert listing(arrays) == official_listing(name)
  assert [v.name for v in official_checkpoint.variables_of(name)] == list(
    arrays
  )


@pytest.mark.parametrize('task', ['IR', 'LA'])
def test_every_variable_of_an_official_training_is_used_or_left_on_purpose(
  task,
):
  stored = official.load(f'checkpoint_3dresnet_{task}.json')
  videos = stored['number_of_videos']
  # No memory is taken for values that do not matter here.
  arrays = {
    name: np.broadcast_to(np.zeros((), dtype), shape)
    for name, shape, dtype in stored['variables']
  }
  variables, memory = official_checkpoint.to_flax(
    arrays, 'vie_3dresnet', shapes_of('vie_3dresnet', PAPER['width'])
  )
  assert memory.bank.shape == (videos, 128)
  assert memory.labels.shape == (videos,)
  if task == 'LA':
    assert memory.cluster_labels.shape == (1, videos)
  else:
    assert memory.cluster_labels is None
  result = official_checkpoint.to_official(variables, 'vie_3dresnet', memory)
  kept = [
    [name, shape, dtype]
    for name, shape, dtype in stored['variables']
    if name != 'global_step' and not name.endswith('/Momentum')
  ]
  assert kept == [
    [name, list(array.shape), str(array.dtype)]
    for name, array in result.items()
  ]
  assert len(kept) == {'IR': 93, 'LA': 94}[task]


@pytest.mark.parametrize('name', networks.NAMES)
def test_the_way_there_and_back_changes_no_bit(name):
  variables, memory = random_variables(name), random_memory()
  arrays = official_checkpoint.to_official(variables, name, memory)
  back, memory_back = official_checkpoint.to_flax(arrays, name, shapes_of(name))
  assert_same_tree(back, variables)
  np.testing.assert_array_equal(memory_back.bank, memory.bank)
  np.testing.assert_array_equal(memory_back.labels, memory.labels)
  np.testing.assert_array_equal(
    memory_back.cluster_labels, memory.cluster_labels
  )
  again = official_checkpoint.to_official(back, name, memory_back)
  assert list(again) == list(arrays)
  for key, array in arrays.items():
    np.testing.assert_array_equal(again[key], array)


def test_variables_go_where_their_part_is_played():
  # One value per variable, so that a swap of two of equal shape is seen.
  arrays = {
    name: np.full(array.shape, number, np.float32)
    for number, (name, array) in enumerate(
      official_arrays('vie_slowfast').items()
    )
  }
  number = {name: int(array.flat[0]) for name, array in arrays.items()}
  tree, _ = official_checkpoint.to_flax(
    arrays, 'vie_slowfast', shapes_of('vie_slowfast')
  )
  backbone = tree['params']['backbone']
  running = tree['batch_stats']['backbone']
  slow, fast = 'resnet_model_slow', 'resnet_model_fast'
  expected = {
    f'{fast}/conv3d/kernel': backbone['fast']['stem']['conv']['kernel'],
    f'{fast}/conv3d_14/kernel': backbone['fast']['stages_2']['block2']['conv1'][
      'kernel'
    ],
    f'{slow}/conv3d_1/kernel': backbone['lateral_stem']['kernel'],
    f'{slow}/conv3d_25/kernel': backbone['lateral_stage4']['kernel'],
    f'{slow}/conv3d_8/kernel': backbone['slow']['stages_1']['block1'][
      'projection'
    ]['kernel'],
    f'{slow}/conv3d_24/kernel': backbone['slow']['stages_3']['block2']['conv2'][
      'kernel'
    ],
    f'{slow}/batch_normalization_5/gamma': backbone['slow']['stages_1'][
      'block1'
    ]['norm2']['scale'],
    f'{slow}/batch_normalization_5/beta': backbone['slow']['stages_1'][
      'block1'
    ]['norm2']['bias'],
    f'{fast}/batch_normalization_16/moving_mean': running['fast']['final_norm'][
      'mean'
    ],
    f'{fast}/batch_normalization_16/moving_variance': running['fast'][
      'final_norm'
    ]['var'],
  }
  for name, leaf in expected.items():
    assert (leaf == number[name]).all(), name


def test_values_become_float32_and_names_may_end_in_an_output_number():
  arrays = official_arrays(memory=random_memory())
  given = {
    f'{name}:0': array.astype(
      np.int32 if array.dtype == np.int64 else np.float64
    )
    for name, array in arrays.items()
  }
  variables, memory = official_checkpoint.to_flax(
    given, 'vie_3dresnet', shapes_of('vie_3dresnet')
  )
  assert_same_tree(variables, random_variables('vie_3dresnet'))
  assert memory.bank.dtype == np.float32
  assert memory.labels.dtype == memory.cluster_labels.dtype == np.int64


def test_there_is_no_memory_without_its_arrays():
  given = official_arrays('vie_trn') | {'global_step': np.int64(7)}
  _, memory = official_checkpoint.to_flax(
    given, 'vie_trn', shapes_of('vie_trn')
  )
  assert memory is None


def test_one_stream_can_be_filled_from_its_own_checkpoint():
  shapes = shapes_of('vie_twostream_s')
  for stream, name in networks.STREAMS['vie_twostream_s'].items():
    part = {collection: tree[stream] for collection, tree in shapes.items()}
    arrays = official_arrays(name)
    variables, _ = official_checkpoint.to_flax(arrays, name, part)
    assert_same_tree(variables, random_variables(name))


def test_all_arrays_that_do_not_fit_are_listed_in_one_error():
  arrays = official_arrays(memory=random_memory())
  del arrays['resnet_model/conv3d_3/kernel']
  del arrays['resnet_model/batch_normalization_7/moving_mean']
  arrays['resnet_model/conv3d_21/kernel'] = np.zeros(3, np.float32)
  arrays['instance/queue'] = np.zeros(3, np.float32)
  arrays['resnet_model/dense/bias'] = np.zeros(9, np.float32)
  arrays['resnet_model/batch_normalization/beta'] = np.zeros(4, np.int32)
  arrays['instance/memory_bank'] = np.zeros((VIDEOS, 9), np.float32)
  arrays['instance/all_labels'] = np.zeros((VIDEOS, 1), np.int64)
  arrays['resnet_model/conv3d/kernel:0'] = arrays['resnet_model/conv3d/kernel']
  # These belong to other parts of the official code.
  arrays['global_step'] = np.int64(3)
  arrays['resnet_model/dense/bias/Momentum'] = np.zeros(6, np.float32)
  arrays['__tfutils_opt__/lr'] = np.zeros((), np.float32)
  arrays['instance/transfer_dense_5/kernel'] = np.zeros((2, 2), np.float32)
  with pytest.raises(Error) as caught:
    official_checkpoint.to_flax(
      arrays, 'vie_3dresnet', shapes_of('vie_3dresnet')
    )
  assert str(caught.value).split('\n') == [
    'These are not the official variables of vie_3dresnet.',
    '2 missing: resnet_model/conv3d_3/kernel; '
    'resnet_model/batch_normalization_7/moving_mean.',
    '2 unknown: resnet_model/conv3d_21/kernel; instance/queue.',
    '4 misshapen: '
    'resnet_model/batch_normalization/beta is int32, not floating; '
    'resnet_model/dense/bias is [9], not [6]; '
    'instance/memory_bank is [5, 9], not [5, 6]; '
    'instance/all_labels is [5, 1], not [5].',
    '1 given twice: resnet_model/conv3d/kernel.',
  ]


@pytest.mark.parametrize(
  'name, shape, complaint',
  [
    ('memory_bank', (6,), r'instance/memory_bank is \[6\], not \[N, 6\]'),
    ('memory_bank', (0, 6), r'instance/all_labels is \[5\], not \[0\]'),
    ('cluster_labels', (5,), r'instance/cluster_labels is \[5\], not \[R, 5\]'),
    (
      'cluster_labels',
      (2, 4),
      r'instance/cluster_labels is \[2, 4\], not \[R, 5\]',
    ),
  ],
)
def test_a_memory_of_another_shape_is_refused(name, shape, complaint):
  arrays = official_arrays(memory=random_memory())
  name = f'instance/{name}'
  arrays[name] = np.zeros(shape, arrays[name].dtype)
  with pytest.raises(Error, match=complaint):
    official_checkpoint.to_flax(
      arrays, 'vie_3dresnet', shapes_of('vie_3dresnet')
    )


def test_labels_without_a_bank_are_refused():
  arrays = official_arrays(memory=random_memory())
  del arrays['instance/memory_bank']
  with pytest.raises(Error, match=r'1 missing: instance/memory_bank\.$'):
    official_checkpoint.to_flax(
      arrays, 'vie_3dresnet', shapes_of('vie_3dresnet')
    )


@pytest.mark.parametrize('given', networks.NAMES)
@pytest.mark.parametrize('wanted', networks.NAMES)
def test_variables_of_another_network_are_recognised(given, wanted):
  arrays = official_arrays(given)
  if given == wanted:
    official_checkpoint.to_flax(arrays, wanted, shapes_of(wanted))
    return
  with pytest.raises(Error, match=f'those of {given}: use its config'):
    official_checkpoint.to_flax(arrays, wanted, shapes_of(wanted))


def test_another_width_is_not_taken_for_another_network():
  with pytest.raises(Error) as caught:
    official_checkpoint.to_flax(
      official_arrays('vie_slow'), 'vie_slow', shapes_of('vie_slow', 8)
    )
  message = str(caught.value)
  assert 'look like' not in message
  assert (
    'resnet_model/conv3d/kernel is [1, 7, 7, 3, 4], not [1, 7, 7, 3, 8]'
    in (message)
  )


def test_trees_and_names_of_other_networks_are_refused():
  shapes = shapes_of('vie_slow')
  with pytest.raises(Error, match='params/backbone/lateral_stem/kernel'):
    official_checkpoint.to_flax({}, 'vie_slowfast', shapes)
  with pytest.raises(Error, match='batch_stats/backbone/final_norm/mean'):
    official_checkpoint.to_official({'params': shapes['params']}, 'vie_slow')
  with pytest.raises(Error, match='vie_twostream_sf'):
    official_checkpoint.variables_of('resnet')


@pytest.fixture(scope='module')
def expected():
  """What is to be read: a network, its memory, the step."""
  arrays = official_arrays(memory=random_memory())
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


def test_a_checkpoint_is_read_from_every_kind_of_path(source, expected):
  arrays = official_checkpoint.read(source)
  assert sorted(arrays) == sorted(expected)
  for name, array in expected.items():
    np.testing.assert_array_equal(arrays[name], array)
    assert arrays[name].dtype == array.dtype
  variables, memory = official_checkpoint.to_flax(
    arrays, 'vie_3dresnet', shapes_of('vie_3dresnet')
  )
  assert_same_tree(variables, random_variables('vie_3dresnet'))
  np.testing.assert_array_equal(memory.bank, random_memory().bank)


def test_a_folder_stands_for_its_newest_checkpoint(tmp_path):
  folder = save(tmp_path / 'a', {'x': np.float32(1)}, steps=(9, 10))
  (folder / 'checkpoint-9.index').rename(folder / 'checkpoint-99.index')
  state = folder / 'checkpoint'
  state.write_text(
    'model_checkpoint_path: "/where/it/was/trained/checkpoint-10"\n'
  )
  assert set(official_checkpoint.read(folder)) == {'x'}
  state.write_text('model_checkpoint_path: "checkpoint-11"\n')
  with pytest.raises(Error, match=r'no checkpoint-11\.index'):
    official_checkpoint.read(folder)
  state.unlink()
  with pytest.raises(Error, match='checkpoint-10, checkpoint-99'):
    official_checkpoint.read(folder)


def test_an_archive_of_several_checkpoints_is_refused(tmp_path):
  folder = save(tmp_path / 'a', {'x': np.float32(1)}, steps=(9, 10))
  archive = pack(tmp_path / 'two.tar', 'w', folder)
  with pytest.raises(Error, match='checkpoint-10, checkpoint-9'):
    official_checkpoint.read(archive)


def test_what_is_no_checkpoint_is_refused_with_the_remedy(tmp_path):
  with pytest.raises(Error, match=r'no checkpoint .*/absent.* prefix'):
    official_checkpoint.read(tmp_path / 'absent')
  with pytest.raises(Error, match=r'no file ends in \.index'):
    official_checkpoint.read(tmp_path)
  page = tmp_path / 'checkpoint-1450000.tar'
  page.write_text('<html>The file is too large to be scanned for viruses.')
  with pytest.raises(Error, match=r'checkpoint-1450000\.tar .*again'):
    official_checkpoint.read(page)
  empty = tmp_path / 'empty'
  empty.touch()
  with pytest.raises(Error, match='neither'):
    official_checkpoint.read(empty)
  archive = pack(tmp_path / 'other.tar', 'w', tmp_path)
  with pytest.raises(Error, match=r'no file ends in \.index'):
    official_checkpoint.read(archive)


def test_a_v1_checkpoint_is_refused_with_the_remedy(tmp_path):
  folder = save(tmp_path / 'a', {'x': np.float32(1)}, version=1)
  with pytest.raises(Error, match=r'format V1: .*write_version'):
    official_checkpoint.read(folder / 'checkpoint-1450000')


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
    official_checkpoint.read(prefix)
  archive = pack(tmp_path / 'a.tar', 'w', prefix.parent)
  with pytest.raises(Error, match=f'in {archive} is damaged or incomplete'):
    official_checkpoint.read(archive)


def test_a_damaged_or_missing_index_is_refused_by_name(saved, tmp_path):
  prefix = damaged_copy(saved, tmp_path / 'a', '.index', lambda x: x[:20])
  with pytest.raises(Error, match=f'{prefix} is damaged or incomplete'):
    official_checkpoint.read(prefix)
  prefix = damaged_copy(saved, tmp_path / 'b', '.index', lambda x: None)
  with pytest.raises(Error, match=r'checkpoint-1450000\.index is missing'):
    official_checkpoint.read(f'{prefix}.data-00000-of-00001')


@pytest.mark.parametrize('mode', ['w', 'w:gz', 'w:bz2', 'w:xz'])
def test_an_archive_cut_short_is_refused(saved, tmp_path, mode):
  archive = pack(tmp_path / 'a.tar', mode, saved)
  archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
  with pytest.raises(Error, match=rf'{archive}.*(again|once more)'):
    official_checkpoint.read(archive)


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
    official_checkpoint.read(archive)
  assert list(tmp_path.iterdir()) == [archive]


def test_arrays_of_python_objects_are_refused(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, a=np.array([{}], dtype=object))
  with pytest.raises(Error, match=r'a\.npz .*savez'):
    official_checkpoint.read(path)
  np.save(tmp_path / 'b.npy', np.zeros(3))
  (tmp_path / 'b.npy').rename(path)
  with pytest.raises(Error, match=r'a\.npz .*savez'):
    official_checkpoint.read(path)
  path.write_bytes(b'')
  with pytest.raises(Error, match=r'a\.npz .*savez'):
    official_checkpoint.read(path)


def test_without_tensorflow_only_arrays_by_name_are_read(
  saved, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  with pytest.raises(Error, match='install tensorflow-cpu'):
    official_checkpoint.read(saved)
  np.savez(tmp_path / 'a.npz', x=np.zeros(3))
  assert set(official_checkpoint.read(tmp_path / 'a.npz')) == {'x'}
