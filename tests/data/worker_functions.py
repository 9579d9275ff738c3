"""What the processes of worker_pool_test do; they import it by name."""

import os
import sys
import time


def obey(task):
  """Carries out (verb, argument)."""
  verb, argument = task
  if verb == 'kill':
    os.kill(os.getpid(), argument)
  if verb == 'exit':
    sys.stdout.flush()
    os._exit(argument)
  if verb == 'sleep':
    time.sleep(argument)
  return os.getpid() if verb == 'pid' else argument
