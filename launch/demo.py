"""The demo: renders videos, trains two networks, shows what they learned.

  make demo

or, with the package installed, `python launch/demo.py`. It runs the ordinary
commands and prints each of them; a second call trains no further, but only
evaluates and writes the page anew.
The result is demo/index.html, and the same as a picture, demo/demo.png.
"""

import io
import os
import pathlib
import platform
import shlex
import signal
import subprocess
import sys
import time

# TensorFlow, which clu brings in, need not talk about itself.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

# Python may be told not to look beside a script.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import jax
import numpy as np
from job.repository import REPOSITORY
from PIL import Image

from vie_jax import code_version, option_parser
from vie_jax.evaluation import gallery, gallery_png
from vie_jax.input_pipeline import frame_store
from vie_jax.results import result
from vie_jax.standard_output import say
from vie_jax.telemetry import metrics_file

MODELS = {'single': 'VIE-Single', 'slowfast': 'VIE-SlowFast'}
LABELS = ('appearance', 'motion')
# Folders of results: of what data set, compared with what, of whose weights.
TRAINED, UNTRAINED = 'demo_clips', 'demo_random'
NUM_QUERIES = 24
FRAMES_SHOWN = 8
# One validation video in five: enough for a figure that means something.
VAL_PERCENT = 20


def run(*command: str) -> None:
  """Runs a command from the repository's root, showing it first.

  SIGTERM is passed on to it, and the terminal sends Ctrl-C to it by itself: a
  training saves what it has, and this program ends when it does.

  Raises:
    SystemExit: with the command's exit code, if it fails.
  """
  say(f'\n$ python {shlex.join(command)}')
  process = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY)
  handlers = {
    signal.SIGTERM: lambda number, unused_frame: process.send_signal(number),
    signal.SIGINT: signal.SIG_IGN,
  }
  before = {
    number: signal.signal(number, handler)
    for number, handler in handlers.items()
  }
  try:
    code = process.wait()
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  if code:
    sys.exit(code)


def train(folder: pathlib.Path, model: str, overrides: list[str]) -> None:
  """Trains a network and evaluates it, trained and at initialisation."""
  common = (
    'main.py',
    f'--config=configs/demo.py:{model}',
    f'--workdir={folder / model}',
    f'--config.dataset.dir={folder / "data"}',
    *overrides,
  )
  started = time.monotonic()
  run(*common)
  run(*common, '--mode=knn_eval')
  run(*common, '--mode=knn_eval', '--config.init_from=random')
  say(f'{MODELS[model]}: {time.monotonic() - started:.0f} s.')


def evaluation_of(
  folder: pathlib.Path, model: str, *, is_trained: bool = True
) -> dict:
  """Reads what the kNN evaluation of a network wrote."""
  name = TRAINED if is_trained else UNTRAINED
  return result.read(folder / model / 'knn_eval' / name / result.FILE)


def percent(evaluation: dict, label: str) -> float:
  """Video top-1 accuracy, in percent."""
  return 100 * evaluation['accuracy'][label]['knn']['top1']


def accuracy_table(folder: pathlib.Path) -> gallery.Table:
  """kNN accuracy of both networks, trained and not, beside chance."""
  rows = []
  for model, name in MODELS.items():
    trained = evaluation_of(folder, model)
    untrained = evaluation_of(folder, model, is_trained=False)
    rows.append([name, *(percent(trained, label) for label in LABELS)])
    name = f'{name}, untrained'
    rows.append([name, *(percent(untrained, label) for label in LABELS)])
  chance = [f'{100 * trained["chance"][label]:.1f}' for label in LABELS]
  videos = trained['dataset']
  return gallery.Table(
    title='kNN accuracy on videos that were not trained on, in %',
    header=['network', 'what moves', 'how it moves'],
    rows=[*rows, ['chance', *chance]],
    note=(
      f'{videos["val"]} test videos against {videos["train"]} training '
      f'videos, {trained["views"]["clips"]} clips each, k = '
      f'{trained["settings"]["num_neighbors"]}. '
      'Untrained: the same network as it was initialised.'
    ),
    bar_maximum=100.0,
  )


def findings(folder: pathlib.Path) -> list[str]:
  """The claims of the demo, in the figures of this run, whatever they are."""
  trained = {m: evaluation_of(folder, m) for m in MODELS}
  untrained = {m: evaluation_of(folder, m, is_trained=False) for m in MODELS}
  sentences = []
  for label, words in zip(LABELS, ('what moves', 'how it moves'), strict=True):
    changes = ', '.join(
      f'{name} from {percent(untrained[model], label):.0f} to '
      f'{percent(trained[model], label):.0f} %'
      for model, name in MODELS.items()
    )
    sentences.append(f'Training took accuracy on {words}: {changes}.')
  motion = {m: percent(trained[m], 'motion') for m in MODELS}
  verb = 'does' if motion['slowfast'] > motion['single'] else 'does not do'
  return [
    *sentences,
    'VIE-Single sees one frame at a time, and no single frame tells the '
    f'motion; VIE-SlowFast sees several, and {verb} better on how things '
    f'move: {motion["slowfast"]:.0f} % against {motion["single"]:.0f} %.',
  ]


def curves(folder: pathlib.Path) -> list[gallery.Curve]:
  """Accuracy and loss of both networks over training."""
  chance = evaluation_of(folder, 'single')['chance']
  pictures = []
  for label, title in zip(LABELS, ('what moves', 'how it moves'), strict=True):
    series = {}
    for model, name in MODELS.items():
      steps, values = metrics_file.curve(folder / model, f'knn/{label}_top1')
      series[name] = (steps, [100 * value for value in values])
    pictures.append(
      gallery.Curve(
        title=f'kNN accuracy, {title}',
        y_label='%',
        series=series,
        references={'chance': 100 * chance[label]},
      )
    )
  loss = {
    name: metrics_file.curve(folder / model, 'train/loss')
    for model, name in MODELS.items()
  }
  pictures.append(
    gallery.Curve(
      title='training loss: IR, then LA',
      y_label='nats',
      series=loss,
    )
  )
  return pictures


