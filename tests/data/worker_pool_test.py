import concurrent.futures
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time

import interrupts
import pytest
import worker_functions
from preparation import worker_pool


def _run(
  tasks,
  *,
  num_processes=2,
  timeout_seconds=30,
  max_stall_seconds=30,
  max_memory_bytes=2**30,
):
  with worker_pool.WorkerPool(
    worker_functions.obey,
    num_processes=num_processes,
    timeout_seconds=timeout_seconds,
    max_stall_seconds=max_stall_seconds,
    max_memory_bytes=max_memory_bytes,
  ) as pool:
    return dict(pool.run(tasks))


def test_every_task_gets_its_result():
  outcomes = _run([('return', number) for number in range(20)])
  assert outcomes == {('return', number): number for number in range(20)}


def test_no_tasks_need_no_processes():
  assert _run([]) == {}


def test_a_crash_a_hang_and_an_exit_cost_only_their_own_task():
  tasks = [
    ('return', 1),
    ('kill', signal.SIGSEGV),
    ('return', 2),
    ('sleep', 60),
    ('exit', 3),
    ('return', 4),
    ('kill', signal.SIGKILL),
    ('return', 5),
  ]
  start = time.monotonic()
  outcomes = _run(tasks, timeout_seconds=1)
  assert time.monotonic() - start < 15
  assert {task: outcomes[task] for task in tasks if task[0] == 'return'} == {
    ('return', n): n for n in (1, 2, 4, 5)
  }
  assert 'SIGSEGV' in outcomes['kill', signal.SIGSEGV].reason
  assert 'SIGKILL' in outcomes['kill', signal.SIGKILL].reason
  assert 'exit code 3' in outcomes['exit', 3].reason
  assert '--timeout' in outcomes['sleep', 60].reason


def test_a_task_that_stalls_is_given_up_and_a_slow_one_is_not():
  tasks = [('stall', 60), ('go on', 3), ('sleep', 2), ('stall', 61)]
  outcomes = _run(tasks, max_stall_seconds=1)
  assert '--max-stall' in outcomes['stall', 60].reason
  assert '--max-stall' in outcomes['stall', 61].reason
  assert outcomes['go on', 3] == 3
  # What has never said anything is held to the other limit alone.
  assert outcomes['sleep', 2] == 2


def test_a_task_that_always_goes_on_ends_at_the_timeout():
  outcomes = _run([('go on', 60)], timeout_seconds=1)
  assert '--timeout' in outcomes['go on', 60].reason


def test_leaving_the_pool_ends_the_processes():
  with worker_pool.WorkerPool(
    worker_functions.obey,
    num_processes=2,
    timeout_seconds=30,
    max_stall_seconds=30,
    max_memory_bytes=2**30,
  ) as pool:
    outcomes = pool.run([('pid', 0), ('sleep', 60), ('pid', 1)])
    pids = {next(outcomes)[1], next(outcomes)[1]}
  for pid in pids:
    with pytest.raises(ProcessLookupError):
      os.kill(pid, 0)


