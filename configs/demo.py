"""The demo: small networks on the embedded data set, minutes on two cores.

  make demo

runs, among others,

  python main.py --config=configs/demo.py:single --workdir=demo/single
  python main.py --config=configs/demo.py:slowfast --workdir=demo/slowfast
"""

from configs import vie_single, vie_slowfast

BASES = {
  'single': vie_single.get_config,
  'slowfast': vie_slowfast.get_config,
}


def get_config(network='slowfast'):
  """The config of `network`, 'single' or 'slowfast', made small.

  What differs from the paper besides size, and why. A few hundred steps on
  1,000 videos learn nothing from a random bank with SGD, so the bank starts as
  the network's own embeddings, and Adam takes over. With so few videos the
  constants of NCE do not fit, and the exact softmax is cheap. The temperature
  is higher, and batch norm's running statistics follow sooner. No clip is
  mirrored, because the labels tell left from right.
  """
  if network not in BASES:
    raise ValueError(
      f'configs/demo.py:{network} does not exist; known are '
      f'{", ".join(sorted(BASES))}.'
    )
  config = BASES[network]()
  config.dataset.dir = 'demo/data'

  config.model.width = 16
  config.model.batch_norm_decay = 0.9
  config.crop.size = 32
  config.crop.short_side_min = 36
  config.crop.short_side_max = 44
  config.crop.eval_short_side = 40
  config.augmentation.flip_probability = 0.0
  if network == 'slowfast':
    # The slow pathway sees four frames, as in the paper, of eight.
    config.clip.num_frames = 8
    config.clip.frame_step = 2
    config.model.alpha = 2
    config.model.width = 8
    config.model.fast_width = 8

  config.memory_bank.init = 'embeddings'
  config.instance_recognition.loss = 'softmax'
  config.objective.temperature = 0.1
  config.objective.instance_recognition_steps = 300
  config.local_aggregation.num_neighbors = 100
  config.local_aggregation.min_videos_per_cluster = 10

  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.schedule = 'cosine'
  config.batch_size = 64
  config.num_steps = 450

  config.log_every_steps = 20
  config.eval_every_steps = 100
  config.checkpoint_every_steps = 200
  config.knn.reference = 'clips'
  return config
