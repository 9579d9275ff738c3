"""One step of the method: augment, embed, loss, gradient, update.

The order inside a step is the official one: the loss reads the bank as it was
before the step; parameters and the visited bank rows change together. k-means
runs between steps, see `recluster`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from vie_jax import finite, sharding, train_state
from vie_jax.objective import (
  instance_recognition,
  kmeans,
  local_aggregation,
  memory_bank,
  nearest_neighbors,
  row_blocks,
)

KMEANS_SEED = 1234
"""The first centroids come from the same rows each time, as with the official
code's fixed faiss seed, 1234 + number of the clustering."""

INPUTS = ('window', 'crop', 'instance_index')
"""What a step reads of a batch."""

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Method:
  """The numbers of the method that a step needs.

  Attributes:
    num_videos: N.
    temperature: of all similarities.
    bank_momentum: share of the old bank row kept at an update.
    instance_loss: 'nce' or 'softmax'.
    num_noise: noise videos of 'nce'.
    num_neighbors: background neighbours of Local Aggregation, at most N.
    num_clusters: of k-means, at most N.
    kmeans_iterations: Lloyd iterations.
    kmeans_warm_iterations: those of a clustering that starts from the last one;
      0 lets each start anew.
    product_bytes: the most memory that a matrix of similarities takes on a
      device; no result depends on it.
  """

  num_videos: int
  temperature: float
  bank_momentum: float
  instance_loss: str
  num_noise: int
  num_neighbors: int
  num_clusters: int
  kmeans_iterations: int
  product_bytes: int = row_blocks.PRODUCT_BYTES
  kmeans_warm_iterations: int = 0


def _instance_recognition(embedding, state, index, key, method, mesh):
  own = memory_bank.similarity(
    state.bank, embedding, index[:, None], mesh=mesh
  )[:, 0]
  if method.instance_loss == 'softmax':
    loss = instance_recognition.softmax_loss(
      state.bank,
      embedding,
      own,
      num_videos=method.num_videos,
      temperature=method.temperature,
      mesh=mesh,
      product_bytes=method.product_bytes,
    )
    return jnp.mean(loss), {'train/own_similarity': jnp.mean(own)}
  noise_index = instance_recognition.draw_noise(
    key,
    batch_size=index.shape[0],
    num_noise=method.num_noise,
    num_videos=method.num_videos,
  )
  data, noise = instance_recognition.nce_loss(
    own,
    memory_bank.similarity(state.bank, embedding, noise_index, mesh=mesh),
    num_videos=method.num_videos,
    temperature=method.temperature,
  )
  metrics = {
    'train/own_similarity': jnp.mean(own),
    'train/data_loss': jnp.mean(data),
    'train/noise_loss': jnp.mean(noise),
  }
  return jnp.mean(data + noise), metrics


def _local_aggregation(embedding, state, index, key, method, mesh):
  del key  # nothing is drawn
  similarity, neighbor = nearest_neighbors.top_k(
    state.bank,
    embedding,
    k=method.num_neighbors,
    num_videos=method.num_videos,
    mesh=mesh,
    product_bytes=method.product_bytes,
  )
  similarity = memory_bank.similarity(
    state.bank, embedding, neighbor, mesh=mesh, known=similarity
  )
  close = local_aggregation.is_close(
    state.cluster_labels, index, neighbor, mesh=mesh
  )
  loss, has_close = local_aggregation.loss(
    similarity, close, temperature=method.temperature
  )
  own = memory_bank.similarity(
    state.bank, jax.lax.stop_gradient(embedding), index[:, None], mesh=mesh
  )
  metrics = {
    'train/own_similarity': jnp.mean(own),
    'health/close_set_size': jnp.mean(
      jnp.sum(close, axis=1, dtype=jnp.float32)
    ),
    'health/share_without_close': jnp.mean((~has_close).astype(jnp.float32)),
  }
  return jnp.mean(loss), metrics


OBJECTIVES = {
  'instance_recognition': _instance_recognition,
  'local_aggregation': _local_aggregation,
}


