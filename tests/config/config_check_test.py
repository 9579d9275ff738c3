import ast
import importlib
import math
import pathlib

import pytest

from configs import default, vie_single, vie_slowfast
from vie_jax.config import config_check, field_bounds

REPOSITORY = pathlib.Path(__file__).parents[2]

TOO_SMALL = {  # smallest value that works -> fields
  1: (
    'model.width model.fast_width model.alpha model.embedding_size '
    'clip.num_frames clip.frame_step clip.num_eval_clips crop.size '
    'instance_recognition.num_noise local_aggregation.num_neighbors '
    'local_aggregation.num_clusters local_aggregation.min_videos_per_cluster '
    'local_aggregation.num_clusterings local_aggregation.kmeans_iterations '
    'objective.product_bytes batch_size num_steps log_every_steps '
    'eval_every_steps '
    'checkpoint_every_steps keep_checkpoints knn.num_neighbors '
    'knn.batch_size profile_steps'
  ),
  0: (
    'num_devices objective.instance_recognition_steps '
    'local_aggregation.recluster_every_steps '
    'local_aggregation.kmeans_warm_iterations optimizer.learning_rate '
    'optimizer.weight_decay optimizer.warmup_steps input.num_threads seed '
    'input.prefetch_batches fault.watchdog_seconds '
    'fault.watchdog_slow_seconds fault.max_skipped_in_a_row '
    'fault.max_skipped_steps profile_first_step eval_videos'
  ),
}
BAD_VALUES = [
  (field, smallest - 1)
  for smallest, fields in TOO_SMALL.items()
  for field in fields.split()
] + [
  ('fault.on_nonfinite', 'never'),
  ('fault.signals', ('SIGKILL',)),
  ('plan.host_ms_per_frame', 1e300),
  *(
    (f'{group}.{name}', value)
    for group in ('linear_eval', 'finetune', 'supervised')
    for name, value in {
      'batch_size': 0,
      'eval_batch_size': 0,
      'num_steps': 0,
      'eval_every_steps': 0,
      'checkpoint_every_steps': 0,
      'learning_rate': -0.1,
      'weight_decay': math.inf,
      'momentum': 1.0,
    }.items()
  ),
  *(
    (f'{group}.{name}', value)
    for group in ('finetune', 'supervised')
    for name, value in {
      'augmentation': 'none',
      'schedule': 'cosine',
      'eval_clips': 'all',
      'num_eval_clips': 0,
      'patience': 0,
      'num_drops': -1,
    }.items()
  ),
  ('finetune.scratch_learning_rate', -1.0),
  ('finetune.scratch_weight_decay', -1.0),
  ('linear_eval.static_num_steps', 0),
  ('linear_eval.static_grey_probability', 1.5),
  ('linear_eval.layers', ()),
  ('linear_eval.drop_steps', ('a',)),
  ('linear_eval.static_drop_steps', (-1,)),
  ('finetune.drop_steps', (1.5,)),
  ('supervised.drop_steps', (3,)),  # which the plateau does not read
  ('optimizer.drop_steps', ('a',)),
  ('result_name', '..'),
  ('result_name', '.'),
  ('result_name', '/tmp/W'),
  ('result_name', 'a/b'),
  ('linear_eval.layers', ('conv6',)),
  ('linear_eval.averaged_layers', ('pool',)),
  ('embed.batch_size', 0),
  ('embed.layer', 'conv0'),
  ('embed.splits', ('test',)),
  ('retrieve.num_queries', 0),
  ('retrieve.num_neighbors', 0),
  ('augmentation.flip_probability', 1.5),
  ('augmentation.grey_probability', -0.1),
  ('augmentation.brightness', 1.01),
  ('augmentation.contrast', -0.5),
  ('augmentation.saturation', 2.0),
  ('augmentation.hue', 0.6),
  ('augmentation.hue', -0.1),
  ('objective.temperature', 0.0),
  ('objective.temperature', 0.019),
  ('plan.efficiency', 1e-310),
  ('plan.bank_efficiency', 0.0),
  ('plan.bandwidth_efficiency', 1.5),
  ('objective.temperature', -0.07),
  ('memory_bank.momentum', 1.0),
  ('memory_bank.momentum', -0.5),
  ('model.batch_norm_decay', 1.0),
  ('model.batch_norm_decay', -0.1),
  ('optimizer.momentum', 1.0),
  ('optimizer.momentum', -0.1),
  ('crop.size', 257),
  ('crop.short_side_min', 320),
  ('crop.eval_short_side', 223),
  ('clip.num_frames', 2),
  ('init_from', ''),
  ('init_from', 'official:'),
  ('model.streams', 'one,two'),  # of a network with one stream
  ('dataset.share', 0.0),
  ('dataset.share', 1.5),
  ('dataset.bin_frames', -1),
  ('crop.method', 'scale'),
  ('crop.multiscale_scales', ()),
  ('crop.multiscale_eval', 'multiscale'),
  ('crop.multiscale_scales', (1.0, 1.5)),
  ('crop.multiscale_scales', ('a',)),
  ('embed.batch_size', 0),
  ('model.name', 'vie_triple'),
  ('model.dtype', 'float16'),
  ('clip.sampler', 'fast'),
  ('memory_bank.init', 'zeros'),
  ('instance_recognition.loss', 'hinge'),
  ('optimizer.name', 'sdg'),
  ('optimizer.schedule', 'linear'),
  ('knn.reference', 'videos'),
]
# Not a number, which no comparison finds too small or too large.
NOT_NUMBERS = (
  'optimizer.learning_rate',
  'optimizer.weight_decay',
  'optimizer.momentum',
  'objective.temperature',
  'memory_bank.momentum',
  'augmentation.brightness',
  'augmentation.hue',
  'plan.storage_bandwidth',
)


