"""The steps for every cell: the right network, data and order."""

import json
import pathlib

import pytest
from reproduction import deciding_fields, demo_plan, paper_plan
from reproduction.plan import name_of

from vie_jax.config import config_check
from vie_jax.evaluation import cell_results, paper_roles
from vie_jax.evaluation.paper_tables import CELLS


def paper(**options):
  given = {'out': 'R', 'paths': {}, 'labels': {}, 'extra': {}} | options
  return paper_plan.make(**given)


def demo(**options):
  given = {'out': 'R', 'paths': {}, 'labels': {}, 'extra': {}} | options
  return demo_plan.make(**given)


each_plan = pytest.mark.parametrize('make', [paper, demo])


def as_result(plan, cell):
  """The result.json that a cell's steps will leave, as far as cells look."""
  step = plan.steps[plan.step_of[cell.name]]
  config = step.config()
  name, sampler = config.model.name, config.clip.sampler
  dataset = config.dataset.dir
  if step.mode in ('linear_eval', 'finetune') and config[step.mode].dataset:
    dataset = config[step.mode].dataset
  (found,) = (d for d in plan.data.values() if d.path == dataset)
  weights, training = config, None
  if config.model.streams:
    training = 'side_by_side'
  elif step.mode == 'supervised' or config.init_from == 'random':
    training = 'random'
  elif config.init_from != 'workdir':
    source = config.init_from.removeprefix('R/')
    training = plan.steps[source].mode
    weights = plan.steps[source].config()
  else:
    # The weights are those of the workdir, where a training has to be.
    weights = plan.steps[step.workdir.removeprefix('R/')].config()
  if training in (None, 'train'):
    until = weights.objective.instance_recognition_steps
    is_ir = until >= weights.num_steps
    training = 'instance_recognition' if is_ir else 'local_aggregation'
  if training in ('instance_recognition', 'local_aggregation'):
    started_from = origins_of(plan, weights)
  else:
    started_from = []
  return {
    'mode': step.mode,
    'dataset': {'name': found.name},
    'network': {
      'name': name,
      'training': training,
      'input': {'sampler': sampler},
      'trained_on': {
        'share': weights.dataset.share,
        'bin_frames': weights.dataset.bin_frames,
      },
      'started_from': started_from,
    },
    'settings': json.loads(config[step.mode].to_json_best_effort()),
    'accuracy': {found.column or 'label': {cell.wanted.figure: {'top1': 0.5}}},
  }


def origins_of(plan, weights):
  """The pretrainings that one with a config goes on from."""
  if weights.init_from == 'workdir':
    return []
  before = plan.steps[weights.init_from.removeprefix('R/')].config()
  until = before.objective.instance_recognition_steps
  is_ir = until >= before.num_steps
  return [
    {
      'training': 'instance_recognition' if is_ir else 'local_aggregation',
      'step': before.num_steps,
      'source': weights.init_from,
      'trained_on': {
        'share': before.dataset.share,
        'bin_frames': before.dataset.bin_frames,
      },
    },
    *origins_of(plan, before),
  ]


def test_trn_of_the_paper_may_fill_its_cells_as_what_started_from_single():
  facts = as_result(paper(), CELLS['table1.vie_trn.kinetics.conv5'])
  (before,) = facts['network']['started_from']
  assert before['source'] == 'R/vie_single'
  assert before['training'] == 'local_aggregation'


@each_plan
def test_what_a_cells_steps_leave_fills_that_cell(make):
  plan = make()
  for name in plan.step_of:
    facts = as_result(plan, CELLS[name])
    roles = {role: paper_roles.Role('') for role in paper_roles.ROLES}
    found = cell_results.find(
      CELLS[name], facts, roles=roles | plan.roles(), bins=plan.bins
    )
    assert found == {'top1': 0.5}, name


def test_the_paper_plan_has_every_cell_and_the_demo_all_but_hmdb51():
  assert set(paper().step_of) == set(CELLS)
  assert set(CELLS) - set(demo().step_of) == {
    name for name, cell in CELLS.items() if cell.wanted.role == 'hmdb51'
  }


def test_the_plan_is_as_large_as_the_papers():
  modes = [step.mode for step in demo().steps.values()]
  assert {mode: modes.count(mode) for mode in set(modes)} == {
    'data': 3,
    'train': 10,
    'supervised': 5,
    'linear_eval': 34,
    'finetune': 20,
  }


@each_plan
def test_steps_come_after_those_that_they_need(make):
  plan = make()
  seen = set()
  for name, step in plan.steps.items():
    assert set(step.needs) <= seen, name
    seen.add(name)
  for cell in plan.step_of:
    ordered = [step.name for step in plan.needed([cell])]
    assert ordered[-1] == plan.step_of[cell]
    assert len(set(ordered)) == len(ordered)


