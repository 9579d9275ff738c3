"""Files that are damaged, and files that did not answer, are two things."""

import contextlib
import errno
import os
import resource
import shutil
import tracemalloc  # noqa: F401  pytest would import it without files left

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import other_user
import pytest

from vie_jax.saved_steps import array_files
from vie_jax.saved_steps.commit_record import DamagedError

LARGE = 2**16


@pytest.fixture
def item(tmp_path):
  """The folder of a tree with an array in a file of its own, and its shapes."""
  values = np.random.default_rng(0).random((300, 300), np.float32)
  tree = {'kernel': jnp.asarray(values), 'bias': jnp.arange(5.0)}
  writer = array_files.Writer(['model'])
  writer.start(tmp_path / '8', {'model': tree})
  writer.wait()
  writer.close()
  shapes = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding
    ),
    tree,
  )
  return tmp_path / '8' / 'model', shapes


def large_file(folder):
  (found,) = (
    path
    for path in folder.rglob('*')
    if path.is_file() and path.stat().st_size > LARGE
  )
  return found


@contextlib.contextmanager
def no_more_files():
  limits = resource.getrlimit(resource.RLIMIT_NOFILE)
  # The number that the next file would have: some below others may be free.
  lowest_free = os.dup(0)
  os.close(lowest_free)
  resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_array_that_nobody_may_read_is_not_damaged(item):
  folder, shapes = item
  large_file(folder).chmod(0)
  with other_user.running(folder), pytest.raises(OSError) as error:
    array_files.read(folder, shapes)
  assert error.value.errno == errno.EACCES
  assert error.value.filename == str(folder)


def test_a_process_that_may_open_no_more_files_finds_no_damage(item):
  folder, shapes = item
  for read in (
    lambda: array_files.read(folder, shapes),
    lambda: array_files.structure(folder),
  ):
    with no_more_files(), pytest.raises(OSError) as error:
      read()
    assert error.value.errno == errno.EMFILE


def test_an_array_that_is_cut_short_is_damaged_in_one_line(item):
  folder, shapes = item
  os.truncate(large_file(folder), LARGE)
  with pytest.raises(DamagedError) as error:
    array_files.read(folder, shapes)
  assert str(error.value).startswith('model: ')
  assert '\n' not in str(error.value)
  # What was met, not where orbax met it.
  assert '"kernel/0.0"' in str(error.value)
  assert 'full TensorStore details' not in str(error.value)


def test_a_file_that_is_gone_is_damage(item):
  folder, shapes = item
  large_file(folder).unlink()
  with pytest.raises(DamagedError):
    array_files.read(folder, shapes)


def test_causes_that_go_round_in_circles_end():
  error = ValueError('one')
  error.__cause__ = other = ValueError('two')
  other.__cause__ = error
  assert array_files.short_reason(error) == 'two'


def test_of_a_long_reason_its_end_is_said_without_settings():
  met = 'Error reading "w": ' * 20 + 'CRC-32C checksum verification failed'
  error = ValueError(f"DATA_LOSS: {met} [tensorstore_spec='{{...}}']")
  reason = array_files.short_reason(error)
  assert reason.startswith('...')
  assert reason.endswith(
    'Error reading "w": CRC-32C checksum verification failed'
  )
  assert len(reason) < 250


def read_failing(item, monkeypatch, error):
  def restore(*unused_arguments, **unused_options):
    raise error

  monkeypatch.setattr(ocp.StandardCheckpointHandler, 'restore', restore)
  array_files.read(*item)


def test_no_memory_is_no_damage(item, monkeypatch):
  with pytest.raises(OSError) as error:
    read_failing(item, monkeypatch, MemoryError())
  assert error.value.errno == errno.ENOMEM


def test_a_stale_handle_is_no_damage_unless_the_step_is_gone(item, monkeypatch):
  stale = OSError(errno.ESTALE, 'Stale file handle')
  with pytest.raises(OSError) as error:
    read_failing(item, monkeypatch, stale)
  assert error.value.errno == errno.ESTALE
  shutil.rmtree(item[0])
  with pytest.raises(DamagedError):
    read_failing(item, monkeypatch, stale)