def assign(config, field, value):
  *parents, leaf = field.split('.')
  for name in parents:
    config = config[name]
  config[leaf] = value


def refusal(config):
  with pytest.raises(config_check.ConfigError) as error:
    config_check.check(config)
  return str(error.value)


@pytest.mark.parametrize('field, value', BAD_VALUES)
def test_a_bad_value_is_refused_by_field_and_value(field, value):
  config = default.get_config()
  assign(config, field, value)
  message = refusal(config)
  assert message.startswith('config.')
  assert field.split('.')[-1] in message
  assert str(value) in message
  assert '\n' not in message


@pytest.mark.parametrize('field', NOT_NUMBERS)
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_value_that_is_not_finite_is_refused(field, value):
  config = default.get_config()
  assign(config, field, value)
  assert f'config.{field} is {value}' in refusal(config)


def test_slowfast_refuses_clips_that_alpha_does_not_divide():
  config = vie_slowfast.get_config()
  config.clip.num_frames = 10
  message = refusal(config)
  assert 'clip.num_frames is 10' in message
  assert 'model.alpha, 4' in message


def test_all_that_is_wrong_is_listed_at_once():
  config = default.get_config()
  config.batch_size = 0
  config.model.name = 'resnet'
  config.knn.num_neighbors = -3
  message = refusal(config)
  for part in (
    'config.batch_size is 0',
    "config.model.name is 'resnet'",
    'config.knn.num_neighbors is -3',
  ):
    assert part in message


@pytest.mark.parametrize('module', [default, vie_single, vie_slowfast])
def test_the_configs_are_sound(module):
  config_check.check(module.get_config())


def fields_of(config):
  """Names of all fields that hold a value: dotted name -> value."""
  for name, value in config.items():
    if hasattr(value, 'items'):
      yield from ((f'{name}.{leaf}', v) for leaf, v in fields_of(value))
    else:
      yield name, value


def test_every_bound_and_choice_is_of_a_field_that_exists():
  known = {name for name, _ in fields_of(default.get_config())}
  checked = {
    *field_bounds._AT_LEAST_ONE,
    *field_bounds._NOT_NEGATIVE,
    *field_bounds._SHARES,
    *field_bounds._CHOICES,
  }
  assert checked <= known


WHOLE_NUMBERS = [
  field
  for field, value in fields_of(default.get_config())
  if type(value) is int
]


@pytest.mark.parametrize('field', WHOLE_NUMBERS)
def test_a_whole_number_that_nothing_could_hold_is_refused(field):
  config = default.get_config()
  assign(config, field, 2**63)
  assert f'config.{field} is {2**63}; it must be at most' in refusal(config)


@pytest.mark.parametrize(
  'field, most',
  [
    ('optimizer.warmup_steps', 2**31 - 1),
    ('num_steps', 2**31 - 1),
    ('batch_size', 2**20),
    ('clip.num_eval_clips', 10_000),
    ('model.width', 4096),
  ],
)
def test_the_largest_whole_number_is_taken(field, most):
  config = default.get_config()
  assign(config, field, most)
  config_check.check(config)
  assign(config, field, most + 1)
  assert f'is {most + 1}; it must be at most {most}' in refusal(config)


@pytest.mark.parametrize('group', ['optimizer', 'linear_eval'])
def test_drops_after_the_last_step_there_can_be_are_refused(group):
  config = default.get_config()
  config[group].drop_steps = (3, 2**31 - 2)
  config_check.check(config)
  config[group].drop_steps = (3, 2**31 - 1)
  assert f'config.{group}.drop_steps is (3, 2147483647)' in refusal(config)


@pytest.mark.parametrize('group', ['finetune', 'supervised'])
def test_a_plateau_refuses_drops_and_says_how_to_take_them_out(group):
  config = default.get_config()
  config[group].drop_steps = (5,)
  assert f'--config.{group}.drop_steps="()" takes them out' in refusal(config)