def train_step(
  state: train_state.TrainState,
  batch: dict[str, jax.Array],
  *,
  objective: str,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  augment: Callable[..., jax.Array],
  method: Method,
  mesh: Mesh,
) -> tuple[train_state.TrainState, Metrics]:
  """Takes one step.

  Args:
    state: before the step.
    batch: `window` uint8 [B, T, W, W, 3], `crop` float32 [B, 4] and
      `instance_index` int32 [B] in [0, N), no value twice.
    objective: a key of `OBJECTIVES`.
    model: from clips to embeddings.
    optimizer: from gradients to updates.
    augment: (key, window, crop) -> normalised clips [B, T, H, W, 3].
    method: the numbers of the method.
    mesh: the mesh of the run.

  Returns:
    (state, metrics): the state after the step; float32 scalars by name, and
    `finite.FLAG`. A step of which the loss, the gradient, an embedding or any
    new number of the state is not finite changes nothing but `state.step` and
    with it the rate, so that the next one has another batch.

  Sharding: the batch is split over `data`; batch norm sees all of it, and no
  number depends on how many devices there are, up to rounding.
  """
  noise_key, augment_key = jax.random.split(
    jax.random.fold_in(state.key, state.step)
  )
  clips = augment(augment_key, batch['window'], batch['crop'])
  index = batch['instance_index']

  def loss_of(params):
    embedding, updated = model.apply(
      {'params': params, 'batch_stats': state.batch_stats},
      clips,
      train=True,
      mutable='batch_stats',
    )
    loss, metrics = OBJECTIVES[objective](
      embedding, state, index, noise_key, method, mesh
    )
    return loss, (embedding, updated['batch_stats'], metrics)

  (loss, (embedding, batch_stats, metrics)), gradient = jax.value_and_grad(
    loss_of, has_aux=True
  )(state.params)
  norm = optax.tree.norm(gradient)
  old = _visited(state, index, mesh)
  updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
  new = {
    'params': optax.apply_updates(state.params, updates),
    'batch_stats': batch_stats,
    'opt_state': opt_state,
    'rows': memory_bank.updated_rows(
      old['rows'], embedding, momentum=method.bank_momentum
    ),
    'row_step': jnp.broadcast_to(state.step, index.shape),
  }
  is_sound = finite.all_finite(loss, norm, embedding, new)
  kept = finite.kept_unless(is_sound, old, new)
  age = (state.step - old['row_step']).astype(jnp.float32)
  metrics |= {
    'train/loss': loss,
    'train/gradient_norm': norm,
    'health/bank_age_at_visit': jnp.mean(age),
    finite.FLAG: ~is_sound,
  }
  return _stepped(state, index, kept, mesh), metrics


def _visited(state, index, mesh):
  """What a step may change: all of the state but rows of other videos."""
  return {
    'params': state.params,
    'batch_stats': state.batch_stats,
    'opt_state': state.opt_state,
    'rows': memory_bank.take(state.bank, index, mesh=mesh),
    'row_step': memory_bank.take(state.bank_step, index, mesh=mesh),
  }


def _stepped(state, index, kept, mesh):
  """The state of the next step, with what `_visited` gave as it is then."""
  next_step = state.step + 1
  return state.replace(
    step=next_step,
    params=kept['params'],
    batch_stats=kept['batch_stats'],
    opt_state=_with_rate_of(next_step, kept['opt_state']),
    bank=memory_bank.put(state.bank, index, kept['rows'], mesh=mesh),
    bank_step=memory_bank.put(
      state.bank_step, index, kept['row_step'], mesh=mesh
    ),
  )


def _with_rate_of(step, opt_state):
  """The optimiser's state for a step: skipped ones count for the rate, too."""

  def is_schedule(node):
    return isinstance(node, optax.ScaleByScheduleState)

  return jax.tree.map(
    lambda node: node._replace(count=step) if is_schedule(node) else node,
    opt_state,
    is_leaf=is_schedule,
  )


