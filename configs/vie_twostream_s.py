"""VIE-TwoStream-S: VIE-Single and VIE-Slow side by side.

As in the paper, from two trained networks; no training is needed:

  python main.py --config=configs/vie_twostream_s.py --workdir=W \
      --mode=knn_eval --config.dataset.dir=PREPARED \
      --config.knn.reference=clips \
      --config.model.streams=WORKDIR_OF_VIE_SINGLE,WORKDIR_OF_VIE_SLOW

Beyond the paper, both streams trained together, 4 frames, 16 apart:

  python main.py --config=configs/vie_twostream_s.py --workdir=W \
      --config.dataset.dir=PREPARED

Hardware, time and metric: not yet run. The paper's linear readout of Conv5 on
Kinetics, of two networks side by side, is 47.13 %.
"""

from configs import vie_slow


def get_config():
  """VIE-Slow's config with a stream of single frames beside it."""
  config = vie_slow.get_config()
  config.model.name = 'vie_twostream_s'
  config.linear_eval.drop_steps = (104_998, 244_998)
  config.linear_eval.num_steps = 300_000
  config.linear_eval.static_drop_steps = (230_011, 570_011)
  config.linear_eval.static_num_steps = 680_000
  return config
