"""docs/scaling.md: the figures of its plans are those of the planner."""

import dataclasses
import importlib
import math
import re

import pytest
import tiny_run

from vie_jax import describe
from vie_jax.planning import plan, scaling

PAGE = (tiny_run.REPOSITORY / 'docs' / 'scaling.md').read_text('utf-8')
TEXT = ' '.join(PAGE.split())
# What the planner finds by tracing the networks, which takes a while; a slow
# test compares.
NETWORKS = {
  'vie_slowfast': scaling.Network(
    num_parameters=21_678_280,
    num_statistics=9_296,
    optimizer_slots=1,
    flops_per_clip=25_311_363_072,
    activation_bytes_per_clip=77_234_060,
    input_bytes_per_clip=3_844_292,
    is_bfloat16=True,
  ),
  'vie_single': scaling.Network(
    num_parameters=11_244_480,
    num_statistics=7_808,
    optimizer_slots=1,
    flops_per_clip=3_652_943_872,
    activation_bytes_per_clip=17_206_860,
    input_bytes_per_clip=240_287,
    is_bfloat16=False,
  ),
}
# Of VIE-SlowFast's clips on a TPU, 16 on each as in the plans below.
TPU_CLIPS, TPU_ACTIVATION_BYTES = 16, 116_433_420
DTYPES = {'vie_slowfast': 'bfloat16', 'vie_single': 'float32'}


def config_of(name, **plan_fields):
  config = importlib.import_module(f'configs.{name}').get_config()
  config.model.dtype = DTYPES[name]
  config.plan.update(plan_fields)
  return config


def planned(name, **plan_fields):
  network = NETWORKS[name]
  if plan_fields.get('accelerator', '').startswith('tpu'):
    network = on_tpu(network)
  config = config_of(name, **plan_fields)
  return plan.estimate(config, plan.sizes_of(config), network)


def on_tpu(network):
  return dataclasses.replace(
    network, activation_bytes_per_clip=TPU_ACTIVATION_BYTES
  )


BILLION = {'videos': 1e9, 'devices': 256, 'batch_size': 4096}
COLUMNS = [
  planned('vie_slowfast', **fields)
  for fields in (
    {'videos': 239_888.0, 'devices': 8},
    {'videos': 1e8, 'devices': 64, 'batch_size': 1024},
    BILLION,
    BILLION | {'accelerator': 'tpu_v5e'},
  )
]


def of_step(found, part):
  return 1000 * found['step_seconds']['local_aggregation'][part]


def epoch_share(found):
  """Of k-means, in per cent of the steps of an epoch."""
  steps = found['videos'] // found['batch_size']
  seconds = steps * found['seconds_per_step']['local_aggregation']
  return 100 * found['kmeans_seconds'] / seconds


def values(found):
  """Name of a row -> its number, of bytes, milliseconds, seconds or per cent."""
  seconds = found['seconds_per_step']
  return {
    'batch': found['batch_size'],
    'bank of a device': found['bytes_per_device']['bank'],
    'largest program': max(found['peak_bytes_per_device'].values()),
    'network, ms': of_step(found, 'network'),
    'exact search, ms': of_step(found, 'search'),
    'step of LA, ms': 1000 * seconds['local_aggregation'],
    'step of NCE, ms': 1000 * seconds['instance_recognition'],
    'k-means, each time': found['kmeans_seconds'],
    '... as a share of the epoch': epoch_share(found),
    'checkpoint': found['checkpoint']['bytes'],
  }


ROWS = list(values(COLUMNS[0]))
UNITS = {'MB': 1e6, 'GB': 1e9}


def rows():
  part = PAGE.split('## Three sizes')[1].split('\n## ')[0]
  for line in re.findall(r'^\| (.+) \|$', part, re.MULTILINE):
    name, *cells = line.split(' | ')
    if name in ROWS:
      yield name, cells


def test_the_table_has_every_row():
  assert [name for name, _ in rows()] == ROWS


@pytest.mark.parametrize('name', ROWS)
def test_a_row_of_the_table_is_the_planners(name):
  cells = dict(rows())[name]
  for cell, found in zip(cells, COLUMNS, strict=True):
    text, _, unit = cell.replace(',', '').partition(' ')
    decimals = len(text.partition('.')[2])
    value = values(found)[name] / UNITS.get(unit, 1)
    assert f'{value:.{decimals}f}' == text, cell


def equal_cost(name, accelerator, **fields):
  found = planned(name, **BILLION | fields, accelerator=accelerator)
  return f'{found["search_equals_network_at_videos"] / 1e6:.0f} million'


def test_equal_cost_of_a_small_batch():
  few = {'devices': 8, 'batch_size': 64}
  found = [
    equal_cost('vie_slowfast', accelerator, **few).removesuffix(' million')
    for accelerator in ('h100', 'tpu_v4', 'tpu_v5e')
  ]
  sentence = 'with 64 clips at {}, {} and {} million.'
  assert sentence.format(*found) in TEXT


def test_sentences_are_the_planners():
  kinetics, hundred, billion, tpu = COLUMNS
  feed = kinetics['input']
  search, network = of_step(billion, 'search'), of_step(billion, 'network')
  for sentence in (
    f'{round(feed["clips_per_second"], -2):,.0f} clips a second ask for '
    f'{math.ceil(feed["cores_per_host"])} cores,',
    f'The search takes {search / network:.0f} times as long as the network',
    f'at {equal_cost("vie_slowfast", "h100")} videos for SlowFast on H100, at '
    f'{equal_cost("vie_slowfast", "tpu_v4")} on TPU v4, and at '
    f'{equal_cost("vie_slowfast", "tpu_v5e")} on TPU v5e, all in bfloat16',
    f'it is some {equal_cost("vie_single", "h100")} with float32 on H100',
    f'takes {kinetics["checkpoint"]["seconds"]:.1f} s for Kinetics and '
    f'{billion["checkpoint"]["seconds"]:.0f} s for a billion videos on '
    f'{billion["hosts"]} hosts',
    f'are {billion["input"]["stored_bytes"] / 1e15:.1f} PB',
  ):
    assert sentence in TEXT
  # "four fifths of the step of LA, most of the rest is the all-reduce".
  parts = kinetics['step_seconds']['local_aggregation']
  total = sum(parts.values())
  assert parts['network'] / total == pytest.approx(4 / 5, abs=0.03)
  assert parts['communication'] > (total - parts['network']) / 2
  gradient = kinetics['sent_bytes_per_device']['local_aggregation']
  assert 4 * NETWORKS['vie_slowfast'].num_parameters * 7 / 4 > 0.9 * gradient
  # "twice as long as the network", "two thirds of that".
  times = of_step(hundred, 'search') / of_step(hundred, 'network')
  assert times == pytest.approx(2, abs=0.1)
  steps = hundred['seconds_per_step']
  share = steps['instance_recognition'] / steps['local_aggregation']
  assert share == pytest.approx(2 / 3, abs=0.05)
  assert tpu['hosts'] == 64


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_the_networks_are_those_that_the_planner_finds(name):
  facts = describe.description(config_of(name))
  config = config_of(name, videos=1e6)
  assert plan.network_of(config, facts) == NETWORKS[name]
  if name == 'vie_slowfast':
    found = plan.network_of(config, facts, platform='tpu', num_clips=TPU_CLIPS)
    assert found == on_tpu(NETWORKS[name])
