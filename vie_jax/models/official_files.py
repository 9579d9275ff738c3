"""Reading the files of official checkpoints: arrays by variable name.

TensorFlow checkpoints, archives of them as published, and .npz files.
"""

import glob
import lzma
import math
import os
import pathlib
import re
import tarfile
import tempfile
import zlib
from types import ModuleType

import numpy as np

from vie_jax.models import official_checkpoint
from vie_jax.models.official_checkpoint import OfficialCheckpointError
from vie_jax.untrusted import arrays, tar_stream

_FILE_OF_CHECKPOINT = re.compile(r'(?<=.)\.(index|meta|data-\d+-of-\d+)$')
_NEEDED_IN_TAR = re.compile(r'(^|/)[^/.][^/]*\.(index|data-\d+-of-\d+)$')
# Trained weights hardly shrink; nothing below the second limit is too much.
_MAX_RATIO = 100
_SMALL_BYTES = 2**26
# The last bytes of a table file: a whole V1 checkpoint, or the index of a V2.
_TABLE_MAGIC = bytes.fromhex('57fb808b247547db')
_ACCEPTED = (
  'Give the prefix of a TensorFlow V2 checkpoint (PREFIX.index and '
  'PREFIX.data-...), a folder with one, a .tar with one, or a .npz of arrays '
  'by name.'
)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads an official checkpoint.

  Args:
    path: one of
      - the prefix of a TensorFlow V2 checkpoint, or one of its files;
      - a folder: the checkpoint that its file `checkpoint` names as the
        newest, or the only one;
      - a tar archive of a checkpoint, compressed or not, as published;
      - a .npz of arrays by variable name.

  Returns:
    Variable name -> array, as stored: the network's, `instance/...` and
    `global_step` where there is one. Not the optimiser's slots.

  Raises:
    OfficialCheckpointError: naming the path and the remedy, if it is missing,
      damaged or of another kind.
  """
  path = pathlib.Path(os.path.expanduser(path))
  if path.is_dir():
    return _read_v2(_prefix_in_folder(path))
  prefix = path.with_name(_FILE_OF_CHECKPOINT.sub('', path.name))
  if _index(prefix).is_file():
    return _read_v2(prefix)
  if not path.is_file():
    raise OfficialCheckpointError(f'There is no checkpoint {path}. {_ACCEPTED}')
  if path.suffix == '.npz':
    return _read_npz(path)
  if prefix != path:
    raise OfficialCheckpointError(
      f'{path} is part of a checkpoint whose {_index(prefix).name} is missing: '
      'copy it into the same folder.'
    )
  if _is_tar(path):
    return _read_tar(path)
  if _last_bytes(path, len(_TABLE_MAGIC)) == _TABLE_MAGIC:
    raise OfficialCheckpointError(
      f'{path} is a checkpoint of the old format V1: restore it with '
      'tf.compat.v1.train.Saver and save it with write_version=SaverDef.V2.'
    )
  raise OfficialCheckpointError(
    f'{path} is neither a checkpoint nor an archive of one; if it was '
    f'downloaded as one, download it again. {_ACCEPTED}'
  )


def _index(prefix):
  return prefix.with_name(f'{prefix.name}.index')


def _last_bytes(path, number):
  with path.open('rb') as file:
    file.seek(max(path.stat().st_size - number, 0))
    return file.read()


def _reason(error):
  return ' '.join(str(error).split())[:300] or type(error).__name__


def _tensorflow(path) -> ModuleType:
  """Imports TensorFlow, which nothing else in this layer needs."""
  try:
    import tensorflow
  except ImportError as error:
    raise OfficialCheckpointError(
      f'{path} is read with TensorFlow, which cannot be imported '
      f'({_reason(error)}): install tensorflow-cpu, or convert the checkpoint '
      'to a .npz of arrays by name.'
    ) from error
  return tensorflow


def _prefix_in_folder(folder):
  """The prefix of the one checkpoint that a folder stands for."""
  prefixes = sorted(file.with_suffix('') for file in folder.glob('*.index'))
  state = None
  if (folder / 'checkpoint').is_file():
    state = _tensorflow(folder).train.get_checkpoint_state(str(folder))
  if state is not None:
    # The file may still name the folder that the checkpoint was written to.
    newest = folder / pathlib.PurePath(state.model_checkpoint_path).name
    if newest not in prefixes:
      raise OfficialCheckpointError(
        f'{folder / "checkpoint"} names {newest.name} as the newest, but there '
        f'is no {_index(newest).name}: give the prefix of another one.'
      )
    return newest
  return _only_prefix(prefixes, folder)


def _only_prefix(prefixes, source):
  if not prefixes:
    raise OfficialCheckpointError(
      f'{source} holds no TensorFlow V2 checkpoint: no file ends in .index. '
      f'{_ACCEPTED}'
    )
  if len(prefixes) > 1:
    raise OfficialCheckpointError(
      f'{source} holds {len(prefixes)} checkpoints: '
      f'{", ".join(prefix.name for prefix in prefixes)}. Give the prefix of '
      'one, from an archive after unpacking it.'
    )
  return prefixes[0]


def _read_v2(prefix, where=None):
  """Reads a V2 checkpoint; `where` names it in errors if not its prefix."""
  where = where or prefix
  tf = _tensorflow(where)
  try:
    reader = tf.train.load_checkpoint(str(prefix))
    # Weights are numbers. Of texts the index does not say how long they are.
    names = [
      name
      for name, dtype in sorted(reader.get_variable_to_dtype_map().items())
      if (dtype.is_floating or dtype.is_integer)
      and not official_checkpoint.is_bookkeeping(name)
    ]
    _check_claimed_size(prefix, reader, names)
    return {name: reader.get_tensor(name) for name in names}
  except (tf.errors.OpError, LookupError, RuntimeError, ValueError) as error:
    raise OfficialCheckpointError(
      f'The checkpoint {where} is damaged or incomplete: {_reason(error)}. '
      'Copy or download all its files, .index and .data-..., once more.'
    ) from error


def _check_claimed_size(prefix, reader, names):
  """Refuses an index that claims larger arrays than the data can hold."""
  shapes = reader.get_variable_to_shape_map()
  dtypes = reader.get_variable_to_dtype_map()
  claimed = sum(math.prod(shapes[name]) * dtypes[name].size for name in names)
  files = prefix.parent.glob(f'{glob.escape(prefix.name)}.data-*')
  found = sum(file.stat().st_size for file in files)
  if claimed > found:
    raise ValueError(f'its index claims {claimed} bytes, there are {found}')


def _check_unpacked_size(path, total):
  """Refuses an archive before more of it is unpacked than is plausible."""
  packed = path.stat().st_size
  if total > max(_MAX_RATIO * packed, _SMALL_BYTES):
    raise OfficialCheckpointError(
      f'{path} is not unpacked: its {packed} bytes would become {total} or '
      'more, and weights hardly shrink. If it is to be trusted, unpack it '
      'and give the prefix.'
    )


def _opened_tar(path):
  # Members have headers and padding besides.
  limit = max(_MAX_RATIO * path.stat().st_size, _SMALL_BYTES)
  return tar_stream.open_tar(path, max_bytes=2 * limit)


def _is_tar(path):
  try:
    with _opened_tar(path):
      return True
  except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error):
    return False


def _read_tar(path):
  with tempfile.TemporaryDirectory(prefix='official_checkpoint-') as folder:
    try:
      with _opened_tar(path) as archive:
        total = 0
        for member in archive:
          total += member.size
          _check_unpacked_size(path, total)
          if member.isfile() and _NEEDED_IN_TAR.search(member.name):
            archive.extract(member, folder, filter='data')
    except (
      tarfile.TarError,
      EOFError,
      OSError,
      lzma.LZMAError,
      zlib.error,
    ) as error:
      raise OfficialCheckpointError(
        f'{path} cannot be unpacked into {folder}: {_reason(error)}. If it is '
        'damaged, download it again.'
      ) from error
    indices = sorted(pathlib.Path(folder).rglob('*.index'))
    prefix = _only_prefix([index.with_suffix('') for index in indices], path)
    return _read_v2(prefix, f'{prefix.name} in {path}')


def _read_npz(path):
  try:
    return arrays.read_npz(
      path, lambda name: not official_checkpoint.is_bookkeeping(name)
    )
  except (OSError, arrays.ArraysError) as error:
    raise OfficialCheckpointError(
      f'{path} is not a readable .npz of plain arrays: {_reason(error)}. Write '
      'it with numpy.savez(path, **{name: array}), without Python objects.'
    ) from error
