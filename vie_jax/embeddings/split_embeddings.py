"""Embeddings of the videos of a data set, in a folder of results.

They are a network's, or were made elsewhere. A network's are written to the
disk as they come, and are found there by a later call.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence

import jax
import ml_collections
import numpy as np
from absl import logging

from vie_jax import experiment, finite, weights
from vie_jax.embeddings import foreign_embeddings
from vie_jax.evaluation import features, row_file
from vie_jax.experiment import Experiment
from vie_jax.input_pipeline import augmentation, dataset_folder, instances
from vie_jax.processes import agreement, watchdog
from vie_jax.results import result, result_owner
from vie_jax.telemetry import damage_counts, run_log
from vie_jax.weights import Weights
from vie_jax.wording import chosen, counted

_CLIP_FIELDS = ('sampler', 'num_frames', 'frame_step', 'num_eval_clips')
_NOT_OF_EMBEDDINGS = ('streams', 'batch_norm_decay')
TELLS_LITTLE = (
  ', so that kNN, retrieval and embeddings tell little. The layer conv5 '
  '(config.embed.layer) and linear_eval do.'
)
"""What comes of a projection that was not trained with the weights."""


@dataclasses.dataclass(frozen=True, eq=False)
class SplitEmbeddings:
  """The embeddings of one split.

  Attributes:
    clips: float32 [V, G, D], unit vectors, on the disk if they are a network's
      and no video is left out; G is 1 if they were made elsewhere, as a rule.
    facts: of what made them, `network` of `result.json`.
    videos: the V videos.
    num_left_out: videos that are none of them, as they have no sound frame.
  """

  clips: np.ndarray
  facts: dict
  videos: instances.Instances
  num_left_out: int = 0


def open_embeddings(
  run: Experiment,
  config: ml_collections.ConfigDict,
  workdir: str | pathlib.Path,
  folder: pathlib.Path,
  splits: Sequence[str],
) -> dict[str, SplitEmbeddings]:
  """Embeds videos, or finds or reads their embeddings.

  Args:
    run: opened, of the config.
    config: `embeddings` names a file made elsewhere; else `init_from` says of
      which network.
    workdir: of the run.
    folder: of results, receives `embeddings_<split>.npy` if they are a
      network's. A call that was killed is gone on with; what is finished, of
      the same weights, videos and settings, is used again.
    splits: 'train', 'val' or both.

  Returns:
    split -> embeddings, in the order of `videos_of`; those of a network without
    the videos that have no sound frame.

  Raises:
    result.ResultError: if the folder has results of another source.
    foreign_embeddings.EmbeddingsError, checkpoint.CheckpointError,
    dataset_folder.DatasetError: with the remedy.
  """
  if config.embeddings:
    opened = _read_foreign(run, config, splits)
    _begin(run, folder)
    return opened
  found = weights.load(
    config, workdir, run.model, clip_shape=run.clip_shape, mesh=run.mesh
  )
  return embed_splits(run, found, folder, splits)


def left_out(opened: dict[str, SplitEmbeddings]) -> dict[str, int]:
  """What `result.json` says of the splits that were looked at: split -> videos."""
  return {split: found.num_left_out for split, found in opened.items()}


def videos_of(run: Experiment, split: str) -> instances.Instances:
  """The videos of a split, each once: of training, those that it takes."""
  return run.train.distinct_videos() if split == 'train' else run.val


def embed_splits(
  run: Experiment, found: Weights, folder: pathlib.Path, splits: Sequence[str]
) -> dict[str, SplitEmbeddings]:
  """Embeds videos with weights that are loaded already, see `open_embeddings`.

  Args:
    run: opened.
    found: the weights.
    folder: of results.
    splits: 'train', 'val' or both.

  Raises:
    dataset_folder.DatasetError: if no video of a split is left, or too many
      frames are damaged: in this call, or in all that wrote the embeddings.
  """
  _begin(run, folder)
  weights.warn_of_projection(found, TELLS_LITTLE)
  embed = features.embedder(run.model, center=run.center, mesh=run.mesh)
  facts = result.network(run.config, found)
  known = identity(run.config, found)
  num_clips = run.config.clip.num_eval_clips
  opened = {}
  for split in splits:
    videos = videos_of(run, split)
    path = folder / f'embeddings_{split}.npy'
    fill(
      path,
      shape=(
        videos.num_instances,
        num_clips,
        run.config.model.embedding_size,
      ),
      identity={**known, 'videos': videos.fingerprint},
      rows_from=functools.partial(
        _embed_from, run, embed, found.variables, videos
      ),
      unit=f'clips of {split}',
      notes=run.eval_damage.clips[split],
    )
    damage_counts.check_clips(run.eval_damage, videos, run.config.clip)
    opened[split] = _without_left_out(path, videos, facts)
  return opened


def _without_left_out(path, videos, facts):
  """Opens the embeddings of videos, without those that were left out."""
  clips = np.load(path, mmap_mode='r', allow_pickle=False)
  is_there = features.has_embedding(clips)
  if np.isnan(clips[..., 0]).any():
    raise finite.DivergedError(
      f'{path}, of an earlier call, has numbers that are not finite: remove it.'
    )
  num_left_out = int((~is_there).sum())
  if not num_left_out:
    return SplitEmbeddings(clips, facts, videos)
  store = videos.store
  if not is_there.any():
    raise dataset_folder.DatasetError(
      f'No video of split {store.split!r} of {store.directory} has a sound '
      f'frame. Once that is mended, remove {path}.'
    )
  logging.warning(
    'Left out of all figures, without a sound frame: %d of %d videos of split '
    '%r. Once they are mended, remove %s.',
    num_left_out,
    len(is_there),
    store.split,
    path,
  )
  return SplitEmbeddings(
    clips[is_there], facts, instances.take(videos, is_there), num_left_out
  )


def _begin(run, folder):
  """Makes the folder of results, and logs to it."""
  store = run.train.store
  dataset = {
    'path': str(store.directory),
    'fingerprint': store.fingerprint,
  }
  result_owner.check_source(folder, run.config, dataset)
  agreement.share_folder(folder)
  run_log.to_file(folder, jax.process_index())


def _embed_from(run, embed, variables, videos, first_clip):
  def open_batches(step):
    return experiment.eval_batches(run, videos, start_step=step)

  return features.embed_from(
    open_batches,
    embed,
    variables,
    first_clip=first_clip,
    batch_size=run.eval_batch_size,
    mesh=run.mesh,
  )


def identity(config: ml_collections.ConfigDict, found: Weights) -> dict:
  """What the embeddings of a video depend on, beside the video.

  Args:
    config: checked.
    found: the weights.

  Returns:
    JSON-compatible facts. Sizes of batches are none of them.
  """
  method = augmentation.eval_method(config.crop)
  crop = {'method': method, 'size': config.crop.size}
  if method == 'short_side':
    crop['eval_short_side'] = config.crop.eval_short_side
  model = config.model.to_dict()
  return {
    'weights': found.digest(),
    'step': found.step,
    'model': {k: v for k, v in model.items() if k not in _NOT_OF_EMBEDDINGS},
    'clip': {name: config.clip[name] for name in _CLIP_FIELDS},
    'crop': crop,
  }


def fill(
  path: pathlib.Path,
  *,
  shape: tuple[int, ...],
  identity: dict,
  rows_from: Callable[[int], Iterator[np.ndarray]],
  unit: str,
  notes: dict,
) -> None:
  """Writes an array of embeddings, or what is missing of it.

  Args:
    path: of the .npy file.
    shape: of the array; the last axis is a row.
    identity: of which its rows are a function.
    rows_from: number of the first row -> iterator over blocks of rows.
    unit: what the log calls a row.
    notes: what is kept of the rows: the damaged frames of their clips, see
      `bad_frames.BadFrames.clips`.

  Raises:
    finite.DivergedError: if a number of the network is not finite.
  """
  # All hosts embed, the first of them writes and says where to begin.
  is_main = jax.process_index() == 0
  if is_main:
    file = row_file.RowFile(path, shape=shape, identity=identity, notes=notes)
  num_done, is_complete = agreement.by_first(
    'rows', lambda: (file.num_done, file.is_complete)
  )
  if is_complete:
    logging.info('Embedded before: %s.', path)
    return
  watchdog.expect('the next embeddings', is_slow=True)
  with contextlib.closing(rows_from(num_done)) as blocks:
    checked = _finite_blocks(blocks, num_done, unit)
    if is_main:
      file.fill(checked, unit)
    else:
      for _ in checked:
        pass
  watchdog.expect('the end of the embeddings', is_slow=True)
  # Each process has met the damage of its own clips only.
  for other in agreement.gather('notes', notes):
    notes.update(other)
  if is_main:
    file.save_notes()
  agreement.wait_for_all('embeddings are written')


def _finite_blocks(blocks, num_done, unit):
  for block in blocks:
    check_finite(block, unit, first_row=num_done)
    num_done += len(block)
    yield block


def check_finite(
  rows: np.ndarray, unit: str = 'rows', *, first_row: int = 0
) -> None:
  """Refuses numbers that are not finite; NaN would be nearest to everything.

  Args:
    rows: float32 [b, D], of a network; or features.LEFT_OUT all over.
    unit: what a row is called.
    first_row: number of the first one.

  Raises:
    finite.DivergedError: naming the first that is not, and the remedy.
  """
  is_sound = np.isfinite(rows).all(axis=1)
  is_sound |= (rows == features.LEFT_OUT).all(axis=1)
  if not is_sound.all():
    raise finite.DivergedError(
      f'Of {unit}, number {first_row + int(is_sound.argmin())} is not finite: '
      "this network's numbers overflow, or its weights are not sound. Take "
      'others (config.init_from), or config.model.dtype=float32 if it is not.'
    )


def _read_foreign(
  run: Experiment, config: ml_collections.ConfigDict, splits: Sequence[str]
) -> dict[str, SplitEmbeddings]:
  """Reads the embeddings of all splits from one file."""
  videos = {split: videos_of(run, split) for split in splits}
  names = {split: _names(found) for split, found in videos.items()}
  together = [pair for pairs in names.values() for pair in pairs]
  clips, num_extra = foreign_embeddings.read(config.embeddings, together)
  if num_extra:
    logging.info(
      '%s: %s of other videos and not used.',
      config.embeddings,
      f'{counted(num_extra, "vector")} {chosen(num_extra, "is", "are")}',
    )
  facts = {
    'name': pathlib.Path(config.embeddings).stem,
    'training': 'foreign',
    'step': 0,
    'source': config.embeddings,
    'input': None,
    'trained_on': None,
    'started_from': [],
  }
  opened, start = {}, 0
  for split, pairs in names.items():
    stop = start + len(pairs)
    opened[split] = SplitEmbeddings(clips[start:stop], facts, videos[split])
    start = stop
  return opened


def _names(videos: instances.Instances) -> list[tuple[str, str]]:
  """(id, path) of each video."""
  store = videos.store
  return [(store.ids[row], store.paths[row]) for row in videos.video]
