import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import official

from vie_jax.models import embedding

MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
PAPER = {
  'embedding_size': 128,
  'width': 64,
  'fast_width': 8,
  'alpha': 4,
  'dtype': 'float32',
}
SMALL = PAPER | {'embedding_size': 32, 'width': 8, 'fast_width': 4}
FRAMES = {'vie_single': 1, 'vie_slowfast': 16}


@pytest.fixture(scope='module', params=['single_64.json', 'slowfast_64.json'])
def case(request):
  """(fixture, network, variables, clips) of the official implementation."""
  expected = official.load(request.param)
  model = embedding.build(f'vie_{request.param.split("_")[0]}', **PAPER)
  pixels = official.clip(**expected['clip']).astype(np.float32)
  clips = (pixels / 255 - MEAN) / STD
  return expected, model, official.variables(expected['variables']), clips


def relative(one, other):
  other = np.asarray(other)
  return np.linalg.norm(one - other) / np.linalg.norm(other)


def active_maps(intermediates):
  """Readouts 1..9, in order: the input of each block, then the last."""
  backbone = intermediates['backbone']
  pathway = backbone.get('pathway', backbone.get('slow'))
  for stage in range(4):
    for block in ('block1', 'block2'):
      yield pathway[f'stages_{stage}'][block]['active'][0]
  yield pathway['active'][0]


def test_parameters_have_the_official_shapes_and_number(case):
  expected, model, variables, clips = case
  shapes = jax.eval_shape(
    functools.partial(model.init, train=True), jax.random.key(0), clips
  )
  for collection, tree in variables.items():
    assert jax.tree.map(np.shape, tree) == jax.tree.map(
      jnp.shape, shapes[collection]
    )
  total = sum(np.prod(x.shape) for x in jax.tree.leaves(shapes['params']))
  assert total == expected['trainable_parameters']


def test_eval_mode_equals_the_official_network(case):
  expected, model, variables, clips = case
  result, state = jax.jit(
    functools.partial(model.apply, train=False, mutable='intermediates')
  )(variables, clips)
  assert relative(result, expected['eval']['embedding']) < 1e-5
  for maps, point in zip(
    active_maps(state['intermediates']),
    expected['eval']['endpoints'][1:],
    strict=True,
  ):
    first = np.moveaxis(np.asarray(maps), -1, 1)  # channels first, as there
    if len(point['shape']) == 4:
      first = first[:, :, 0]
    assert list(first.shape) == point['shape']
    assert first.mean() == pytest.approx(point['mean'], rel=1e-4)
    assert first.std() == pytest.approx(point['std'], rel=1e-4)
    np.testing.assert_allclose(
      first.ravel()[:16], point['first16'], atol=1e-4 * point['std']
    )


def test_train_mode_and_gradients_equal_the_official_network(case):
  expected, model, variables, clips = case
  expected = expected['train']
  rng = np.random.Generator(np.random.PCG64(99))
  weight = rng.standard_normal((len(clips), 128)).astype(np.float32)

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
  assert relative(result, expected['embedding']) < 3e-5
  assert loss == pytest.approx(expected['loss'], abs=1e-4)
  errors = []
  for name, norm in expected['grad_norm'].items():
    _, path = official.flax_path(name, *official.pathway_of(name))
    errors.append(abs(np.linalg.norm(official.leaf(gradient, path)) / norm - 1))
  assert max(errors) < 0.03
  assert np.median(errors) < 1e-3
  for name, (mean, first) in expected['moving_after_one_update'].items():
    _, path = official.flax_path(name, *official.pathway_of(name))
    value = official.leaf(moved, path)
    # The official variance is the unbiased one: up to 6e-4 apart.
    tolerance = 1e-3 if name.endswith('variance') else 1e-5
    assert value.mean() == pytest.approx(mean, abs=tolerance)
    assert value[0] == pytest.approx(first, abs=tolerance)


def initial_variables(model, clips):
  init = jax.jit(functools.partial(model.init, train=False))
  return init(jax.random.key(1), clips)


def embed(model, variables, clips):
  apply = jax.jit(functools.partial(model.apply, train=False))
  return apply(variables, clips)


@pytest.mark.parametrize('name', FRAMES)
def test_embeddings_are_unit_at_any_width_and_resolution(name):
  model = embedding.build(name, **SMALL)
  clips = jax.random.normal(jax.random.key(0), (2, FRAMES[name], 40, 48, 3))
  result = embed(model, initial_variables(model, clips), clips)
  assert result.shape == (2, 32)
  np.testing.assert_allclose(jnp.linalg.norm(result, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize('name', FRAMES)
def test_bfloat16_changes_the_embedding_by_little(name):
  clips = jax.random.normal(jax.random.key(0), (4, FRAMES[name], 32, 32, 3))
  results = []
  for dtype in ('float32', 'bfloat16'):
    model = embedding.build(name, **SMALL | {'dtype': dtype})
    variables = initial_variables(model, clips)
    kinds = {x.dtype for x in jax.tree.leaves(variables)}
    assert kinds == {jnp.dtype('float32')}
    results.append(embed(model, variables, clips))
  assert results[1].dtype == jnp.float32
  assert float(jnp.min(jnp.sum(results[0] * results[1], axis=1))) > 0.99


def test_slowfast_refuses_frames_that_do_not_split():
  model = embedding.build('vie_slowfast', **SMALL)
  with pytest.raises(ValueError, match='alpha'):
    model.init(jax.random.key(0), jnp.zeros((1, 6, 32, 32, 3)), train=False)


def test_order_of_frames_matters_to_slowfast():
  model = embedding.build('vie_slowfast', **SMALL)
  clips = jax.random.normal(jax.random.key(0), (1, 8, 32, 32, 3))
  variables = initial_variables(model, clips)
  forwards = embed(model, variables, clips)
  backwards = embed(model, variables, clips[:, ::-1])
  assert float(jnp.max(jnp.abs(forwards - backwards))) > 1e-3


def test_unknown_network_is_refused_by_name():
  with pytest.raises(ValueError, match='vie_single'):
    embedding.build('resnet', **SMALL)
