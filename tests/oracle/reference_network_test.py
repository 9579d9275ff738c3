import functools
import zlib

import numpy as np
import pytest
import tensorflow as tf
from oracle import official, reference_network

FIXTURES = {
  'single': 'single_64.json',
  '3dresnet': '3dresnet_64.json',
  'slowfast': 'slowfast_64.json',
}
MORE = {'single': 'single_more.json', '3dresnet': '3dresnet_more.json'}
# Counted by hand from the official layers; moving statistics not included.
PARAMETERS = {
  'single': 11_244_480,
  'trn': 11_441_088,
  'slow': 20_091_840,
  '3dresnet': 33_271_872,
  'slowfast': 21_678_280,
}
# An embedding's largest relative error, by whether it is in train mode.
EMBEDDING_TOLERANCE = {False: 1e-5, True: 3e-5}
SUMMARY_TOLERANCE = 1e-4  # of the standard deviation
MOVING_TOLERANCE = 1e-5
MEDIAN_GRADIENT_TOLERANCE = 1e-3
# In 3dresnet_64.json an input of the last ReLU is -4e-6 in float32 and 9e-6
# in float64. Its sign alone moves the median gradient norm by 1.2e-3.
MEDIAN_AT_A_RELU_KINK = 2e-3


def rule_weights(model_type, **sizes):
  shapes = reference_network.variable_shapes(model_type, **sizes)
  return {name: official.weights(name, shape) for name, shape in shapes}


@functools.cache
def full_size_weights(model_type):
  return rule_weights(model_type)


def relative(one, other):
  other = np.asarray(other)
  return np.linalg.norm(one - other) / np.linalg.norm(other)


def channels_first(point, rank):
  """An ending point [B, T, H, W, C] in the official layout of this rank."""
  array = np.moveaxis(np.asarray(point), -1, 1)
  return array if rank == 5 else array[:, :, 0]


def assert_summary(array, expected):
  array = np.asarray(array)
  assert list(array.shape) == expected['shape']
  atol = SUMMARY_TOLERANCE * expected['std']
  np.testing.assert_allclose(array.mean(), expected['mean'], atol=atol)
  np.testing.assert_allclose(array.std(), expected['std'], atol=atol)
  first = array.ravel()[:16]
  np.testing.assert_allclose(first, expected['first16'], rtol=0, atol=atol)


def assert_gradient_norms(gradients, expected, *, median):
  """Every norm within 3 %, their median error below `median`.

  A ReLU input within rounding of zero moves every gradient before it.
  """
  assert gradients.keys() == expected.keys()
  error = [
    abs(np.linalg.norm(gradients[name]) / norm - 1)
    for name, norm in expected.items()
  ]
  assert max(error) < 0.03
  assert np.median(error) < median


@pytest.fixture(scope='module', params=FIXTURES)
def case(request):
  """(model type, fixture, weights, clips) of the official implementation."""
  expected = official.load(FIXTURES[request.param])
  clips = official.clip(**expected['clip'])
  return request.param, expected, full_size_weights(request.param), clips


def test_variables_are_created_in_the_official_order_and_shapes(case):
  model_type, expected, _, _ = case
  listing = reference_network.variable_shapes(model_type)
  assert [[name, list(shape)] for name, shape in listing] == (
    expected['variables']
  )


@pytest.mark.parametrize('model_type, number', PARAMETERS.items())
def test_trainable_parameters_are_as_many_as_counted_by_hand(
  model_type, number
):
  listing = reference_network.variable_shapes(model_type)
  trainable = [
    np.prod(shape)
    for name, shape in listing
    if reference_network.is_trainable(name)
  ]
  assert sum(trainable) == number


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_eval_mode_equals_the_official_embedding_and_points(case, dtype):
  model_type, expected, weights, clips = case
  expected = expected['eval']
  output = reference_network.forward(weights, model_type, clips, dtype=dtype)
  tolerance = EMBEDDING_TOLERANCE[False]
  assert relative(output.before_norm, expected['before_norm']) < tolerance
  assert relative(output.embedding, expected['embedding']) < tolerance
  assert output.moving == {}
  assert len(output.points) == len(expected['endpoints'])
  for point, summary in zip(output.points, expected['endpoints'], strict=True):
    assert_summary(channels_first(point, len(summary['shape'])), summary)


