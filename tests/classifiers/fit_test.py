"""What a training of classifiers may go on from."""

import copy
import pathlib

import pytest

from vie_jax.classifiers import fit
from vie_jax.config import config_roles
from vie_jax.results import result

RECORD = {
  'fingerprint': 'f' * 64,
  'network': {
    'name': 'vie_twostream_s',
    'weights': 'a' * 64,
    'trained_on': {'name': 'demo', 'path': '/demo', 'share': 1.0},
    'streams': {'single': {'training': 'local_aggregation'}},
  },
  'settings': {},
  'schedule': {},
  'input': {},
  'config': {'model': {}},
}


def test_what_earlier_versions_did_not_say_of_the_weights_does_not_matter():
  saved = copy.deepcopy(RECORD)
  del saved['network']['streams']
  del saved['network']['trained_on']['name']
  fit._check(saved, RECORD, pathlib.Path('W'))
  saved['network']['trained_on'] = None
  fit._check(saved, RECORD, pathlib.Path('W'))


@pytest.mark.parametrize(
  'method, choice, evaluation, is_kept',
  [
    ('short_side', None, 'short_side', False),
    ('short_side', 'color_noise', 'short_side', False),
    ('short_side', 'multiscale', 'largest_square', False),
    ('short_side', 'multiscale', 'short_side', True),
    ('multiscale', None, 'short_side', True),
  ],
)
def test_the_evaluation_of_multiscale_crops_matters_where_it_is_another(
  method, choice, evaluation, is_kept
):
  crop = {'method': method, 'size': 112, 'multiscale_eval': evaluation}
  kept = config_roles.crop_in_effect(crop, choice)
  # As trainings of before say it.
  old = {'method': method, 'size': 112}
  assert kept == (crop if is_kept else old)


def test_other_weights_are_refused():
  saved = copy.deepcopy(RECORD)
  saved['network']['weights'] = 'b' * 64
  with pytest.raises(result.ResultError, match=r'network\.weights was'):
    fit._check(saved, RECORD, pathlib.Path('W'))


def test_a_newer_step_of_the_network_is_refused_with_a_way_to_the_older():
  message = refusal_of_newer_step('local_aggregation', '/my runs')
  assert 'network.step was 24, is 28' in message
  assert (
    "--config.init_from='/my runs/checkpoints/24' --config.result_name=demo "
    'goes on'
  ) in message


@pytest.mark.parametrize(
  'training, source',
  [('side_by_side', '/A,/B'), ('official', 'official:/c'), ('supervised', 'x')],
)
def test_no_way_to_the_older_network_is_promised_where_none_is_known(
  training, source
):
  assert 'goes on with it' not in refusal_of_newer_step(training, source)


def refusal_of_newer_step(training, source):
  saved, record = (
    copy.deepcopy(RECORD)
    | {
      'network': RECORD['network']
      | {'training': training, 'source': source, 'step': step}
    }
    for step in (24, 28)
  )
  with pytest.raises(result.ResultError) as error:
    fit._check(saved, record, pathlib.Path('/W/linear_eval/demo'))
  return str(error.value)


@pytest.mark.parametrize(
  'kind, num_classes, told',
  [
    ('video', 6, 'video top-1 30.0 %, top-5 90.0 %, clip top-1 20.0 %'),
    ('video', 5, 'video top-1 30.0 %, clip top-1 20.0 %'),
    ('image', 6, 'top-1 30.0 %, top-5 90.0 %'),
    ('image', None, 'top-1 30.0 %, top-5 90.0 %'),
  ],
)
def test_the_log_has_the_figures_that_mean_something(
  kind, num_classes, told, caplog
):
  figures = {'top1': 0.3, 'top5': 0.9, 'clip_top1': 0.2}
  written = {
    'mode': 'linear_eval',
    'accuracy': {'label': {'conv5': figures}},
    'chance': {'label': 0.25},
    'dataset': {'kind': kind},
  }
  # Results of before do not say it.
  if num_classes:
    written['classes'] = {'label': num_classes}
  with caplog.at_level('INFO', logger='absl'):
    fit._log(written, pathlib.Path('W'))
  line = f'linear_eval of label, conv5: {told} (chance 25.0 %).'
  assert caplog.messages[0] == line
