"""The rendered images: what they show, and how they are written."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import prepare
import pytest
from demo_data import demo_images, demo_videos
from PIL import Image

_NUM_CLASSES = len(demo_videos.APPEARANCES)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  directory = tmp_path_factory.mktemp('demo') / 'images'
  demo_images.write_image_folder(directory, seed=3, num_train=12, num_val=4)
  return directory


def _contents(directory):
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file()
  }


def test_an_image_is_a_frame_of_the_video_of_its_number():
  for index in range(3):
    frames, appearance, _ = demo_videos.render(index, seed=3)
    image, label = demo_images.render(index, seed=3)
    assert label == appearance
    assert (frames == image).all(axis=(1, 2, 3)).sum() == 1


def test_frames_are_not_all_of_the_same_time():
  times = set()
  for index in range(4):
    frames, _, _ = demo_videos.render(index, seed=3)
    image, _ = demo_images.render(index, seed=3)
    times |= set(np.flatnonzero((frames == image).all(axis=(1, 2, 3))))
  assert len(times) > 1


def test_no_image_is_from_a_video_of_another_seed():
  image, _ = demo_images.render(0, seed=1)
  for index in range(4):
    frames, _, _ = demo_videos.render(index, seed=0)
    assert np.abs(np.float32(frames) - image).mean(axis=(1, 2, 3)).min() > 10


def test_the_folder_has_a_subfolder_for_each_class(folder):
  for split, first, last in (('train', 0, 12), ('val', 12, 16)):
    found = {
      path.name: path.parent.name for path in (folder / split).glob('*/*.jpg')
    }
    wanted = {
      f'image_{i:04d}.jpg': demo_videos.APPEARANCES[demo_videos.labels(i, 3)[0]]
      for i in range(first, last)
    }
    assert found == wanted


def test_files_hold_nearly_the_rendered_images(folder):
  for path in folder.rglob('*.jpg'):
    image, _ = demo_images.render(int(path.stem.split('_')[1]), seed=3)
    decoded = np.asarray(Image.open(path), np.float32)
    assert decoded.shape == (demo_videos.HEIGHT, demo_videos.WIDTH, 3)
    luminance = np.abs((decoded - image) @ np.float32([0.299, 0.587, 0.114]))
    assert luminance.mean() < 4


def test_all_classes_are_in_both_splits_at_the_default_size():
  labels = [demo_videos.labels(index, seed=1)[0] for index in range(1200)]
  for split in (labels[:800], labels[800:]):
    counts = np.bincount(split, minlength=_NUM_CLASSES)
    assert counts.min() > 0.8 * len(split) / _NUM_CLASSES


def test_several_processes_write_the_same_bytes(folder, tmp_path):
  demo_images.write_image_folder(
    tmp_path / 'new', seed=3, num_train=12, num_val=4, num_processes=2
  )
  assert _contents(tmp_path / 'new') == _contents(folder)


def test_killed_writing_goes_on_where_it_was(folder, tmp_path):
  directory = tmp_path / 'killed'
  program = """
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    from demo_data import demo_images

    class Count:
      images = 0

      def __call__(self):
        self.images += 1
        if self.images == 5:
          os.kill(os.getpid(), signal.SIGKILL)

    demo_images.write_image_folder(
      sys.argv[2], seed=3, num_train=12, num_val=4, on_image=Count()
    )
  """
  folder_of_module = str(pathlib.Path(demo_images.__file__).parents[1])
  killed = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(program), folder_of_module]
    + [str(directory)],
    check=False,
  )
  assert killed.returncode == -signal.SIGKILL
  finished = {p: p.stat().st_mtime_ns for p in directory.rglob('*.jpg')}
  assert len(finished) == 5
  calls = []
  demo_images.write_image_folder(
    directory,
    seed=3,
    num_train=12,
    num_val=4,
    on_image=lambda: calls.append(1),
  )
  assert len(calls) == 16
  assert {p: p.stat().st_mtime_ns for p in finished} == finished
  assert _contents(directory) == _contents(folder)


def test_the_command_writes_the_same_and_can_be_given_again(folder, tmp_path):
  arguments = [
    'demo-images',
    f'--out={tmp_path / "new"}',
    '--seed=3',
    '--num-train=12',
    '--num-val=4',
    '--processes=1',
  ]
  assert prepare.main(arguments) == 0
  assert _contents(tmp_path / 'new') == _contents(folder)
  assert prepare.main(arguments) == 0


@pytest.mark.parametrize('change', ['--seed=4', '--num-val=5'])
def test_a_folder_of_other_images_is_refused(folder, change, capsys):
  before = _contents(folder)
  arguments = ['demo-images', f'--out={folder}', '--seed=3', '--num-train=12']
  assert prepare.main([*arguments, '--num-val=4', change]) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith('Error: ')
  assert 'name another' in error
  assert _contents(folder) == before


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  out = os.path.join(tmp_path, 'file', 'images')
  assert prepare.main(['demo-images', f'--out={out}']) == 2
  assert capsys.readouterr().err.strip().splitlines()[-1].startswith('Error: ')
