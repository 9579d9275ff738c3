"""What can be embedded: prepared videos, video files, images.

Each is opened as the same thing: items in order, with what is known of them,
and batches of their clips.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import stat
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import ml_collections

from vie_jax import device_augment, experiment
from vie_jax.embeddings import own_files
from vie_jax.input_pipeline import (
  augmentation,
  bad_frames,
  dataset_folder,
  frame_store,
  image_folder,
  image_pipeline,
  instances,
  labelled_images,
  pipeline,
  remote_shards,
  sound_frames,
)
from vie_jax.processes import agreement
from vie_jax.results import result_owner
from vie_jax.telemetry import damage_counts


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
  """A video or an image.

  Attributes:
    id: unique in its data set.
    path: of the file, below the folder that was given.
    split: 'train' or 'val'; of a folder without splits 'train'.
    num_frames: 1 for an image.
    duration_seconds: of a video.
    labels: label column -> class; those that are known.
  """

  id: str
  path: str
  split: str
  num_frames: int
  duration_seconds: float | None
  labels: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Part:
  """Items that lie together.

  Attributes:
    items: in order.
    open_batches: number of the first batch -> context manager over batches of
      their clips, in order.
    picture: number of an item -> encoded picture of it.
  """

  items: Sequence[Item]
  open_batches: Callable[[int], contextlib.AbstractContextManager]
  picture: Callable[[int], bytes]


@dataclasses.dataclass(frozen=True)
class Source:
  """Everything that is embedded.

  Attributes:
    facts: `name`, `path`, `kind` ('video' or 'image'), `fingerprint` and the
      number of items of each split.
    parts: in order.
    num_clips: G, of each item.
    label_columns: that items may have.
    center: (window, crop) -> normalised clips [B, T, H, W, 3].
    damage: damaged frames of the clips.
  """

  facts: dict
  parts: Sequence[Part]
  num_clips: int
  label_columns: Sequence[str]
  center: Callable[..., jax.Array]
  damage: bad_frames.BadFrames

  @property
  def items(self) -> list[Item]:
    """All items in order."""
    return [item for part in self.parts for item in part.items]

  def picture(self, number: int) -> bytes:
    """Encoded picture of one of the items."""
    for part in self.parts:
      if number < len(part.items):
        return part.picture(number)
      number -= len(part.items)
    raise IndexError(number)


def name_of(name: str) -> str:
  """Name of a source: of a prepared data set its own, else that of the file."""
  path = _place(name)
  if _is_prepared(path):
    with frame_store.FrameStore.open(path, 'train') as store:
      return store.name
  return path.absolute().stem if path.is_file() else path.absolute().name


def _place(name: str) -> pathlib.Path | str:
  """A path of this machine, or a URL as it is."""
  if remote_shards.is_remote(name):
    return name
  return pathlib.Path(os.path.expanduser(name))


def check_is_there(name: str, field: str) -> None:
  """Refuses what is not there, or is no file that can be embedded.

  Args:
    name: as for `open_source`; a URL is not looked for.
    field: of the config, that it is from.

  Raises:
    dataset_folder.DatasetError: with the field.
  """
  if not name:
    raise dataset_folder.DatasetError(
      'Nothing is named to embed: config.embed.source and config.dataset.dir are '
      'empty.'
    )
  path = _place(name)
  if isinstance(path, str):
    return
  try:
    mode = path.stat().st_mode
  except OSError as error:
    dataset_folder.check_answers(path, error)
    reason = (
      '' if isinstance(error, FileNotFoundError) else f': {error.strerror}'
    )
    raise dataset_folder.DatasetError(
      f'There is no file or folder {path} ({field}){reason}.'
    ) from error
  if stat.S_ISDIR(mode):
    return
  if not stat.S_ISREG(mode):
    raise dataset_folder.DatasetError(f'{path} ({field}) is no regular file.')
  images = image_folder.IMAGE_SUFFIXES
  videos = own_files.VIDEO_SUFFIXES
  if path.suffix.lower() not in {*images, *videos.split()}:
    raise dataset_folder.DatasetError(
      f'{path} ({field}) is named neither like an image nor like a video. Known '
      f'suffixes: {" ".join(images)}, and of videos {videos}.'
    )


def _is_prepared(place: pathlib.Path | str) -> bool:
  """Videos and images are on this machine: a URL is that of a data set."""
  return isinstance(place, str) or (place / 'dataset.json').exists()


@contextlib.contextmanager
def open_source(
  config: ml_collections.ConfigDict, name: str, out: pathlib.Path
) -> Iterator[Source]:
  """Opens what a user has named.

  Args:
    config: checked.
    name: a prepared data set, or its URL; a folder of videos or of images;
      or a file of either kind.
    out: folder that video files are prepared in.

  Raises:
    dataset_folder.DatasetError: if there is no such thing, or nothing in it.
    result.ResultError: if `out` has results of other files.
  """
  path = _place(name)
  if _is_prepared(path):
    opened = _open_videos(config, path)
  else:
    folder, prepared = agreement.by_first(
      'prepare', lambda: _prepare(config, name, out)
    )
    if prepared:
      opened = _open_videos(config, pathlib.Path(prepared))
    else:
      opened = _open_images(config, pathlib.Path(folder))
  with opened as source:
    agreement.check_same(
      {f'fingerprint of {name}': source.facts['fingerprint']}
    )
    if not source.parts:
      raise dataset_folder.DatasetError(
        f'{name} has nothing to embed in {", ".join(config.embed.splits)} '
        '(config.embed.splits).'
      )
    # Not the place that files were prepared in.
    yield dataclasses.replace(source, facts={**source.facts, 'path': name})


def _prepare(config, name, out):
  """The folder of files, and the data set made of them if they are videos."""
  path = _place(name)
  folder = own_files.folder_of(path, out)
  if not own_files.has_videos(folder, image_folder.IMAGE_SUFFIXES):
    return str(folder), ''
  # Their fingerprint is not known yet.
  facts = {'path': name, 'fingerprint': None}
  prepared = own_files.prepare(
    folder,
    out,
    name_of(name),
    source=path,
    check_owner=lambda: result_owner.check_source(out, config, facts),
  )
  return str(folder), str(prepared)


@contextlib.contextmanager
def _open_videos(
  config: ml_collections.ConfigDict, directory: pathlib.Path | str
) -> Iterator[Source]:
  """Opens a prepared data set: all videos of the splits that are asked for."""
  options = experiment.input_options(config)
  with contextlib.ExitStack() as stack:
    damage = stack.enter_context(damage_counts.counting(config))
    options['damage'] = damage
    stores = [
      stack.enter_context(frame_store.FrameStore.open(directory, split))
      for split in config.embed.splits
    ]
    parts = [
      Part(
        _videos(store, config),
        functools.partial(
          _open_video_batches, instances.all_videos(store), config, options
        ),
        functools.partial(_middle_frame, store),
      )
      for store in stores
      if store.num_videos
    ]
    first = stores[0]
    yield Source(
      facts={
        'name': first.name,
        'path': str(directory),
        'kind': 'video',
        'fingerprint': first.fingerprint,
        **{store.split: store.num_videos for store in stores},
      },
      parts=parts,
      num_clips=config.clip.num_eval_clips,
      label_columns=_label_columns(first, config),
      center=functools.partial(
        device_augment.center,
        size=config.crop.size,
        crops_before_resize=augmentation.crops_before_resize(
          augmentation.eval_method(config.crop)
        ),
        dtype=config.model.dtype,
      ),
      damage=damage,
    )


def _open_video_batches(videos, config, options, start_step):
  return experiment.watched(
    pipeline.eval_batches(
      videos,
      batch_size=config.embed.batch_size,
      start_step=start_step,
      **options,
    )
  )


def _label_columns(store, config):
  """Those that the config wants and the videos have: other files have others."""
  wanted = set(config.dataset.label_columns) or set(store.label_columns)
  return [column for column in store.label_columns if column in wanted]


def _videos(store, config) -> list[Item]:
  labels = {
    column: store.label(column) for column in _label_columns(store, config)
  }
  return [
    Item(
      id=store.ids[row],
      path=store.paths[row],
      split=store.split,
      num_frames=int(num_frames),
      duration_seconds=float(num_frames / store.frame_rate_hz),
      labels={
        column: names[values[row]]
        for column, (values, names) in labels.items()
        if values[row] >= 0
      },
    )
    for row, num_frames in enumerate(store.num_frames)
  ]


def _middle_frame(store, row):
  return sound_frames.read_whole(store, row, int(store.num_frames[row]) // 2)


@contextlib.contextmanager
def _open_images(
  config: ml_collections.ConfigDict, folder: pathlib.Path
) -> Iterator[Source]:
  """Opens all images in a folder.

  Each is shown as static video: tiled over time on the device.
  """
  num_frames, size = config.clip.num_frames, config.crop.size

  def center(window, crop):
    image = device_augment.center(
      window, crop, size=size, dtype=config.model.dtype
    )
    return jnp.repeat(image, num_frames, axis=1)

  with image_folder.open_flat(str(folder)) as images:
    items = _image_items(images, labelled_images.is_images(str(folder)))
    items_of = collections.Counter(item.split for item in items)
    yield Source(
      facts={
        'name': images.name,
        'path': str(folder),
        'kind': 'image',
        'fingerprint': images.fingerprint,
        **items_of,
      },
      parts=[
        Part(
          items,
          functools.partial(_open_image_batches, images, config),
          lambda row: images.read(row)[0],
        )
      ],
      num_clips=1,
      label_columns=['label'] if any(item.labels for item in items) else [],
      center=center,
      damage=bad_frames.BadFrames(),
    )


def _open_image_batches(images, config, start_step):
  return experiment.watched(
    image_pipeline.eval_batches(
      images,
      size=config.crop.size,
      short_side=max(config.crop.eval_short_side, config.crop.size),
      batch_size=config.embed.batch_size,
      start_step=start_step,
      **experiment.image_input_options(config),
    )
  )


def _image_items(images, has_splits) -> list[Item]:
  """Images; their class is the first folder, below those of the splits."""
  items = []
  for index in range(images.num_images):
    path = images.names(index)
    *folders, _ = path.split('/')
    split = 'train'
    if has_splits and folders:
      split = 'train' if folders.pop(0) == 'train' else 'val'
    items.append(
      Item(
        # As data/prepare.py makes those of videos.
        id=hashlib.sha256(path.encode()).hexdigest()[:16],
        path=path,
        split=split,
        num_frames=1,
        duration_seconds=None,
        labels=_class(folders[0]) if folders else {},
      )
    )
  return items


@functools.cache
def _class(name):
  """Labels of the images of a class: one dict for all of them."""
  return {'label': name}