def recluster(
  state: train_state.TrainState,
  *,
  method: Method,
  mesh: Mesh,
  is_first: bool = True,
) -> tuple[train_state.TrainState, Metrics]:
  """Clusters the bank anew, once per clustering.

  Args:
    state: its `cluster_labels` [R, rows] say how many clusterings there are.
    method: the numbers of the method.
    mesh: the mesh of the run.
    is_first: whether the labels of the state are not from k-means yet; later
      clusterings start from them if `method.kmeans_warm_iterations` says so.

  Returns:
    (state, metrics): the state with new labels; the objective, and sizes of
    the clusters.
  """
  is_warm = method.kmeans_warm_iterations and not is_first

  def cluster(number_and_labels):
    number, labels = number_and_labels
    clusters = kmeans.fit(
      state.bank,
      key=jax.random.key(KMEANS_SEED + number),
      num_videos=method.num_videos,
      num_clusters=method.num_clusters,
      num_iterations=method.kmeans_warm_iterations
      if is_warm
      else method.kmeans_iterations,
      mesh=mesh,
      last_labels=labels if is_warm else None,
    )
    return clusters.labels, clusters.sizes, clusters.objective[-1]

  # One after the other: side by side, each would keep its random numbers.
  last_labels = state.cluster_labels
  labels, sizes, objective = jax.lax.map(
    cluster, (jnp.arange(last_labels.shape[0], dtype=jnp.int32), last_labels)
  )
  metrics = {
    'health/kmeans_objective': jnp.mean(objective) / method.num_videos,
    'health/empty_clusters': jnp.mean(
      jnp.sum(sizes == 0, axis=1, dtype=jnp.float32)
    ),
    'health/largest_cluster': jnp.max(sizes).astype(jnp.float32),
  }
  return state.replace(cluster_labels=labels), metrics


def fill_bank(
  state: train_state.TrainState,
  batch: dict[str, jax.Array],
  number: jax.Array,
  *,
  model: nn.Module,
  augment: Callable[..., jax.Array],
  mesh: Mesh,
) -> train_state.TrainState:
  """Writes the untrained network's embeddings of a batch into the bank.

  For `memory_bank.init = 'embeddings'`: batch norm uses the batch, as in
  training; nothing else of the state changes.

  Args:
    state: before training.
    batch: as for `train_step`.
    number: int32 scalar, of the batch; decides its augmentation.
    model: from clips to embeddings.
    augment: (key, window, crop) -> normalised clips.
    mesh: the mesh of the run.

  Returns:
    The state with the bank rows of the batch replaced.
  """
  key = jax.random.fold_in(state.key, number)
  embedding, _ = model.apply(
    {'params': state.params, 'batch_stats': state.batch_stats},
    augment(key, batch['window'], batch['crop']),
    train=True,
    mutable='batch_stats',
  )
  return state.replace(
    bank=memory_bank.put(
      state.bank, batch['instance_index'], embedding, mesh=mesh
    )
  )


def compile_steps(
  state: train_state.TrainState,
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  augment: Callable[..., jax.Array],
  method: Method,
  mesh: Mesh,
) -> dict[str, Callable]:
  """Jits the step of each objective, the clustering and the bank's first pass.

  Args:
    state: a state, or its shapes, for the layout.
    model: from clips to embeddings.
    optimizer: from gradients to updates.
    augment: (key, window, crop) -> normalised clips.
    method: the numbers of the method.
    mesh: the mesh of the run.

  Returns:
    name -> jitted function that keeps the state's layout and takes over its
    memory: never use a state again after passing it in. Names: those of
    `OBJECTIVES` ((state, batch) -> (state, metrics)), 'recluster' and, when
    there are clusters from k-means already, 'recluster_again' (state ->
    (state, metrics)) and 'fill_bank' ((state, batch, number) -> state).
  """
  layout = train_state.layout(state, mesh)
  jit = partial(jax.jit, donate_argnums=0)
  with_metrics = (layout, sharding.replicated(mesh))
  steps = {
    name: jit(
      partial(
        train_step,
        objective=name,
        model=model,
        optimizer=optimizer,
        augment=augment,
        method=method,
        mesh=mesh,
      ),
      out_shardings=with_metrics,
    )
    for name in OBJECTIVES
  }
  for name, is_first in (('recluster', True), ('recluster_again', False)):
    steps[name] = jit(
      partial(recluster, method=method, mesh=mesh, is_first=is_first),
      out_shardings=with_metrics,
    )
  if not method.kmeans_warm_iterations:
    steps['recluster_again'] = steps['recluster']
  steps['fill_bank'] = jit(
    partial(fill_bank, model=model, augment=augment, mesh=mesh),
    out_shardings=layout,
  )
  return steps
