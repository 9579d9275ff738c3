"""What each field of `configs/default.py` decides, for all who compare configs."""

import enum
import fnmatch


class Role(enum.Enum):
  """What depends on a field."""

  STATE = 'what a checkpoint holds: no training goes on with another value'
  SCHEDULE = 'the result, but a training on labels may go on with another value'
  RESULT = 'the result; a pretraining may go on with another value'
  WEIGHTS = 'which weights: where a digest of them is kept, that decides'
  PLACE = 'where a data set or a result lies; fingerprints say which it is'
  COURSE = 'how a result is computed, and how often that is told of or saved'


# Patterns of names; the first that fits decides.
PATTERNS = {
  Role.COURSE: (
    'num_devices log_every_steps eval_every_steps *checkpoint_every_steps '
    'keep_checkpoints on_failed_save eval_videos profile* '
    'objective.product_bytes *.eval_batch_size knn.batch_size embed.batch_size '
    'input.* plan.* fault.*'
  ),
  Role.PLACE: 'result_name dataset.dir *.dataset *.tfds_data_dir',
  Role.WEIGHTS: 'init_from embeddings model.streams',
  Role.STATE: 'seed model.* optimizer.name local_aggregation.num_clusterings',
  Role.SCHEDULE: '*num_steps *drop_steps *.eval_every_steps',
  Role.RESULT: (
    'batch_size dataset.* clip.* crop.* augmentation.* memory_bank.* '
    'objective.* instance_recognition.* local_aggregation.* optimizer.* knn.* '
    'linear_eval.* finetune.* supervised.* retrieve.* embed.* export.*'
  ),
}


def role_of(name: str) -> Role:
  """The role of a field by its dotted name; RESULT if there is none of it."""
  for role, patterns in PATTERNS.items():
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns.split()):
      return role
  return Role.RESULT


def crop_in_effect(crop: dict, choice: str | None, prefix: str = '') -> dict:
  """Fields of `config.crop`, without `multiscale_eval` where it changes nothing.

  Args:
    crop: the fields; others may be among them. None of `multiscale_eval` stands
      for 'largest_square'.
    choice: of the mode's own `augmentation`, which may be 'multiscale', too.
    prefix: of the names of the fields.
  """
  is_multiscale = 'multiscale' in (choice, crop.get(f'{prefix}method'))
  name = f'{prefix}multiscale_eval'
  if is_multiscale and crop.get(name) == 'short_side':
    return crop
  return {field: crop[field] for field in crop if field != name}
