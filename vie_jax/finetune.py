"""Classifiers with the network below them: finetuning, supervised training."""

import contextlib
import functools
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import linen as nn

from vie_jax import optimizer, sharding, training_data, weights
from vie_jax.classifiers import fit, labelled_data, sgd
from vie_jax.classifiers.labelled_data import LabelledData
from vie_jax.classifiers.progress import Accuracy
from vie_jax.classifiers.task import Schedule
from vie_jax.config import config_check
from vie_jax.evaluation import linear_readout
from vie_jax.results import result

ITEMS = {
  'model': ('params', 'batch_stats'),
  'classifier': ('classifier',),
  'training': ('step', 'opt_state'),
}
CLASSIFIER = 'classifier'
_NO_NOISE = ('brightness', 'contrast', 'saturation', 'hue', 'grey_probability')


@flax.struct.dataclass
class ClassifierState:
  """A network with a classifier, in training: a pytree, whole on each device.

  Attributes:
    step: int32 scalar, updates done.
    params: of the network, float32; its projection to the embedding is kept
      as it is.
    batch_stats: running statistics of batch norm.
    classifier: `kernel` float32 [F, C] and `bias` [C], on pooled features.
    opt_state: momentum of both.
  """

  step: jax.Array
  params: Mapping
  batch_stats: Mapping
  classifier: Mapping
  opt_state: optax.OptState


def decayed(trained: Mapping, *, decay_all: bool) -> dict:
  """Which parameters the L2 penalty applies to.

  Args:
    trained: `params` of a network and `classifier`.
    decay_all: whether to the network, too, but for its batch norm and for the
      projection to the embedding, which has no part in this training.

  Returns:
    A tree like `trained` of bools.
  """
  network = optimizer.decayed(trained['params'])

  def is_decayed(path, leaf_is):
    names = [key.key for key in path]
    return decay_all and leaf_is and 'backbone' in names

  return {
    'params': jax.tree.map_with_path(is_decayed, network),
    'classifier': dict.fromkeys(trained['classifier'], True),
  }


class _Classifier:
  """One network and its classifier on one label column: a `Task`."""

  items = ITEMS

  def __init__(
    self,
    data: LabelledData,
    variables: Mapping,
    *,
    seed: int,
    momentum: float,
    weight_decay: float,
    decay_all: bool,
    init: nn.initializers.Initializer,
  ):
    self._data = data
    self._variables = variables
    (self._column,) = data.classes
    self._key = jax.random.key(seed)
    self._init = init
    self._rule = sgd.rule(
      momentum=momentum,
      weight_decay=weight_decay,
      mask=functools.partial(decayed, decay_all=decay_all),
    )
    whole = sharding.replicated(data.mesh)
    self._step = jax.jit(
      self._compute_step, donate_argnums=0, out_shardings=whole
    )
    self._predict = jax.jit(self._compute_scores, out_shardings=whole)

  def initialize(self) -> ClassifierState:
    """The first state; the weights that were loaded, and a new classifier."""
    data = self._data
    clips = jax.ShapeDtypeStruct((1, *data.clip_shape), jnp.float32)
    shape = jax.eval_shape(self._pooled, self._variables, clips).shape

    def init(key, variables):
      num_classes = len(data.classes[self._column])
      trained = {
        'params': variables['params'],
        'classifier': {
          'kernel': self._init(key, (shape[1], num_classes)),
          'bias': jnp.zeros((num_classes,)),
        },
      }
      return ClassifierState(
        step=jnp.zeros((), jnp.int32),
        batch_stats=variables['batch_stats'],
        opt_state=self._rule.init(trained),
        **trained,
      )

    place = jax.jit(init, out_shardings=sharding.replicated(data.mesh))
    return place(self._key, self._variables)

  def _pooled(self, variables, clips):
    return self._data.model.apply(
      variables, clips, train=False, method='pooled'
    )

  def _compute_step(self, state, batch, rate):
    key = jax.random.fold_in(self._key, state.step)
    clips = self._data.augment(key, batch['window'], batch['crop'])
    labels = batch['labels'][:, 0]

    def loss_of(trained):
      features, updates = self._data.model.apply(
        {'params': trained['params'], 'batch_stats': state.batch_stats},
        clips,
        train=True,
        method='pooled',
        mutable=['batch_stats'],
      )
      head = trained['classifier']
      scores = features @ head['kernel'] + head['bias'][None]
      known = labels >= 0
      right = (jnp.argmax(scores, axis=1) == labels) & known
      top1 = jnp.sum(right) / jnp.maximum(jnp.sum(known), 1)
      loss = linear_readout.cross_entropy(scores, labels)
      return loss, (updates['batch_stats'], top1)

    trained = {'params': state.params, 'classifier': state.classifier}
    (loss, (batch_stats, top1)), gradient = jax.value_and_grad(
      loss_of, has_aux=True
    )(trained)
    trained, opt_state = sgd.updated(
      self._rule, trained, gradient, state.opt_state, rate
    )
    state, metrics = sgd.after_step(
      state, loss, batch_stats=batch_stats, opt_state=opt_state, **trained
    )
    return state, {**metrics, 'top1': top1}

  def step(self, state, batch, rate):
    """One update of network and classifier; see `Task`."""
    return self._step(state, batch, rate)

  def _compute_scores(self, state, batch):
    clips = self._data.center(batch['window'], batch['crop'])
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    head = state.classifier
    scores = (
      self._pooled(variables, clips) @ head['kernel'] + head['bias'][None]
    )
    return {CLASSIFIER: {self._column: nn.softmax(scores)}}

  def evaluate(self, state: ClassifierState) -> Accuracy:
    """Tests the classifier; see `Task`."""
    return labelled_data.test(
      self._data, lambda batch: self._predict(state, batch)
    )


