import contextlib
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vie_jax import device_augment
from vie_jax.evaluation import features
from vie_jax.models import networks

NUM_VIDEOS, NUM_CLIPS, SIZE = 5, 3, 8
BATCH = 8


class FirstPixel(nn.Module):
  """Embeds a clip as its top left pixel, which names the clip."""

  @nn.compact
  def __call__(self, clip, *, train):
    assert not train
    return clip[:, 0, 0, 0, :]


@pytest.fixture
def mesh(mesh_of_a_step):
  return mesh_of_a_step


def center(window, crop):
  del crop  # the whole window
  return window.astype(jnp.float32)


def batches(order):
  """Eval batches of clips in an order; the last one is padded by copies."""
  for start in range(0, len(order), BATCH):
    positions = order[start : start + BATCH]
    is_valid = np.arange(BATCH) < len(positions)
    positions = np.pad(positions, (0, BATCH - len(positions)), mode='edge')
    video, clip = np.divmod(positions, NUM_CLIPS)
    window = np.zeros((BATCH, 1, SIZE, SIZE, 3), np.uint8)
    window[:, 0, 0, 0, 0], window[:, 0, 0, 0, 1] = video + 100, clip + 200
    # A padded clip that counted would overwrite the last one.
    window[~is_valid] = 255
    yield {
      'window': window,
      'crop': np.tile(np.float32([0, 0, SIZE, SIZE]), (BATCH, 1)),
      'instance_index': video.astype(np.int32),
      'clip_index': clip.astype(np.int32),
      'is_valid': is_valid,
    }


class Layers(FirstPixel):
  """Has a layer that names the clip in another way."""

  def readouts(self, clip, *, train=False):
    assert not train
    return {'conv1': 2 * clip[:, 0, 0, 0, :], 'conv2': clip[:, 0, 0]}


def embed(order, mesh):
  model = FirstPixel()
  return features.embed_videos(
    batches(order),
    features.embedder(model, center=center, mesh=mesh),
    {},
    num_videos=NUM_VIDEOS,
    num_clips=NUM_CLIPS,
    embedding_size=3,
    mesh=mesh,
  )


@pytest.mark.parametrize('seed', [None, 0])
def test_every_clip_ends_up_in_its_place(mesh, seed):
  order = np.arange(NUM_VIDEOS * NUM_CLIPS)
  if seed is not None:
    order = np.random.default_rng(seed).permutation(order)
  result = embed(order, mesh)
  assert result.dtype == np.float32
  for video in range(NUM_VIDEOS):
    for clip in range(NUM_CLIPS):
      expected = [video + 100, clip + 200, 0]
      assert result[video, clip].tolist() == expected


def test_clips_that_no_batch_brought_are_left_out(mesh8):
  result = embed(np.arange(7), mesh8)
  missing = (result == features.LEFT_OUT).all(axis=2).reshape(-1)
  assert missing.tolist() == [False] * 7 + [True] * 8


@pytest.mark.slow
def test_a_network_embeds_the_same_on_any_number_of_devices(mesh):
  model = networks.build(
    'vie_single',
    embedding_size=16,
    width=4,
    fast_width=1,
    alpha=1,
    dtype='float32',
  )
  rng = np.random.default_rng(1)
  window = rng.integers(0, 256, (BATCH, 1, 40, 40, 3), dtype=np.uint8)
  crop = np.tile(np.float32([3, 4, 32, 32]), (BATCH, 1))
  variables = jax.jit(partial(model.init, train=False))(
    jax.random.key(0), jnp.zeros((1, 1, 32, 32, 3))
  )

  def centered(window, crop):
    return device_augment.center(window, crop, size=32)

  expected = model.apply(variables, centered(window, crop), train=False)
  result = features.embedder(model, center=centered, mesh=mesh)(
    variables,
    {
      'window': window,
      'crop': crop,
      'instance_index': np.arange(BATCH, dtype=np.int32),
      'clip_index': np.zeros(BATCH, np.int32),
      'is_valid': np.ones(BATCH, bool),
    },
  )
  assert result['embedding'].sharding.is_fully_replicated
  np.testing.assert_allclose(result['embedding'], expected, atol=1e-5)


