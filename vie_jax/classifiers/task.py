"""What a training on labels is: its task, its schedule and how it ends."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from vie_jax.classifiers.progress import Accuracy
from vie_jax.input_pipeline import bad_frames


@dataclasses.dataclass(frozen=True)
class Task:
  """What is trained, and on what.

  Attributes:
    items: of its checkpoints, see `checkpoint.Checkpoints`.
    initialize: () -> the first state, which has a field `step`.
    step: (state, batch, learning rate) -> (state, metrics); the state is
      donated.
    open_batches: first step -> context manager over batches, dicts of this
      host's NumPy arrays.
    evaluate: state -> label column -> name -> accuracies of validation.
    mesh: that it runs on.
    train_damage: damaged frames of its batches.
    eval_damage: damaged frames of the validation clips.
    name_of: `instance_index` of a batch -> the file that it is of.
  """

  items: Mapping[str, Sequence[str]]
  initialize: Callable[[], Any]
  step: Callable[..., tuple[Any, dict]]
  open_batches: Callable[[int], Any]
  evaluate: Callable[[Any], Accuracy]
  mesh: Mesh
  train_damage: bad_frames.BadFrames
  eval_damage: bad_frames.BadFrames
  name_of: Callable[[int], str]


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The learning rate and the end of a training.

  Attributes:
    learning_rate: at first.
    num_steps: at most.
    drop_steps: the last steps before the rate drops to a tenth, counted from
      0.
    patience: evaluations until validation counts as saturated, at which the
      rate drops, too; 0 for never.
    num_drops: how often it may; the training ends when validation saturates
      once more.
  """

  learning_rate: float
  num_steps: int
  drop_steps: Sequence[int] = ()
  patience: int = 0
  num_drops: int = 0

  def rate(self, step: int, drops: int) -> float:
    """The rate of a step, after so many drops at plateaus."""
    drops += sum(step > drop for drop in self.drop_steps)
    return self.learning_rate * 0.1**drops


@dataclasses.dataclass(frozen=True)
class Intervals:
  """Steps between log lines, evaluations and checkpoints."""

  log: int
  evaluate: int
  save: int


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a training ended.

  Attributes:
    steps: done.
    accuracy: of the last state, as `Task.evaluate` gives it.
    best: the highest accuracy by column and name that any evaluation of it
      found, top-1 of videos.
    seconds: of all calls up to what they saved, and of this one.
    was_complete: whether this call had nothing left to train.
    bad_frames: split -> frames that stood for damaged ones: 'train' in all
      steps, 'val' in one evaluation.
    left_out: videos or images that the last evaluation left out.
  """

  steps: int
  accuracy: Accuracy
  best: dict[str, dict[str, float]]
  seconds: float
  was_complete: bool
  bad_frames: dict[str, int]
  left_out: int
