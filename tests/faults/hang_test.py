"""A loader that never comes back: the run ends, and says where it hung."""

import time

import fault_runs
import pytest
import tiny_run
from fault_runs import RETRY

from vie_jax.telemetry import metrics_file

LIMIT = 5
# Reads the frames of six batches, then sleeps for ever.
SLEEPS = """
import threading, time
from vie_jax.input_pipeline import frame_store
read, lock, calls = frame_store.FrameStore.each_frame, threading.Lock(), [0]
def read_for_ever(*arguments, **options):
  with lock:
    calls[0] += 1
    is_over = calls[0] > 6 * 16
  while is_over:
    time.sleep(1000)
  return read(*arguments, **options)
frame_store.FrameStore.each_frame = read_for_ever
"""


@pytest.mark.slow
def test_a_loader_that_sleeps_for_ever_is_found(demo_dataset, tmp_path):
  command = tiny_run.command(
    tmp_path,
    demo_dataset,
    num_devices=1,
    memory_bank__init='uniform',
    eval_every_steps=100,
    fault__watchdog_seconds=LIMIT,
  )
  # The evaluation before the first step reads, too.
  patch = SLEEPS.replace('6 * 16', '6 * 16 + 12 * 5')
  ended = fault_runs.finish(fault_runs.patched(command, patch))
  seconds = time.time() - (tmp_path / metrics_file.NAME).stat().st_mtime
  assert ended.code == RETRY, ended.output
  print(f'{seconds:.1f} s after the last step, limit {LIMIT} s')
  assert LIMIT <= seconds <= LIMIT + 5
  for text in (ended.output, (tmp_path / 'train.log').read_text()):
    assert 'Nothing was heard of the batch of step' in text
    assert 'read_for_ever' in text


THREAD_SLEEPS = """
import threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
"""


@pytest.mark.slow
def test_a_thread_that_waits_does_not_keep_a_run_that_ends(tmp_path):
  command = tiny_run.command(tmp_path / 'run', tmp_path / 'nothing')
  ended = fault_runs.finish(fault_runs.patched(command, THREAD_SLEEPS))
  assert ended.code == fault_runs.REFUSED
  assert 'Traceback' not in ended.output
  assert str(tmp_path / 'nothing') in ended.output.splitlines()[-1]


RESTORE_SLEEPS = """
import time
from vie_jax.saved_steps import array_files
def sleep_while_restoring(*arguments):
  time.sleep(1000)
array_files.read = sleep_while_restoring
"""


def check_found(command, patch, workdir, phase, function):
  ended = fault_runs.finish(fault_runs.patched(command, patch))
  assert ended.code == RETRY, ended.output
  for text in (ended.output, (workdir / 'train.log').read_text()):
    assert f'Nothing was heard of {phase}' in text
    assert function in text


@pytest.mark.slow
def test_a_loader_that_sleeps_while_the_bank_is_filled_is_found(
  demo_dataset, tmp_path
):
  command = tiny_run.command(
    tmp_path,
    demo_dataset,
    memory_bank__init='embeddings',
    batch_size=4,
    input__prefetch_batches=1,
    fault__watchdog_seconds=LIMIT,
  )
  patch = SLEEPS.replace('6 * 16', '4 * 4')
  check_found(command, patch, tmp_path, 'batch ', 'read_for_ever')
  assert (
    'of 9 that fill the memory bank' in (tmp_path / 'train.log').read_text()
  )


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['train', 'finetune'])
def test_a_checkpoint_that_cannot_be_read_to_its_end_is_found(
  demo_dataset, tmp_path, mode
):
  options = {
    'num_steps': 4,
    'finetune__num_steps': 4,
    'finetune__batch_size': 16,
    'finetune__eval_batch_size': 16,
    'dataset__label_columns': "('motion',)",
    'init_from': 'workdir' if mode == 'train' else 'random',
    'mode': mode,
  }
  tiny_run.run(tiny_run.command(tmp_path, demo_dataset, **options))
  limits = {'fault__watchdog_seconds': 5, 'fault__watchdog_slow_seconds': 20}
  check_found(
    tiny_run.command(tmp_path, demo_dataset, **options, **limits),
    RESTORE_SLEEPS,
    tmp_path
    if mode == 'train'
    else tmp_path / 'finetune' / 'demo_motion_random',
    'restoring the checkpoint of step 4',
    'sleep_while_restoring',
  )


def hung(folder, dataset, patch, mode, **changes):
  """A run of a mode that nothing was trained for, in which a patch sleeps."""
  command = tiny_run.command(
    folder,
    dataset,
    mode=mode,
    init_from='random',
    fault__watchdog_seconds=LIMIT,
    **changes,
  )
  ended = fault_runs.finish(fault_runs.patched(command, patch))
  assert ended.code == RETRY, ended.output
  return ended


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['embed', 'knn_eval', 'retrieve'])
def test_a_loader_that_sleeps_while_videos_are_embedded_is_found(
  demo_dataset, tmp_path, mode
):
  ended = hung(
    tmp_path,
    demo_dataset,
    SLEEPS,
    mode,
    embed__batch_size=16,
    knn__batch_size=16,
    fault__watchdog_slow_seconds=40,
  )
  assert 'Nothing was heard of the next embeddings' in ended.output
  assert 'read_for_ever' in ended.output


OPEN_SLEEPS = """
import time
from vie_jax.input_pipeline import frame_store
def sleep_while_opening(*arguments, **options):
  time.sleep(1000)
frame_store.FrameStore.open = sleep_while_opening
"""


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['train', 'embed', 'linear_eval'])
def test_a_data_set_that_cannot_be_opened_is_found(
  demo_dataset, tmp_path, mode
):
  ended = hung(
    tmp_path,
    demo_dataset,
    OPEN_SLEEPS,
    mode,
    dataset__label_columns="('motion',)",
    fault__watchdog_slow_seconds=30,
  )
  assert 'Nothing was heard of the start' in ended.output
  assert 'sleep_while_opening' in ended.output
