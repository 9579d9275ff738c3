"""When validation saturates: lower learning rates, and the end."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Plateau:
  """How validation went so far; JSON-compatible by `dataclasses.asdict`.

  Attributes:
    best: the highest accuracy since the training began.
    waited: evaluations since then, or since the last drop.
    drops: how often the rate was lowered.
    is_over: whether validation saturated at the lowest rate.
  """

  best: float = -1.0
  waited: int = 0
  drops: int = 0
  is_over: bool = False

  def after(
    self, accuracy: float, *, patience: int, num_drops: int
  ) -> 'Plateau':
    """What an evaluation makes of it.

    Args:
      accuracy: of this evaluation.
      patience: evaluations without a better accuracy that are saturation.
      num_drops: drops before the end.

    Source: the paper lowers the rate by ten when validation saturates; how it
      tells that is not said, and `patience` is ours. The official code has
      steps chosen by hand.
    """
    if accuracy > self.best:
      return dataclasses.replace(self, best=accuracy, waited=0)
    waited = self.waited + 1
    if waited < patience:
      return dataclasses.replace(self, waited=waited)
    if self.drops < num_drops:
      return dataclasses.replace(self, waited=0, drops=self.drops + 1)
    return dataclasses.replace(self, waited=waited, is_over=True)
