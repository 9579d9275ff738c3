import importlib
import json
import subprocess

import pytest
import tiny_run

from vie_jax import describe
from vie_jax.config import config_check
from vie_jax.processes import exit_codes

CONFIGS = {
  'vie_single': (11_244_480, [1, 224, 224], 3.65e9),
  'vie_3dresnet': (33_271_872, [16, 112, 112], 16.7e9),
  'vie_trn': (11_441_088, [4, 224, 224], 4 * 3.65e9),
  'vie_slow': (20_091_840, [4, 224, 224], 20.2e9),
  'vie_slowfast': (21_678_280, [16, 224, 224], 25.3e9),
  'vie_twostream_s': (31_336_320, [4, 224, 224], 4 * 3.65e9 + 20.2e9),
  'vie_twostream_sf': (32_922_760, [16, 224, 224], 16 * 3.65e9 + 25.3e9),
}
# Of Conv3, Conv4 and Conv5, as in the official transfer experiments.
READOUTS = {
  'vie_single': (100_352, 50_176, 25_088),
  'vie_3dresnet': (25_088, 12_544, 8192),
  'vie_trn': (100_352, 50_176, 25_088),
  'vie_slow': (100_352, 50_176, 25_088),
  'vie_slowfast': (125_440, 62_720, 31_360),
  'vie_twostream_s': (200_704, 100_352, 50_176),
  'vie_twostream_sf': (225_792, 112_896, 56_448),
}


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_is_described_as_the_official_network(name):
  parameters, clip, flops = CONFIGS[name]
  config = importlib.import_module(f'configs.{name}').get_config()
  facts = describe.description(config)
  assert facts['model'] == name
  assert facts['parameters'] == parameters
  assert facts['clip'] == clip
  assert facts['embedding_size'] == 128
  assert facts['forward_flops_per_clip'] == pytest.approx(flops, rel=0.01)
  layers = ('conv3', 'conv4', 'conv5')
  assert tuple(facts['readouts'][layer] for layer in layers) == READOUTS[name]


def test_pooled_readouts_have_a_quarter_of_the_values():
  config = importlib.import_module('configs.vie_single').get_config()
  readouts = describe.description(config)['readouts']
  assert readouts['conv1'] == readouts['conv2'] == 200_704 // 4


def test_the_config_is_checked():
  config = importlib.import_module('configs.vie_single').get_config()
  config.model.width = 0
  with pytest.raises(config_check.ConfigError, match=r'model\.width'):
    describe.description(config)


def test_a_plan_of_no_videos_is_said_to_be_none(capsys, caplog):
  config = importlib.import_module('configs.vie_single').get_config()
  config.plan.devices = 256
  with caplog.at_level('INFO'):
    assert 'plan' not in describe.describe(config, '')
  assert 'plan' not in capsys.readouterr().out
  assert caplog.messages == ['config.plan.videos is 0: nothing is planned.']


def test_the_command_prints_one_line_of_json_and_nothing_else(tmp_path):
  finished = tiny_run.describe('vie_slow', tmp_path, '--config.model.width=8')
  (line,) = finished.stdout.splitlines()
  assert json.loads(line)['model'] == 'vie_slow'
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_below_the_line_of_json_is_told_of(tmp_path):
  environment = tiny_run.environment()
  environment.pop('PYTHONUNBUFFERED', None)
  with open('/dev/full', 'w') as full:
    ended = subprocess.run(
      tiny_run.command(tmp_path / 'run', tmp_path, mode='describe'),
      stdout=full,
      stderr=subprocess.PIPE,
      env=environment,
      text=True,
    )
  assert ended.returncode == exit_codes.RETRY
  assert 'No room to write to standard output' in ended.stderr
  assert 'Traceback' not in ended.stderr
