"""What writers of figures have in common."""

from clu import metric_writers


class ScalarWriter(metric_writers.MetricWriter):
  """A writer of scalars only: the other kinds are not kept."""

  def write_summaries(self, *unused_args, **unused_kwargs):
    """Not kept."""

  def write_images(self, *unused_args):
    """Not kept."""

  def write_videos(self, *unused_args):
    """Not kept."""

  def write_audios(self, *unused_args, **unused_kwargs):
    """Not kept."""

  def write_texts(self, *unused_args):
    """Not kept."""

  def write_histograms(self, *unused_args, **unused_kwargs):
    """Not kept."""

  def write_pointcloud(self, *unused_args, **unused_kwargs):
    """Not kept."""

  def write_hparams(self, *unused_args):
    """Not kept."""