@pytest.mark.slow
def test_train_mode_equals_the_official_step(case):
  model_type, expected, weights, clips = case
  expected = expected['train']
  generator = np.random.Generator(np.random.PCG64(99))
  vectors = generator.standard_normal((len(clips), 128)).astype(np.float32)

  def loss(output):
    return tf.reduce_sum(output.embedding * vectors)

  output, gradients = reference_network.gradients(
    weights, model_type, clips, loss
  )
  error = relative(output.embedding, expected['embedding'])
  assert error < EMBEDDING_TOLERANCE[True]
  np.testing.assert_allclose(loss(output), expected['loss'], rtol=1e-4)
  at_a_kink = model_type == '3dresnet'
  assert_gradient_norms(
    gradients,
    expected['grad_norm'],
    median=MEDIAN_AT_A_RELU_KINK if at_a_kink else MEDIAN_GRADIENT_TOLERANCE,
  )
  moving = {
    name: (np.mean(value), value[0]) for name, value in output.moving.items()
  }
  assert moving.keys() == expected['moving_after_one_update'].keys()
  for name, mean_and_first in expected['moving_after_one_update'].items():
    np.testing.assert_allclose(
      moving[name], mean_and_first, rtol=MOVING_TOLERANCE, atol=1e-6
    )


def more_case(model_type, label):
  """(expected, clips [B, T, H, W, 3]); the picture is checked first."""
  expected = official.load(MORE[model_type])['cases'][label]
  clips = reference_network.more_clip(
    expected['input_shape'], phase=expected['input_phase']
  )
  assert zlib.crc32(clips.tobytes()) == expected['input_crc32']
  assert clips.sum(dtype=np.int64) == expected['input_sum']
  return expected, clips if clips.ndim == 5 else clips[:, None]


def assert_readouts(output, expected):
  """Flattened and averaged readouts, by index of the ending point."""
  for key, summary in expected.items():
    index, _, averaged = key.partition('-')
    point = output.points[int(index)]
    if averaged:
      assert_summary(np.mean(point, (1, 2, 3)), summary)
    else:
      assert_summary(reference_network.readout(point), summary)
  for name, number in reference_network.READOUT_POINTS.items():
    if str(number) in expected:
      assert_summary(output.readouts[name], expected[str(number)])


EVAL_CASES = [
  ('single', 'eval_64'),
  ('single', 'eval_112'),
  ('3dresnet', 'eval_64'),
  ('3dresnet', 'eval_112'),
]


@pytest.mark.parametrize('model_type, label', EVAL_CASES)
def test_eval_mode_equals_the_official_readouts(model_type, label):
  expected, clips = more_case(model_type, label)
  output = reference_network.forward(
    full_size_weights(model_type), model_type, clips
  )
  error = relative(output.before_norm, expected['embedding_before_l2'])
  assert error < EMBEDDING_TOLERANCE[False]
  for point, summary in zip(
    output.points, expected['ending_points'].values(), strict=True
  ):
    in_rank = point if len(summary['shape']) == 5 else point[:, 0]
    assert_summary(in_rank, summary)
  assert_summary(output.pooled, expected['finetune_pooled_features'])
  assert_readouts(output, expected['readout_channels_first'])


def test_maps_over_200000_values_are_pooled_as_officially():
  expected, clips = more_case('single', 'eval_224')
  output = reference_network.forward(
    full_size_weights('single'), 'single', clips
  )
  assert {'0', '1', '3'} < expected['readout_channels_first'].keys()
  assert_readouts(output, expected['readout_channels_first'])


TRAIN_CASES = [
  ('single', 'train_64'),
  ('single', 'train_112_b8'),
  pytest.param('3dresnet', 'train_112', marks=pytest.mark.slow),
]


@pytest.mark.parametrize('model_type, label', TRAIN_CASES)
def test_train_mode_equals_the_official_gradients(model_type, label):
  expected, clips = more_case(model_type, label)
  vector = reference_network.more_gradient_vector()
  output, gradients = reference_network.gradients(
    full_size_weights(model_type),
    model_type,
    clips,
    lambda output: tf.reduce_sum(output.before_norm * vector),
  )
  error = relative(output.before_norm, expected['embedding_before_l2'])
  assert error < EMBEDDING_TOLERANCE[True]
  for point, summary in zip(
    output.points, expected['ending_points'].values(), strict=True
  ):
    in_rank = point if len(summary['shape']) == 5 else point[:, 0]
    assert_summary(in_rank, summary)
  assert_readouts(output, expected['readout_channels_first'])
  assert_gradient_norms(
    gradients, expected['gradient_l2'], median=MEDIAN_GRADIENT_TOLERANCE
  )
  moving = expected['moving_statistics_after_one_update']
  assert output.moving.keys() == moving.keys()
  for name, statistic in moving.items():
    value = output.moving[name]
    norm, first = np.linalg.norm(value), value[:4]
    np.testing.assert_allclose(norm, statistic['l2'], rtol=MOVING_TOLERANCE)
    np.testing.assert_allclose(
      first, statistic['first4'], rtol=MOVING_TOLERANCE, atol=1e-6
    )


SMALL = {'width': 8, 'fast_width': 4, 'alpha': 2, 'embedding_size': 16}


