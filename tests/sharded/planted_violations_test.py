"""What must not happen is noticed: programs that do it on purpose."""

import compiled_program
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec
from sharded import programs

from vie_jax import sharding
from vie_jax.objective import memory_bank

ROWS = (8192, 24_576)
MORE_ROWS = (ROWS[1] - ROWS[0]) / 8
SPLIT, WHOLE = PartitionSpec('data', None), PartitionSpec()


def gathers_the_bank(bank, query, *, mesh):
  def local(local_bank, query):
    whole = jax.lax.all_gather(local_bank, 'data', axis=0, tiled=True)
    return jnp.max(query @ whole.T, axis=1)

  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(SPLIT, WHOLE),
    out_specs=WHOLE,
    check_vma=False,
  )(bank, query)


def asks_for_the_whole_bank(bank, query, *, mesh):
  return jax.shard_map(
    lambda bank, query: jnp.sort(query @ bank.T, axis=1)[:, :3],
    mesh=mesh,
    in_specs=(WHOLE, WHOLE),
    out_specs=WHOLE,
  )(bank, query)


def leaves_a_search_to_the_compiler(bank, query, *, mesh):
  return jax.lax.top_k(query @ bank.T, 5)


def adds_up_all_rows(bank, query, *, mesh):
  # One number of each row of the device, added up over the devices.
  return jax.shard_map(
    lambda bank, query: jax.lax.psum(bank @ query[0], 'data'),
    mesh=mesh,
    in_specs=(SPLIT, WHOLE),
    out_specs=WHOLE,
  )(bank, query)


def numbers_all_rows_everywhere(bank, query, *, mesh):
  def local(local_bank, query):
    first = jax.lax.axis_index('data') * local_bank.shape[0]
    weight = jnp.sort(jnp.sin(jnp.arange(8.0 * local_bank.shape[0])))
    return jax.lax.psum(weight[first] * jnp.sum(local_bank), 'data')

  return jax.shard_map(
    local, mesh=mesh, in_specs=(SPLIT, WHOLE), out_specs=WHOLE
  )(bank, query)


def compares_all_rows_with_all(bank, query, *, mesh):
  def local(local_bank, query):
    return jax.lax.psum(jnp.sort(local_bank @ local_bank.T).sum(), 'data')

  return jax.shard_map(
    local, mesh=mesh, in_specs=(SPLIT, WHOLE), out_specs=WHOLE
  )(bank, query)


def compiled_twice(function, mesh, *, split=True):
  for rows in ROWS:
    bank = programs.array(mesh, (rows, programs.DIM), split=split)
    query = programs.array(mesh, (5, programs.DIM), split=False)
    yield programs.compiled(function, bank, query, mesh=mesh)


@pytest.mark.parametrize(
  'function, what',
  [
    (gathers_the_bank, 'communication that grows: all-gather'),
    (asks_for_the_whole_bank, 'communication that grows: all-gather'),
    (leaves_a_search_to_the_compiler, 'communication that grows'),
    (adds_up_all_rows, 'communication that grows: all-reduce'),
    (numbers_all_rows_everywhere, '8 times the share of a device'),
    (compares_all_rows_with_all, 'grows in two dimensions'),
  ],
  ids=lambda value: getattr(value, '__name__', ''),
)
def test_what_grows_on_every_device_is_found(mesh8, function, what):
  found = compiled_program.problems(
    *compiled_twice(function, mesh8), more_rows=MORE_ROWS
  )
  assert any(problem.startswith(what) for problem in found), found


def test_a_bank_that_is_whole_on_each_device_is_found(mesh8):
  small, large = compiled_twice(
    lambda bank, query, *, mesh: bank.sum() + query.sum(), mesh8, split=False
  )
  found = compiled_program.problems(small, large, more_rows=MORE_ROWS)
  assert any('8 times the share' in problem for problem in found)
  grows = compiled_program.slopes(small, large, MORE_ROWS)
  assert grows['argument'] == 8 * 4 * programs.DIM


def test_what_stays_in_its_place_is_not_at_fault(mesh8):
  index = programs.array(mesh8, (5,), jnp.int32, split=False)
  found = [
    programs.compiled(
      memory_bank.take,
      programs.array(mesh8, (rows, programs.DIM)),
      index,
      mesh=mesh8,
    )
    for rows in ROWS
  ]
  assert compiled_program.problems(*found, more_rows=MORE_ROWS) == []
  assert compiled_program.growing(*found, MORE_ROWS)  # the bank itself
  assert compiled_program.collectives(found[1]) == {
    'all-reduce': {5 * programs.DIM * 4: 1}
  }


def test_a_donated_bank_that_is_copied_is_found(mesh8):
  def copies(bank, index):
    old = bank * 2.0  # needed after the write: memory for a second bank
    return bank.at[index].set(1.0), old

  rows = sharding.rows(mesh8)
  found = [
    jax.jit(copies, donate_argnums=0, out_shardings=(rows, rows))
    .lower(
      programs.array(mesh8, (size, programs.DIM)),
      programs.array(mesh8, (), jnp.int32, split=False),
    )
    .compile()
    for size in ROWS
  ]
  grows = compiled_program.slopes(*found, MORE_ROWS)
  assert grows['alias'] == 4 * programs.DIM
  assert grows['output'] + grows['temp'] > 4 * programs.DIM


def test_communication_in_a_loop_is_told_apart(mesh8):
  def loops(bank, query, *, mesh):
    def local(bank, query):
      def body(total, _):
        met = jax.lax.psum(total[:, None] * query, 'data')
        return jax.lax.pcast(met.sum(axis=1), 'data', to='varying'), None

      start = jax.lax.pcast(jnp.ones(5), 'data', to='varying')
      return jax.lax.scan(body, start, length=7)[0] + bank[:5, 0]

    return jax.shard_map(
      local, mesh=mesh, in_specs=(SPLIT, WHOLE), out_specs=PartitionSpec('data')
    )(bank, query)

  compiled, _ = compiled_twice(loops, mesh8)
  inside = compiled_program.collectives(compiled, in_loops=True)
  assert inside == {'all-reduce': {5 * programs.DIM * 4: 1}}
  assert compiled_program.collectives(compiled) == {}


def test_what_is_sent_in_a_branch_within_a_loop_is_sent_in_the_loop(mesh8):
  def branch(scale):
    return lambda x: scale * jax.lax.psum(x, 'data')

  def loop(x):
    def body(number, x):
      return jax.lax.cond(x[0] > number, branch(0.5), branch(0.25), x)

    return jax.lax.fori_loop(0, 10, body, x)

  split = PartitionSpec('data')
  sent = jax.jit(
    jax.shard_map(
      loop, mesh=mesh8, in_specs=split, out_specs=split, check_vma=False
    )
  )
  compiled = sent.lower(jnp.ones(64)).compile()
  inside = compiled_program.collectives(compiled, in_loops=True)
  assert inside == {'all-reduce': {8 * 4: 2}}
  assert compiled_program.collectives(compiled) == {}
