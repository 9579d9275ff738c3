"""Clips are made in the dtype that the network computes in, in every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from PIL import Image

from vie_jax import experiment
from vie_jax.classifiers import labelled_data
from vie_jax.embeddings import embed_sources


def opened_experiment(config, unused_folder):
  return experiment.open_experiment(config)


def opened_videos_to_embed(config, folder):
  return embed_sources.open_source(config, config.dataset.dir, folder)


def opened_images_to_embed(config, folder):
  picture = Image.fromarray(np.zeros((40, 40, 3), np.uint8))
  picture.save(folder / 'a.png')
  return embed_sources.open_source(config, str(folder), folder)


def opened_images(config, folder):
  picture = Image.fromarray(np.zeros((40, 40, 3), np.uint8))
  for split in ('train', 'val'):
    for name in ('cat', 'dog'):
      (folder / split / name).mkdir(parents=True)
      picture.save(folder / split / name / 'a.png')
  return labelled_data.open_images(config, str(folder), 'linear_eval')


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize(
  'opened',
  [
    opened_experiment,
    opened_videos_to_embed,
    opened_images_to_embed,
    opened_images,
  ],
)
def test_clips_are_made_in_the_dtype_of_the_network(
  demo_dataset, tmp_path, opened, dtype
):
  config = tiny_run.config(
    demo_dataset, model__dtype=dtype, num_devices=1, linear_eval__batch_size=2
  )
  window = jax.ShapeDtypeStruct((2, 1, 40, 40, 3), jnp.uint8)
  crop = jax.ShapeDtypeStruct((2, 4), jnp.float32)
  with opened(config, tmp_path) as data:
    assert jax.eval_shape(data.center, window, crop).dtype == dtype
    if hasattr(data, 'augment'):
      key = jax.random.key(0)
      assert jax.eval_shape(data.augment, key, window, crop).dtype == dtype
