"""What the training of a classifier remembers besides its state."""

import dataclasses

from vie_jax.classifiers.plateau import Plateau

Accuracy = dict[str, dict[str, dict[str, float]]]
"""Label column -> classifier's name -> accuracies."""


@dataclasses.dataclass(frozen=True)
class Progress:
  """What a loop remembers besides its state; kept in the record.

  Attributes:
    plateau: of validation.
    best: the highest accuracy by column and name so far.
    accuracy: of the last evaluation.
    evaluated_step: that it was after; -1 for none yet.
    seconds: of all calls up to this checkpoint.
    damage: frames taken and replaced so far.
    bad_val_frames: replaced in the last evaluation.
    left_out: videos or images that it left out.
    skipped_steps: so far, see `skipped_steps`.
    evaluation_is_due: whether this step was to be evaluated, and was not.
  """

  plateau: Plateau = dataclasses.field(default_factory=Plateau)
  best: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
  accuracy: Accuracy = dataclasses.field(default_factory=dict)
  evaluated_step: int = -1
  seconds: float = 0.0
  damage: dict[str, int] = dataclasses.field(default_factory=dict)
  bad_val_frames: int = 0
  left_out: int = 0
  skipped_steps: int = 0
  evaluation_is_due: bool = False

  @classmethod
  def from_record(cls, record: dict) -> 'Progress':
    """That of a checkpoint."""
    saved = record['progress']
    return cls(**{**saved, 'plateau': Plateau(**saved['plateau'])})

  def after(
    self,
    step: int,
    accuracy: Accuracy,
    *,
    patience: int,
    num_drops: int,
    counts: bool,
  ) -> 'Progress':
    """Takes note of an evaluation.

    Args:
      step: that it was after.
      accuracy: what it found.
      patience, num_drops: of the schedule.
      counts: whether it tells of saturation: those at the end, between two
        others, do not, so that going on further changes nothing.
    """
    best = {
      column: {
        name: max(figures['top1'], self.best.get(column, {}).get(name, 0.0))
        for name, figures in by_name.items()
      }
      for column, by_name in accuracy.items()
    }
    watched = self.plateau
    if patience and counts:
      tops = [
        figures['top1']
        for by_name in accuracy.values()
        for figures in by_name.values()
      ]
      watched = watched.after(
        sum(tops) / len(tops),
        patience=patience,
        num_drops=num_drops,
      )
    return dataclasses.replace(
      self,
      plateau=watched,
      best=best,
      accuracy=accuracy,
      evaluated_step=step,
      evaluation_is_due=False,
    )
