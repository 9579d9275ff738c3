"""The formulas of docs/scaling.md, held to compiled programs."""

import collections
import dataclasses

import compiled_program
import pytest
from sharded import programs
from sharded.programs import SMALL_BLOCKS, VIDEOS

from vie_jax.planning import accelerators, scaling

NETWORK = scaling.Network(
  num_parameters=4 * programs.DIM,
  num_statistics=3,
  optimizer_slots=1,
  flops_per_clip=25e9,
  activation_bytes_per_clip=2e8,
  input_bytes_per_clip=4 * 4 * 3 + 20,
  is_bfloat16=False,
)
SIZES = scaling.Sizes(
  num_videos=VIDEOS[0],
  num_devices=8,
  batch_size=programs.BATCH,
  embedding_size=programs.DIM,
  instance_loss='nce',
  num_noise=programs.NOISE,
  num_neighbors=programs.METHOD.num_neighbors,
  num_clusters=programs.METHOD.num_clusters,
  num_clusterings=1,
  kmeans_iterations=programs.METHOD.kmeans_iterations,
)
MACHINE = scaling.Machine(accelerators.ACCELERATORS['h100'], 0.4, 0.5, 0.8)
SMALL = 256
"""Bytes: counters, keys and sums of single numbers are not in the formulas."""


def sizes_of(**changes):
  return dataclasses.replace(SIZES, **changes)


@pytest.mark.parametrize('number', VIDEOS)
@pytest.mark.parametrize('name', ['instance_recognition', 'local_aggregation'])
def test_the_state_of_a_step_is_as_large_as_the_formula_says(name, number):
  memory = programs.step(name, number).memory_analysis()
  expected = sum(
    scaling.state_bytes(sizes_of(num_videos=number), NETWORK).values()
  )
  clips = programs.BATCH // 8
  batch = clips * NETWORK.input_bytes_per_clip
  assert memory.output_size_in_bytes == pytest.approx(expected, abs=SMALL)
  assert memory.argument_size_in_bytes == pytest.approx(
    expected + batch, abs=SMALL
  )


def test_the_state_is_that_large_on_any_number_of_devices():
  for num_devices in (1, 2, 4):
    memory = programs.step('fill_bank', 2**20, num_devices).memory_analysis()
    sizes = sizes_of(num_videos=2**20, num_devices=num_devices)
    expected = sum(scaling.state_bytes(sizes, NETWORK).values())
    assert memory.output_size_in_bytes == pytest.approx(expected, abs=SMALL)


TEMPORARY = {  # program -> key of the formula, options
  'initialize': ('initial_bank', {}),
  'instance_recognition': ('instance_recognition', {}),
  'instance_recognition softmax': (
    'instance_recognition',
    {'instance_loss': 'softmax'},
  ),
  'instance_recognition softmax blocks': (
    'instance_recognition',
    {'instance_loss': 'softmax', 'product_bytes': SMALL_BLOCKS},
  ),
  'local_aggregation': ('local_aggregation', {}),
  'local_aggregation blocks': (
    'local_aggregation',
    {'product_bytes': SMALL_BLOCKS},
  ),
  'recluster': ('kmeans', {}),
  'recluster three clusterings': ('kmeans', {'num_clusterings': 3}),
}


@pytest.mark.parametrize('number', VIDEOS)
@pytest.mark.parametrize('name', TEMPORARY)
def test_temporary_memory_is_at_most_the_formula_and_most_of_it(name, number):
  key, options = TEMPORARY[name]
  sizes = sizes_of(num_videos=number, **options)
  options = dict(options)
  clusterings = options.pop('num_clusterings', programs.CLUSTERINGS)
  compiled = programs.step(
    name.split()[0], number, clusterings=clusterings, **options
  )
  found = compiled.memory_analysis().temp_size_in_bytes
  expected = scaling.temporary_bytes(sizes)[key]
  # What is left out does not grow: the network, the generator of noise.
  assert found <= expected * 1.05 + 2**19
  assert found >= 0.5 * expected - 2**19


def bytes_of(moved):
  """kind -> Counter of bytes, without what is too small to be listed."""
  counts = collections.defaultdict(collections.Counter)
  for transfer in moved:
    counts[transfer.kind][transfer.bytes] += 1
  return dict(counts)


def gradient_apart(found):
  """XLA sends the gradient leaf by leaf: the matrix and its bias."""
  leaves = [4 * 3 * programs.DIM, 4 * programs.DIM]
  for leaf in leaves:
    assert found['all-reduce'][leaf]
    found['all-reduce'][leaf] -= 1
  found['all-reduce'][sum(leaves)] += 1
  return found


def without_scalars(found):
  return {
    kind: +collections.Counter(
      {size: count for size, count in counts.items() if size > 4}
    )
    for kind, counts in found.items()
  }


