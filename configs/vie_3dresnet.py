"""VIE-3DResNet on Kinetics-400: 16 frames in a row, 112 pixels, 3D ResNet-18.

  python main.py --config=configs/vie_3dresnet.py --workdir=W \
      --config.dataset.dir=PREPARED

The weights that the authors published are of this network:

  python main.py --config=configs/vie_3dresnet.py --workdir=W --mode=embed \
      --config.init_from=official:checkpoint-1450000.tar \
      --config.embed.clips=CLIPS.npz

Hardware, time and metric: not yet run. The authors' kNN on Kinetics is 32.0 %
(their notebook); the paper's linear readout of Conv5 is 43.40 %.
"""

from configs import default


def get_config():
  """The defaults with 3DResNet's network, clips and schedule (official).

  Clusters and background neighbours are those that the authors' published
  weights were trained with; the paper names 8,000 and 512 for all networks.
  """
  config = default.get_config()
  config.model.name = 'vie_3dresnet'
  config.clip.sampler = '3dresnet'
  config.clip.num_frames = 16
  config.clip.frame_step = 1
  config.crop.size = 112
  config.crop.short_side_min = 128
  config.crop.short_side_max = 159
  config.crop.eval_short_side = 128
  config.crop.multiscale_eval = 'short_side'
  config.local_aggregation.num_clusters = 10_000
  config.local_aggregation.num_neighbors = 4096
  config.batch_size = 64
  config.optimizer.drop_steps = (974_946, 1_304_998)
  config.num_steps = 1_450_000
  # Readouts: read off the authors' curves.
  config.linear_eval.drop_steps = (82_000, 257_000)
  config.linear_eval.num_steps = 595_000
  config.linear_eval.static_drop_steps = (290_000, 940_000)
  config.linear_eval.static_num_steps = 1_170_000
  config.finetune.num_eval_clips = 10
  return config