@each_plan
def test_every_source_of_weights_is_made_by_a_step_that_comes_before(make):
  plan = make()
  for step in plan.steps.values():
    fields = step.fields
    sources = fields.get('model.streams', fields.get('init_from', 'random'))
    for source in sources.split(','):
      if source != 'random':
        assert source.removeprefix('R/') in step.needs, step.name
    if 'init_from' not in fields and 'model.streams' not in fields:
      is_readout = step.mode in ('linear_eval', 'finetune')
      assert (step.workdir.removeprefix('R/') in step.needs) == is_readout


@each_plan
def test_every_config_is_sound(make):
  for step in make().steps.values():
    if step.mode != 'data':
      config_check.check(step.config())


@each_plan
def test_no_two_steps_write_to_one_place(make):
  steps = make().steps.values()
  folders = [str(step.folder) for step in steps]
  assert len(set(folders)) == len(folders)


@each_plan
def test_a_command_has_all_that_differs_from_its_config_file(make):
  for step in make().steps.values():
    if step.mode == 'data':
      assert step.command[0] == 'data/prepare.py'
      continue
    first, config, workdir, *rest = step.command
    assert first == 'main.py'
    assert config == f'--config={step.config_file}'
    assert pathlib.Path(config.split('=')[1].split(':')[0]).exists()
    assert workdir == f'--workdir={step.workdir}'
    assert (rest[0] == f'--mode={step.mode}') == (step.mode != 'train')
    for field, value in step.fields.items():
      assert f'--config.{field}={value}' in rest


def test_two_streams_need_both_networks():
  steps = paper().needed(['table1.vie_twostream_sf.kinetics.conv5'])
  assert [step.name for step in steps] == [
    'vie_single',
    'vie_slowfast',
    'vie_twostream_sf/linear_eval/kinetics',
  ]
  assert steps[-1].fields['model.streams'] == 'R/vie_single,R/vie_slowfast'


def test_trn_of_the_paper_goes_on_from_single():
  steps = paper().needed(['table1.vie_trn.kinetics.conv5'])
  assert [step.name for step in steps][:2] == ['vie_single', 'vie_trn']
  assert steps[1].config_file == 'configs/vie_trn.py:from_single'


def test_pooled_conv5_is_of_three_supervised_networks_on_images_only():
  pooled = {
    step.name
    for step in paper().steps.values()
    if step.fields.get('linear_eval.averaged_layers')
  }
  assert pooled == {
    f'supervised_{network}/linear_eval/imagenet'
    for network in ('single', 'slow', 'slowfast')
  }


def test_readouts_of_rows_of_their_own_have_their_own_drops():
  steps = paper().steps
  fields = steps['random/linear_eval/kinetics'].fields
  assert fields['linear_eval.drop_steps'] == (409_998, 664_998)
  assert fields['linear_eval.num_steps'] == 765_000
  fields = steps['random/linear_eval/imagenet'].fields
  assert fields['linear_eval.static_drop_steps'] == (370_011, 524_998)
  assert fields['linear_eval.static_num_steps'] == 625_000
  for drops in paper_plan.READOUT_DROPS.values():
    assert all(first < second for first, second in drops)
  # The others are as in their config files.
  for name in ('vie_single', 'vie_slow', 'input_single_trn'):
    fields = steps[f'{name}/linear_eval/kinetics'].fields
    assert not [field for field in fields if 'linear_eval' in field]


@pytest.mark.parametrize(
  'network, ucf101, hmdb51',
  [
    ('vie_3dresnet', 10, 4),
    ('vie_slowfast', 3, 2),
    ('vie_single', 5, 5),
    ('vie_twostream_sf', 3, 3),
  ],
)
def test_finetuning_is_tested_on_the_official_number_of_clips(
  network, ucf101, hmdb51
):
  steps = paper().steps
  found = [
    steps[f'{network}/finetune/{role}_multiscale']
    .config()
    .finetune.num_eval_clips
    for role in ('ucf101', 'hmdb51')
  ]
  assert found == [ucf101, hmdb51]


def test_other_data_can_take_a_role(tmp_path):
  manifest = {'name': 'mine', 'fingerprint': 'a' * 64}
  (tmp_path / 'dataset.json').write_text(json.dumps(manifest))
  plan = demo(paths={'kinetics': str(tmp_path)}, labels={'kinetics': 'gesture'})
  assert plan.data['kinetics'].name == 'mine'
  role = plan.roles()['kinetics']
  assert (role.dataset, role.column) == ('mine', 'gesture')
  assert (role.fingerprint, role.path) == ('a' * 64, str(tmp_path))
  steps = plan.needed(['table1.vie_slow.kinetics.supervised'])
  assert [step.mode for step in steps] == ['supervised']
  assert steps[0].config().dataset.label_columns == ('gesture',)