def film_strip(store: frame_store.FrameStore, index: int) -> gallery.FilmStrip:
  """Evenly spread frames of a video, with its labels."""
  numbers = np.linspace(0, store.num_frames[index] - 1, FRAMES_SHOWN).astype(
    int
  )
  frames = [
    np.asarray(Image.open(io.BytesIO(jpeg)).convert('RGB'))
    for jpeg in store.read_frames(index, numbers)
  ]
  labels = {}
  for column in store.label_columns:
    values, names = store.label(column)
    if values[index] >= 0:
      labels[column] = names[values[index]]
  return gallery.FilmStrip(np.stack(frames), store.paths[index], labels)


def queries(
  folder: pathlib.Path,
  train_store: frame_store.FrameStore,
  val_store: frame_store.FrameStore,
) -> list[gallery.Query]:
  """Evenly spread test videos and their neighbours in both networks."""
  found = {
    name: np.load(
      folder / model / 'knn_eval' / TRAINED / 'neighbors.npz',
      allow_pickle=False,
    )
    for model, name in MODELS.items()
  }
  # Both leave out the same videos, if any.
  ids = next(iter(found.values()))['query_ids'].astype(str).tolist()
  found = {
    name: (arrays['index'], arrays['similarity'])
    for name, arrays in found.items()
  }
  count = min(NUM_QUERIES, len(ids))
  shown = []
  for query in np.arange(count) * len(ids) // count:
    neighbors = {
      name: [
        gallery.Neighbor(film_strip(train_store, int(i)), float(s))
        for i, s in zip(index[query], similarity[query], strict=True)
      ]
      for name, (index, similarity) in found.items()
    }
    video = val_store.ids.index(ids[query])
    shown.append(gallery.Query(film_strip(val_store, video), neighbors))
  return shown


def facts(folder: pathlib.Path, seconds: float) -> dict[str, str]:
  """What a reader needs to repeat the run."""
  trained = evaluation_of(folder, 'slowfast')
  return {
    'commit': code_version.commit() or 'unknown',
    'steps': (
      f'{trained["network"]["step"]}, batches of '
      f'{trained["config"]["batch_size"]}'
    ),
    'seed': str(trained['config']['seed']),
    'data': f'fingerprint {trained["dataset"]["fingerprint"][:12]}',
    'device': (
      f'{jax.default_backend()}, {os.cpu_count()} cores, '
      f'{platform.machine()}, jax {jax.__version__}'
    ),
    'time of this call': f'{seconds / 60:.1f} minutes',
  }


def write_page(folder: pathlib.Path, started: float) -> gallery.Page:
  """Writes demo/index.html and demo/demo.png."""
  with (
    frame_store.FrameStore.open(folder / 'data', 'train') as train_store,
    frame_store.FrameStore.open(folder / 'data', 'val') as val_store,
  ):
    shown = queries(folder, train_store, val_store)
  page = gallery.Page(
    title='What two networks learned from unlabelled video',
    introduction=[
      'Every video shows one of eight textures, moving in one of nine ways. '
      'Two small networks were trained by Video Instance Embedding, which '
      'sees no label: to tell the videos apart (Instance Recognition), then '
      'to gather similar ones (Local Aggregation).',
      *findings(folder),
    ],
    tables=[accuracy_table(folder)],
    curves=curves(folder),
    queries=shown,
    label_columns=LABELS,
    facts=facts(folder, time.monotonic() - started),
    curve_caption=(
      'The same networks while they train. Here a training video is its row of '
      'the memory bank; in the table it is the mean of its clips, because an '
      'untrained network has no memory bank.'
    ),
    query_caption=(
      'Test videos evenly spread over the list, not picked by hand. Below '
      'each are the three training videos that each network places nearest, '
      'the nearest first, with the cosine similarity of the two embeddings '
      '(1 is identical).'
    ),
  )
  gallery.write_html(folder / 'index.html', page)
  gallery_png.write_png(folder / 'demo.png', page)
  return page


def print_table(table: gallery.Table) -> None:
  """Prints a table for the terminal."""
  say(f'\n{table.title}')
  for name, *values in [table.header, *table.rows]:
    cells = [v if isinstance(v, str) else f'{v:.1f}' for v in values]
    say(f'  {name:34}' + ''.join(f'{cell:>14}' for cell in cells))


def main() -> None:
  """Runs the demo."""
  parser = option_parser.OptionParser(
    description=(__doc__ or '').split('\n')[0],
    epilog='Further arguments go to main.py: --config.num_steps=100',
  )
  parser.add_argument(
    '--out', default='demo', help='where everything goes (demo)'
  )
  parser.add_argument(
    '--num-videos', type=int, default=1000, help='videos to render (1000)'
  )
  options, overrides = parser.parse_known_args()
  started = time.monotonic()
  folder = REPOSITORY / options.out
  run(
    'data/prepare.py',
    'demo',
    f'--out={folder / "data"}',
    f'--num-videos={options.num_videos}',
    f'--val-percent={VAL_PERCENT}',
  )
  for model in MODELS:
    train(folder, model, overrides)
  page = write_page(folder, started)
  print_table(page.tables[0])
  say('\n' + '\n'.join(findings(folder)))
  seconds = time.monotonic() - started
  say(f'\n{seconds / 60:.1f} minutes. Open {folder / "index.html"}')


if __name__ == '__main__':
  main()
