"""A loader that never comes back: the run ends, and says where it hung."""

import time

import fault_runs
import pytest
import tiny_run
from fault_runs import RETRY

from vie_jax import metric_log

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
  seconds = time.time() - (tmp_path / metric_log.FILE_NAME).stat().st_mtime
  assert ended.code == RETRY, ended.output
  print(f'{seconds:.1f} s after the last step, limit {LIMIT} s')
  assert LIMIT <= seconds <= LIMIT + 5
  for text in (ended.output, (tmp_path / 'train.log').read_text()):
    assert 'Nothing was heard of the batch of step' in text
    assert 'read_for_ever' in text
