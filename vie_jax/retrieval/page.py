"""The page that `--mode=retrieve` writes, from what networks found."""

import dataclasses
import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vie_jax.evaluation import gallery, recall_figures, retrieval
from vie_jax.input_pipeline import sound_frames
from vie_jax.input_pipeline.frame_store import FrameStore
from vie_jax.results.findings import Findings, common_queries
from vie_jax.untrusted import urls
from vie_jax.wording import chosen, counted

FILE = 'index.html'
# A page of 50 queries and two networks stays below 8 MB.
IMAGE_BUDGET = 7_000_000
FRAMES_SHOWN = 8
_NAMED = 10
# Frames are shown from the middle of a video: spread over all of a long one,
# they would not show how anything moves.
MAX_SECONDS_BETWEEN_FRAMES = 0.25
FRAME_HEIGHT = 128
PICTURES = (
  f'The pictures are {FRAMES_SHOWN} frames from the middle of a video, at most '
  'a quarter of a second apart.'
)


def labels_of(
  store: FrameStore, row: int, columns: Sequence[str]
) -> dict[str, str]:
  """Column -> class name of a video, of the columns where it is known."""
  labels = {}
  for column in columns:
    numbers, names = store.label(column)
    if numbers[row] >= 0:
      labels[column] = names[numbers[row]]
  return labels


