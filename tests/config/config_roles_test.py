"""Every field of a config has a role, and those who compare configs obey it."""

import fnmatch

import ml_collections
import pytest

from configs import default
from vie_jax.classifiers import fit
from vie_jax.config import config_roles
from vie_jax.config.config_roles import Role


def names(config, prefix=''):
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from names(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}'


NAMES = list(names(default.get_config()))
PATTERNS = ' '.join(config_roles.PATTERNS.values()).split()


@pytest.mark.parametrize('name', NAMES)
def test_every_field_has_a_role(name):
  assert any(fnmatch.fnmatchcase(name, pattern) for pattern in PATTERNS)


@pytest.mark.parametrize('pattern', PATTERNS)
def test_every_pattern_is_of_a_field(pattern):
  assert fnmatch.filter(NAMES, pattern)


def test_a_pretraining_goes_on_with_all_but_what_its_checkpoints_hold():
  fixed = {name for name in NAMES if config_roles.role_of(name) is Role.STATE}
  model = {f'model.{name}' for name in default.get_config().model}
  assert fixed == model - {'model.streams'} | {
    'seed',
    'optimizer.name',
    'local_aggregation.num_clusterings',
  }


def test_a_training_on_labels_goes_on_with_another_course_and_end():
  config = default.get_config()
  free = {
    name
    for mode in ('linear_eval', 'finetune', 'supervised')
    for name in config[mode]
    if fit._may_change(f'settings.{name}')
  }
  assert free == {
    'dataset',
    'tfds_data_dir',
    'eval_batch_size',
    'num_steps',
    'static_num_steps',
    'drop_steps',
    'static_drop_steps',
    'eval_every_steps',
    'checkpoint_every_steps',
  }
  assert fit._may_change('model.streams')
  assert fit._may_change('schedule.num_steps')
  assert not fit._may_change('schedule.drop_steps')
  assert not fit._may_change('input.seed')
