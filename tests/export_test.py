"""A network as one file: read by JAX alone, equal to --mode=embed."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
import tiny_run
from oracle import official, reference_network

from vie_jax import convert, embed, export, weights
from vie_jax.config import config_check
from vie_jax.results import result

FRAMES = {
  'vie_single': ('single', 1),
  'vie_3dresnet': ('3dresnet', 8),
  'vie_trn': ('trn', 4),
  'vie_slow': ('slow', 4),
  'vie_slowfast': ('slowfast', 8),
  'vie_twostream_s': ('slow', 4),
  'vie_twostream_sf': ('slowfast', 8),
}


def config_of(name, tmp_path, **changes):
  sampler, num_frames = FRAMES[name]
  settings = {
    'model__name': name,
    'clip__num_frames': num_frames,
    'clip__sampler': sampler,
    'init_from': 'random',
    'embed__clips': str(tmp_path / 'clips.npz'),
  }
  return tiny_run.config('nowhere', **settings | changes)


def write_clips(config, tmp_path, count=3):
  size = config.crop.size
  shape = (count, config.clip.num_frames, size, size, 3)
  clips = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
  np.savez(tmp_path / 'clips.npz', clips=clips)
  return clips


@pytest.mark.parametrize('name', FRAMES)
def test_the_file_embeds_as_the_mode_does(name, tmp_path):
  config = config_of(name, tmp_path)
  clips = write_clips(config, tmp_path)
  expected = embed.embed(config, str(tmp_path / 'W'))
  path = export.export(config, str(tmp_path / 'W'))
  exported = jax.export.deserialize(bytearray(path.read_bytes()))
  for count in (1, 3):
    found = exported.call(clips[:count])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[:count], atol=1e-6)
  facts = json.loads((path.parent / 'result.json').read_text())
  assert path.parent.name == f'{name}_random'
  assert facts['input']['shape'] == ['batch', *clips.shape[1:]]
  assert facts['output']['shape'] == ['batch', 128]
  assert facts['largest_difference'] < 1e-5
  assert facts['num_bytes'] == path.stat().st_size


def test_a_layer_has_a_file_of_its_own(tmp_path):
  config = config_of('vie_single', tmp_path, embed__layer='conv4')
  config.export.layer = 'conv4'
  clips = write_clips(config, tmp_path)
  expected = embed.embed(config, str(tmp_path / 'W'))
  path = export.export(config, str(tmp_path / 'W'))
  assert path.parent.name == 'vie_single_conv4_random'
  found = jax.export.deserialize(bytearray(path.read_bytes())).call(clips)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_it_needs_jax_alone(tmp_path):
  """In another process, with neither vie_jax nor Flax nor TensorFlow."""
  config = config_of('vie_slowfast', tmp_path)
  clips = write_clips(config, tmp_path)
  path = export.export(config, str(tmp_path / 'W'))
  code = """
import sys
for name in ('vie_jax', 'flax', 'tensorflow', 'orbax', 'ml_collections'):
  sys.modules[name] = None  # importing it now fails
import jax.export, numpy
path, clips = sys.argv[1:]
with open(path, 'rb') as file:
  encode = jax.export.deserialize(bytearray(file.read())).call
numpy.save(path + '.npy', encode(numpy.load(clips)['clips']))
"""
  subprocess.run(
    [sys.executable, '-c', code, path, tmp_path / 'clips.npz'],
    check=True,
    cwd=tmp_path,
    env=dict(os.environ, PYTHONPATH=''),
  )
  expected = embed.embed(config, str(tmp_path / 'W'))
  np.testing.assert_allclose(np.load(f'{path}.npy'), expected, atol=1e-6)
  assert len(clips) == len(expected)


def test_each_kind_of_device_has_its_own_way(tmp_path):
  """GPUs take a batch at once, CPUs clip after clip; both are in the file."""
  config = config_of('vie_slowfast', tmp_path)
  path = export.export(config, str(tmp_path / 'W'))
  exported = jax.export.deserialize(bytearray(path.read_bytes()))
  assert exported.platforms == export.PLATFORMS
  text = exported.mlir_module()
  assert 'stablehlo.while' in text
  assert 'stablehlo.case' in text


@pytest.mark.parametrize('layer', ['embedding', 'conv5'])
def test_a_projection_that_was_not_trained_along_is_told(
  layer, tmp_path, caplog, monkeypatch
):
  config = config_of('vie_single', tmp_path, export__layer=layer)
  config.embed.layer = layer
  write_clips(config, tmp_path)
  drawn = weights.load

  def load(*arguments, **options):
    return dataclasses.replace(
      drawn(*arguments, **options), training='supervised'
    )

  monkeypatch.setattr(weights, 'load', load)
  for run in (export.export, embed.embed):
    caplog.clear()
    run(config, str(tmp_path / run.__name__))
    said = [line for line in caplog.messages if 'projection' in line]
    if layer == 'conv5':
      assert said == []
      continue
    (line,) = said
    assert line.startswith(
      'These weights are supervised: the projection to the embedding was not '
      'trained with them, so that '
    )
    assert 'conv5' in line


def test_it_follows_the_weights(tmp_path):
  config = config_of('vie_single', tmp_path)
  clips = write_clips(config, tmp_path)
  results = []
  for seed in (0, 1, 0):
    config.seed = seed
    path = export.export(config, str(tmp_path / 'W'))
    results.append(
      jax.export.deserialize(bytearray(path.read_bytes())).call(clips)
    )
  np.testing.assert_array_equal(results[0], results[2])
  assert np.abs(results[0] - results[1]).max() > 0.01


def test_the_network_of_another_run_is_not_replaced(tmp_path):
  """Of two runs whose folders have one name."""
  listing = reference_network.variable_shapes('single', width=4)
  arrays = {name: official.weights(name, shape) for name, shape in listing}
  np.savez(tmp_path / 'official.npz', **arrays)
  for name in ('x', 'y'):
    source = f'official:{tmp_path / "official.npz"}'
    config = config_of('vie_single', tmp_path, init_from=source)
    convert.convert(config, str(tmp_path / name / 'R'))
  config.init_from = str(tmp_path / 'x' / 'R')
  path = export.export(config, str(tmp_path / 'W'))
  content = path.read_bytes()
  config.init_from = str(tmp_path / 'y' / 'R')
  with pytest.raises(result.ResultError, match='result_name=NAME'):
    export.export(config, str(tmp_path / 'W'))
  assert path.read_bytes() == content
  config.init_from = str(tmp_path / 'x' / 'R')
  assert export.export(config, str(tmp_path / 'W')) == path


def test_vectors_in_place_of_a_network_are_refused(tmp_path):
  config = config_of('vie_single', tmp_path, embeddings='X.parquet')
  with pytest.raises(config_check.ConfigError, match=r'config\.embeddings'):
    export.export(config, str(tmp_path / 'W'))
  assert not pathlib.Path(tmp_path / 'W').exists()
