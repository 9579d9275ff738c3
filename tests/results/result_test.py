import json
import pathlib

import ml_collections
import pytest

import vie_jax
from configs import default
from vie_jax import code_version, weights
from vie_jax.results import result


def config(**changes):
  made = default.get_config()
  made.update_from_flattened_dict(changes)
  return made


@pytest.mark.parametrize(
  'changes, name',
  [
    ({}, 'demo'),
    ({'init_from': 'random'}, 'demo_random'),
    ({'init_from': 'random', 'seed': 3}, 'demo_random_seed3'),
    ({'init_from': 'runs/slow/'}, 'demo_slow'),
    ({'init_from': 'runs/slow/checkpoints/24'}, 'demo_slow_step24'),
    ({'init_from': 'a/../slow/checkpoints/24'}, 'demo_slow_step24'),
    ({'init_from': 'runs/a/supervised/demo'}, 'demo_a_supervised_demo'),
    (
      {'init_from': 'runs/a/finetune/cls/checkpoints/24'},
      'demo_a_finetune_cls_step24',
    ),
    ({'init_from': 'official:checkpoints/1450000'}, 'demo_1450000'),
    (
      {'init_from': 'official:models/checkpoint-1.tar'},
      'demo_checkpoint-1.tar',
    ),
    ({'embeddings': 'other/clip.npy'}, 'demo_clip'),
    ({'init_from': 'random', 'result_name': 'mine'}, 'mine'),
  ],
)
def test_the_folder_tells_one_source_from_another(changes, name):
  found = result.folder(config(**changes), 'W', 'knn_eval', 'demo')
  assert found == pathlib.Path('W/knn_eval') / name


@pytest.mark.parametrize('step', ['', '/checkpoints/24'])
def test_a_result_that_is_named_as_before_is_found(tmp_path, step):
  before = tmp_path / 'knn_eval' / ('demo_cls_step24' if step else 'demo_cls')
  before.mkdir(parents=True)

  def source(run):
    return f'runs/{run}/supervised/cls{step}'

  def folder(run):
    found = config(init_from=source(run))
    return result.folder(found, tmp_path, 'knn_eval', 'demo')

  def write(name, facts):
    (before / name).write_text(json.dumps(facts))

  now = tmp_path / 'knn_eval' / before.name.replace('cls', 'a_supervised_cls')
  assert folder('a') == now
  # Not yet finished, and of a run that lies elsewhere now.
  write('config.json', {'init_from': f'/moved/{source("a")}'})
  assert folder('a') == before
  assert folder('b') != before
  write('result.json', {'config': {'init_from': source('b')}})
  assert folder('a') == now
  assert folder('b') == before
  write('result.json', {'config': {'init_from': 'runs/cls'}})
  assert folder('b') != before
  (before / 'result.json').write_text('[')
  assert folder('a') == before
  now.mkdir()
  assert folder('a') == now


def test_a_folder_is_one_safe_name_below_the_mode():
  strange = config(init_from='../a b/c:d')
  found = result.folder(strange, 'W', 'embed', '../../etc', 'x/y')
  assert found.parent == pathlib.Path('W/embed')
  assert '/' not in found.name


def test_network_block_says_what_and_from_where():
  found = weights.Weights(
    {}, 450, pathlib.Path('W'), 'supervised', {'share': 1}
  )
  facts = result.network(config(), found)
  assert facts['name'] == 'vie_single'
  assert facts['training'] == 'supervised'
  assert facts['step'] == 450
  assert facts['source'] == 'W'
  assert facts['input']['num_frames'] == 1
  two = result.network(
    config(**{'model.streams': 'A,B'}),
    weights.Weights(
      {}, 3, training='side_by_side', streams={'single': {'step': 3}}
    ),
  )
  assert two['source'] == 'A,B'
  assert two['streams'] == {'single': {'step': 3}}
  assert 'streams' not in facts


def test_what_is_written_is_read_with_its_circumstances(tmp_path):
  facts = {'mode': 'knn_eval', 'accuracy': {'motion': {'knn': {'top1': 0.5}}}}
  written = result.write(tmp_path / 'new', facts)
  read = result.read(tmp_path / 'new' / result.FILE)
  assert read == written
  assert read | facts == read
  assert read['hardware']['devices'] == '8 x cpu'
  assert read['date'].endswith('+00:00')
  assert not list((tmp_path / 'new').glob('*.tmp'))


def test_the_versions_are_those_of_this_code(tmp_path):
  written = result.write(tmp_path, {})
  assert written['commit'] == code_version.commit()
  assert written['versions']['vie_jax'] == vie_jax.__version__


@pytest.mark.parametrize(
  'text, reason',
  [
    (None, 'cannot be read'),
    ('{"format_version": 1,', 'is not JSON'),
    ('[]', 'holds no JSON object'),
    ('{"format_version": 99}', 'has format version 99'),
  ],
)
def test_what_is_no_result_is_named(tmp_path, text, reason):
  path = tmp_path / 'result.json'
  if text is not None:
    path.write_text(text)
  with pytest.raises(result.ResultError) as error:
    result.read(path)
  assert str(path) in str(error.value)
  assert reason in str(error.value)


def test_facts_are_json(tmp_path):
  with pytest.raises(TypeError):
    result.write(tmp_path, {'bad': ml_collections.ConfigDict()})
  result.write(tmp_path, {'good': 1})
  assert json.loads((tmp_path / result.FILE).read_text())['good'] == 1
