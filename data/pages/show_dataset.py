"""Makes one HTML page of a prepared data set, to look at before training."""

import base64
import contextlib
import dataclasses
import datetime
import io
import os
import pathlib
import tempfile

import jinja2
import numpy as np
from dataset import dataset_facts
from dataset.dataset_layout import SPLITS
from dataset.manifest import read_manifest
from dataset.remote import place_of
from dataset.staging import output_errors
from dataset.summary import (
  duration,
  missing_files,
  preparation_warnings,
  skipped_files,
  without_videos,
)
from errors import InputError
from PIL import Image
from progress import progress_bar
from untrusted import urls
from wording import chosen, counted, printable

from pages import near_duplicates, network_clips, video_hashes
from pages.duplicates import KINDS, WHERE, find_duplicates
from vie_jax.input_pipeline.frame_store import FrameStore

_TEMPLATE = pathlib.Path(__file__).with_name('show_dataset.html.jinja')
# How much of a long list is on the page.
_MAX_PAIRS_SHOWN = 48
_MAX_LISTED = 200
_PAIR_HEIGHT = 144
# Evaluation clips are small pictures beside the training clip's large ones.
_EVALUATION_SIDE = 96
_CLIP_QUALITY = 95
_QUALITY = 80


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked for.

  Attributes:
    directory: of the prepared data set.
    out: path of the page.
    config: a file of configs/, perhaps with ':' and a variant.
    config_fields: list of str, `--config.FIELD=VALUE`.
    seed: of the clips; None for the config's own.
    num_clips: training clips, and videos of validation.
    num_threads: that read frames.
  """

  directory: str
  out: str
  config: str
  config_fields: list
  seed: int | None
  num_clips: int
  num_threads: int


@dataclasses.dataclass(frozen=True)
class Video:
  """A video as the page names it."""

  path: str
  split: str
  labels: dict


def show_dataset(request):
  """Writes the page.

  Args:
    request: Request.

  Returns:
    list of str, what should be said on the terminal, too: warnings.

  Raises:
    InputError: if the data set or the config cannot be used.
    OutputError: if the page cannot be written.
  """
  out = pathlib.Path(request.out)
  directory = place_of(request.directory)
  with output_errors(out):
    if out.is_dir():
      raise IsADirectoryError(21, 'it is a folder')
    out.parent.mkdir(parents=True, exist_ok=True)
    # Whether it can be written is known now, not after long work.
    handle, aside = tempfile.mkstemp('.tmp', '.show-', out.parent)
  try:
    text, warnings = _page(request, directory)
    with output_errors(out):
      with os.fdopen(handle, 'w', encoding='utf-8', newline='\n') as file:
        handle = None
        file.write(text)
      os.chmod(aside, 0o666 & ~_umask())
      os.replace(aside, out)
  finally:
    if handle is not None:
      os.close(handle)
    pathlib.Path(aside).unlink(missing_ok=True)
  return warnings


def _umask():
  mask = os.umask(0)
  os.umask(mask)
  return mask


def _page(request, directory):
  """Gives the text of the page, and warnings."""
  manifest = read_manifest(directory)
  tables = dataset_facts.read_tables(directory, manifest)
  _check_fields(request, directory)
  config = network_clips.read_config(request.config, request.config_fields)
  config.dataset.dir = str(directory)
  seed = config.seed if request.seed is None else request.seed
  try:
    with contextlib.ExitStack() as stack:
      stores = {
        split: stack.enter_context(FrameStore.open(config.dataset.dir, split))
        for split in SPLITS
      }
      samples = _samples(config, manifest, seed, request.num_clips)
      hashes = _hashes(stores, request.num_threads)
      duplicates = find_duplicates(tables, hashes)
      videos = _Videos(stores, tables)
      shown = _shown_pairs(duplicates, videos)
  # Those of vie_jax: DatasetError, ConfigError and numbers that do not fit.
  except ValueError as error:
    raise InputError(str(error)) from error
  labels = dataset_facts.count_labels(tables, manifest['labels'])
  warnings = _warnings(manifest, duplicates, hashes, labels)
  text = _render(
    directory=directory,
    manifest=manifest,
    skipped=skipped_files(directory),
    missing=missing_files(directory),
    preparation_warnings=preparation_warnings(directory, manifest),
    labels=labels,
    histograms=_histograms(tables, hashes),
    sizes=dataset_facts.stored_sizes(tables),
    samples=samples,
    videos=videos,
    duplicates=duplicates,
    shown_pairs=shown,
    problems=_problems(hashes, videos),
    warnings=warnings,
    config=config,
    request=request,
    seed=seed,
  )
  return text, warnings


def _check_fields(request, directory):
  """Refuses a field that would name another data set."""
  for field in request.config_fields:
    if field.partition('=')[0] == '--config.dataset.dir':
      raise InputError(
        f'{field} cannot be given: shown is {directory}, named behind "show"'
      )


def _samples(config, manifest, seed, num_clips):
  """Clips as the network sees them; none where there is no training video."""
  counts = [manifest['splits'][split]['videos'] for split in SPLITS]
  if not counts[0]:
    return []
  # A training clip is made apart from its video's evaluation clips.
  total = 2 * min(num_clips, counts[0]) + min(num_clips, counts[1])
  with progress_bar('making clips', 'video', total) as bar:
    return network_clips.sample(
      config, seed=seed, num_clips=num_clips, progress=bar.update
    )


def _hashes(stores, num_threads):
  """Hashes of the videos of each split."""
  total = sum(store.num_videos for store in stores.values())
  with progress_bar('looking at frames', 'video', total) as bar:
    return {
      split: video_hashes.hash_videos(
        store, num_threads=num_threads, progress=bar.update
      )
      for split, store in stores.items()
    }


class _Videos:
  """Names, labels and pictures of videos, by row in both splits."""

  def __init__(self, stores, tables):
    self._stores = stores
    self._tables = tables
    self._labels = {}
    for split, store in stores.items():
      self._labels[split] = {c: store.label(c) for c in store.label_columns}

  def place(self, row):
    """Returns (split, row in its table)."""
    num_train = self._tables['train'].num_rows
    if row < num_train:
      return 'train', row
    return 'val', row - num_train

  def video(self, split, row):
    """Returns the Video of a row of a split."""
    labels = {
      column: names[numbers[row]]
      for column, (numbers, names) in self._labels[split].items()
      if numbers[row] >= 0
    }
    return Video(self._stores[split].paths[row], split, labels)

  def picture(self, row):
    """Returns the middle frame as a data URI; None where it is damaged."""
    split, row = self.place(row)
    store = self._stores[split]
    number = video_hashes.frame_numbers(int(store.num_frames[row]))[1]
    try:
      (jpeg,) = store.read_frames(row, [number])
      image = video_hashes.open_frame(jpeg, _PAIR_HEIGHT)
    except (OSError, ValueError, SyntaxError):
      return None
    width = max(1, round(image.width * _PAIR_HEIGHT / image.height))
    if image.height > _PAIR_HEIGHT:
      image = image.resize((width, _PAIR_HEIGHT), Image.Resampling.LANCZOS)
    return data_uri(image, _QUALITY)


def data_uri(image, quality):
  """Encodes a PIL image as a JPEG inside an address."""
  data = io.BytesIO()
  # Full colour resolution: small pictures have none to spare.
  image.save(data, 'JPEG', quality=quality, subsampling=0)
  return f'data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}'


def frame_uri(frame, *, is_small):
  """Encodes a frame of a clip, uint8 [S, S, 3], small ones for evaluation."""
  image = Image.fromarray(frame)
  if is_small and image.width > _EVALUATION_SIDE:
    side = (_EVALUATION_SIDE, _EVALUATION_SIDE)
    image = image.resize(side, Image.Resampling.LANCZOS)
  return data_uri(image, _QUALITY if is_small else _CLIP_QUALITY)


def _shown_pairs(duplicates, videos):
  """The first pairs with their videos and pictures."""
  return [
    (
      pair,
      [(videos.video(*videos.place(k)), videos.picture(k)) for k in pair.rows],
    )
    for pair in duplicates.pairs[:_MAX_PAIRS_SHOWN]
  ]


def _problems(hashes, videos):
  """Videos whose frames could not be read: list of (path, reason)."""
  return [
    (videos.video(split, row).path, reason)
    for split, found in hashes.items()
    for row, reason in sorted(found.problems.items())
  ]


def _histograms(tables, hashes):
  """Distributions that there are values of."""
  num_frames = dataset_facts.column(tables, 'num_frames')
  megabytes = {
    split: num_frames[split] * hashes[split].frame_bytes / 1e6
    for split in tables
  }
  rates = dataset_facts.column(tables, 'source_fps')
  rates = {split: np.where(r > 0, r, np.nan) for split, r in rates.items()}
  found = [
    dataset_facts.histogram(title, values)
    for title, values in (
      ('Duration, seconds', dataset_facts.column(tables, 'duration_seconds')),
      ('Stored frames', num_frames),
      ('Frame rate of the file, per second', rates),
      ('Stored size of a video, MB, from three of its frames', megabytes),
    )
  ]
  return [each for each in found if each]


def _warnings(manifest, duplicates, hashes, labels):
  """What a reader must not miss, in sentences."""
  found = _about_train(manifest, duplicates)
  if manifest['splits']['train']['videos']:
    texts = [without_videos(each, 'train') for each in labels]
    found += [text for text in texts if text]
  if duplicates.is_cut:
    found.append(
      f'More than {near_duplicates.MAX_PAIRS:,} pairs of videos look alike; '
      'only the nearest are counted, and one pair of each validation video '
      'that looks like one of train.'
    )
  broken = sum(len(each.problems) for each in hashes.values())
  if broken:
    found.append(
      f'{counted(broken, "video")} {chosen(broken, "has", "have")} frames that '
      'cannot be read; "python data/prepare.py check OUT --full" names all of '
      'them.'
    )
  for split in SPLITS:
    if not manifest['splits'][split]['videos']:
      found.append(f'The {split} split holds no video.')
  return found


def _about_train(manifest, duplicates):
  """What of validation is in train, too."""
  found = []
  same, parts, alike, mirrored = (
    int(getattr(duplicates, f'{name}_in_train').sum())
    for name in ('same', 'parts', 'alike', 'mirrored')
  )
  total = manifest['splits']['val']['videos']
  if same or alike or mirrored:
    text = (
      f'Of {counted(total, "validation video")} {same:,} '
      f'{chosen(same, "is", "are")} also in train, {alike:,} '
      f'{chosen(alike, "looks", "look")} like one of train, and {mirrored:,} '
      'like a mirrored one.'
    )
    flat = np.zeros(len(duplicates.same_in_train), bool)
    flat[duplicates.featureless] = True
    featureless = int((flat & duplicates.same_in_train).sum())
    if featureless:
      text += f' Nothing, such as black, is to be seen in {featureless:,}.'
    found.append(
      f'{text} Accuracies on videos of train say little about new ones; those '
      'that look alike are shown below, and may be others.'
    )
  if parts:
    found.append(
      f'Of {counted(total, "validation video")} {parts:,} '
      f'{chosen(parts, "is a part", "are parts")} of a file of which other '
      'parts are in train, and may show the same people and places: where new '
      'ones are what counts, keep the parts of a file in one split.'
    )
  return found


def _render(**values):
  """Fills the template; every value is escaped."""
  environment = jinja2.Environment(
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  # Names may hold anything; what turns or hides text is written out.
  environment.filters['printable'] = lambda text: printable(str(text))
  # The page is given to others, too.
  environment.filters['shown'] = urls.shown
  environment.filters['shown_field'] = _shown_field
  environment.filters['number'] = _number
  environment.filters['counted'] = counted
  environment.filters['chosen'] = chosen
  environment.filters['plain'] = _plain
  environment.filters['duration'] = duration
  now = datetime.datetime.now(datetime.UTC)
  template = environment.from_string(_TEMPLATE.read_text('utf-8'))
  return template.render(
    splits=SPLITS,
    kinds=KINDS,
    where=WHERE,
    max_distance=near_duplicates.MAX_DISTANCE,
    num_bits=video_hashes.NUM_BITS,
    max_listed=_MAX_LISTED,
    frame_uri=frame_uri,
    split_files=_split_files,
    date=now.isoformat(timespec='minutes'),
    **values,
  )


def _number(value):
  """Writes a number as short as it can be read."""
  if value == int(value):
    return f'{int(value):,}'
  return f'{value:,.1f}' if abs(value) >= 100 else f'{value:.3g}'


def _shown_field(field):
  name, equals, value = field.partition('=')
  return name + equals + urls.shown(value)


def _plain(value):
  """Writes a value of dataset.json."""
  return f'{value:,}' if type(value) is int else printable(str(value))


def _split_files(manifest, split):
  """Sizes in bytes of the files of a split."""
  return [
    entry['bytes']
    for name, entry in manifest['files'].items()
    if name.startswith(f'{split}/')
  ]
