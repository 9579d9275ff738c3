import importlib
import json

import pytest
import tiny_run

from vie_jax import describe
from vie_jax.config import config_check
from vie_jax.planning import accelerators, plan


def config_of(name='vie_single', **changes):
  config = importlib.import_module(f'configs.{name}').get_config()
  # A small network: what a plan says of it is another test's.
  config.update_from_flattened_dict(
    {'model.width': 4, 'crop.size': 32, 'plan.videos': 1e6}
    | {name.replace('__', '.'): value for name, value in changes.items()}
  )
  return config


FACTS = describe.description(config_of(plan__videos=0.0))


NETWORK = plan.network_of(config_of(), FACTS)


def planned(**changes):
  config = config_of(**changes)
  return plan.estimate(config, plan.sizes_of(config), NETWORK)


def test_a_billion_videos_on_256_devices_take_what_the_design_says():
  found = planned(plan__videos=1e9, plan__devices=256, batch_size=4096)
  # 1 GB in bfloat16 would be 2 GB in float32.
  assert found['bytes_per_device']['bank'] == pytest.approx(2e9, rel=1e-3)
  assert found['videos'] == 1_000_000_000
  assert found['hosts'] == 32
  assert found['fits']
  # Products of 4,096 embeddings with 3.9 million rows would be 64 GB.
  assert found['bytes_per_device']['temporary_local_aggregation'] < 2e9
  assert found['checkpoint']['bytes'] > 512e9
  assert found['input']['stored_bytes'] == 1e9 * 250 * 42_590


def test_k_means_takes_the_chunks_of_the_accelerator():
  on_gpu, on_tpu = (
    planned(plan__accelerator=name)['bytes_per_device']['temporary_kmeans']
    for name in ('h100', 'tpu_v5p')
  )
  # Scores, twice, with 8,000 clusters: of 1,024 rows, and of 512 MiB at most.
  assert 8 * 8000 * 1024 < on_tpu < 9 * 8000 * 1024 + 16 * 2**20
  more = (on_gpu - on_tpu) / (8 * 8000)
  assert 15_000 < 1024 + more <= 2**29 / (4 * 8000)


@pytest.mark.slow
def test_the_command_plans_without_data_or_devices(tmp_path):
  finished = tiny_run.describe(
    'vie_single',
    tmp_path,
    '--config.model.width=4',
    '--config.crop.size=32',
    '--config.plan.videos=1e9',
    '--config.plan.devices=256',
  )
  (line,) = finished.stdout.splitlines()
  found = json.loads(line)['plan']
  assert found['videos'] == 1e9
  # The batch of 128 does not split over 256 devices.
  assert found['batch_size'] == 256
  log = [line.strip() for line in finished.stderr.splitlines()]
  assert log[0].endswith('1,000,000,000 videos on 256 h100, batch 256')
  assert 'bank                                    2 GB' in log
  assert not list(tmp_path.iterdir())


def leaves(tree, path=''):
  for name, value in tree.items():
    if isinstance(value, dict):
      yield from leaves(value, f'{path}{name}.')
    else:
      yield f'{path}{name}', value


EFFECTS = {  # field -> (other value, a figure that it changes)
  'plan.videos': (2e6, 'bytes_per_device.bank'),
  'plan.devices': (64, 'bytes_per_device.bank'),
  'plan.batch_size': (256, 'bytes_per_device.activations'),
  'plan.accelerator': ('tpu_v5e', 'memory_bytes'),
  'plan.efficiency': (0.01, 'step_seconds.local_aggregation.network'),
  'plan.bank_efficiency': (0.1, 'kmeans_seconds'),
  'plan.bandwidth_efficiency': (0.4, 'step_seconds.local_aggregation.search'),
  'plan.storage_bandwidth': (2e9, 'checkpoint.seconds'),
  'plan.frames_per_video': (100, 'input.stored_bytes'),
  'plan.bytes_per_frame': (10_000, 'input.read_bytes_per_second'),
  'plan.host_ms_per_frame': (2.0, 'input.cores_per_host'),
  'plan.cores_per_host': (2, 'input.seconds_per_batch'),
  'dataset.share': (0.3, 'bytes_per_device.bank'),
  'dataset.bin_frames': (130, 'bytes_per_device.bank'),
  'batch_size': (512, 'batch_size'),
  'objective.product_bytes': (2**20, 'peak_bytes_per_device.local_aggregation'),
  'local_aggregation.num_clusterings': (3, 'bytes_per_device.cluster_labels'),
  'local_aggregation.recluster_every_steps': (10, 'days'),
  'local_aggregation.kmeans_warm_iterations': (3, 'kmeans_seconds'),
  'instance_recognition.loss': (
    'softmax',
    'sent_bytes_per_device.instance_recognition',
  ),
}


