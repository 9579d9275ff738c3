"""The page of a data set: facts, clips, duplicates, hostile names."""

import base64
import html
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import sys

import av
import chromium
import jax
import numpy as np
import prepare
import pytest
import sample_videos
import tiny_run
from pages import network_clips, show_dataset
from PIL import Image

from vie_jax import device_augment
from vie_jax.input_pipeline import frame_store, instances, pipeline

CONFIG = str(tiny_run.REPOSITORY / 'configs' / 'demo.py')
HOSTILE = (
  '<script>window.owned=1<⁄script>.mp4',
  '"><img src=x onerror=window.owned=1>.mp4',
  "{{ 7*7 }}{% raw %}' onload='window.owned=1.mp4",
  'right \u202egpj.exe\u202c to left.mp4',
  '&lt;b&gt; & more.mp4',
)
COPIED = 'video_0002.mp4'


def re_encode(source, target, size):
  """Writes a video again, at another size and quality."""

  with av.open(str(source)) as container:
    frames = [f.to_image() for f in container.decode(video=0)]
  frames = np.stack([np.asarray(frame.resize(size)) for frame in frames])
  sample_videos.write(target, frames, options={'crf': '30'})


def mirror(source, target):
  """Writes a video again, mirrored left to right."""
  with av.open(str(source)) as container:
    frames = [f.to_ndarray(format='rgb24') for f in container.decode(video=0)]
  frames = np.stack(frames)[:, :, ::-1]
  sample_videos.write(target, frames, options={'crf': '23'})


def show(directory, page, *arguments, network='single'):
  return prepare.main(
    ['show', str(directory), '--out', str(page)]
    + [f'--config={CONFIG}:{network}', '--num-clips=2', *arguments]
  )


@pytest.fixture(scope='module')
def prepared(demo_dataset, tmp_path_factory):
  """Nine rendered videos under odd names, copies, and black videos."""
  folder = tmp_path_factory.mktemp('odd')
  rendered = demo_dataset.with_name('demo-videos')
  videos = folder / 'videos'
  videos.mkdir()
  for number, name in enumerate((*HOSTILE, 'a.mp4', 'b.mp4', 'c.mp4', 'd.mp4')):
    shutil.copy(rendered / f'video_{number:04d}.mp4', videos / name)
  shutil.copy(videos / 'a.mp4', videos / 'copy of a.mp4')
  re_encode(videos / 'b.mp4', videos / 'small b.mp4', (60, 48))
  re_encode(videos / 'c.mp4', videos / 'large c.mp4', (120, 96))
  mirror(videos / 'd.mp4', videos / 'mirrored d.mp4')
  for number in range(3):
    black = np.zeros((10 + number, 48, 64, 3), np.uint8)
    sample_videos.write(videos / f'black {number}.mp4', black)
  shutil.copy(videos / 'black 0.mp4', videos / 'black again.mp4')
  (videos / 'no <video>.mp4').write_text('not a video')
  (videos / os.fsdecode(b'bad \xff\xfe.mp4')).write_bytes(b'')
  val = ['copy of a.mp4', 'small b.mp4', 'black 1.mp4', 'black again.mp4']
  val.append('mirrored d.mp4')
  names = [p.name for p in videos.iterdir() if b'\xff' not in os.fsencode(p)]
  (folder / 'val.txt').write_text('\n'.join(val))
  train = [*(set(names) - set(val)), 'bad \\xff\\xfe.mp4']
  (folder / 'train.txt').write_text('\n'.join(train))
  with open(videos / 'labels.csv', 'w') as file:
    file.write('path,<i>kind</i>\na.mp4,<b>&\nb.mp4,plain\n')
  tiny_run.prepare(
    'folder',
    f'--videos={videos}',
    f'--out={folder / "out"}',
    f'--train-list={folder / "train.txt"}',
    f'--val-list={folder / "val.txt"}',
    '--processes=2',
  )
  return folder / 'out'