@pytest.mark.parametrize(
  'path, name',
  [
    ('tfds:imagenet2012', 'tfds-imagenet2012'),
    ('tfds:imagenet2012:5.1.0', 'tfds-imagenet2012'),
    ('tfds:imagenet_resized/32x32', 'tfds-imagenet_resized-32x32'),
    ('some/folder', 'folder'),
  ],
)
def test_data_sets_are_called_what_results_call_them(path, name):
  assert name_of(path) == name


def test_extra_fields_are_in_every_command_of_main():
  for step in demo(extra={'seed': 3}).steps.values():
    assert ('--config.seed=3' in step.command) == (step.mode != 'data')


def test_an_extra_field_that_does_not_exist_is_named():
  (step,) = (
    step
    for name, step in demo(extra={'seeed': 3}).steps.items()
    if name == 'vie_slow'
  )
  with pytest.raises(ValueError, match=r'--config\.seeed=3 does not fit'):
    step.config()


def config_of(step):
  return json.loads(step.config().to_json_best_effort())


def test_a_result_of_the_same_settings_differs_in_nothing():
  for step in demo().steps.values():
    if step.mode != 'data':
      found = config_of(step)
      assert deciding_fields.differing(step.config(), found, step.mode) == []


@pytest.mark.parametrize(
  'field, value, mode, differs',
  [
    ('seed', 1, 'linear_eval', True),
    ('linear_eval.learning_rate', 3.0, 'linear_eval', True),
    ('linear_eval.learning_rate', 3.0, 'train', False),
    ('finetune.patience', 99, 'linear_eval', False),
    ('model.width', 9, 'train', True),
    ('num_steps', 9, 'train', True),
    ('num_devices', 8, 'train', False),
    ('input.num_threads', 8, 'train', False),
    ('dataset.dir', '/elsewhere', 'train', False),
    ('on_failed_save', 'stop', 'train', False),
    ('keep_checkpoint_every_steps', 9, 'train', False),
    ('fault.watchdog_seconds', 60, 'train', False),
    ('objective.product_bytes', 9, 'train', False),
    ('objective.temperature', 0.2, 'train', True),
    ('plan.videos', 1e9, 'linear_eval', False),
    ('linear_eval.tfds_data_dir', '/elsewhere', 'linear_eval', False),
    ('linear_eval.eval_batch_size', 8, 'linear_eval', False),
    ('linear_eval.batch_size', 8, 'linear_eval', True),
    ('linear_eval.checkpoint_every_steps', 8, 'linear_eval', False),
    ('linear_eval.eval_every_steps', 8, 'linear_eval', True),
    ('embed.batch_size', 8, 'embed', False),
    ('init_from', 'random', 'linear_eval', True),
    ('init_from', 'random', 'supervised', False),
  ],
)
def test_settings_that_change_the_result_are_told_from_others(
  field, value, mode, differs
):
  step = demo().steps['vie_slow/linear_eval/kinetics']
  other = step.config()
  other.update_from_flattened_dict({field: value})
  found = json.loads(other.to_json_best_effort())
  expected = [field] if differs else []
  assert deciding_fields.differing(step.config(), found, mode) == expected


def test_a_field_that_an_old_result_lacks_counts_as_its_default():
  step = demo().steps['vie_slow']
  found = config_of(step)
  # The demo's is another than the default, and so are the steps.
  del found['model']['width'], found['model']['dtype'], found['fault']
  assert deciding_fields.differing(step.config(), found, 'train') == [
    'model.width'
  ]


def test_what_is_no_config_differs():
  step = demo().steps['vie_slow']
  for found in (None, {}, {'clip': {}}, config_of(step) | {'model': 3}):
    assert deciding_fields.differing(step.config(), found, 'train') == [
      'config'
    ]
  found = config_of(step) | {'optimizer': 3}
  assert 'optimizer' in deciding_fields.differing(step.config(), found, 'train')


def test_how_multiscale_crops_are_evaluated_differs_only_where_it_is_done():
  steps = demo().steps
  differing = {
    name
    for name, step in steps.items()
    if step.mode != 'data'
    and deciding_fields.differing(step.config(), without(step), step.mode)
  }
  assert differing == {
    name
    for name in steps
    if '3dresnet' in name and name.endswith('_multiscale')
  }
  assert differing


def without(step):
  """The config of a result from before the field was there."""
  found = config_of(step)
  del found['crop']['multiscale_eval']
  return found
