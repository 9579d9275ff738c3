import jax
import jax.numpy as jnp
import pytest

from vie_jax.machine import platform_choice


def double(x):
  return platform_choice.by_platform(
    x, cpu=lambda x: x + x, others=lambda x: x * 2.0
  )


@pytest.mark.parametrize(
  ('platform', 'operation'),
  [('cpu', 'add'), ('cuda', 'multiply'), ('tpu', 'multiply')],
)
def test_each_platform_has_its_way(platform, operation):
  traced = jax.jit(double).trace(jnp.ones(3))
  program = traced.lower(lowering_platforms=(platform,)).as_text()
  for name in ('add', 'multiply'):
    assert (f'stablehlo.{name}' in program) == (name == operation)


@pytest.mark.parametrize(
  ('platform', 'primitive'), [('cpu', 'add'), ('gpu', 'mul'), ('tpu', 'mul')]
)
def test_one_way_alone_is_traced_for_a_count(platform, primitive):
  with platform_choice.only(platform):
    (equation,) = jax.make_jaxpr(double)(jnp.ones(3)).eqns
  assert equation.primitive.name == primitive
  assert len(jax.make_jaxpr(double)(jnp.ones(3)).eqns) > 1


@pytest.mark.parametrize('platform', ['cpu', 'gpu', 'tpu'])
def test_every_kind_of_device_can_have_a_way(platform):
  def computed(x):
    return platform_choice.by_platform(x, **{platform: jnp.sin}, others=jnp.cos)

  for lowered in ('cpu', 'cuda', 'rocm', 'tpu'):
    traced = jax.jit(computed).trace(jnp.ones(3))
    program = traced.lower(lowering_platforms=(lowered,)).as_text()
    kind = 'gpu' if lowered in ('cuda', 'rocm') else lowered
    wanted = 'sine' if kind == platform else 'cosine'
    assert f'stablehlo.{wanted} ' in program
  with platform_choice.only(platform):
    (equation,) = jax.make_jaxpr(computed)(jnp.ones(3)).eqns
  assert equation.primitive.name == 'sin'


@pytest.mark.parametrize('platform', ['cuda', 'GPU', ''])
def test_unknown_platforms_are_refused(platform):
  with pytest.raises(ValueError, match='known are cpu, gpu, tpu'):
    platform_choice.only(platform)


def test_what_was_traced_before_is_traced_again_for_a_count():
  @jax.jit
  def inner(x):
    return double(x)

  def outer(x):
    return inner(x)

  def primitives(function):
    return str(jax.make_jaxpr(function)(jnp.ones(3)))

  whole = primitives(outer)
  assert 'cond' in whole
  for platform, has_product in (('cpu', False), ('gpu', True)):
    with platform_choice.only(platform):
      alone = primitives(outer)
    assert 'cond' not in alone
    assert (' mul ' in alone) == has_product
  assert primitives(outer) == whole
