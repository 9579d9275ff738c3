"""VIE-Single on Kinetics-400: a 2D ResNet-18 on single frames.

  python main.py --config=configs/vie_single.py --workdir=W \
      --config.dataset.dir=PREPARED

Hardware, time and metric: not yet run. The paper's kNN is not given; its
linear readout of Conv5 on Kinetics is 44.41 %.
"""

from configs import default


def get_config():
  """The defaults are VIE-Single's, as the official code trains it."""
  return default.get_config()
