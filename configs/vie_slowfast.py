"""VIE-SlowFast on Kinetics-400: 16 frames, 4 apart, in two pathways.

  python main.py --config=configs/vie_slowfast.py --workdir=W \
      --config.dataset.dir=PREPARED

Hardware, time and metric: not yet run. The paper's kNN is not given; its
linear readout of Conv5 on Kinetics is 47.37 %.
"""

from configs import default


def get_config():
  """The defaults with SlowFast's network, clips and schedule (official)."""
  config = default.get_config()
  config.model.name = 'vie_slowfast'
  config.clip.sampler = 'slowfast'
  config.clip.num_frames = 16
  config.clip.frame_step = 4
  config.batch_size = 64
  config.optimizer.drop_steps = (1_120_011, 1_294_998)
  config.num_steps = 1_350_000
  config.linear_eval.drop_steps = (119_998, 244_998)
  config.linear_eval.num_steps = 300_000
  config.linear_eval.static_drop_steps = (200_011, 460_011)
  config.linear_eval.static_num_steps = 550_000
  config.finetune.num_eval_clips = 3
  return config