@pytest.mark.parametrize('field', EFFECTS)
def test_a_field_changes_the_plan(field):
  value, figure = EFFECTS[field]
  before = dict(leaves(planned()))
  after = dict(leaves(planned(**{field.replace('.', '__'): value})))
  assert before[figure] != after[figure]


@pytest.mark.parametrize(
  'changes, item',
  [
    ({'optimizer__name': 'adam'}, 'optimizer_slots'),
    ({'model__dtype': 'bfloat16'}, 'activation_bytes_per_clip'),
    ({'crop__method': 'multiscale'}, 'input_bytes_per_clip'),
  ],
)
def test_a_field_changes_what_the_network_costs(changes, item):
  changed = plan.network_of(config_of(**changes), FACTS)
  assert getattr(changed, item) != getattr(NETWORK, item)


def test_a_plan_is_of_the_network_of_the_config():
  assert plan.plan(config_of(), FACTS) == planned()


def test_a_plan_for_tpus_counts_what_arrays_are_filled_up_to():
  fields = {'plan__devices': 8, 'batch_size': 128}
  on_gpu, on_tpu = (
    plan.plan(config_of(**fields, plan__accelerator=name), FACTS)
    for name in ('h100', 'tpu_v5e')
  )
  of_gpu, of_tpu = (
    found['bytes_per_device']['activations'] for found in (on_gpu, on_tpu)
  )
  # Of 16 clips: either 4 to 32 channels as 128, or clips as 128.
  assert 7 * of_gpu < of_tpu < 12 * of_gpu


def test_every_field_of_the_plan_is_tested():
  fields = {f'plan.{name}' for name in config_of().plan}
  assert fields <= set(EFFECTS)


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'plan__videos': 3e9}, 'at most 2,147,483,647'),
    ({'plan__videos': 1000.5}, 'plan.videos is 1000.5'),
    ({'plan__videos': 5}, 'videos is 5, fewer than config.plan.devices, 8'),
    ({'plan__devices': 12}, 'plan.devices is 12'),
    ({'plan__batch_size': 100}, 'plan is 100'),
    ({'plan__videos': 100.0}, 'plan is 128'),
    ({'plan__videos': 20, 'dataset__share': 0.3}, 'are 6 instances, fewer'),
    ({'plan__videos': 200, 'dataset__share': 0.3}, 'at most 60, as config'),
    ({'plan__videos': 2e9, 'dataset__bin_frames': 130}, 'more than 2,147,'),
  ],
)
def test_a_plan_that_cannot_be_is_refused(changes, words):
  with pytest.raises(config_check.ConfigError, match=words) as error:
    planned(**changes)
  assert 'config.plan' in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('value', [240_000, 240_000.0])
def test_whole_numbers_and_floats_are_the_same_number_of_videos(value):
  assert planned(plan__videos=value)['videos'] == 240_000


@pytest.mark.parametrize(
  # A video of 250 frames has as many starts of a clip of one frame.
  'amount, instances',
  [('30', 71_966), ('70', 167_921), ('2bin', 479_776), ('5bin', 1_199_440)],
)
def test_the_amounts_of_table_3_have_banks_of_their_own(amount, instances):
  module = importlib.import_module('configs.vie_single_data')
  config = module.get_config(amount)
  config.plan.update({'videos': 239_888.0, 'devices': 1})
  found = plan.estimate(config, plan.sizes_of(config), NETWORK)
  assert found['videos'] == 239_888
  assert found['instances'] == instances
  assert found['bytes_per_device']['bank'] == pytest.approx(
    instances * 512, rel=1 / 64
  )
  assert found['epochs'] == config.num_steps * 128 / instances
  assert found['input']['stored_bytes'] == 239_888 * 250 * 42_590
  assert f'trained on as {instances:,} instances' in plan.table(found)


