"""Linear readouts of a frozen network: `--mode=linear_eval`."""

import contextlib

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from vie_jax import sharding, weights
from vie_jax.classifiers import fit, labelled_data, sgd
from vie_jax.classifiers.labelled_data import LabelledData
from vie_jax.classifiers.progress import Accuracy
from vie_jax.classifiers.task import Schedule
from vie_jax.evaluation import linear_readout
from vie_jax.input_pipeline import image_folder, labelled_images
from vie_jax.results import result

MODE = 'linear_eval'
ITEMS = {'readouts': ('params', 'opt_state', 'step')}


class Readouts:
  """The readouts of one network on one data set: a `Task`.

  Args:
    data: labelled clips, and the network for them.
    variables: its weights.
    config: `linear_eval` says which layers, and how.
  """

  items = ITEMS

  def __init__(
    self,
    data: LabelledData,
    variables: dict,
    config: ml_collections.ConfigDict,
  ):
    self._data = data
    self._variables = variables
    self._settings = config.linear_eval
    self._key = jax.random.key(config.seed)
    # The penalty is on kernels and biases.
    self._rule = sgd.rule(
      momentum=self._settings.momentum,
      weight_decay=self._settings.weight_decay,
    )
    self._columns = list(data.classes)
    self._step = jax.jit(self._compute_step, donate_argnums=0)
    self._predict = jax.jit(
      self._compute_scores, out_shardings=sharding.replicated(data.mesh)
    )

  def _features(self, variables, clips) -> linear_readout.Features:
    """Frozen: batch norm with running statistics, and no gradient."""
    found = self._data.model.apply(
      variables,
      clips,
      train=False,
      averaged=tuple(self._settings.averaged_layers),
      method='readouts',
    )
    return {
      layer: jax.lax.stop_gradient(found[layer])
      for layer in self._settings.layers
    }

  def initialize(self) -> linear_readout.ReadoutState:
    """The first state."""
    clips = jax.ShapeDtypeStruct((1, *self._data.clip_shape), jnp.float32)
    shapes = jax.eval_shape(self._features, self._variables, clips)
    init = linear_readout.initializer(
      {layer: shape.shape[1] for layer, shape in shapes.items()},
      {column: len(names) for column, names in self._data.classes.items()},
      self._rule,
      mesh=self._data.mesh,
    )
    return init(self._key)

  def _compute_step(self, state, variables, batch, rate):
    key = jax.random.fold_in(self._key, state.step)
    clips = self._data.augment(key, batch['window'], batch['crop'])
    features = self._features(variables, clips)

    def total_loss(params):
      losses = {
        f'{column}_{layer}_loss': linear_readout.cross_entropy(
          scores[column], batch['labels'][:, number]
        )
        for layer, scores in linear_readout.logits(
          params, features, self._data.mesh
        ).items()
        for number, column in enumerate(self._columns)
      }
      # Readouts share no parameter: each has the gradient of its own loss.
      return sum(losses.values()), losses

    (loss, losses), gradient = jax.value_and_grad(total_loss, has_aux=True)(
      state.params
    )
    params, opt_state = sgd.updated(
      self._rule, state.params, gradient, state.opt_state, rate
    )
    after, metrics = sgd.after_step(
      state, loss, params=params, opt_state=opt_state
    )
    after = jax.lax.with_sharding_constraint(
      after, linear_readout.layout(after, self._data.mesh)
    )
    return after, {**metrics, **losses}

  def step(self, state, batch, rate):
    """One update of all readouts; see `Task`."""
    return self._step(state, self._variables, batch, rate)

  def _compute_scores(self, params, variables, batch):
    clips = self._data.center(batch['window'], batch['crop'])
    features = self._features(variables, clips)
    scores = linear_readout.logits(params, features, self._data.mesh)
    return jax.tree.map(nn.softmax, scores)

  def evaluate(self, state: linear_readout.ReadoutState) -> Accuracy:
    """Tests all readouts; see `Task`."""
    return labelled_data.test(
      self._data,
      lambda batch: self._predict(state.params, self._variables, batch),
    )


def _open(config: ml_collections.ConfigDict):
  """Opens what `config.linear_eval.dataset` names, and its schedule."""
  settings = config.linear_eval
  is_static = labelled_images.is_images(settings.dataset)
  if is_static:
    opened = labelled_data.open_images(config, settings.dataset, MODE)
    steps = settings.static_num_steps, settings.static_drop_steps
  else:
    if settings.dataset:
      image_folder.check_no_loose_images(settings.dataset)
    opened = labelled_data.open_videos(config, settings.dataset, MODE)
    steps = settings.num_steps, settings.drop_steps
  num_steps, drop_steps = steps
  return opened, Schedule(settings.learning_rate, num_steps, drop_steps)


def linear_eval(config: ml_collections.ConfigDict, workdir: str) -> dict:
  """Trains and tests linear readouts of a frozen network.

  Args:
    config: `init_from` says of which network, `linear_eval` how and on what.
    workdir: of the run; everything goes to its folder `linear_eval`.

  Returns:
    What is written to `result.json`.

  Raises:
    config_check.ConfigError, dataset_folder.DatasetError,
    checkpoint.CheckpointError, result.ResultError, finite.DivergedError:
      with the remedy.

  Source: the paper's linear evaluation on Kinetics and, with images as static
    video, on ImageNet; its numbers are the official ones.
  """
  opened, schedule = _open(config)
  with contextlib.ExitStack() as stack:
    data = stack.enter_context(opened)
    found = weights.load(
      config, workdir, data.model, clip_shape=data.clip_shape, mesh=data.mesh
    )
    folder = result.folder(config, workdir, MODE, data.facts['name'])
    readouts = Readouts(data, found.variables, config)
    return fit.fit_and_write(
      readouts,
      data,
      found,
      config,
      mode=MODE,
      folder=folder,
      schedule=schedule,
    )
