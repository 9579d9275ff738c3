"""R4-R6: bits flipped, files cut, zeroed, emptied and removed."""

import functools
import pathlib
import random
import shutil

import jax
import numpy as np
import pytest
from faults import checkpoint_program

from vie_jax import checkpoint, sharding

STEPS = (10, 20)


def leaves_of(state):
  leaves = jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))
  return [np.asarray(leaf) for leaf in leaves]


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A workdir of two steps, and what they hold."""
  workdir = tmp_path_factory.mktemp('saved')
  mesh = sharding.make_mesh(1)
  state, expected = checkpoint_program.first_state(mesh), {}
  with checkpoint.Checkpoints(workdir) as checkpoints:
    for step in range(1, STEPS[-1] + 1):
      state = checkpoint_program.train_step(state)
      if step in STEPS:
        expected[step] = leaves_of(state)
        checkpoints.save(state, {'step': step})
  return workdir, expected


@functools.cache
def shapes():
  return checkpoint_program.shapes(sharding.make_mesh(1))


def newest(workdir):
  """The step that a reader takes, and its state."""
  with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:

    def read(step):
      assert checkpoints.record(step) == {'step': step}
      return step, leaves_of(checkpoints.restore(step, shapes()))

    return checkpoints.read_newest(read)


def outcome_of(workdir, expected, caplog):
  """'found' or 'harmless'; fails if the damage is silent or not named."""
  caplog.clear()
  step, state = newest(workdir)
  for one, other in zip(state, expected[step], strict=True):
    np.testing.assert_array_equal(one, other)
  if step == STEPS[1]:
    assert not caplog.messages
    return 'harmless'
  assert step == STEPS[0]
  (line,) = caplog.messages
  folder = workdir / 'checkpoints' / str(STEPS[1])
  assert f'The checkpoint {folder} is damaged: ' in line
  assert 'Going on from step 10 instead.' in line
  return 'found'


def files_of(workdir):
  folder = workdir / 'checkpoints' / str(STEPS[1])
  return sorted(path for path in folder.rglob('*') if path.is_file())


def flip_bits(workdir, expected, caplog, number):
  rng = random.Random(4)
  files = files_of(workdir)
  outcomes = []
  for flip in range(number):
    # Each file in turn, so that small ones are hit as often as large ones.
    path = files[flip % len(files)]
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(damaged)
    outcomes.append(outcome_of(workdir, expected, caplog))
    path.write_bytes(content)
  found = outcomes.count('found')
  print(
    f'\n{number} flipped bits in {len(files)} files: {found} found, '
    f'{outcomes.count("harmless")} harmless, 0 silent'
  )
  assert newest(workdir)[0] == STEPS[1]


def zero_block(content):
  start = len(content) // 3
  return content[:start] + bytes(4096) + content[start + 4096 :]


KINDS = {
  'cut in half': lambda content: content[: len(content) // 2],
  'without its last byte': lambda content: content[:-1],
  '4 KiB zeroed': zero_block,
  'empty': lambda content: b'',
  'removed': None,
}


def damage_files(workdir, expected, caplog, files):
  outcomes = []
  for path in files:
    content = path.read_bytes()
    for change in KINDS.values():
      if change is None:
        path.unlink()
      else:
        path.write_bytes(change(content))
      outcomes.append(outcome_of(workdir, expected, caplog))
      path.write_bytes(content)
  assert set(outcomes) == {'found'}
  print(
    f'\n{len(KINDS)} kinds of damage to {len(files)} files: all '
    f'{len(outcomes)} found and named, 0 silent'
  )


@pytest.fixture
def copy(saved, tmp_path):
  workdir, expected = saved
  shutil.copytree(workdir, tmp_path / 'W')
  return pathlib.Path(tmp_path / 'W'), expected


def test_flipped_bits_are_found(copy, caplog):
  flip_bits(*copy, caplog, 25)


@pytest.mark.slow
def test_three_hundred_flipped_bits_are_found(copy, caplog):
  flip_bits(*copy, caplog, 300)


def test_damage_to_the_largest_files_is_found(copy, caplog):
  files = files_of(copy[0])
  largest = sorted(files, key=lambda path: path.stat().st_size)[-2:]
  damage_files(*copy, caplog, largest)


@pytest.mark.slow
def test_damage_to_any_file_is_found(copy, caplog):
  damage_files(*copy, caplog, files_of(copy[0]))
