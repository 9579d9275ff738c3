import jax
import jax.numpy as jnp
import pytest

from vie_jax.models import flops, networks


def test_matrix_products_are_counted_in_two_per_multiply_add():
  def function(x, y):
    inner = jax.jit(lambda x: jnp.einsum('bij,bjk->bik', x, y))
    return jax.nn.relu(inner(x)) + 1.0

  count = flops.count(function, jnp.zeros((5, 2, 3)), jnp.zeros((5, 3, 4)))
  assert count == 2 * 5 * 2 * 3 * 4


def test_convolutions_are_counted_with_their_padding():
  def function(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(2, 2),
      padding='SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  count = flops.count(
    function, jnp.zeros((2, 8, 8, 3)), jnp.zeros((5, 5, 3, 7))
  )
  assert count == 2 * 2 * 4 * 4 * 7 * 5 * 5 * 3


@pytest.mark.parametrize(
  'name,shape,stem_and_head',
  [
    ('vie_single', (1, 1, 64, 64, 3), 32 * 32 * 64 * 147 + 512 * 128),
    ('vie_slow', (1, 4, 64, 64, 3), 4 * 32 * 32 * 64 * 147 + 512 * 128),
  ],
)
def test_networks_count_as_by_hand(name, shape, stem_and_head):
  model = networks.build(name)
  clip = jnp.zeros(shape)
  variables = jax.eval_shape(
    lambda key: model.init(key, clip, train=False), jax.random.key(0)
  )
  count = flops.count(
    lambda variables, clip: model.apply(variables, clip, train=False),
    variables,
    clip,
  )
  # Weights of each stage times the positions of its maps; the projection and
  # the strided convolution work at the stage's own resolution.
  frames = shape[1]
  weights = {
    'vie_single': (151_552, 524_288, 2_097_152, 8_388_608),
    'vie_slow': (151_552, 524_288, 3_866_624, 15_466_496),
  }[name]
  stages = sum(
    frames * (16 // 2**number) ** 2 * size
    for number, size in enumerate(weights)
  )
  assert count == 2 * (stem_and_head + stages)
