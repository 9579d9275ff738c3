"""Results of other data sets are told from those of a plan's."""

import json
import pathlib
import shutil

import pytest
from input_pipeline import image_dataset
from reproduction import data_sets, demo_plan
from reproduction.plan import name_of

from vie_jax.input_pipeline import labelled_images
from vie_jax.saved_steps import commit_record

TRAIN, SHARE = 'vie_slow', 'vie_single_30'
READOUT, STATIC = (
  f'vie_slow/linear_eval/{role}' for role in ('kinetics', 'imagenet')
)
FINETUNED = 'vie_single/finetune/ucf101_multiscale'
TWO_STREAMS = 'vie_twostream_s/linear_eval/kinetics'
OLD, NEW = 'a' * 64, 'b' * 64


def prepared(folder, fingerprint, name='demo'):
  """What a plan reads of a prepared data set; returns its path."""
  folder.mkdir()
  manifest = {'name': name, 'fingerprint': fingerprint}
  (folder / 'dataset.json').write_text(json.dumps(manifest))
  return str(folder)


@pytest.fixture
def one(tmp_path):
  return prepared(tmp_path / 'one', OLD)


@pytest.fixture
def moved(tmp_path):
  return prepared(tmp_path / 'moved', OLD, 'renamed')


@pytest.fixture
def other(tmp_path):
  """Other videos under the same name."""
  return prepared(tmp_path / 'other', NEW)


@pytest.fixture
def plan_of(tmp_path):
  """Makes a plan of data sets: role -> path."""
  out = str(tmp_path / 'R')
  return lambda **paths: demo_plan.make(
    out=out, paths=paths, labels={}, extra={}
  )


def facts_of(path):
  """What a result says of a prepared data set."""
  manifest = pathlib.Path(path, 'dataset.json').read_text()
  return {'path': path, **json.loads(manifest)}


def trained_on(path):
  facts = facts_of(path)
  return {
    'name': facts['name'],
    'dataset_fingerprint': facts['fingerprint'],
    'path': path,
  }


def write_result(plan, name, dataset, **network):
  folder = pathlib.Path(plan.steps[name].folder)
  folder.mkdir(parents=True, exist_ok=True)
  facts = {
    'format_version': 1,
    'mode': plan.steps[name].mode,
    'dataset': dataset,
    'network': network,
    'accuracy': {},
  }
  (folder / 'result.json').write_text(json.dumps(facts))


def write_checkpoint(plan, name, path, *, share=1.0, says_dataset=True):
  """Leaves a checkpoint, as far as a plan looks at it."""
  facts = facts_of(path)
  record = {
    'config': {
      'dataset': {'dir': path, 'share': share, 'bin_frames': 0},
      'clip': {'sampler': 'slow', 'num_frames': 4},
    },
    'fingerprint': facts['fingerprint'] if share == 1 else 's' * 64,
  }
  if says_dataset:
    record['dataset'] = {key: facts[key] for key in ('name', 'fingerprint')}
  folder = pathlib.Path(plan.steps[name].folder, 'checkpoints', '600')
  folder.mkdir(parents=True)
  commit_record.write(folder, step=600, record=record, items={}, saved_by={})


def problem(plan, name):
  """What is said against what is in a step's folder; '' for nothing."""
  step = plan.steps[name]
  try:
    data_sets.DataSets(plan).check(step, pathlib.Path(step.folder))
  except data_sets.OtherDataError as error:
    return str(error)
  return ''


def test_an_empty_folder_is_of_no_other_data_set(plan_of, one):
  plan = plan_of(kinetics=one)
  for name, step in plan.steps.items():
    assert step.mode == 'data' or not problem(plan, name)


@pytest.mark.parametrize('says_dataset', [True, False])
@pytest.mark.parametrize('name, share', [(TRAIN, 1.0), (SHARE, 0.3)])
def test_a_pretraining_is_of_the_data_set_that_it_was_trained_on(
  plan_of, one, moved, other, name, share, says_dataset
):
  write_checkpoint(plan_of(), name, one, share=share, says_dataset=says_dataset)
  assert not problem(plan_of(kinetics=one), name)
  # Of a share, older checkpoints have no fingerprint of the whole data set.
  if says_dataset or share == 1:
    assert not problem(plan_of(kinetics=moved), name)
  found = problem(plan_of(kinetics=other), name)
  assert 'a network trained on the data set' in found
  for path in (one, other):
    assert path in found
  assert NEW[:12] in found
  assert 'Name another --out, or move that folder away.' in found


