"""Several processes that render, with results in order."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading


def _start_worker():
  """Leaves ctrl-C to the parent, and ends the worker when the parent ends."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def follow_parent():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow_parent, daemon=True).start()


def in_order(function, numbers, num_processes):
  """Yields function(number) in order, from this or from several processes.

  Args:
    function: that can be pickled, if there are several processes.
    numbers: sequence of int.
    num_processes: one or more.
  """
  if num_processes == 1 or len(numbers) < 2:
    yield from map(function, numbers)
    return
  pool = concurrent.futures.ProcessPoolExecutor(
    num_processes,
    # Not fork: the caller may have the threads of TensorFlow or JAX.
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_start_worker,
  )
  try:
    yield from pool.map(function, numbers, chunksize=4)
  finally:
    # When the caller stops early, the rest is not rendered first.
    pool.shutdown(cancel_futures=True)
