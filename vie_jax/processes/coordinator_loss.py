"""Says in one line that process 0 is gone, where JAX aborts the process.

Without process 0 nothing connects the others, and JAX's service aborts each of
them within milliseconds: a stack of C++ is the last that its log has, and the
exit code is 134. It can be told to call us instead, but fails where it does so
(`std::bad_cast`, jaxlib 0.10.2). So we handle the signal that an abort raises,
which comes to the thread that aborts, at a place where Python can run: asking
the thread that watches would be too late.
"""

import ctypes
import signal
import socket
from collections.abc import Callable

_ANSWER_SECONDS = 2.0
_MOST_SECONDS = 10
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
# Handlers that C knows of must not be collected.
_kept: list = []


def explain(address: str, leave: Callable[[], None]) -> None:
  """Ends this process by ourselves if it is aborted and process 0 is gone.

  Any other abort is as it was, with the stacks that `faulthandler` prints.

  Args:
    address: HOST:PORT of JAX's service, in process 0.
    leave: says so, and ends the process at once.
  """
  libc = ctypes.CDLL(None)
  libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
  libc.signal.restype = ctypes.c_void_p

  def on_abort(number):
    libc.signal(number, before)
    # Python may wait for what the thread holds that aborts.
    libc.signal(signal.SIGALRM, None)
    libc.alarm(_MOST_SECONDS)
    if not _answers(address):
      leave()
    # Comes to whatever handled it before, once this returns.
    signal.raise_signal(signal.SIGABRT)

  handler = _Handler(on_abort)
  _kept.append(handler)
  before = libc.signal(
    signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p).value
  )


def _answers(address):
  host, _, port = address.rpartition(':')
  try:
    with socket.create_connection(
      (host.strip('[]'), int(port)), timeout=_ANSWER_SECONDS
    ):
      return True
  except OSError:
    return False