def test_checkpoints_that_say_nothing_speak_against_nothing(plan_of, one):
  plan = plan_of(kinetics=one)
  folder = pathlib.Path(plan.steps[TRAIN].folder, 'checkpoints', '600')
  folder.mkdir(parents=True)
  (folder / 'commit.json').write_text('{}')
  assert not problem(plan, TRAIN)
  shutil.rmtree(folder)
  folder.mkdir()
  commit_record.write(
    folder,
    step=600,
    record={'converted_from': 'official:x', 'config': {}},
    items={},
    saved_by={},
  )
  assert not problem(plan, TRAIN)


def test_a_result_is_of_the_data_set_that_it_was_tested_on(
  plan_of, one, moved, other
):
  write_result(plan_of(), READOUT, facts_of(one))
  write_result(plan_of(), FINETUNED, facts_of(one))
  for name, role in ((READOUT, 'kinetics'), (FINETUNED, 'ucf101')):
    assert not problem(plan_of(**{role: one}), name)
    assert not problem(plan_of(**{role: moved}), name)
    assert 'a result on the data set' in problem(plan_of(**{role: other}), name)


def test_a_result_is_of_the_data_set_that_its_network_was_trained_on(
  plan_of, one, moved, other, tmp_path
):
  second = prepared(tmp_path / 'second', 'c' * 64, 'second')
  write_result(
    plan_of(), FINETUNED, facts_of(second), trained_on=trained_on(one)
  )
  write_result(
    plan_of(),
    TWO_STREAMS,
    facts_of(one),
    trained_on=trained_on(one),
    streams={
      'single': {'trained_on': trained_on(one)},
      'motion': {'trained_on': trained_on(other)},
    },
  )
  assert not problem(plan_of(kinetics=moved, ucf101=second), FINETUNED)
  assert 'a result of a network trained on' in problem(
    plan_of(kinetics=other, ucf101=second), FINETUNED
  )
  assert other in problem(plan_of(kinetics=one), TWO_STREAMS)


def test_a_rendered_data_set_that_was_removed_is_known_by_its_place(plan_of):
  plan = plan_of()
  facts = {'name': 'demo', 'fingerprint': OLD}
  write_result(plan, READOUT, facts | {'path': plan.data['kinetics'].path})
  assert not problem(plan, READOUT)


def test_images_are_compared_file_by_file_wherever_they_lie(plan_of, tmp_path):
  folder = tmp_path / 'pictures'
  image_dataset.write_folder(folder, image_dataset.FOLDER)
  with (
    labelled_images.open_images(str(folder), 'train') as train,
    labelled_images.open_images(str(folder), 'val') as val,
  ):
    fingerprint = train.fingerprint + val.fingerprint
  facts = {
    'name': 'pictures',
    'path': str(folder),
    'fingerprint': fingerprint,
  }
  write_result(plan_of(), STATIC, facts)
  assert not problem(plan_of(imagenet=str(folder)), STATIC)
  renamed = folder.rename(tmp_path / 'renamed')
  plan = plan_of(imagenet=str(renamed))
  assert not problem(plan, STATIC)
  # Nor is the name what decides of its cells.
  known = data_sets.DataSets(plan)
  known.check(plan.steps[STATIC], pathlib.Path(plan.steps[STATIC].folder))
  role = known.roles(plan)['imagenet']
  assert role.dataset == 'renamed'
  assert role.is_of(facts)
  assert not role.is_of({**facts, 'fingerprint': 'e' * 64})
  (renamed / 'train' / 'dog' / 'b.JPEG').write_bytes(image_dataset.plain(9) * 2)
  assert 'a result on' in problem(plan_of(imagenet=str(renamed)), STATIC)


@pytest.mark.parametrize(
  'found, asked, is_same',
  [
    ('tfds:imagenet2012', 'tfds:imagenet2012', True),
    ('tfds:imagenet2012', 'tfds:imagenet2012:5.1.0', True),
    ('tfds:imagenet2012:5.0.0', 'tfds:imagenet2012:5.1.0', False),
    ('tfds:imagenette', 'tfds:imagenet2012', False),
  ],
)
def test_tfds_is_known_by_name_and_version(plan_of, found, asked, is_same):
  facts = {
    'name': name_of(found),
    'path': found,
    'fingerprint': OLD * 2,
  }
  write_result(plan_of(), STATIC, facts)
  assert (not problem(plan_of(imagenet=asked), STATIC)) == is_same
