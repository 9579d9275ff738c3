"""Embedding an array of clips, with weights under their official names."""

import json
import re

import numpy as np
import pytest
import tiny_run
from oracle import official, reference_network

from vie_jax import config_check, embed
from vie_jax.models import official_checkpoint

SIZES = {'width': 4, 'fast_width': 2}
# (network, official type, frames, side): of any size, and not the config's.
CASES = [
  ('vie_single', 'single', 1, 24),
  ('vie_slow', 'slow', 6, 40),
  ('vie_trn', 'trn', 4, 32),
]


def config_of(name, tmp_path, **changes):
  """The tiny config of a network, whose clips are in `clips.npz`."""
  frames = {'vie_single': 1, 'vie_slowfast': 8}.get(name, 4)
  settings = {
    'model__name': name,
    'clip__num_frames': frames,
    'clip__sampler': 'single' if frames == 1 else 'slow',
    'init_from': 'random',
    'embed__clips': str(tmp_path / 'clips.npz'),
    'embed__batch_size': 8,
  }
  return tiny_run.config('nowhere', **settings | changes)


def write_clips(tmp_path, *shape):
  clips = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  np.savez(tmp_path / 'clips.npz', clips=clips)
  return clips


def write_official(tmp_path, kind):
  listing = reference_network.variable_shapes(kind, **SIZES)
  arrays = {name: official.weights(name, shape) for name, shape in listing}
  np.savez(tmp_path / 'official.npz', **arrays)
  return arrays


@pytest.mark.parametrize('name,kind,frames,side', CASES)
def test_embeddings_are_those_of_the_official_network(
  tmp_path, name, kind, frames, side
):
  # More than a batch of 8, and the last one not full.
  clips = write_clips(tmp_path, 11, frames, side, side + 8, 3)
  arrays = write_official(tmp_path, kind)
  config = config_of(
    name, tmp_path, init_from=f'official:{tmp_path / "official.npz"}'
  )
  embed.embed(config, str(tmp_path / 'W'))
  found = np.load(tmp_path / 'W' / 'embed' / 'embeddings.npy')
  assert found.dtype == np.float32
  assert found.shape == (11, 128)
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
  expected = reference_network.forward(
    arrays, kind, clips, dtype='float64', **SIZES
  )
  np.testing.assert_allclose(found, expected.embedding, atol=1e-5)
  result = json.loads((tmp_path / 'W' / 'embed' / 'result.json').read_text())
  assert result['shape'] == [11, frames, side, side + 8, 3]
  assert result['init_from'].startswith('official:')


def test_embeddings_do_not_depend_on_the_batch_size(tmp_path):
  write_clips(tmp_path, 9, 1, 32, 32, 3)
  results = [
    embed.embed(
      config_of(
        'vie_single', tmp_path, embed__batch_size=size, num_devices=devices
      ),
      str(tmp_path / 'W'),
    )
    for size, devices in ((64, 1), (4, 2))
  ]
  np.testing.assert_allclose(*results, atol=1e-5)


def refusal(config, tmp_path):
  with pytest.raises((embed.ClipsError, config_check.ConfigError)) as error:
    embed.embed(config, str(tmp_path / 'W'))
  assert not (tmp_path / 'W').exists()
  return str(error.value)


def test_no_file_is_refused_by_the_field_that_names_it(tmp_path):
  config = config_of('vie_single', tmp_path, embed__clips='')
  assert 'config.embed.clips is empty' in refusal(config, tmp_path)
  message = refusal(config_of('vie_single', tmp_path), tmp_path)
  assert f'There is no file {tmp_path / "clips.npz"}' in message


@pytest.mark.parametrize(
  'array,words',
  [
    (np.zeros((2, 1, 32, 32, 3), np.float32), 'float32'),
    (np.zeros((2, 32, 32, 3), np.uint8), r'\[2, 32, 32, 3\]'),
    (np.zeros((2, 1, 32, 32, 4), np.uint8), r'\[2, 1, 32, 32, 4\]'),
    (np.zeros((0, 1, 32, 32, 3), np.uint8), 'no clips'),
    (np.array([None]), 'plain arrays'),
  ],
)
def test_other_arrays_are_refused(tmp_path, array, words):
  path = tmp_path / 'clips.npz'
  np.savez(path, clips=array)
  message = refusal(config_of('vie_single', tmp_path), tmp_path)
  assert str(path) in message
  assert re.search(words, message)


def test_files_of_another_kind_are_refused(tmp_path):
  path = tmp_path / 'clips.npz'
  config = config_of('vie_single', tmp_path)
  np.savez(path, frames=np.zeros((2, 1, 32, 32, 3), np.uint8))
  assert "no array named 'clips'" in refusal(config, tmp_path)
  with path.open('wb') as file:
    np.save(file, np.zeros((2, 1, 32, 32, 3), np.uint8))
  assert "no array named 'clips'" in refusal(config, tmp_path)
  path.write_bytes(b'not an archive at all')
  assert str(path) in refusal(config, tmp_path)
  write_clips(tmp_path, 2, 1, 32, 32, 3)
  path.write_bytes(path.read_bytes()[:-500])
  assert str(path) in refusal(config, tmp_path)
  np.savez_compressed(path, clips=np.zeros((2, 1, 32, 32, 3), np.uint8))
  content = bytearray(path.read_bytes())
  middle = len(content) // 3
  content[middle : middle + 4] = b'\xff\xff\xff\xff'
  path.write_bytes(content)
  assert str(path) in refusal(config, tmp_path)


@pytest.mark.parametrize(
  'name,frames,words',
  [
    ('vie_trn', 5, 'made for 4'),
    ('vie_slowfast', 6, 'multiple of config.model.alpha, 4'),
  ],
)
def test_clips_that_the_network_cannot_take_are_refused(
  tmp_path, name, frames, words
):
  write_clips(tmp_path, 2, frames, 32, 32, 3)
  assert words in refusal(config_of(name, tmp_path), tmp_path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
  write_clips(tmp_path, 2, 1, 32, 32, 3)
  write_official(tmp_path, 'slow')
  config = config_of(
    'vie_single', tmp_path, init_from=f'official:{tmp_path / "official.npz"}'
  )
  with pytest.raises(
    official_checkpoint.OfficialCheckpointError, match='vie_slow'
  ):
    embed.embed(config, str(tmp_path / 'W'))
