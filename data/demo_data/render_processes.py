"""Several processes that render, with results in order."""

import concurrent.futures
import multiprocessing
import os
import threading

import interrupts


def _start_worker():
  """Ends the worker when the parent ends."""

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
  with interrupts.held_back():
    pool = concurrent.futures.ProcessPoolExecutor(
      num_processes,
      # Not fork: the caller may have the threads of TensorFlow or JAX.
      mp_context=multiprocessing.get_context('spawn'),
      initializer=_start_worker,
    )
  try:
    with interrupts.held_back():
      results = pool.map(function, numbers, chunksize=4)
    yield from results
  finally:
    # When the caller stops early, the rest is not rendered first.
    pool.shutdown(cancel_futures=True)
