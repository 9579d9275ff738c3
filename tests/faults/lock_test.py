"""R9: two trainings on one workdir, and locks that kills leave behind."""

import signal
import time

import lock_holder
import pytest
import tiny_run

from vie_jax.files import workdir_lock


@pytest.mark.slow
def test_twenty_locks_left_by_kills_are_taken_over(tmp_path):
  longest = 0
  for _ in range(20):
    holder = lock_holder.start(tmp_path / 'W')
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert (tmp_path / 'W' / '.lock').exists()
    started = time.monotonic()
    with workdir_lock.hold(tmp_path / 'W'):
      longest = max(longest, time.monotonic() - started)
  assert longest < 5
  print(f'\n20 of 20 locks taken over, the slowest in {longest:.2f} s')


@pytest.mark.slow
def test_a_second_training_leaves_and_the_first_is_unharmed(
  demo_dataset, tmp_path
):
  command = tiny_run.command(tmp_path / 'W', demo_dataset, num_steps=12)
  first = tiny_run.start(command)
  lock = tmp_path / 'W' / '.lock'
  deadline = time.monotonic() + tiny_run.PATIENCE_SECONDS
  while not lock.exists() and time.monotonic() < deadline:
    time.sleep(0.05)
  second = tiny_run.start(command)
  said = tiny_run.output_of(second)
  assert second.returncode == 2, said
  assert f'is being written to by process {first.pid} on ' in said
  output = tiny_run.output_of(first)
  assert first.returncode == 0, output
  assert 'Training is complete: step 12.' in output