def film_strip(
  store: FrameStore, row: int, columns: Sequence[str]
) -> gallery.FilmStrip:
  """Frames from the middle of a video, with its path and labels."""
  num_frames = int(store.num_frames[row])
  step = min(
    max(1, round(MAX_SECONDS_BETWEEN_FRAMES * store.frame_rate_hz)),
    max(1, num_frames // FRAMES_SHOWN),
  )
  numbers = np.arange(min(FRAMES_SHOWN, num_frames)) * step
  numbers += (num_frames - 1 - numbers[-1]) // 2
  frames = [
    _decode(sound_frames.read_whole(store, row, int(number)))
    for number in numbers
  ]
  return gallery.FilmStrip(
    np.stack(frames), store.paths[row], labels_of(store, row, columns)
  )


def _decode(jpeg: bytes) -> np.ndarray:
  """Decodes a frame no larger than it is shown: uint8 [H, W, 3]."""
  with Image.open(io.BytesIO(jpeg)) as image:
    width = max(1, round(image.width * FRAME_HEIGHT / image.height))
    # Lets the decoder leave out detail that would be thrown away.
    image.draft('RGB', (width, FRAME_HEIGHT))
    image = image.convert('RGB')
    if image.height > FRAME_HEIGHT:
      image = image.resize((width, FRAME_HEIGHT), Image.LANCZOS)
    return np.asarray(image)


class _Strips:
  """Film strips of a split, each made once."""

  def __init__(self, store, columns):
    self._store, self._columns, self._made = store, columns, {}

  def __getitem__(self, row):
    row = int(row)
    if row not in self._made:
      self._made[row] = film_strip(self._store, row, self._columns)
    return self._made[row]


def _queries(train, strips, findings, columns, num_neighbors):
  """Makes queries of strips, by their row in what networks found."""
  near = _Strips(train, columns)
  names = {column: train.label(column)[1] for column in columns}
  queries = []
  for row, strip in strips.items():
    neighbors, predictions = {}, {}
    for found in findings:
      place = found.place(row)
      pairs = zip(found.index[place], found.similarity[place], strict=True)
      neighbors[found.heading] = [
        gallery.Neighbor(near[video], float(similarity))
        for video, similarity in list(pairs)[:num_neighbors]
      ]
      predictions[found.heading] = {
        column: names[column][numbers[place]]
        for column, numbers in found.predicted.items()
        if column in names and numbers[place] >= 0
      }
    queries.append(gallery.Query(strip, neighbors, predictions))
  return queries


def validation_page(
  train: FrameStore,
  val: FrameStore,
  findings: Sequence[Findings],
  *,
  columns: Sequence[str],
  num_queries: int,
  num_neighbors: int,
) -> gallery.Page:
  """Shows validation videos beside what each network places nearest.

  Args:
    train: the training videos.
    val: the queries, of the same data set.
    findings: of one network or several, for videos of `val`.
    columns: the label columns to judge by.
    num_queries: of all that each network has, evenly spread.
    num_neighbors: of each.
  """
  queries = common_queries(findings, val)
  rows = queries[retrieval.evenly_spread(num_queries, len(queries))]
  columns = _with_labels((train, val), columns)
  headings = [found.heading for found in findings]
  strips = {int(row): film_strip(val, row, columns) for row in rows}
  return gallery.Page(
    title=f'Nearest training videos: {" beside ".join(headings)}',
    introduction=_introduction(len(queries), findings, columns),
    tables=[_table(findings, column) for column in columns],
    queries=_queries(train, strips, findings, columns, num_neighbors),
    label_columns=columns,
    facts=_facts(findings),
    table_caption=_table_caption(findings[0].result['settings']),
    query_caption=(
      f'{_which_are_shown(len(rows), len(queries))} Below each are the '
      'training videos that a network places nearest, the nearest first, with '
      'the cosine similarity of the two embeddings (1 is identical). '
      f'{PICTURES}'
    ),
  )


def query_page(
  train: FrameStore,
  own: FrameStore,
  found: Findings,
  *,
  columns: Sequence[str],
  title: str,
  names: Sequence[str],
  num_queries: int,
  num_neighbors: int,
) -> gallery.Page:
  """Shows videos of the user's own beside what the network places nearest.

  Args:
    train: the training videos.
    own: the videos, without labels.
    found: for all of them.
    columns: the label columns of the training videos.
    title: name of the file or folder that they are from.
    names: of the videos.
    num_queries: to show, evenly spread over the videos.
    num_neighbors: of each.
  """
  columns = _with_labels((train,), columns)
  rows = retrieval.evenly_spread(num_queries, own.num_videos)
  strips = {
    int(row): dataclasses.replace(film_strip(own, row, ()), caption=names[row])
    for row in rows
  }
  return gallery.Page(
    title=f'Nearest training videos of {title}',
    introduction=_introduction_of_own(found, columns),
    queries=_queries(train, strips, [found], columns, num_neighbors),
    label_columns=columns,
    facts=_facts([found]),
    query_caption=(
      f'{_which_of_own(len(rows), own.num_videos)} the training videos placed '
      'nearest, the nearest first, with the cosine similarity of the two '
      f'embeddings (1 is identical). {PICTURES}'
    ),
  )


def write(folder: pathlib.Path, page: gallery.Page) -> None:
  """Writes a page to `index.html` of a folder."""
  gallery.write_html(folder / FILE, page, image_budget=IMAGE_BUDGET)


def _with_labels(
  stores: Sequence[FrameStore], columns: Sequence[str]
) -> list[str]:
  """The columns in which each of the stores has a label."""
  return [
    column
    for column in columns
    if all((store.label(column)[0] >= 0).any() for store in stores)
  ]


def _introduction_of_own(found: Findings, columns: Sequence[str]) -> list[str]:
  num_videos = recall_figures.num_compared(found.result)
  paragraphs = [
    f'The most similar of {counted(num_videos, "training video")} of '
    f'{found.result["dataset"]["name"]}, as {found.heading} places them. '
    + (
      'True labels are not known here, so that nothing is right or wrong.'
      if columns
      else 'None of them has a label.'
    )
  ]
  if skipped := found.result['skipped']:
    named = [f'{each["path"]}: {each["reason"]}' for each in skipped[:_NAMED]]
    if len(skipped) > _NAMED:
      named.append(f'and {len(skipped) - _NAMED:,} more, see result.json')
    paragraphs.append(f'Left out, as they cannot be used: {"; ".join(named)}.')
  return paragraphs


def _which_of_own(num_shown, num_videos):
  if num_videos == 1:
    return 'Below the video are'
  if num_shown == num_videos:
    return f'All {num_videos:,} videos. Below each are'
  return (
    f'{num_shown} of {num_videos:,} videos, evenly spread over the list; those '
    'of the others are in result.json. Below each are'
  )


def _which_are_shown(num_shown, num_videos):
  if num_videos == 1:
    return 'The one validation video.'
  if num_shown == num_videos:
    return f'All {num_videos:,} validation videos.'
  return (
    f'{num_shown} of the validation videos, evenly spread over the list and not '
    'picked by hand.'
  )


def _introduction(num_queries, findings, columns) -> list[str]:
  own = findings[0].result
  dataset, left_out = own['dataset'], own.get('left_out', {})
  counts = {recall_figures.num_compared(found.result) for found in findings}
  trained = (
    counted(max(counts), 'training video')
    if len(counts) == 1
    else 'the training videos'
  )
  clips = findings[0].result['views']['clips']
  embedding = (
    f'the mean embedding of {clips} clips' if clips > 1 else 'a vector'
  )
  paragraphs = [
    f'{counted(num_queries, "validation video")} of the data set '
    f'{dataset["name"]} {chosen(num_queries, "was", "were")} looked up among '
    f'{trained}. Each video is '
    f'{embedding}; the nearest ones are those at the smallest angle.'
  ]
  if columns:
    paragraphs.append(
      'A label predicted for a video is the one for which its nearest training '
      'videos vote, nearer ones counting more.'
    )
  else:
    paragraphs.append(
      'The videos have no labels, so that nothing here is right or wrong.'
    )
  if any(left_out.values()):
    paragraphs.append(
      'Left out, without a frame that can be read and decoded: '
      f'{left_out["train"]:,} training and '
      f'{counted(left_out["val"], "validation video")}.'
    )
  return paragraphs


def _table_caption(settings: dict) -> str:
  return (
    'Recall@k is how often at least one of the k nearest training videos has '
    'the label of the video looked up; kNN top-1 is how often the label that '
    f'the {settings["num_voters"]} nearest vote for is the right one, by the '
    'mean embedding of each video; --mode=knn_eval has its clips vote one by '
    'one. Chance: neighbours drawn at random, and always naming the most '
    'frequent label, or guessing.'
  )


def _table(findings: Sequence[Findings], column: str) -> gallery.Table:
  """Recall and kNN accuracy of all networks on a column, beside chance."""
  own = findings[0].result
  fewest = min(recall_figures.num_compared(it.result) for it in findings)
  places = recall_figures.telling(list(own['recall'][column]), fewest)
  rows = []
  for found in findings:
    recall = found.result['recall'].get(column, {})
    # Results of before have it among fewer neighbours.
    recall = dict.fromkeys(places, '–') | recall if recall else recall
    accuracy = found.result['accuracy'].get(column, {}).get('knn', {})
    figures = [*(recall.get(k) for k in places), accuracy.get('top1')]
    rows.append([found.heading, *map(_percent, figures)])
  chance = [own['chance_recall'][column][k] for k in places]
  chance.append(own['chance'][column])
  rows.append(['chance', *(f'{100 * share:.1f}' for share in chance)])
  return gallery.Table(
    title=f'{column}, in %',
    header=['network', *(f'recall@{k}' for k in places), 'kNN top-1'],
    rows=rows,
    bar_maximum=100.0,
  )


def _percent(share: float | str | None) -> float | str:
  if isinstance(share, str):
    return share
  return 'not run' if share is None else 100 * share


def _facts(findings: Sequence[Findings]) -> dict[str, str]:
  """What a reader needs to repeat it."""
  own = findings[0].result
  facts = {
    'data set': (
      f'{own["dataset"]["name"]}, fingerprint '
      f'{own["dataset"]["fingerprint"][:12]}'
    )
  }
  for found in findings:
    network, settings = found.result['network'], found.result['settings']
    facts[found.heading] = (
      f'{network["name"]}, {network["training"].replace("_", " ")}, step '
      f'{network["step"]:,}, from {urls.shown(network["source"])}; '
      f'{counted(found.result["dataset"]["train"], "training video")}; kNN of '
      f'{settings["num_voters"]} at temperature {settings["temperature"]}'
    )
  hardware = own['hardware']
  return {
    **facts,
    'seed': str(own['seed']),
    'commit': own['commit'] or 'unknown',
    'device': f'{hardware["devices"]}, {counted(hardware["cores"], "core")}',
    'date': own['date'],
  }
