"""VIE-TwoStream-SF: VIE-Single and VIE-SlowFast side by side.

As in the paper, from two trained networks; no training is needed:

  python main.py --config=configs/vie_twostream_sf.py --workdir=W \
      --mode=knn_eval --config.dataset.dir=PREPARED \
      --config.knn.reference=clips \
      --config.model.streams=WORKDIR_OF_VIE_SINGLE,WORKDIR_OF_VIE_SLOWFAST

Beyond the paper, both streams trained together, 16 frames, 4 apart:

  python main.py --config=configs/vie_twostream_sf.py --workdir=W \
      --config.dataset.dir=PREPARED

Hardware, time and metric: not yet run. The paper's linear readout of Conv5 on
Kinetics, of two networks side by side, is 48.53 %.
"""

from configs import vie_slowfast


def get_config():
  """VIE-SlowFast's config with a stream of single frames beside it."""
  config = vie_slowfast.get_config()
  config.model.name = 'vie_twostream_sf'
  config.linear_eval.drop_steps = (134_998, 259_998)
  config.linear_eval.num_steps = 310_000
  config.linear_eval.static_drop_steps = (160_011, 460_011)
  config.linear_eval.static_num_steps = 550_000
  config.finetune.num_eval_clips = 3
  config.finetune.batch_size = 64
  return config
