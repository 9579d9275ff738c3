"""VIE-Slow on Kinetics-400: 4 frames, 16 apart, in SlowFast's slow pathway.

  python main.py --config=configs/vie_slow.py --workdir=W \
      --config.dataset.dir=PREPARED

Hardware, time and metric: not yet run. The paper's kNN is not given; its
linear readout of Conv5 on Kinetics is 46.36 %.
"""

from configs import default


def get_config():
  """The defaults with Slow's network, clips and schedule (official)."""
  config = default.get_config()
  config.model.name = 'vie_slow'
  config.clip.sampler = 'slow'
  config.clip.num_frames = 4
  config.clip.frame_step = 16
  config.batch_size = 64
  config.optimizer.drop_steps = (1_170_011, 1_380_011)
  config.num_steps = 1_440_000
  config.linear_eval.drop_steps = (99_998, 274_998)
  config.linear_eval.num_steps = 330_000
  config.linear_eval.static_drop_steps = (250_011, 500_011)
  config.linear_eval.static_num_steps = 600_000
  return config
