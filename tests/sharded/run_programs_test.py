"""Every program of a training: nothing of size N is whole on any device.

Read from what is compiled for eight devices, for one and for ten million
videos; nothing is run and nothing of that size is allocated.
"""

import compiled_program
import pytest
from sharded import programs
from sharded.programs import SMALL_BLOCKS, VIDEOS

from vie_jax.objective import memory_bank

STATE = 4 * programs.DIM + 4 + 4  # bank, bank_step, one clustering
PRODUCTS = 4 * programs.BATCH
# Beside the products, the maxima of groups of 16 rows.
SEARCH = PRODUCTS + PRODUCTS / 16
# Program -> bytes that one more row of a device costs: its arguments, its
# results, what of these takes the place of arguments, and for a while.
PROGRAMS = {
  'initialize': ({}, (0, STATE, 0, 3 * 4 * programs.DIM)),
  'fill_bank': ({}, (STATE, STATE, STATE, 0)),
  'instance_recognition': ({}, (STATE, STATE, STATE, 0)),
  'instance_recognition softmax': (
    {'instance_loss': 'softmax'},
    (STATE, STATE, STATE, PRODUCTS),
  ),
  'instance_recognition softmax blocks': (
    {'instance_loss': 'softmax', 'product_bytes': SMALL_BLOCKS},
    (STATE, STATE, STATE, 0),
  ),
  'local_aggregation': ({}, (STATE, STATE, STATE, SEARCH)),
  'local_aggregation blocks': (
    {'product_bytes': SMALL_BLOCKS},
    (STATE, STATE, STATE, 0),
  ),
  # The labels of before are not read.
  'recluster': ({}, (STATE - 4, STATE, STATE - 4, 16)),
}
SEVERAL = {
  'local_aggregation': (STATE + 8, STATE + 8, STATE + 8, SEARCH),
  'recluster': (STATE - 4, STATE + 8, STATE - 4, 29),
}
CASES = [
  (name, options, bytes_per_row)
  for name, (options, bytes_per_row) in PROGRAMS.items()
] + [
  pytest.param(
    f'{name} three clusterings',
    {'clusterings': 3},
    bytes_per_row,
    marks=pytest.mark.slow,
  )
  for name, bytes_per_row in SEVERAL.items()
]


def compiled_for(name, **options):
  return [
    programs.step(name.split()[0], number, **options) for number in VIDEOS
  ]


def more_rows(num_devices=8):
  one, other = (memory_bank.num_rows(number, num_devices) for number in VIDEOS)
  return (other - one) / num_devices


@pytest.mark.parametrize('name, options, bytes_per_row', CASES)
def test_each_device_holds_its_share_and_sends_none_of_it(
  name, options, bytes_per_row
):
  small, large = compiled_for(name, **options)
  assert compiled_program.problems(small, large, more_rows=more_rows()) == []
  argument, output, alias, temporary = bytes_per_row
  found = compiled_program.slopes(small, large, more_rows())
  assert found['argument'] == argument
  assert found['output'] == output
  assert found['alias'] == alias
  assert found['temp'] <= temporary + 0.5
  # The bank is updated in its place.
  copied = {
    grown.array
    for grown in compiled_program.growing(small, large, more_rows())
    if grown.instruction.opcode == 'copy' and grown.array.dtype == 'f32'
  }
  assert not copied


def test_rows_gathered_in_a_loop_leave_the_bank_in_its_place(
  mesh8, monkeypatch
):
  monkeypatch.setattr(memory_bank, 'GATHERED_BYTES', 4 * 9 * 21 * 3)
  found = []
  for number in VIDEOS:
    _, steps, state = programs.run_of(number, mesh8)
    batch = programs.batch_of(mesh8)
    lowered = steps['instance_recognition'].lower(state, batch)
    assert '16x21x9xf32' not in lowered.as_text()  # not all rows at once
    found.append(lowered.compile())
  assert compiled_program.problems(*found, more_rows=more_rows()) == []
  growing = compiled_program.growing(*found, more_rows())
  assert all(grown.instruction.opcode != 'copy' for grown in growing)
  assert compiled_program.slopes(*found, more_rows())['temp'] <= 0.5


def test_a_search_is_a_top_k_and_no_sort_of_all_rows():
  for options in ({}, {'product_bytes': SMALL_BLOCKS}):
    compiled = programs.step('local_aggregation', VIDEOS[0], **options)
    sorted_ = [
      found
      for found in compiled_program.instructions(compiled)
      if found.opcode == 'sort' and found.num_bytes > 2**20
    ]
    assert not sorted_


def test_only_k_means_communicates_in_a_loop():
  for name in ('instance_recognition', 'local_aggregation', 'fill_bank'):
    compiled = programs.step(name, VIDEOS[1])
    assert compiled_program.collectives(compiled, in_loops=True) == {}
  blocks = programs.step(
    'instance_recognition',
    VIDEOS[1],
    instance_loss='softmax',
    product_bytes=SMALL_BLOCKS,
  )
  assert compiled_program.collectives(blocks, in_loops=True) == {}
  clusters = programs.step('recluster', VIDEOS[1])
  assert compiled_program.collectives(clusters, in_loops=True)


@pytest.mark.parametrize(
  'name', ['fill_bank', pytest.param('recluster', marks=pytest.mark.slow)]
)
def test_a_device_of_eight_holds_what_one_with_an_eighth_holds(name):
  rows = 8 * 131_072
  eight = programs.step(name, rows, 8).memory_analysis()
  one = programs.step(name, rows // 8, 1).memory_analysis()
  for kind in ('argument', 'output', 'temp'):
    field = f'{kind}_size_in_bytes'
    # Only the batch, split over eight devices or whole on one, differs.
    assert getattr(eight, field) <= getattr(one, field) + 2**14