def _with_clips(
  config: ml_collections.ConfigDict, group: str
) -> ml_collections.ConfigDict:
  """The config with the crops, the noise and the test clips of a group."""
  settings = config[group]
  config = config.copy_and_resolve_references()
  config.clip.num_eval_clips = settings.num_eval_clips
  if settings.augmentation == 'multiscale':
    config.crop.method = 'multiscale'
    for name in _NO_NOISE:
      config.augmentation[name] = 0.0
  return config


def _schedule(settings, learning_rate) -> Schedule:
  if settings.schedule == 'drops':
    return Schedule(learning_rate, settings.num_steps, settings.drop_steps)
  return Schedule(
    learning_rate,
    settings.num_steps,
    patience=settings.patience,
    num_drops=settings.num_drops,
  )


def finetune(config: ml_collections.ConfigDict, workdir: str) -> dict:
  """Trains a whole network, from weights that are there, on labels.

  Args:
    config: `init_from` says from which weights ('random' is the paper's
      Scratch), `finetune` how and on what.
    workdir: of the run; everything goes to its folder `finetune`.

  Returns:
    What is written to `result.json`.

  Raises:
    config_check.ConfigError, dataset_folder.DatasetError,
    checkpoint.CheckpointError, result.ResultError, finite.DivergedError:
      with the remedy.

  Source: the paper's finetuning on UCF101 and HMDB51; its numbers are the
    official ones.
  """
  settings = config.finetune
  rate, decay = settings.learning_rate, settings.weight_decay
  decay_all, init = settings.decay_all, nn.initializers.he_normal()
  if weights.are_untrained(config):
    rate, decay = settings.scratch_learning_rate, settings.scratch_weight_decay
    decay_all, init = True, nn.initializers.glorot_uniform()
  return _train(
    config,
    workdir,
    'finetune',
    settings.dataset,
    _schedule(settings, rate),
    lambda data: weights.load(
      config, workdir, data.model, clip_shape=data.clip_shape, mesh=data.mesh
    ),
    weight_decay=decay,
    decay_all=decay_all,
    init=init,
  )


def supervised(config: ml_collections.ConfigDict, workdir: str) -> dict:
  """Trains a network from scratch on the labels of the pretraining videos.

  Its folder, `supervised/NAME`, is a workdir of its own: `init_from` takes the
  network from there.

  Args:
    config: `supervised` says how.
    workdir: of the run; everything goes to its folder `supervised`.

  Returns:
    What is written to `result.json`.

  Raises:
    As `finetune`.

  Source: the column Super. of the paper's table 1.
  """
  if config.init_from not in ('workdir', 'random'):
    raise config_check.ConfigError(
      f'config.init_from is {config.init_from!r}, and supervised training '
      'starts from scratch; leave it out, or use --mode=finetune.'
    )
  dataset = config.dataset
  is_selection = dataset.share < 1 or dataset.with_replacement
  if config.model.streams or is_selection or dataset.bin_frames:
    raise config_check.ConfigError(
      'config.model.streams, dataset.share, dataset.with_replacement and '
      'dataset.bin_frames have no part in supervised training, which starts '
      "from scratch on all videos; leave them out: model.streams='', "
      'dataset.share=1.0, dataset.with_replacement=False, dataset.bin_frames=0.'
    )
  config = config.copy_and_resolve_references()
  config.init_from = 'workdir'
  settings = config.supervised
  return _train(
    config,
    workdir,
    'supervised',
    '',
    _schedule(settings, settings.learning_rate),
    lambda data: weights.draw(
      config, data.model, clip_shape=data.clip_shape, mesh=data.mesh
    ),
    weight_decay=settings.weight_decay,
    decay_all=True,
    init=nn.initializers.glorot_uniform(),
  )


def _train(config, workdir, mode, dataset, schedule, load, **options) -> dict:
  """Trains what `load` gives for the data, tests it, writes the result."""
  settings = config[mode]
  with contextlib.ExitStack() as stack:
    data = stack.enter_context(
      labelled_data.open_videos(
        _with_clips(config, mode),
        dataset,
        mode,
        is_consecutive=settings.eval_clips == 'consecutive',
      )
    )
    _check_column(data)
    found = load(data)
    folder = result.folder(
      config,
      workdir,
      mode,
      data.facts['name'],
      *(data.classes if data.has_other_columns else ()),
      'multiscale' if settings.augmentation == 'multiscale' else '',
    )
    classifier = _Classifier(
      data,
      found.variables,
      seed=config.seed,
      momentum=settings.momentum,
      **options,
    )
    return fit.fit_and_write(
      classifier,
      data,
      found,
      config,
      mode=mode,
      folder=folder,
      schedule=schedule,
      training='supervised' if mode == 'supervised' else 'finetuned',
      trained_on=training_data.of_all_videos(
        data.facts,
        sampler=config.clip.sampler,
        num_frames=config.clip.num_frames,
        frame_step=config.clip.frame_step,
        size=config.crop.size,
      ),
    )


def _check_column(data: LabelledData) -> None:
  """Refuses several label columns: a network is trained on one."""
  if len(data.classes) > 1:
    raise config_check.ConfigError(
      f'{data.facts["path"]} has the label columns {", ".join(data.classes)}; '
      'say which one to train on: --config.dataset.label_columns="(\'NAME\',)".'
    )
