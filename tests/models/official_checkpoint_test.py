import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
    lambda leaf: np.abs(rng.standard_normal(leaf.shape, np.float32)),
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
  variance = 'resnet_model/batch_normalization_3/moving_variance'
  arrays[variance] = arrays[variance] * np.float32(-1)
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
    f'1 negative: {variance}.',
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