@pytest.fixture(scope='module')
def page(prepared, tmp_path_factory):
  """The page of it, and what the command said: (path, text, messages)."""
  path = tmp_path_factory.mktemp('page') / 'new' / 'page.html'
  done = subprocess.run(
    [sys.executable, str(prepare.__file__), 'show', str(prepared)]
    + [f'--out={path}', f'--config={CONFIG}:single', '--num-clips=12']
    + ['--seed=3', '--config.clip.num_eval_clips=2'],
    env=tiny_run.environment(),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return path, path.read_text(), done.stderr


class Addresses(html.parser.HTMLParser):
  """Collects what the elements of a page point to."""

  def __init__(self):
    super().__init__()
    self.found = []

  def handle_starttag(self, tag, attributes):
    self.found += [v for name, v in attributes if name in ('src', 'href')]


def pairs_of(text):
  """{(first, second): (where, kind and distance)} that a page shows."""
  found = {}
  for article in re.findall(r'<article class="pair.*?</article>', text, re.S):
    where, what = re.search(r'<b>(.*?)</b>(.*?)</p>', article).groups()
    names = re.findall(r'<figcaption>\w+: <bdi>(.*?)</bdi>', article)
    pair = tuple(map(html.unescape, names))
    assert pair not in found
    found[pair] = where, what.strip()
  return found


def test_copies_are_found_across_the_splits_and_within(page):
  found = pairs_of(page[1])
  assert set(found) == {
    ('a.mp4', 'copy of a.mp4'),
    ('b.mp4', 'small b.mp4'),
    ('c.mp4', 'large c.mp4'),
    ('d.mp4', 'mirrored d.mp4'),
    ('black 0.mp4', 'black again.mp4'),
  }
  across = 'across train and val'
  where, what = found['a.mp4', 'copy of a.mp4']
  assert (where, what) == (across, 'same file, distance 0 of 192 bits')
  where, what = found['b.mp4', 'small b.mp4']
  assert where == across
  assert what.startswith('look alike')
  where, what = found['d.mp4', 'mirrored d.mp4']
  assert where == across
  assert what.startswith('look alike, mirrored')
  where, what = found['c.mp4', 'large c.mp4']
  assert where == 'within train'
  assert what.startswith('look alike')


def test_black_videos_are_paired_by_checksum_alone_and_that_is_said(page):
  _, what = pairs_of(page[1])['black 0.mp4', 'black again.mp4']
  assert what == 'same file, distance 0 of 192 bits; nothing to see in either'
  assert '4 videos show nothing to compare by' in page[1]


def test_duplicates_across_the_splits_are_warned_about(page):
  warning = (
    'Of 5 validation videos 2 are also in train, 1 looks like one of train, '
    'and 1 like a mirrored one. Nothing, such as black, is to be seen in 1.'
  )
  assert f'WARNING: {warning}' in page[2]
  assert warning in page[1]
  assert page[1].index(warning) < page[1].index('id="facts"')


def test_names_are_escaped_and_nothing_is_fetched(page):
  text = page[1]
  assert '<script' not in text.lower()
  assert '<img src=x' not in text
  assert '<b>&' not in text
  assert '<i>kind' not in text
  assert '\u202e' not in text
  assert '\\u202egpj.exe\\u202c' in text
  assert '&lt;script&gt;window.owned=1' in text
  assert '{{ 7*7 }}{% raw %}' in text
  assert 'no &lt;video&gt;.mp4' in text
  assert 'bad \\xff\\xfe.mp4: ' in html.unescape(
    re.sub('</?bdi>', '', text).replace('\\\\', '\\')
  )
  assert "default-src 'none'; img-src data:" in html.unescape(text)
  addresses = Addresses()
  addresses.feed(text)
  assert len(addresses.found) > 40
  for address in addresses.found:
    assert address.startswith(('data:image/jpeg;base64,', '#'))


def test_facts_are_those_of_the_data_set(page, prepared):
  text = re.sub(r'\s+', ' ', re.sub(r'<[^>]*>', ' ', page[1]))
  manifest = json.loads((prepared / 'dataset.json').read_text())
  for split in ('train', 'val'):
    counts = manifest['splits'][split]
    row = f' {split} {counts["videos"]} {counts["frames"]:,} '
    assert row in text
  assert manifest['fingerprint'] in text
  assert 'without a label are 10 of train and 5 of val' in text
  assert '2 classes have no video in val' in text
  assert '80 × 64 11' in text
  assert 'Skipped: 2' in text


@pytest.fixture(scope='module')
def page_of_a_list(tmp_path_factory):
  """The page of three videos, one of 1,000 frames, and of a list of more."""
  folder = tmp_path_factory.mktemp('list')
  for seed, name in enumerate(('long', 'short', 'other')):
    frames = sample_videos.moving(1000 if name == 'long' else 20, seed=seed)
    sample_videos.write(folder / f'{name}.mp4', frames)
  rows = ['long.mp4,a,train,x', 'short.mp4,a,train,x', 'other.mp4,a,val,x']
  rows += ['gone <b>.mp4,a,train,x', 'gone of none.mp4,a,,x']
  (folder / 'list.csv').write_text('\n'.join(['path,label,split,note', *rows]))
  tiny_run.prepare(
    'list', f'--list={folder / "list.csv"}', f'--out={folder / "out"}'
  )
  assert show(folder / 'out', folder / 'page.html') == 0
  return (folder / 'page.html').read_text()


def test_missing_files_are_named(page_of_a_list):
  text = re.sub(r'\s+', ' ', page_of_a_list)
  assert '<h3>Missing: 2</h3>' in text
  assert '<bdi>gone &lt;b&gt;.mp4</bdi>: train</li>' in text
  assert '<bdi>gone of none.mp4</bdi></li>' in text


def test_one_is_one_and_nothing_is_left_out(page_of_a_list):
  text = re.sub(r'\s+', ' ', re.sub(r'<[^>]*>', ' ', page_of_a_list))
  assert '0 skipped, 2 missing, 1 warning ' in text
  assert 'label (1 class)' in text
  assert 'other kinds' not in text
  assert not re.search(r' 1 (warnings|videos|classes)', text)


def test_the_last_label_of_an_axis_has_room(page_of_a_list):
  _, _, width, _ = re.search(r'viewBox="([^"]*)"', page_of_a_list)[1].split()
  labels = re.findall(
    r'<text x="([^"]*)" [^>]*"middle">([^<]*)<', page_of_a_list
  )
  assert '1,000' in [label for _, label in labels]
  for x, label in labels:
    # Digits of this font are about 7 wide.
    assert float(x) + 7 * len(label) / 2 <= float(width)


def shown_frames(text, part):
  """Pictures and numbers of the frames under a heading of each video."""
  found = []
  for article in re.findall(r'<article class="clip".*?</article>', text, re.S):
    name = html.unescape(re.search('<h4><bdi>(.*?)</bdi>', article)[1])
    for block in re.findall(rf'>{part}[^<]*</p>(.*?</div>)', article, re.S):
      for data, number in re.findall(
        r'base64,([^"]*)"[^>]*><figcaption>(\d+)', block
      ):
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        found.append((name, int(number), np.asarray(picture)))
  return found


def restored(normalised):
  """Undoes the normalisation, by its definition."""
  mean = np.array([0.485, 0.456, 0.406])
  std = np.array([0.229, 0.224, 0.225])
  return np.rint((np.asarray(normalised) * std + mean) * 255)


def test_training_clips_shown_are_the_first_of_a_training(page, prepared):
  """Of a batch of all videos, where the page makes them one by one."""
  config = network_clips.read_config(f'{CONFIG}:single', [])
  with frame_store.FrameStore.open(prepared, 'train') as store:
    videos = instances.all_videos(store)
    options = {'clip': config.clip, 'crop': config.crop}
    with pipeline.train_batches(
      videos, batch_size=videos.num_instances, seed=3, **options
    ) as batches:
      batch = next(batches)
    shown = shown_frames(page[1], 'training')
    names = [store.paths[k] for k in batch['instance_index']]
    assert [name for name, _, _ in shown] == [
      show_dataset.printable(name) for name in names[:12]
    ]
    numbers = batch['frame_numbers'][:, 0].tolist()
    assert [number for _, number, _ in shown] == numbers[:12]
  augment = jax.jit(
    lambda key, window, crop: device_augment.augment(
      key, window, crop, size=config.crop.size, **config.augmentation
    )
  )
  for step, (_, _, picture) in enumerate(shown):
    key = jax.random.fold_in(jax.random.key(3), step)
    row = slice(step, step + 1)
    clip = augment(key, batch['window'][row], batch['crop'][row])
    difference = np.abs(restored(clip)[0, 0] - picture)
    # JPEG changes a little.
    assert difference.mean() < 3


@pytest.mark.parametrize('network', ['slowfast', 'single'])
def test_frames_equal_what_the_pipeline_gives(network, demo_dataset):
  config = network_clips.read_config(
    f'{CONFIG}:{network}', [f'--config.dataset.dir={demo_dataset}']
  )
  samples = network_clips.sample(
    config, seed=0, num_clips=2, progress=lambda number: None
  )
  assert [it.split for it in samples] == ['train', 'train', 'val', 'val']
  assert [it.train is None for it in samples] == [False, False, True, True]
  num_clips = config.clip.num_eval_clips
  with frame_store.FrameStore.open(demo_dataset, 'val') as store:
    options = {'clip': config.clip, 'crop': config.crop}
    with pipeline.eval_batches(
      instances.all_videos(store), batch_size=num_clips, **options
    ) as batches:
      expected = list(batches)
  for it in samples[2:]:
    batch = expected[it.video]
    clips = jax.jit(device_augment.center, static_argnames='size')(
      batch['window'], batch['crop'], size=config.crop.size
    )
    np.testing.assert_array_equal(
      [clip.frames for clip in it.evaluation], restored(clips)
    )
    np.testing.assert_array_equal(
      [clip.frame_numbers for clip in it.evaluation], batch['frame_numbers']
    )


def test_different_rendered_videos_are_no_duplicates(
  demo_dataset, tmp_path, capsys
):
  assert show(demo_dataset, tmp_path / 'p.html', network='slowfast') == 0
  text = (tmp_path / 'p.html').read_text()
  assert 'No two videos are the same or look alike.' in text
  assert 'WARNING' not in capsys.readouterr().err
  # Eight frames of each of two training clips, and of five evaluation clips
  # of two videos of both splits.
  assert text.count('alt="frame ') == 8 * (2 + 5 * 4)
  # All but the first of the five are folded away, or the page were very long.
  folded = re.findall(
    r'<details><summary>4 more</summary>.*?</details>', text, re.S
  )
  assert [part.count('alt="frame ') for part in folded] == [8 * 4] * 4


@pytest.fixture(scope='module')
def parts_page(tmp_path_factory):
  """The page of parts of three files, and what the command said."""
  folder = tmp_path_factory.mktemp('parts')
  noise = [
    Image.effect_noise((24, 16), 90).resize((96, 64)).convert('RGB')
    for _ in range(3)
  ]
  # Each third of it shows another picture, the last one the first again.
  frames = np.concatenate(
    [np.stack([np.asarray(noise[k])] * 50) for k in (0, 1, 0)]
  )
  sample_videos.write(folder / 'a.mp4', frames)
  sample_videos.write(folder / 'b.mp4', frames[::-1][:100])
  other = Image.effect_noise((24, 16), 90).resize((96, 64)).convert('RGB')
  sample_videos.write(folder / 'c.mp4', np.stack([np.asarray(other)] * 50))
  rows = [
    'a.mp4,train,0,1.8',
    'a.mp4,val,2.1,3.9',
    'a.mp4,val,4.1,5.9',
    'b.mp4,train,0,2.5',
    'b.mp4,val,1.5,4',
    # The whole file, and all of it.
    'c.mp4,train,,',
    'c.mp4,val,0,2',
  ]
  text = '\n'.join(['path,split,start,end', *rows])
  (folder / 'l.csv').write_text(text)
  tiny_run.prepare(
    'list', f'--list={folder / "l.csv"}', f'--out={folder / "o"}'
  )
  page = folder / 'p.html'
  done = subprocess.run(
    [sys.executable, str(prepare.__file__), 'show', str(folder / 'o')]
    + [f'--out={page}', f'--config={CONFIG}:single', '--num-clips=2'],
    env=tiny_run.environment(),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return page.read_text(), done.stderr


def test_parts_of_a_file_are_the_same_only_where_they_overlap(parts_page):
  found = pairs_of(parts_page[0])
  across = 'across train and val'
  assert found['b.mp4#t=0,2.5', 'b.mp4#t=1.5,4'] == (
    across,
    'overlapping parts of a file',
  )
  # Other times of it, and the same picture.
  where, what = found['a.mp4#t=0,1.8', 'a.mp4#t=4.1,5.9']
  assert where == across
  assert what.startswith('look alike')
  assert not any('a.mp4#t=2.1,3.9' in pair for pair in found)
  assert found['c.mp4', 'c.mp4#t=0,2'][1].startswith('same frames')


def test_parts_of_a_file_in_both_splits_have_a_warning_of_their_own(parts_page):
  for warning in (
    'Of 4 validation videos 2 are also in train, 1 looks like one of train',
    'Of 4 validation videos 2 are parts of a file of which other parts are in '
    'train, and may show',
  ):
    assert f'WARNING: {warning}' in parts_page[1]
    assert warning in parts_page[0]


def test_no_labels_an_empty_val_split_and_one_picture_are_fine(
  tmp_path, capsys
):
  (tmp_path / 'v').mkdir()
  still = np.asarray(Image.effect_noise((64, 48), 60).convert('RGB'))[None]
  sample_videos.write(tmp_path / 'v' / 'one.mp4', still)
  tiny_run.prepare(
    'folder',
    f'--videos={tmp_path / "v"}',
    f'--out={tmp_path / "o"}',
    '--val-percent=0',
  )
  assert show(tmp_path / 'o', tmp_path / 'p.html') == 0
  assert 'The val split holds no video.' in capsys.readouterr().err
  text = (tmp_path / 'p.html').read_text()
  assert 'The videos have no labels' in text
  assert text.count('alt="frame 0"') == 1 + 5


def test_classes_that_cannot_be_learnt_are_warned_about(tmp_path, capsys):
  (tmp_path / 'v').mkdir()
  for number, name in enumerate('abc'):
    frames = sample_videos.moving(5, seed=number)
    sample_videos.write(tmp_path / 'v' / f'{name}.mp4', frames)
  rows = ['a.mp4,train,cup', 'b.mp4,val,cup', 'c.mp4,val,<dog>']
  text = '\n'.join(['path,split,label', *rows])
  (tmp_path / 'v' / 'l.csv').write_text(text)
  tiny_run.prepare(
    'list', f'--list={tmp_path / "v" / "l.csv"}', f'--out={tmp_path / "o"}'
  )
  assert show(tmp_path / 'o', tmp_path / 'p.html') == 0
  warning = (
    "1 of 2 classes of 'label' has no training video ('<dog>'); it cannot be "
    'learnt.'
  )
  assert f'WARNING: {warning}' in capsys.readouterr().err
  text = (tmp_path / 'p.html').read_text()
  assert warning in html.unescape(text)
  assert '<dog>' not in text


def test_the_page_says_what_the_length_of_a_bar_of_labels_is(page):
  part = page[1].partition('<h2 id="labels">')[2].partition('<h2')[0]
  words = 'length of a bar is relative to the largest class of its split'
  assert words in part


def test_a_data_set_without_training_videos_has_a_page(tmp_path):
  (tmp_path / 'v').mkdir()
  sample_videos.write(tmp_path / 'v' / 'one.mp4', sample_videos.moving(5))
  tiny_run.prepare(
    'folder',
    f'--videos={tmp_path / "v"}',
    f'--out={tmp_path / "o"}',
    '--val-percent=100',
  )
  assert show(tmp_path / 'o', tmp_path / 'p.html') == 0
  assert 'There is no training video' in (tmp_path / 'p.html').read_text()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'directory': 'nothing'}, 'there is no directory'),
    ({'directory': 'empty'}, 'dataset.json is missing'),
    ({'--config': 'configs/none.py'}, 'there is no config configs/none.py.'),
    ({'--config': 'vie_single'}, 'there is no config vie_single (did you mean'),
    ({'--config': 'demo.py:single'}, '/configs/demo.py?).'),
    ({'--config': f'{CONFIG}:none'}, 'configs/demo.py:none does not exist'),
    ({'--config.nothing': '3'}, "the config has no field 'nothing'"),
    ({'--config.batch_size': 'many'}, 'batch_size'),
    ({'--config.crop.size': '999'}, 'crop.size is 999'),
    ({'--config.dataset.dir': 'other'}, 'dataset.dir=other cannot be given'),
    ({'--out': 'page.mp4'}, 'must end in .html'),
    ({'--out': 'folder.html'}, 'cannot write'),
    ({'--out': 'file/page.html'}, 'cannot write'),
  ],
)
def test_bad_input_is_one_line_and_code_2(
  change, message, demo_dataset, tmp_path, capsys, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  for folder in ('empty', 'folder.html'):
    (tmp_path / folder).mkdir()
  (tmp_path / 'file').touch()
  before = sorted(tmp_path.rglob('*'))
  options = {
    'directory': str(demo_dataset),
    '--out': 'page.html',
    '--config': f'{CONFIG}:single',
    **change,
  }
  directory = options.pop('directory')
  words = [f'{name}={value}' for name, value in options.items()]
  assert prepare.main(['show', directory, *words]) == 2
  error = capsys.readouterr().err
  assert error.startswith('Error: ')
  assert error.count('\n') == 1
  assert message in error
  # Neither a page nor a piece of one is left.
  assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize(
  ('directory', 'out', 'message'),
  [
    ('nothing', 'page.html', 'no directory nothing; name the --out of a'),
    ('.', 'page.html', 'dataset.json is missing: not a data set, or one whose'),
    ('.', 'page.mp4', '--out is page.mp4; its name must end in .html.'),
  ],
)
def test_what_cannot_be_shown_is_told_of_before_slow_imports(
  directory, out, message, tmp_path
):
  done = subprocess.run(
    [
      *(sys.executable, '-X', 'importtime', str(prepare.__file__)),
      *('show', directory, f'--out={out}'),
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  *imports, said = done.stderr.splitlines()
  assert done.returncode == 2
  assert said.startswith('Error: ')
  assert message in said
  assert any(line.endswith(' numpy') for line in imports)
  assert not any(line.endswith((' jax', ' tensorflow')) for line in imports)


def test_a_damaged_frame_is_named_and_not_the_end(
  demo_dataset, tmp_path, capsys
):
  out = shutil.copytree(demo_dataset, tmp_path / 'out')
  (shard,) = (out / 'val').glob('*.array_record')
  data = bytearray(shard.read_bytes())
  middle = len(data) // 2
  data[middle : middle + 40_000] = b'\0' * 40_000
  shard.write_bytes(data)
  code = show(out, tmp_path / 'p.html', '--num-clips=1')
  error = capsys.readouterr().err
  assert code == 0, error
  assert '1 video has frames that cannot be read' in error
  assert 'Frames that cannot be read:' in (tmp_path / 'p.html').read_text()


def test_damaged_frames_of_shown_clips_are_replaced_and_marked(
  demo_dataset, tmp_path, capsys
):
  out = shutil.copytree(demo_dataset, tmp_path / 'out')
  (shard,) = (out / 'val').glob('*.array_record')
  data = bytearray(shard.read_bytes())
  with frame_store.FrameStore.open(out, 'val') as store:
    numbers = range(1, int(store.num_frames[0]))
    for jpeg in store.read_frames(0, list(numbers)):
      # A part: blocks of the file have headers, also within a frame.
      data[data.index(jpeg[len(jpeg) // 2 :][:32])] ^= 4
  shard.write_bytes(data)
  code = show(out, tmp_path / 'p.html', '--num-clips=1', network='slowfast')
  assert code == 0, capsys.readouterr().err
  text = (tmp_path / 'p.html').read_text()
  *_, article = re.findall(r'<article class="clip".*?</article>', text, re.S)
  marks = re.findall(r'<b>Damaged:</b> (\d+) of these 8 frames', article)
  numbers = re.findall(r'<figcaption>(\d+)', article)
  is_bad = np.reshape([int(number) > 0 for number in numbers], (5, 8))
  assert [int(mark) for mark in marks] == is_bad.sum(axis=1).tolist()
  assert '<details open><summary>4 more' in article


def test_config_fields_are_for_show_alone(tmp_path, capsys):
  with pytest.raises(SystemExit) as error:
    prepare.main(['check', str(tmp_path), '--config.seed=1'])
  assert error.value.code == 2
  assert 'unrecognized arguments: --config.seed=1' in capsys.readouterr().err


@pytest.mark.skipif(
  not chromium.PATH,
  reason='needs an installed Chromium: chromium or google-chrome on PATH',
)
def test_a_browser_shows_it_whole_and_runs_no_name(page, tmp_path):
  browser = chromium.Browser(tmp_path / 'profile')
  try:
    for width in (360, 1280):
      tab = chromium.Tab(browser, page[0].as_uri(), width=width)
      assert tab.run('document.documentElement.scrollWidth') <= width
      assert tab.run('window.owned') is None
      assert tab.run('[...document.images].every((i) => i.naturalWidth)')
      assert tab.complaints() == []
      assert tab.requests() == [page[0].as_uri()]
  finally:
    browser.close()