def test_whole_videos_are_not_told_of_twice():
  found = planned()
  assert found['videos'] == found['instances'] == 10**6
  assert 'instances' not in plan.table(found)


def test_bins_are_of_the_frames_of_the_plan():
  bins = {'dataset__bin_frames': 130}
  assert planned(**bins)['instances'] == 2 * 10**6
  long = planned(plan__frames_per_video=400, **bins)
  assert long['instances'] == 4 * 10**6


def test_too_little_memory_is_said():
  found = planned(plan__videos=2e9, plan__devices=4, plan__accelerator='v100')
  assert not found['fits']
  assert 'WHICH IS TOO LITTLE' in plan.table(found)


def test_a_gpu_keeps_a_quarter_of_its_memory_from_jax():
  # Between what JAX takes of an H100 and all that it has.
  found = planned(plan__devices=8, plan__videos=2.6e8)
  peak = max(found['peak_bytes_per_device'].values())
  assert 0.75 * found['memory_bytes'] < peak < found['memory_bytes']
  assert not found['fits']
  assert found['usable_memory_bytes'] == 60e9
  assert (
    'of 60 GB that JAX takes of 80 GB (XLA_PYTHON_CLIENT_MEM_FRACTION), WHICH '
    'IS TOO LITTLE'
  ) in plan.table(found)
  # A TPU's is all JAX's.
  tpu = planned(
    plan__devices=8, plan__videos=2.6e8, plan__accelerator='tpu_v5p'
  )
  assert tpu['fits']
  assert tpu['usable_memory_bytes'] == tpu['memory_bytes']
  assert 'most at a time, of 95 GB:' in plan.table(tpu)


def test_describe_says_nothing_of_a_plan_that_nobody_asked_for():
  assert 'plan' not in FACTS


@pytest.mark.parametrize('name', accelerators.ACCELERATORS)
def test_the_peaks_of_every_device_are_in_their_order(name):
  device = accelerators.ACCELERATORS[name]
  peaks = device.exact_flops, device.float32_flops, device.bfloat16_flops
  assert list(peaks) == sorted(peaks)
  assert device.exact_flops > 1e13
  assert device.network_bandwidth <= device.link_bandwidth
  assert device.link_bandwidth < device.memory_bandwidth
  assert planned(plan__accelerator=name)['peaks_from'] == device.source


@pytest.mark.parametrize(
  'steps, objective',
  [(0, 'local_aggregation'), (10**9, 'instance_recognition')],
)
def test_the_input_feeds_the_objective_that_runs(steps, objective):
  """Not the other one, however quick its steps are."""
  found = planned(
    objective__instance_recognition_steps=steps,
    plan__videos=1e8,
    plan__cores_per_host=10,
  )
  step = found['seconds_per_step'][objective]
  feed = found['input']
  assert feed['clips_per_second'] == pytest.approx(found['batch_size'] / step)
  assert feed['sets_the_pace'] == (feed['seconds_per_batch'] > step)
  assert ('THE INPUT' in plan.table(found)) == feed['sets_the_pace']


def test_few_cores_set_the_pace_of_the_whole_run():
  enough = planned()
  most = enough['input']['cores_per_host']
  few = planned(plan__cores_per_host=1)
  by_hand = (
    few['batch_size'] * 1 * config_of().plan.host_ms_per_frame / 1000
  ) / few['hosts']
  assert few['input']['seconds_per_batch'] == pytest.approx(by_hand)
  assert by_hand > max(few['seconds_per_step'].values())
  steps = config_of().num_steps
  clusterings = few['days'] * 86_400 - steps * by_hand
  assert 0 <= clusterings <= 0.1 * few['days'] * 86_400
  assert 'THE INPUT SETS THE PACE' in plan.table(few)
  assert 'if the input keeps up' not in plan.table(few)
  assert 'THE INPUT' not in plan.table(enough)
  assert 'if the input keeps up' in plan.table(enough)
  assert 'on each of 1 host, ' in plan.table(enough)
  assert few['input']['sets_the_pace']
  many = planned(plan__cores_per_host=int(most) + 1)
  assert many['days'] == enough['days']


def test_less_than_an_epoch_is_said():
  short = planned(plan__videos=1e9, num_steps=1000)
  assert short['epochs'] < 1
  assert 'LESS THAN AN EPOCH' in plan.table(short)
  assert 'LESS THAN' not in plan.table(planned(num_steps=10**6))
