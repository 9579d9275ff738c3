"""The arrays of a step as orbax writes and reads them: one folder per item."""

import contextlib
import errno
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import orbax.checkpoint as ocp

from vie_jax.processes import agreement
from vie_jax.saved_steps import commit_record

_LONGEST_REASON = 200
# Small files that orbax writes for one step, with room to spare.
_MOST_FAILURES = 20
_PATIENCE_SECONDS = 300


def short_reason(error: BaseException) -> str:
  """What an exception says, in one line of bounded length."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  if number := _system_error(error):
    return os.strerror(number)
  # Around the innermost cause orbax says where it met that.
  *_, cause = _causes(error)
  text = ' '.join(str(cause).split()) or type(cause).__name__
  # TensorStore says what is wrong last, but for its settings.
  text, settings, _ = text.partition(' [tensorstore_spec')
  if settings and len(text) > _LONGEST_REASON:
    return f'...{text[-_LONGEST_REASON:]}'
  return text[:_LONGEST_REASON]


def _system_error(error: BaseException) -> int | None:
  """The number of what the operating system refused, if that is behind it."""
  for cause in _causes(error):
    if isinstance(cause, OSError) and cause.errno:
      return cause.errno
    # Behind many lines of settings, TensorStore gives the number of the error.
    if number := re.search(r"os_error_code='(\d+)'", str(cause)):
      return int(number[1])
    if isinstance(cause, MemoryError):
      return errno.ENOMEM
  return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  seen = []
  while error is not None and error not in seen:
    seen.append(error)
    yield error
    error = error.__cause__ or error.__context__


class Writer:
  """Writes steps in the background, one at a time.

  Args:
    items: their names.
  """

  _number = 0

  def __init__(self, items: Iterable[str]):
    self._items = tuple(items)
    self._has_told = False
    self._meetings = 0
    self._checkpointer = self._make()

  def _make(self):
    return ocp.AsyncCheckpointer(
      ocp.CompositeCheckpointHandler(
        **{item: ocp.StandardCheckpointHandler() for item in self._items}
      ),
      async_options=ocp.options.AsyncOptions(barrier_sync_fn=self._meet),
    )

  def start(self, folder: pathlib.Path, items: Mapping[str, Any]) -> None:
    """Copies arrays off the devices and begins to write them.

    All processes call this; they may donate the arrays right afterwards.

    Args:
      folder: to be made.
      items: item -> tree of arrays; they need not be all.
    """
    # Of all writers of the process: the names of meetings are used once.
    Writer._number += 1
    self._has_told, self._meetings = False, 0
    self._checkpointer.save(
      folder,
      args=ocp.args.Composite(
        **{item: ocp.args.StandardSave(tree) for item, tree in items.items()}
      ),
    )

  def wait(self) -> None:
    """Returns when all processes have written, or raises what went wrong."""
    try:
      self._checkpointer.wait_until_finished()
    except Exception:
      self.tell_others()
      raise

  def tell_others(self) -> None:
    """Lets the other processes know that this one could not write.

    They wait for it at the next meeting, orbax would let them for minutes.
    """
    if self._has_told:
      return
    self._has_told = True
    agreement.leave_note(self._name('failed'))
    with contextlib.suppress(Exception):
      agreement.meet(self._name(self._meetings), _PATIENCE_SECONDS)

  def _meet(self, *, key: str, timeout_ms: int) -> None:
    """In place of orbax's barrier: those who failed come by, too."""
    del key
    name = self._name(self._meetings)
    self._meetings += 1
    agreement.meet(name, timeout_ms / 1000)
    if agreement.has_note(self._name('failed')):
      self._has_told = True
      raise RuntimeError('another process could not write its part')

  def _name(self, what):
    return f'vie_jax/save/{Writer._number}/{what}'

  def renew(self) -> None:
    """Forgets a step that failed; orbax would raise it again at the next."""
    self.close()
    self._checkpointer = self._make()

  def close(self) -> None:
    """Frees the threads, whatever has become of what they wrote."""
    # Of the small files that could not be written, each call raises another.
    for _ in range(_MOST_FAILURES):
      with contextlib.suppress(Exception):
        self._checkpointer.close()
        return


def read(folder: pathlib.Path, shapes: Any) -> Any:
  """Reads the arrays of one item, each process its own part.

  Args:
    folder: of the item.
    shapes: tree of ShapeDtypeStructs with shardings.

  Returns:
    A tree like `shapes`.

  Raises:
    DamagedError: if orbax cannot read what is there, for whatever reason.
    OSError: if the files could not be asked, see `disk.NO_DAMAGE`.
  """
  try:
    return ocp.StandardCheckpointHandler().restore(
      folder, args=ocp.args.StandardRestore(shapes)
    )
  except Exception as error:  # orbax raises whatever its parts raise
    _refuse(folder, error)


def structure(folder: pathlib.Path) -> Any:
  """The tree of one item as it was saved, without its arrays.

  Returns:
    Nested dicts and lists whose leaves stand for arrays.

  Raises:
    DamagedError: if orbax cannot read what is there, for whatever reason.
    OSError: if the files could not be asked, see `disk.NO_DAMAGE`.
  """
  try:
    return ocp.StandardCheckpointHandler().metadata(folder).tree
  except Exception as error:  # orbax raises whatever its parts raise
    _refuse(folder, error)


def _refuse(folder: pathlib.Path, error: Exception) -> NoReturn:
  """Tells files that are damaged from files that did not answer."""
  number = _system_error(error)
  # A training may have removed the step meanwhile, on a network file system.
  is_gone = number == errno.ESTALE and not folder.exists()
  reason = f'{folder.name}: {short_reason(error)}'
  commit_record.refuse(reason, None if is_gone else number, folder)


def describe(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
  """Name of a leaf -> its shape and the name of its dtype."""
  return {
    name_of(path): (tuple(leaf.shape), str(leaf.dtype))
    for path, leaf in jax.tree.leaves_with_path(tree)
  }


def name_of(path: Any) -> str:
  """The path of a leaf in words, such as 'params/projection/kernel'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')
