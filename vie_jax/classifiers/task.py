"""What a training on labels is: its task, its schedule and how it ends."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax

from vie_jax.classifiers.progress import Accuracy

INPUTS = ('window', 'crop', 'labels')
"""What a step reads of a batch of `labelled_data`."""


class Task(Protocol):
  """What is trained.

  Attributes:
    items: of its checkpoints, see `checkpoint.Checkpoints`.
  """

  items: Mapping[str, Sequence[str]]

  def initialize(self) -> Any:
    """The first state, which has a field `step`."""

  def step(
    self, state: Any, batch: Mapping[str, jax.Array], rate: jax.Array
  ) -> tuple[Any, dict]:
    """Takes a step.

    Args:
      state: before it; is donated.
      batch: has `INPUTS`, on the mesh.
      rate: float32 scalar, the learning rate.

    Returns:
      (state, metrics), `finite.FLAG` among the latter.
    """

  def evaluate(self, state: Any) -> Accuracy:
    """Tests a state on the validation clips."""


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
    bad_frames: split -> frames that stood for damaged ones: 'train' in all
      steps, 'val' in one evaluation.
    left_out: videos or images that the last evaluation left out.
    written: the result that was there of all this, if it was.
  """

  steps: int
  accuracy: Accuracy
  best: dict[str, dict[str, float]]
  seconds: float
  bad_frames: dict[str, int]
  left_out: int
  written: dict | None = None