def small_case(model_type, frames):
  weights = rule_weights(model_type, frames=frames, **SMALL)
  return weights, official.clip(2, frames, 32, seed=5)


def small_forward(model_type, weights, clips, **options):
  return reference_network.forward(
    weights, model_type, clips, **SMALL, **options
  )


def test_trn_embeds_its_frames_features_in_temporal_order():
  weights, clips = small_case('trn', 3)
  output = small_forward('trn', weights, clips)
  frames = [np.mean(output.points[9][:, frame], (1, 2)) for frame in range(3)]
  kernel = weights['resnet_model/dense/kernel']
  expected = np.concatenate(frames, 1) @ kernel
  expected += weights['resnet_model/dense/bias']
  np.testing.assert_allclose(output.before_norm, expected, rtol=1e-4)


def test_trn_frames_are_seen_by_the_single_network():
  weights, clips = small_case('trn', 3)
  output = small_forward('trn', weights, clips)
  dense = reference_network.variable_shapes('single', **SMALL)[-2:]
  weights |= {name: np.zeros(shape) for name, shape in dense}
  for frame in range(3):
    single = small_forward('single', weights, clips[:, frame : frame + 1])
    for one, other in zip(output.points, single.points, strict=True):
      np.testing.assert_allclose(
        one[:, frame], other[:, 0], rtol=1e-4, atol=1e-4
      )


def test_trn_maps_are_never_pooled():
  weights = full_size_weights('single')  # VIE-TRN of one frame
  clips = official.clip(1, 1, 224, seed=5)
  output = reference_network.forward(weights, 'trn', clips)
  point, flat = output.points[1], output.readouts['conv1']
  channels_first_map = channels_first(point, 4)
  assert channels_first_map.size == 200_704
  np.testing.assert_array_equal(flat, channels_first_map.reshape(1, -1))


def test_slowfast_pools_fast_then_slow_and_embeds_slow_then_fast():
  weights, clips = small_case('slowfast', 4)
  output = small_forward('slowfast', weights, clips)
  fast, slow = np.split(output.pooled, [8 * SMALL['fast_width']], 1)
  np.testing.assert_allclose(
    slow, np.mean(output.points[9], (1, 2, 3)), rtol=1e-5, atol=1e-5
  )
  expected = np.concatenate([slow, fast], 1)
  expected = expected @ weights['resnet_model_slow/dense/kernel']
  expected += weights['resnet_model_slow/dense/bias']
  np.testing.assert_allclose(output.before_norm, expected, rtol=1e-4)


def test_slow_keeps_time_until_its_last_point():
  weights, clips = small_case('slow', 4)
  output = small_forward('slow', weights, clips)
  assert [point.shape[1] for point in output.points] == [4] * 10


def test_slow_mixes_time_from_stage_3_only():
  weights, clips = small_case('slow', 4)
  changed = clips.copy()
  changed[:, 3] = 255 - changed[:, 3]
  one = small_forward('slow', weights, clips).points
  other = small_forward('slow', weights, changed).points
  first_frame_differs = [
    not np.array_equal(a[:, 0], b[:, 0])
    for a, b in zip(one, other, strict=True)
  ]
  # Points 0 to 5 do not look across time; each later conv1 sees one frame
  # more, so frame 3 reaches frame 0 in the third conv1: block 1 of stage 4.
  assert first_frame_differs == [False] * 8 + [True] * 2


def test_float64_differs_from_float32_by_rounding_only():
  for model_type in ('slow', 'trn'):
    weights, clips = small_case(model_type, 4)
    one, other = (
      small_forward(model_type, weights, clips, train=True, dtype=dtype)
      for dtype in ('float32', 'float64')
    )
    assert other.embedding.dtype == tf.float64
    assert 0 < relative(one.embedding, other.embedding) < 1e-4


def test_variables_that_do_not_fit_are_named():
  weights, clips = small_case('single', 1)
  kernel = 'resnet_model/conv2d_3/kernel'
  others = {name: x for name, x in weights.items() if name != kernel}
  with pytest.raises(ValueError, match=f'needs the variable {kernel}'):
    small_forward('single', others, clips)
  with pytest.raises(ValueError, match=r'conv2d_3/kernel has shape \(2,\)'):
    small_forward('single', others | {kernel: np.zeros(2)}, clips)
  with pytest.raises(ValueError, match=r'has no variables .*left_over'):
    small_forward('single', weights | {'left_over': np.zeros(2)}, clips)


def test_clips_and_types_that_do_not_fit_are_refused():
  weights, clips = small_case('single', 1)
  with pytest.raises(ValueError, match=r'uint8 .*float32'):
    small_forward('single', weights, clips.astype(np.float32))
  with pytest.raises(ValueError, match="'vie_single', not one of"):
    small_forward('vie_single', weights, clips)