def test_video_means_are_the_directions_of_the_mean_clips():
  rng = np.random.default_rng(2)
  clips = rng.standard_normal((6, 4, 16)).astype(np.float32)
  clips /= np.linalg.norm(clips, axis=2, keepdims=True)
  means = features.video_means(clips)
  for video in range(6):
    total = sum(clips[video, clip] for clip in range(4))
    np.testing.assert_allclose(
      means[video], total / np.linalg.norm(total), atol=1e-6
    )


def opener(total):
  """Opens the batches of `total` clips in order, from one of them on."""
  order = np.arange(total)

  @contextlib.contextmanager
  def open_batches(first_batch):
    yield itertools.islice(batches(order), first_batch, None)

  return open_batches


@pytest.mark.parametrize('first_clip', [0, 1, 7, 8, 11, 14, 15])
def test_clips_are_embedded_in_order_from_any_of_them_on(mesh, first_clip):
  blocks = features.embed_from(
    opener(NUM_VIDEOS * NUM_CLIPS),
    features.embedder(FirstPixel(), center=center, mesh=mesh),
    {},
    first_clip=first_clip,
    batch_size=BATCH,
    mesh=mesh,
  )
  found = [row.tolist() for block in blocks for row in block]
  clips = [divmod(i, NUM_CLIPS) for i in range(NUM_VIDEOS * NUM_CLIPS)]
  expected = [[video + 100, clip + 200, 0] for video, clip in clips]
  assert found == expected[first_clip:]


@pytest.mark.parametrize('first_clip', [0, 4, 8, 13])
def test_clips_that_are_left_out_keep_their_rows(mesh8, first_clip):
  # The last one, of which copies fill the last batch, is one of them.
  lost, total = (0, 1, 7, 8, 13), 14

  @contextlib.contextmanager
  def open_batches(first_batch):
    def found():
      for batch in batches(np.arange(total)):
        clip = batch['instance_index'] * NUM_CLIPS + batch['clip_index']
        batch['is_valid'] &= ~np.isin(clip, lost)
        yield batch

    yield itertools.islice(found(), first_batch, None)

  blocks = features.embed_from(
    open_batches,
    features.embedder(FirstPixel(), center=center, mesh=mesh8),
    {},
    first_clip=first_clip,
    batch_size=BATCH,
    mesh=mesh8,
  )
  found = np.concatenate(list(blocks))
  assert found.dtype == np.float32
  for row, clip in zip(found, range(first_clip, total), strict=True):
    video, number = divmod(clip, NUM_CLIPS)
    if clip in lost:
      assert (row == features.LEFT_OUT).all()
    else:
      assert row.tolist() == [video + 100, number + 200, 0]


def test_videos_without_all_of_their_clips_have_no_embedding():
  clips = np.zeros((4, 3, 2), np.float32)
  clips[1], clips[3, 2] = features.LEFT_OUT, features.LEFT_OUT
  # Of a network whose numbers are not finite; a video is there all the same.
  clips[2] = np.nan
  assert features.has_embedding(clips).tolist() == [True, False, True, False]


def test_a_layer_takes_the_place_of_the_embedding(mesh):
  (batch,) = batches(np.arange(8))
  output = features.embedder(Layers(), center=center, mesh=mesh, layer='conv1')(
    {}, batch
  )
  for row, (video, clip) in enumerate(divmod(i, NUM_CLIPS) for i in range(8)):
    expected = [2 * (video + 100), 2 * (clip + 200), 0]
    assert np.asarray(output['embedding'])[row].tolist() == expected


@pytest.mark.parametrize('size', [1, 2, 3, 4, 7, 30])
def test_clips_of_a_video_come_together(size):
  rows = np.arange(60).reshape(30, 2)
  cut = [rows[i : i + size] for i in range(0, 30, size)]
  found = list(features.by_video(cut, 5))
  assert all(len(videos) for videos in found)
  np.testing.assert_array_equal(np.concatenate(found), rows.reshape(6, 5, 2))
