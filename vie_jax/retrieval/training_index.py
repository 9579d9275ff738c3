"""The training videos, searchable: the neighbours of others, and their votes."""

from collections.abc import Sequence

import numpy as np

from vie_jax.embeddings import split_embeddings
from vie_jax.evaluation import features, knn, retrieval
from vie_jax.experiment import Experiment
from vie_jax.results.findings import Findings

RECALL_AT = (1, 5, 10, 20, 50)


class TrainingIndex:
  """The training videos, searchable.

  Args:
    run: opened.
    train: embeddings of the training videos' clips.
  """

  def __init__(self, run: Experiment, train: split_embeddings.SplitEmbeddings):
    self.videos = train.videos
    self._mesh = run.mesh
    self._bank = knn.as_bank(features.video_means(train.clips), run.mesh)
    self._num_voters = run.config.knn.num_neighbors
    self._temperature = run.config.objective.temperature
    # How many neighbours are looked for.
    self.num_neighbors = max(
      *RECALL_AT, self._num_voters, run.config.retrieve.num_neighbors
    )

  def search(self, queries: np.ndarray) -> knn.Neighbors:
    """Finds the nearest of queries [Q, D]: [Q, K], fewer if there are fewer."""
    return knn.search(
      self._bank,
      queries,
      k=min(self.num_neighbors, self.videos.num_instances),
      num_videos=self.videos.num_instances,
      mesh=self._mesh,
    )

  def votes(self, neighbors: knn.Neighbors, column: str) -> knn.ClassScores:
    """Lets the nearest vote for their classes: [Q, C]."""
    labels, class_names = self.videos.label(column)
    voters = knn.Neighbors(
      neighbors.similarity[:, : self._num_voters],
      neighbors.index[:, : self._num_voters],
    )
    return knn.ClassScores(
      voters,
      labels,
      num_classes=len(class_names),
      temperature=self._temperature,
    )

  def findings(
    self,
    neighbors: knn.Neighbors,
    columns: Sequence[str],
    facts: dict,
    queries: np.ndarray | None = None,
  ) -> Findings:
    """Names the neighbours by their rows in the store, and what they predict.

    Args:
      neighbors: from `search`.
      columns: label columns to predict.
      facts: the result that they belong to.
      queries: see `Findings`.
    """
    return Findings(
      self.videos.video[neighbors.index],
      neighbors.similarity,
      {
        column: retrieval.predictions(self.votes(neighbors, column))
        for column in columns
      },
      queries,
      facts['heading'],
      facts,
    )
