"""The arithmetic of costs, against the same by hand."""

import importlib

import pytest
from reproduction import costs, paper_plan

from vie_jax import describe

MACHINE = costs.parse_machine('H100:1000:0.1:3.50:16:1000')


@pytest.fixture(scope='module')
def plan():
  return paper_plan.make(out='R', paths={}, labels={}, extra={})


@pytest.mark.slow
@pytest.mark.parametrize('network', costs.FORWARD)
def test_sizes_are_those_that_describe_prints(network):
  config = importlib.import_module(f'configs.{network}').get_config()
  facts = describe.description(config)
  assert costs.FORWARD[network] == facts['forward_flops_per_clip']
  readouts = facts['readouts']
  assert costs.READOUTS[network] == sum(
    readouts[layer] for layer in ('conv3', 'conv4', 'conv5')
  )


def test_pretraining_is_three_passes_a_clip_and_one_an_evaluation_clip(plan):
  found = costs.work(plan.steps['vie_slow'], plan.data)
  forward = 20_160_446_464
  # Not all 19,653 validation videos are looked at in between.
  trained, tested = 64 * 1_440_000, 288 * 2000 * 5
  assert found.operations == forward * (3 * trained + tested)
  assert found.frames == 4 * (trained + tested)


@pytest.mark.parametrize('eval_videos', [0, 1_000_000])
def test_pretraining_that_looks_at_all_validation_videos_has_no_more(
  eval_videos,
):
  plan = paper_plan.make(
    out='R', paths={}, labels={}, extra={'eval_videos': eval_videos}
  )
  found = costs.work(plan.steps['vie_slow'], plan.data)
  assert found.frames == 4 * (64 * 1_440_000 + 288 * 19_653 * 5)


def test_a_readout_is_one_pass_and_its_kernel(plan):
  step = plan.steps['vie_slow/linear_eval/kinetics']
  found = costs.work(step, plan.data)
  num_steps = step.config().linear_eval.num_steps
  trained, tested = 128 * num_steps, num_steps // 20_000 * 19_653 * 5
  kernel = 4 * 175_616 * 400
  assert found.operations == pytest.approx(
    20_160_446_464 * (trained + tested) + kernel * trained
  )


def test_images_are_decoded_once_and_seen_as_clips(plan):
  step = plan.steps['vie_slow/linear_eval/imagenet']
  found = costs.work(step, plan.data)
  num_steps = step.config().linear_eval.static_num_steps
  trained, tested = 128 * num_steps, num_steps // 20_000 * 50_000
  assert found.frames == trained + tested
  assert found.operations == pytest.approx(
    20_160_446_464 * (trained + tested) + 4 * 175_616 * 1000 * trained
  )


def test_networks_that_look_at_single_frames_see_an_image_once(plan):
  trn, single = (
    costs.work(plan.steps[f'{name}/linear_eval/imagenet'], plan.data)
    for name in ('vie_trn', 'vie_single')
  )
  # Per image, by the number of images of each.
  per_image = [found.operations / found.frames for found in (trn, single)]
  assert per_image[0] == pytest.approx(per_image[1], rel=0.01)


def test_input_single_sees_every_frame_of_its_clips(plan):
  name = 'input_single_slowfast/linear_eval/kinetics'
  found = costs.work(plan.steps[name], plan.data)
  clips = found.frames / 16
  assert found.operations > clips * 16 * 3_652_943_872


def test_what_may_end_earlier_is_marked(plan):
  marked = {
    step.mode
    for step in plan.steps.values()
    if costs.work(step, plan.data).is_most
  }
  assert marked == {'finetune', 'supervised'}


def test_the_slower_of_computing_and_decoding_counts(plan):
  step = plan.steps['vie_slowfast']
  found = costs.work(step, plan.data)
  computing, decoding = found.hours(MACHINE)
  assert computing == pytest.approx(found.operations / 1e14 / 3600)
  assert decoding == pytest.approx(found.frames / 16_000 / 3600)
  row, total = costs.table(plan, [step], MACHINE)
  assert row[5] == f'{max(computing, decoding):.1f}'
  assert float(row[6].replace(',', '')) == pytest.approx(
    3.5 * max(computing, decoding), rel=0.01
  )
  assert total == ['all', *row[1:]]


def test_steps_add_up(plan):
  steps = [plan.steps['vie_slow'], plan.steps['vie_single']]
  *rows, kind, total = costs.table(plan, steps, MACHINE)
  assert kind == ['all 2: pretraining', *total[1:]]
  for column in (3, 5):
    assert float(total[column]) == pytest.approx(
      sum(float(row[column]) for row in rows), abs=0.11
    )


@pytest.mark.parametrize(
  'text',
  [
    '',
    'H100',
    'H100:989:0.15:3:16',
    'H100:989:0.15:3:16:1000:1',
    'H100:989:much:3:16:1000',
    'H100:989:1.5:3:16:1000',
    'H100:0:0.15:3:16:1000',
    'H100:989:0.15:-1:16:1000',
    'H100:989:0.15:3:0:1000',
    'H100:989:0.15:3:16:0',
  ],
)
def test_a_machine_that_cannot_be_is_refused(text):
  with pytest.raises(costs.MachineError):
    costs.parse_machine(text)