def _run_with_open_files(limit, num_processes):
  """What a program says whose pool may open so many files."""
  script = f"""
import multiprocessing, resource, worker_functions
from preparation import worker_pool
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
pool = worker_pool.WorkerPool(
  worker_functions.obey,
  num_processes={num_processes},
  timeout_seconds=60,
  max_stall_seconds=60,
  max_memory_bytes=2**30,
)
try:
  with pool:
    resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, hard))
    list(pool.run([('sleep', 60)] * {num_processes}))
except worker_pool.WorkerStartError as error:
  print(error)
print(multiprocessing.active_children())
"""
  path = os.pathsep.join(folder for folder in sys.path if folder)
  done = subprocess.run(
    [sys.executable, '-c', script],
    env={**os.environ, 'PYTHONPATH': path},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.stderr == ''
  return done.stdout


def test_too_few_open_files_for_the_processes_are_one_line():
  assert _run_with_open_files(32, 24) == (
    'cannot start 24 worker processes: Too many open files; give fewer with '
    '--processes, or raise the limit of open files (ulimit -n)\n[]\n'
  )


def test_a_task_that_takes_too_much_memory_is_given_up_alone():
  tasks = [('return', 1), ('take', 10**9), ('take', 10**6), ('return', 2)]
  outcomes = _run(tasks, num_processes=1, max_memory_bytes=300 * 2**20)
  assert '--max-memory' in outcomes['take', 10**9].reason
  del outcomes['take', 10**9]
  assert outcomes == {
    ('return', 1): 1,
    ('take', 10**6): 10**6,
    ('return', 2): 2,
  }


def _outcomes(tasks, **options):
  """Runs tasks on one process; gives (task, outcome), and prints the time."""
  start, before = time.monotonic(), _processor_seconds_of_children()
  with worker_pool.WorkerPool(
    worker_functions.obey,
    num_processes=1,
    **{
      'timeout_seconds': 30,
      'max_stall_seconds': 30,
      'max_memory_bytes': 2**30,
      **options,
    },
  ) as pool:
    found = list(pool.run(tasks))
  seconds = (time.monotonic() - start) / len(tasks)
  processor = (_processor_seconds_of_children() - before) / len(tasks)
  print(
    f'{len(tasks)} times {tasks[0]}: {processor:.1f} s of the processor and '
    f'{seconds:.1f} s each'
  )
  assert processor <= 5
  return found


def _processor_seconds_of_children():
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


@pytest.mark.slow
@pytest.mark.parametrize(
  'task, word, options',
  [
    (('kill', signal.SIGKILL), 'SIGKILL', {}),
    (('kill', signal.SIGSEGV), 'SIGSEGV', {}),
    (('take', 10**9), '--max-memory', {'max_memory_bytes': 300 * 2**20}),
    (('sleep', 60), '--timeout', {'timeout_seconds': 1}),
  ],
)
def test_ten_tasks_that_end_their_process_are_named(task, word, options):
  found = _outcomes([task] * 10, **options)
  assert len(found) == 10
  assert all(word in outcome.reason for _, outcome in found)


STARTS_PROCESSES = {
  'worker_pool': """
with worker_pool.WorkerPool(
  worker_functions.obey,
  num_processes=3,
  timeout_seconds=60,
  max_stall_seconds=60,
  max_memory_bytes=2**30,
) as pool:
  list(pool.run([('sleep', 60)] * 3))
""",
  'render_processes': """
list(render_processes.in_order(worker_functions.wait, range(3), 3))
""",
}


@pytest.mark.parametrize('delay', [0.0, 0.01, 0.3])
@pytest.mark.parametrize('name', STARTS_PROCESSES)
def test_processes_that_start_leave_ctrl_c_to_their_parent(name, delay):
  body = textwrap.indent(STARTS_PROCESSES[name], '  ')
  script = f"""
import worker_functions
from demo_data import render_processes
from preparation import worker_pool
try:
  print('begins', flush=True)
{body}
except KeyboardInterrupt:
  raise SystemExit(130)
"""
  path = os.pathsep.join(folder for folder in sys.path if folder)
  process = subprocess.Popen(
    [sys.executable, '-c', script],
    env={**os.environ, 'PYTHONPATH': path},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  assert process.stdout.readline() == 'begins\n'
  time.sleep(delay)
  os.killpg(process.pid, signal.SIGINT)
  _, errors = process.communicate(timeout=60)
  assert (process.returncode, errors) == (130, '')


def test_ctrl_c_is_held_back_beside_another_thread():
  other = threading.Thread(target=time.sleep, args=(2,))
  other.start()
  steps = []

  def interrupted():
    with interrupts.held_back():
      signal.pthread_kill(other.ident, signal.SIGINT)
      time.sleep(0.1)
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(0.1)
      steps.append('the end of the block')
    steps.append('after the block')

  with pytest.raises(KeyboardInterrupt):
    interrupted()
  assert steps == ['the end of the block']
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
  other.join()


def test_without_ctrl_c_nothing_is_raised_in_any_thread():
  def enter():
    with interrupts.held_back():
      entered.append(True)

  entered = []
  enter()
  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert entered == [True, True]


def test_threads_may_start_processes_at_a_time(monkeypatch):
  """As those of a worker of Beam do; the first to enter leaves first."""
  monkeypatch.delenv('PYTHONSAFEPATH', raising=False)
  seen = []
  first, second = interrupts.held_back(), interrupts.held_back()
  with concurrent.futures.ThreadPoolExecutor(2) as threads:
    for held in (first, second):
      threads.submit(held.__enter__).result()
    for held in (first, second):
      seen.append(os.environ.get('PYTHONSAFEPATH'))
      threads.submit(held.__exit__, None, None, None).result()
  assert seen == ['1', '1']
  assert 'PYTHONSAFEPATH' not in os.environ
