"""Damaged media files: no crash, no hang, nothing lost in silence."""

import collections

import damaged_files
import memory_use
import numpy as np
import pytest
import worker_functions
from media.video_frames import FrameOptions
from PIL import Image
from preparation import worker_pool

from vie_jax.input_pipeline import dataset_folder, image_folder, image_pipeline

_SEED = 0
_MIB = 2**20
_OPTIONS = FrameOptions(max_seconds=60, max_pixels=2**22)
# Its packets have no length in a header to compare with.
_WITHOUT_LENGTH = 'a.ts'


def _damaged_videos(folder, count):
  """Writes damaged videos; gives path -> the sound video it was made of."""
  (folder / 'sound').mkdir()
  (folder / 'damaged').mkdir()
  sources = damaged_files.write_sound_videos(folder / 'sound')
  found = {}
  for number in range(count):
    source = sources[number % len(sources)]
    path = folder / 'damaged' / f'{number:04d}{source.suffix}'
    content = damaged_files.damaged(
      source.read_bytes(), number // len(sources), seed=_SEED
    )
    path.write_bytes(content)
    found[str(path)] = source
  return found


def _decode_all(paths):
  with worker_pool.WorkerPool(
    worker_functions.decode,
    num_processes=2,
    timeout_seconds=20,
    max_stall_seconds=20,
    max_memory_bytes=2**30,
  ) as pool:
    tasks = [(str(path), _OPTIONS) for path in paths]
    return {task[0]: outcome for task, outcome in pool.run(tasks)}


def _check_videos(folder, count):
  source_of = _damaged_videos(folder, count)
  sound = _decode_all(set(source_of.values()))
  assert all(not o.warnings and not o.reason for o in sound.values())
  outcomes = _decode_all(source_of)
  tally = collections.Counter()
  for path, outcome in outcomes.items():
    # Anything else is a crash or a hang.
    assert isinstance(outcome, worker_functions.Decoded), (path, outcome)
    source = source_of[path]
    if outcome.reason:
      tally['refused'] += 1
      continue
    is_whole = outcome.num_pictures >= sound[str(source)].num_pictures
    kind = 'whole' if is_whole else 'part'
    tally[f'{kind}, {"reported" if outcome.warnings else "not reported"}'] += 1
    if not is_whole and source.name != _WITHOUT_LENGTH:
      assert outcome.warnings, path
  slowest = max(outcome.processor_seconds for outcome in outcomes.values())
  rise = max(outcome.risen_bytes for outcome in outcomes.values())
  assert rise <= 300 * _MIB
  assert slowest <= 1
  print(
    f'{count} videos: {dict(tally)}; slowest {slowest:.2f} s, most memory '
    f'{rise / _MIB:.0f} MiB more'
  )
  assert {'refused', 'part, reported'} <= tally.keys()


def _sound_images(folder):
  pixels = np.random.default_rng(0).integers(0, 60, (60, 80, 3), dtype=np.uint8)
  pixels += np.arange(80, dtype=np.uint8)[:, np.newaxis]
  for suffix in ('jpg', 'png', 'gif', 'bmp'):
    Image.fromarray(pixels).save(folder / f'0.{suffix}')
  return sorted(folder.iterdir())


def _check_images(folder, count):
  sources = _sound_images(folder)
  for number in range(count):
    source = sources[number % len(sources)]
    (folder / f'{number + 1:04d}{source.suffix}').write_bytes(
      damaged_files.damaged(
        source.read_bytes(), number // len(sources), seed=_SEED
      )
    )
  refused = {}
  with image_folder.open_flat(str(folder)) as images:
    names = [images.names(index) for index in range(images.num_images)]
    for index, name in enumerate(names):
      if index == len(sources):
        # The sound ones come first.
        assert not refused
        memory_use.forget_most_bytes()
        most_before = memory_use.most_bytes()
      with image_pipeline.eval_batches(
        images, size=16, short_side=16, batch_size=1, start_step=index
      ) as batches:
        try:
          assert next(batches)['window'].shape == (1, 1, 16, 16, 3)
        except dataset_folder.DatasetError as error:
          refused[name] = str(error)
  rise = memory_use.most_bytes() - most_before
  assert rise <= 300 * _MIB
  assert 0 < len(refused) < count
  for name, message in refused.items():
    assert repr(name) in message
    assert '\n' not in message
  print(
    f'{count} images: {len(refused)} refused; {rise / _MIB:.0f} MiB more memory'
  )


def test_some_damaged_videos_end_in_a_reason_or_a_report(tmp_path):
  _check_videos(tmp_path, 48)


def test_some_damaged_images_are_named(tmp_path):
  _check_images(tmp_path, 12)


@pytest.mark.slow
def test_a_thousand_damaged_videos_end_in_a_reason_or_a_report(tmp_path):
  _check_videos(tmp_path, 1820)


@pytest.mark.slow
def test_hundreds_of_damaged_images_are_named(tmp_path):
  _check_images(tmp_path, 280)
