"""The networks, against the official ones and an independent form of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import official, reference_network

from vie_jax.models import networks, official_checkpoint, resnet

MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
FIXTURES = {
  'single_64.json': 'vie_single',
  '3dresnet_64.json': 'vie_3dresnet',
  'slowfast_64.json': 'vie_slowfast',
}
# Of gradient norms, a bound on the median error over variables. In 3dresnet_64
# the official float32 run itself lies 1.2e-3 off float64, where ours lies 6e-7:
# a value next to a ReLU's kink moved all gradients upstream of it.
MEDIAN = {
  'single_64.json': 1e-3,
  '3dresnet_64.json': 2e-3,
  'slowfast_64.json': 1e-3,
}
# Trainable, all with the paper's sizes; TRN and TwoStream-S with 4 frames.
PARAMETERS = {
  'vie_single': 11_244_480,
  'vie_3dresnet': 33_271_872,
  'vie_trn': 11_441_088,
  'vie_slow': 20_091_840,
  'vie_slowfast': 21_678_280,
  'vie_twostream_s': 31_336_320,
  'vie_twostream_sf': 32_922_760,
}
FRAMES = {
  'vie_single': 1,
  'vie_3dresnet': 16,
  'vie_trn': 4,
  'vie_slow': 4,
  'vie_slowfast': 8,
  'vie_twostream_s': 4,
  'vie_twostream_sf': 8,
}
SMALL = {'embedding_size': 32, 'width': 8, 'fast_width': 4}
# (network, official type, frames): those without a fixture, and the control.
REFERENCES = [
  ('vie_slow', 'slow', 4),
  ('vie_trn', 'trn', 4),
  ('vie_trn', 'trn', 3),
  ('vie_single', 'single', 4),
  ('vie_3dresnet', '3dresnet', 9),
  ('vie_slowfast', 'slowfast', 8),
]
# The others take half a minute each to compile.
QUICK = (('vie_trn', 'trn', 4), ('vie_single', 'single', 4))


def normalised(pixels):
  return (pixels.astype(np.float32) / 255 - MEAN) / STD


def relative(one, other):
  one, other = np.asarray(one), np.asarray(other)
  return np.linalg.norm(one - other) / np.linalg.norm(other)


def shapes_of(model, clips):
  init = functools.partial(model.init, train=True)
  return jax.eval_shape(init, jax.random.key(0), clips)


def by_official_name(name, params, batch_stats):
  variables = {'params': params, 'batch_stats': batch_stats}
  return official_checkpoint.to_official(variables, name)


@functools.cache
def fixture_case(file):
  """(fixture, name, network, variables, clips)."""
  expected = official.load(file)
  name = FIXTURES[file]
  model = networks.build(name)
  clips = normalised(official.clip(**expected['clip']))
  arrays = {
    variable: official.weights(variable, shape)
    for variable, shape in expected['variables']
  }
  variables, memory = official_checkpoint.to_flax(
    arrays, name, shapes_of(model, clips)
  )
  assert memory is None
  return expected, name, model, variables, clips


def forward(model, variables, clips, *, train):
  """(embedding, readouts, batch statistics after the step), jitted."""

  def apply(variables, clips):
    embedding, updated = model.apply(
      variables, clips, train=train, mutable='batch_stats'
    )
    readouts, _ = model.apply(
      variables, clips, train=train, method='readouts', mutable='batch_stats'
    )
    return embedding, readouts, updated.get('batch_stats', {})

  return jax.jit(apply)(variables, clips)


@pytest.mark.parametrize('file', FIXTURES)
def test_eval_mode_equals_the_official_network(file):
  expected, _, model, variables, clips = fixture_case(file)
  embedding, readouts, _ = forward(model, variables, clips, train=False)
  assert relative(embedding, expected['eval']['embedding']) < 1e-5
  for layer, number in zip(readouts, (1, 3, 5, 7, 9), strict=True):
    point = expected['eval']['endpoints'][number]
    # Channels first, as there; the points of 3D networks still have time.
    found = readouts[layer]
    assert found.mean() == pytest.approx(point['mean'], rel=1e-4)
    if len(point['shape']) == 4 or point['shape'][2] == 1:
      assert found.size == np.prod(point['shape'])
      assert found.std() == pytest.approx(point['std'], rel=1e-4)
      np.testing.assert_allclose(
        found.ravel()[:16], point['first16'], atol=1e-4 * point['std']
      )


def loss_weight(clips):
  """R of the fixtures, whose loss is the sum of embedding * R."""
  rng = np.random.Generator(np.random.PCG64(99))
  return rng.standard_normal((len(clips), 128)).astype(np.float32)


@functools.cache
def train_case(file):
  """(embedding, loss, gradients and statistics by official name)."""
  _, name, model, variables, clips = fixture_case(file)
  weight = loss_weight(clips)

  def loss_of(params):
    result, updated = model.apply(
      {'params': params, 'batch_stats': variables['batch_stats']},
      clips,
      train=True,
      mutable='batch_stats',
    )
    return jnp.sum(result * weight), (result, updated['batch_stats'])

  (loss, (result, moved)), gradient = jax.jit(
    jax.value_and_grad(loss_of, has_aux=True)
  )(variables['params'])
  return result, loss, by_official_name(name, gradient, moved)


@pytest.mark.parametrize(
  'file',
  [
    'single_64.json',
    '3dresnet_64.json',
    pytest.param('slowfast_64.json', marks=pytest.mark.slow),
  ],
)
def test_train_mode_and_gradients_equal_the_official_network(file):
  expected = fixture_case(file)[0]['train']
  result, loss, found = train_case(file)
  assert relative(result, expected['embedding']) < 3e-5
  assert loss == pytest.approx(expected['loss'], abs=1e-4)
  errors = [
    abs(np.linalg.norm(found[variable]) / norm - 1)
    for variable, norm in expected['grad_norm'].items()
  ]
  assert max(errors) < 0.03
  assert np.median(errors) < MEDIAN[file]
  for variable, (mean, first) in expected['moving_after_one_update'].items():
    value = found[variable]
    assert value.mean() == pytest.approx(mean, rel=1e-4, abs=1e-5)
    assert value[0] == pytest.approx(first, rel=1e-4, abs=1e-5)


def test_gradients_equal_float64_where_the_official_run_sits_at_a_kink():
  file = '3dresnet_64.json'
  fixture, *_, clips = fixture_case(file)
  weight = loss_weight(clips)
  arrays = {
    variable: official.weights(variable, shape)
    for variable, shape in fixture['variables']
  }
  _, expected = reference_network.gradients(
    arrays,
    '3dresnet',
    official.clip(**fixture['clip']),
    lambda output: reference_network.tf.reduce_sum(output.embedding * weight),
    dtype='float64',
  )
  found = train_case(file)[2]
  errors = [
    abs(np.linalg.norm(found[variable]) / np.linalg.norm(value) - 1)
    for variable, value in expected.items()
  ]
  assert max(errors) < 0.03
  assert np.median(errors) < 1e-4


@pytest.mark.parametrize(
  'name,file,label,fixture',
  [
    ('vie_single', 'single_more.json', 'eval_224', 'single_64.json'),
    ('vie_single', 'single_more.json', 'train_64', 'single_64.json'),
    ('vie_3dresnet', '3dresnet_more.json', 'eval_64', '3dresnet_64.json'),
  ],
)
def test_readouts_equal_the_official_ones(name, file, label, fixture):
  case = official.load(file)['cases'][label]
  _, _, model, variables, _ = fixture_case(fixture)
  pixels = reference_network.more_clip(
    case['input_shape'], phase=case['input_phase']
  )
  if pixels.ndim == 4:  # single frames have no time axis there
    pixels = pixels[:, None]
  _, readouts, _ = forward(
    model, variables, normalised(pixels), train=case['train']
  )
  compared = 0
  for layer, number in zip(readouts, '13579', strict=True):
    if number in case['readout_channels_first']:
      expected = case['readout_channels_first'][number]
      found = np.asarray(readouts[layer])
      assert list(found.shape) == expected['shape']
      atol = 1e-4 * expected['std']
      assert found.mean() == pytest.approx(expected['mean'], abs=atol)
      assert found.std() == pytest.approx(expected['std'], abs=atol)
      np.testing.assert_allclose(
        found.ravel()[:16], expected['first16'], rtol=0, atol=atol
      )
      compared += 1
  assert compared >= 3


@functools.cache
def reference_case(name, kind, frames):
  """(network, variables, official arrays, pixels), narrow."""
  model = networks.build(name, **SMALL)
  pixels = official.clip(3, frames, 40, 7)
  arrays = {
    variable: official.weights(variable, shape)
    for variable, shape in reference_network.variable_shapes(
      kind, frames=frames, **SMALL
    )
  }
  variables, _ = official_checkpoint.to_flax(
    arrays, name, shapes_of(model, normalised(pixels))
  )
  return model, variables, arrays, pixels


@pytest.mark.parametrize(
  'name,kind,frames',
  [
    case if case[2] <= 4 else pytest.param(*case, marks=pytest.mark.slow)
    for case in REFERENCES
  ],
)
def test_eval_mode_equals_the_independent_reference(name, kind, frames):
  model, variables, arrays, pixels = reference_case(name, kind, frames)
  embedding, readouts, _ = forward(
    model, variables, normalised(pixels), train=False
  )
  expected = reference_network.forward(
    arrays, kind, pixels, dtype='float64', **SMALL
  )
  assert relative(embedding, expected.embedding) < 1e-5
  for layer, values in readouts.items():
    assert relative(values, expected.readouts[layer]) < 1e-5


@pytest.mark.parametrize(
  'name,kind,frames',
  [
    case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow)
    for case in REFERENCES
  ],
)
def test_train_mode_equals_the_independent_reference(name, kind, frames):
  model, variables, arrays, pixels = reference_case(name, kind, frames)
  weight = np.random.default_rng(5).standard_normal((len(pixels), 32))

  def loss_of(params):
    result, updated = model.apply(
      {'params': params, 'batch_stats': variables['batch_stats']},
      normalised(pixels),
      train=True,
      mutable='batch_stats',
    )
    return jnp.sum(result * weight), (result, updated['batch_stats'])

  (_, (embedding, moved)), gradient = jax.jit(
    jax.value_and_grad(loss_of, has_aux=True)
  )(variables['params'])
  found = by_official_name(name, gradient, moved)
  expected, gradients = reference_network.gradients(
    arrays,
    kind,
    pixels,
    lambda output: reference_network.tf.reduce_sum(output.embedding * weight),
    dtype='float64',
    **SMALL,
  )
  assert relative(embedding, expected.embedding) < 3e-5
  for variable, value in expected.moving.items():
    np.testing.assert_allclose(found[variable], value, atol=1e-5)
  errors = [
    relative(found[variable], value) for variable, value in gradients.items()
  ]
  assert max(errors) < 0.03
  assert np.median(errors) < 1e-3


@pytest.mark.parametrize('name', networks.NAMES)
def test_trainable_parameters_number_as_in_the_official_network(name):
  frames = {'vie_slowfast': 16, 'vie_twostream_sf': 16}.get(name, FRAMES[name])
  clip = jax.ShapeDtypeStruct((1, frames, 64, 64, 3), jnp.float32)
  shapes = shapes_of(networks.build(name), clip)
  leaves = jax.tree.leaves(shapes['params'])
  assert sum(np.prod(leaf.shape) for leaf in leaves) == PARAMETERS[name]


@functools.cache
def small_case(name):
  """(network, its first variables, clips)."""
  model = networks.build(name, **SMALL)
  clips = jax.random.normal(jax.random.key(0), (4, FRAMES[name], 40, 48, 3))
  init = jax.jit(functools.partial(model.init, train=False))
  return model, init(jax.random.key(1), clips), clips


def embed(model, variables, clips):
  apply = jax.jit(functools.partial(model.apply, train=False))
  return apply(variables, clips)


@pytest.mark.parametrize('name', networks.NAMES)
def test_no_clips_have_no_embeddings_and_readouts(name):
  model = networks.build(name, **SMALL)
  clips = jnp.zeros((0, FRAMES[name], 40, 48, 3))

  def outputs(key):
    embedding, variables = model.init_with_output(key, clips, train=False)
    return embedding, model.apply(variables, clips, method='readouts')

  embedding, readouts = jax.eval_shape(outputs, jax.random.key(0))
  assert embedding.shape == (0, 32)
  assert all(features.shape[0] == 0 for features in readouts.values())


@pytest.mark.slow
@pytest.mark.parametrize('name', networks.NAMES)
def test_bfloat16_changes_the_unit_embedding_by_little(name):
  model, variables, clips = small_case(name)
  kinds = {x.dtype for x in jax.tree.leaves(variables)}
  assert kinds == {jnp.dtype('float32')}
  exact = embed(model, variables, clips)
  assert exact.shape == (4, 32)
  np.testing.assert_allclose(jnp.linalg.norm(exact, axis=1), 1.0, atol=1e-5)
  lower = embed(
    networks.build(name, **SMALL, dtype='bfloat16'), variables, clips
  )
  assert lower.dtype == jnp.float32
  assert float(jnp.min(jnp.sum(exact * lower, axis=1))) > 0.99
  assert not np.array_equal(exact, lower)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vie_slow', 'vie_trn', 'vie_slowfast'])
def test_order_of_frames_matters(name):
  model, variables, clips = small_case(name)
  forwards = embed(model, variables, clips)
  backwards = embed(model, variables, clips[:, ::-1])
  assert float(jnp.max(jnp.abs(forwards - backwards))) > 1e-3


@pytest.mark.slow
def test_order_of_frames_does_not_matter_to_the_input_single_control():
  model, variables, clips = small_case('vie_single')
  several = jnp.concatenate([clips, 2 * clips, -clips], axis=1)
  forwards = embed(model, variables, several)
  backwards = embed(model, variables, several[:, ::-1])
  np.testing.assert_allclose(forwards, backwards, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', networks.STREAMS)
def test_two_streams_are_their_two_networks_side_by_side(name):
  model, variables, clips = small_case(name)
  parts = {}
  for stream, network in networks.STREAMS[name].items():
    own = {group: tree[stream] for group, tree in variables.items()}
    alone = networks.build(network, **SMALL)
    parts[stream] = forward(alone, own, clips, train=False)
  embedding, readouts, _ = forward(model, variables, clips, train=False)
  total = parts['single'][0] + parts['motion'][0]
  expected = total / jnp.linalg.norm(total, axis=1, keepdims=True)
  np.testing.assert_allclose(embedding, expected, atol=1e-5)
  for layer, values in readouts.items():
    both = [parts['single'][1][layer], parts['motion'][1][layer]]
    np.testing.assert_allclose(values, jnp.concatenate(both, axis=1), atol=1e-5)


@pytest.mark.slow
def test_trn_shares_the_weights_of_single_but_for_the_projection():
  single, trn = (
    jax.tree.map(jnp.shape, small_case(name)[1])
    for name in ('vie_single', 'vie_trn')
  )
  assert single['batch_stats'] == trn['batch_stats']
  assert single['params']['backbone'] == trn['params']['backbone']
  assert trn['params']['projection']['kernel'] == (4 * 64, 32)


@pytest.mark.slow
def test_every_network_is_made_of_the_one_block():
  for name in networks.NAMES:
    model, _, clips = small_case(name)
    blocks = set()

    def collect(call, args, kwargs, context, blocks=blocks):
      if isinstance(context.module, resnet.Block):
        blocks.add(context.module.path)
      return call(*args, **kwargs)

    with resnet.nn.intercept_methods(collect):
      shapes_of(model, clips)
    pathways = {'vie_slowfast': 2, 'vie_twostream_s': 2, 'vie_twostream_sf': 3}
    assert len(blocks) == 8 * pathways.get(name, 1)


def test_slowfast_refuses_frames_that_do_not_split():
  model = networks.build('vie_slowfast', **SMALL)
  with pytest.raises(ValueError, match='alpha'):
    model.init(jax.random.key(0), jnp.zeros((1, 6, 32, 32, 3)), train=False)


def test_unknown_network_is_refused_by_name():
  with pytest.raises(ValueError, match='vie_single'):
    networks.build('resnet', **SMALL)


@pytest.mark.parametrize('dtype', ['int32', 'float16', 'half a float'])
def test_other_types_of_convolutions_are_refused(dtype):
  with pytest.raises(ValueError, match=f'{dtype}.*float32 or bfloat16'):
    networks.build('vie_slow', **SMALL, dtype=dtype)


@pytest.mark.parametrize('name', ['vie_slow', 'vie_twostream_s'])
def test_averaging_a_layer_that_there_is_not_is_refused(name):
  model = networks.build(name, **SMALL)
  clips = jnp.zeros((1, FRAMES[name], 40, 48, 3))
  with pytest.raises(ValueError, match=r'conv9.*conv1, conv2'):
    model.init(
      jax.random.key(0), clips, averaged=('conv5', 'conv9'), method='readouts'
    )
