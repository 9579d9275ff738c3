"""The one owner of the signals that ask a run to save and leave.

A machine that is taken away, a scheduler that ends a job, a terminal that is
closed and Ctrl-C all send a signal. What happens then depends on where the run
is:

- `starting`: nothing is open yet; the process ends at once.
- inside `leaving`: nothing would be lost; the process ends at once.
- inside `raising`: `Stopped` is raised in the main thread.
- inside `deferring`: nothing happens until the code asks, with `poll` or
  `check`. The loops do, after each step, and save.

Several processes must leave after the same step, and the signal reaches one of
them at first. There JAX's preemption service listens for SIGTERM and agrees on
the step; other signals are passed on to it as SIGTERM. There is one listener
for SIGTERM in either case: of two, one never hears it.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import logging

from vie_jax.processes import exit_codes

DEFAULT_SIGNALS = ('SIGTERM', 'SIGINT', 'SIGHUP')
_STARTING, _LEAVING = 'starting', 'leaving'
_RAISING, _DEFERRING = 'raising', 'deferring'


class Stopped(BaseException):
  """The run was asked to leave early, and does; the same command goes on."""


class Listener:
  """Hears signals, in a thread of its own, so also while a step is compiled.

  Args:
    leave: ends the process at once, with an exit code.
  """

  def __init__(self, leave: Callable[[int], None] = os._exit):
    self._leave = leave
    self._mode = _STARTING
    self._numbers: set[int] = set()
    self._first: int | None = None
    self._num_interrupts = 0
    self._has_raised = False
    self._agree: Callable[[int], bool] | None = None
    self._num_polls = 0
    self._is_agreed = False
    self._pipe: tuple[int, int] | None = None

  def listen(self, names: Sequence[str] = DEFAULT_SIGNALS) -> None:
    """Takes over signals; in the main thread, any number of times.

    Args:
      names: such as 'SIGTERM'. One that is ignored, as Ctrl-C is in a shell's
        background, or SIGHUP below nohup, stays so.
    """
    if self._pipe is None:
      self._pipe = os.pipe()
      os.set_blocking(self._pipe[1], False)
      signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
      threading.Thread(target=self._hear, name='signals', daemon=True).start()
    for name in names:
      number = signal.Signals[name]
      is_of_jax = number == signal.SIGTERM and self._agree is not None
      if is_of_jax or signal.getsignal(number) == signal.SIG_IGN:
        continue
      self._numbers.add(number)
      signal.signal(number, self._in_main_thread)
      # System calls of libraries go on by themselves, as without a handler.
      signal.siginterrupt(number, False)

  def listen_to(self, fault: Any) -> None:
    """Takes over the `signals` of `config.fault`, if it listens at all."""
    if self._pipe is not None:
      self.listen(fault.signals)

  def agree_by(self, reached_sync_point: Callable[[int], bool]) -> None:
    """Leaves SIGTERM to JAX, once its processes know each other.

    Args:
      reached_sync_point: JAX's; given the number of the call, the same on all
        processes, it says whether this is the one to leave after.
    """
    self._agree = reached_sync_point
    self._mode = _DEFERRING
    if self._first is not None:
      os.kill(os.getpid(), signal.SIGTERM)

  @property
  def exit_code(self) -> int:
    """Of a process that leaves early."""
    if self._first == signal.SIGINT:
      return exit_codes.INTERRUPTED
    return exit_codes.RETRY

  def poll(self) -> bool:
    """Whether to leave now.

    With several processes, all of them have to ask equally often, and hear the
    same: never ask where only some of them come by.
    """
    if self._agree is None:
      return self._first is not None
    if not self._is_agreed:
      self._num_polls += 1
      self._is_agreed = self._agree(self._num_polls)
    return self._is_agreed

  def check(self) -> None:
    """Raises `Stopped` if it is time to leave; see `poll`."""
    if self.poll():
      raise Stopped('Stopped early, as a signal asked; what is done is kept.')

  @contextlib.contextmanager
  def leaving(self) -> Iterator[None]:
    """Has a signal end the process at once, as nothing would be lost.

    For what takes longer than whoever asks may wait, such as a compilation.
    Of several processes a signal waits, as inside `deferring`.
    """
    with self._in_mode(_LEAVING):
      if self._mode == _LEAVING and self._first is not None:
        self._leave_at_once(signal.Signals(self._first))
      yield

  def raising(self) -> contextlib.AbstractContextManager[None]:
    """Has a signal raise `Stopped` wherever it finds the main thread."""
    return self._in_mode(_RAISING)

  def deferring(self) -> contextlib.AbstractContextManager[None]:
    """Has a signal wait until the code asks."""
    return self._in_mode(_DEFERRING)

  @contextlib.contextmanager
  def _in_mode(self, mode):
    before = self._mode
    self._mode = _DEFERRING if self._agree else mode
    try:
      yield
    finally:
      self._mode = _DEFERRING if self._agree else before

  def _in_main_thread(self, number, unused_frame):
    # Python comes here between two of its own instructions. Raised only once:
    # what is cleaned up afterwards must come to its end.
    if self._mode == _RAISING and not self._has_raised:
      self._has_raised = True
      self._note(number)
      raise Stopped('Stopped early, as a signal asked; what is done is kept.')

  def _note(self, number):
    if self._first is None:
      self._first = number

  def _hear(self):
    is_first = True
    while byte := os.read(self._pipe[0], 1):
      if byte[0] in self._numbers:
        self._on_signal(signal.Signals(byte[0]), is_first)
        is_first = False

  def _on_signal(self, number, is_first):
    self._note(number)
    self._num_interrupts += number == signal.SIGINT
    if self._num_interrupts == 2:
      logging.warning(
        'Ended at once; the same command goes on from the last save.'
      )
      self._leave(exit_codes.INTERRUPTED)
    if not is_first:
      return
    if self._mode == _STARTING and not self._has_raised:
      self._leave(self.exit_code)
    if self._mode == _LEAVING:
      self._leave_at_once(number)
    logging.warning(
      '%s: stopping, as soon as what is begun can be kept. Ctrl-C%s ends it at '
      'once.',
      number.name,
      ' once more' if number == signal.SIGINT else ', twice,',
    )
    if self._agree is not None:
      os.kill(os.getpid(), signal.SIGTERM)

  def _leave_at_once(self, number):
    logging.warning(
      '%s: leaving at once, as no step is lost. The same command goes on.',
      number.name,
    )
    self._leave(self.exit_code)


SIGNALS = Listener()
"""The one of this process. It hears nothing before `listen`."""
