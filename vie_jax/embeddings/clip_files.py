"""Clips that are given as an array, instead of as videos."""

import pathlib

import numpy as np

from vie_jax.untrusted import arrays

ARRAY = 'clips'


class ClipsError(ValueError):
  """The file of clips is missing, or not what it should be."""


def read_clips(path: str | pathlib.Path) -> np.ndarray:
  """Reads the array `clips` of an .npz file.

  Args:
    path: of the file.

  Returns:
    uint8 [n, T, H, W, 3], RGB, already cropped.

  Raises:
    ClipsError: saying what is wrong with which file.
  """
  try:
    found = arrays.read_npz(path, lambda name: name == ARRAY)
  except FileNotFoundError:
    raise ClipsError(f'There is no file {path} (config.embed.clips).') from None
  except arrays.ArraysError as error:
    raise ClipsError(
      f'{path} (config.embed.clips) is damaged, or no .npz file of plain '
      f'arrays: {error}.'
    ) from error
  clips = found.get(ARRAY)
  if clips is None:
    raise ClipsError(
      f'{path} holds no array named {ARRAY!r}. Write it with '
      f'numpy.savez(path, {ARRAY}=array).'
    )
  if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
    raise ClipsError(
      f'The clips of {path} are {clips.dtype} {list(clips.shape)}; they must '
      'be uint8 [n, T, H, W, 3].'
    )
  if not clips.size:
    raise ClipsError(f'{path} holds no clips: {list(clips.shape)}.')
  return clips