STEPS = [
  ('instance_recognition', {}),
  ('instance_recognition', {'instance_loss': 'softmax'}),
  (
    'instance_recognition',
    {'instance_loss': 'softmax', 'product_bytes': SMALL_BLOCKS},
  ),
  ('local_aggregation', {}),
  ('local_aggregation', {'product_bytes': SMALL_BLOCKS}),
  pytest.param(
    'local_aggregation', {'num_clusterings': 3}, marks=pytest.mark.slow
  ),
]


@pytest.mark.parametrize('number', VIDEOS)
@pytest.mark.parametrize('name, options', STEPS)
def test_a_step_communicates_what_the_formulas_say(name, options, number):
  sizes = sizes_of(num_videos=number, **options)
  options = dict(options)
  if 'num_clusterings' in options:
    options['clusterings'] = options.pop('num_clusterings')
  compiled = programs.step(name, number, **options)
  found = gradient_apart(
    without_scalars(compiled_program.collectives(compiled))
  )
  expected = bytes_of(scaling.transfers(sizes, NETWORK)[name])
  assert {kind: +counts for kind, counts in found.items()} == expected


@pytest.mark.parametrize('number', VIDEOS)
def test_k_means_communicates_what_the_formulas_say(number):
  compiled = programs.step('recluster', number)
  moved = scaling.transfers(sizes_of(num_videos=number), NETWORK)
  inside = compiled_program.collectives(compiled, in_loops=True)
  outside = compiled_program.collectives(compiled)
  iteration = bytes_of(moved['kmeans_iteration'])
  assert without_scalars(inside) == iteration
  # The first centroids, and the last assignment, whose sums nobody needs.
  expected = bytes_of(moved['kmeans_start'])
  expected['all-reduce'][4 * SIZES.num_clusters] += 1
  assert without_scalars(outside) == expected


@pytest.mark.parametrize('name', ['instance_recognition', 'local_aggregation'])
def test_time_shrinks_with_devices_but_for_what_each_of_them_repeats(name):
  # Within a host, where the links are the same.
  times = [
    scaling.step_seconds(
      sizes_of(
        num_videos=10**8,
        num_devices=number,
        batch_size=1024,
        embedding_size=128,
      ),
      dataclasses.replace(NETWORK, num_parameters=20_000_000),
      MACHINE,
    )[name]
    for number in (1, 8)
  ]
  for part in ('network', 'search'):
    if part in times[0]:
      assert times[0][part] == pytest.approx(8 * times[1][part], rel=1e-3)
  for part in ('noise', 'neighbors', 'optimizer'):
    if part in times[0]:
      assert times[0][part] == times[1][part]
  assert times[0]['communication'] == 0 < times[1]['communication']


def test_the_search_equals_the_network_where_it_is_said_to():
  sizes = sizes_of(num_videos=10**8, batch_size=1024, embedding_size=128)
  number = scaling.equal_cost_videos(sizes, NETWORK, MACHINE)
  there = dataclasses.replace(sizes, num_videos=round(number))
  parts = scaling.step_seconds(there, NETWORK, MACHINE)['local_aggregation']
  # Rows are padded by up to a 64th.
  assert parts['search'] == pytest.approx(parts['network'], rel=0.02)
  # A plan of few videos says the same, whose search makes no groups of rows.
  few = dataclasses.replace(sizes, num_videos=240_000, num_devices=256)
  many = dataclasses.replace(few, num_videos=number)
  assert not few.is_grouped
  assert many.is_grouped
  assert scaling.equal_cost_videos(few, NETWORK, MACHINE) == (
    scaling.equal_cost_videos(many, NETWORK, MACHINE)
  )
  # Neither devices nor the batch move it, but for reading the bank.
  for change in ({'num_devices': 64}, {'batch_size': 2048}):
    other = scaling.equal_cost_videos(
      dataclasses.replace(sizes, **change), NETWORK, MACHINE
    )
    assert other == pytest.approx(number, rel=0.1)


def test_a_ring_sends_what_the_textbook_says():
  for kind, share in (('all-reduce', 1.5), ('all-gather', 0.75)):
    assert scaling.Transfer(kind, '', 1000).sent(4) == share * 1000
    assert scaling.Transfer(kind, '', 1000).sent(1) == 0


def test_a_checkpoint_holds_split_items_once_per_device_and_others_once():
  one = scaling.checkpoint_bytes(sizes_of(num_devices=1), NETWORK)
  eight = scaling.checkpoint_bytes(SIZES, NETWORK)
  assert one == eight
  assert one == sum(
    scaling.state_bytes(sizes_of(num_devices=1), NETWORK).values()
  )