@pytest.mark.parametrize(
  'layers, remedy',
  [
    (
      ('conv5,conv4',),
      "; several are written --config.linear_eval.layers=\"('conv5', 'conv4')\"",
    ),
    (('conv5', 'conv6'), ''),
  ],
)
def test_several_layers_in_one_word_are_refused_with_how_to_write_them(
  layers, remedy
):
  config = default.get_config()
  config.linear_eval.layers = layers
  assert refusal(config).endswith(
    f'each must be one of conv1, conv2, conv3, conv4, conv5{remedy}.'
  )


def names_read(path):
  """Attributes and names of arguments in a source file."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
      yield node.attr
    elif isinstance(node, ast.arg):  # `**config.augmentation`
      yield node.arg


def test_every_field_is_read_somewhere():
  names = set()
  for path in (REPOSITORY / 'main.py', *(REPOSITORY / 'vie_jax').rglob('*.py')):
    if path.name != 'config_check.py':
      names.update(names_read(path))
  unread = [
    field
    for field, _ in fields_of(default.get_config())
    if field.rsplit('.', 1)[-1] not in names
  ]
  assert not unread


VARIANTS = {
  'demo': (
    *('single', 'slowfast', 'slow', 'trn', '3dresnet'),
    *('twostream_s', 'twostream_sf'),
    *('input_trn', 'input_slow', 'input_slowfast'),
  ),
  'input_single': ('trn', 'slow', 'slowfast'),
  'reproduce': ('single_ir', '3dresnet', '30', '70', '2bin', '5bin'),
  'vie_single': ('la', 'ir'),
  'vie_single_data': ('30', '70', '2bin', '5bin'),
  'vie_trn': ('scratch', 'from_single'),
}


@pytest.mark.parametrize('name', VARIANTS)
def test_the_variants_of_a_config_are_sound_and_others_are_refused(name):
  module = importlib.import_module(f'configs.{name}')
  for variant in VARIANTS[name]:
    config = module.get_config(variant)
    assert config.is_locked
    config_check.check(config)
  with pytest.raises(ValueError, match=f'{name}.py:other does not exist'):
    module.get_config('other')


def test_instance_recognition_to_the_end_follows_the_number_of_steps():
  config = vie_single.get_config('ir')
  config.num_steps = 2_000_000
  assert config.objective.instance_recognition_steps == 2_000_000


@pytest.mark.parametrize('streams', ['one', 'one,two,three', 'one,', ','])
def test_streams_must_be_two(streams):
  config = importlib.import_module('configs.vie_twostream_s').get_config()
  config.model.streams = streams
  message = refusal(config)
  assert repr(streams) in message
  assert 'vie_single and vie_slow' in message


def test_streams_and_another_source_exclude_each_other():
  config = importlib.import_module('configs.vie_twostream_s').get_config()
  config.model.streams = 'one,two'
  config_check.check(config)
  config.init_from = 'random'
  message = refusal(config)
  assert "init_from is 'random'" in message
  assert "model.streams is 'one,two'" in message


def test_short_sides_matter_to_their_own_method_only():
  config = default.get_config()
  config.crop.short_side_min = 1
  assert 'short_side_min 1' in refusal(config)
  config.crop.method = 'multiscale'
  config_check.check(config)


def test_other_losses_than_nce_may_have_lower_temperatures():
  config = default.get_config()
  config.objective.temperature = 0.01
  assert '0.02 with instance_recognition.loss=nce' in refusal(config)
  config.instance_recognition.loss = 'softmax'
  config_check.check(config)
  config.objective.temperature = 0.009
  assert '0.01 with instance_recognition.loss=softmax' in refusal(config)
  config.objective.instance_recognition_steps = 0
  config_check.check(config)
  config.objective.temperature = 0.001
  assert 'votes of nearest neighbours' in refusal(config)


def test_the_short_side_of_evaluation_matters_where_it_is_taken():
  config = default.get_config()
  config.crop.method = 'multiscale'
  config.crop.eval_short_side = 1
  config_check.check(config)
  config.crop.multiscale_eval = 'short_side'
  assert 'crop.eval_short_side is 1' in refusal(config)


def test_an_empty_train_split_is_no_matter_of_the_batch_size():
  config = vie_single.get_config()
  with config.unlocked():
    config.dataset.dir = '/data/mine'
  with pytest.raises(config_check.ConfigError) as caught:
    config_check.check_batch(config, 'batch_size', 0)
  message = str(caught.value)
  assert (
    '/data/mine has no training videos: its train split is empty' in message
  )
  assert '--val-percent' in message
  assert 'batch_size' not in message
  with pytest.raises(config_check.ConfigError, match='has only 1 for training'):
    config_check.check_batch(config, 'batch_size', 1)


def test_a_share_that_is_smaller_than_a_batch_is_named():
  config = vie_single.get_config()
  config.dataset.share = 0.1
  with pytest.raises(config_check.ConfigError) as caught:
    config_check.check_batch(config, 'batch_size', 5)
  message = str(caught.value)
  assert 'only 5 for training with config.dataset.share=0.1' in message
  assert message.endswith('lower it, or take a larger share.')
