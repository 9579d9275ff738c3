"""The demo: small networks on the embedded data set, minutes on two cores.

  make demo

runs, among others,

  python main.py --config=configs/demo.py:single --workdir=demo/single
  python main.py --config=configs/demo.py:slowfast --workdir=demo/slowfast

All networks of the paper are here; `configs/reproduce.py` is these at one
width, for the experiments that compare them. Two trained networks side by side
(config.model.streams) are of one width, too: train `single` for that with
--config.model.width=8.
"""

import functools

from configs import (
  input_single,
  vie_3dresnet,
  vie_single,
  vie_slow,
  vie_slowfast,
  vie_trn,
  vie_twostream_s,
  vie_twostream_sf,
)

BASES = {
  'single': vie_single.get_config,
  'slowfast': vie_slowfast.get_config,
  'slow': vie_slow.get_config,
  'trn': vie_trn.get_config,
  '3dresnet': vie_3dresnet.get_config,
  'twostream_s': vie_twostream_s.get_config,
  'twostream_sf': vie_twostream_sf.get_config,
  'input_trn': functools.partial(input_single.get_config, 'trn'),
  'input_slow': functools.partial(input_single.get_config, 'slow'),
  'input_slowfast': functools.partial(input_single.get_config, 'slowfast'),
}
# Frames of a clip and the distance between them, by sampler. A video has 48
# frames, and a clip of SlowFast, Slow and 3DResNet spans 16 of them. The slow
# pathway sees four frames, as in the paper, of SlowFast's eight.
CLIPS = {
  'single': (1, 1),
  'slowfast': (8, 2),
  'slow': (4, 4),
  'trn': (4, 4),
  '3dresnet': (8, 2),
}


def get_config(network='slowfast'):
  """The config of a network of `BASES`, made small.

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

  config.model.width = 16 if config.model.name == 'vie_single' else 8
  config.model.fast_width = 8
  config.model.batch_norm_decay = 0.9
  num_frames, frame_step = CLIPS[config.clip.sampler]
  config.clip.num_frames = num_frames
  config.clip.frame_step = frame_step
  if config.clip.sampler == 'slowfast':
    config.model.alpha = 2
  config.crop.size = 32
  config.crop.short_side_min = 36
  config.crop.short_side_max = 44
  config.crop.eval_short_side = 40
  config.augmentation.flip_probability = 0.0

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
  _shrink_evaluations(config)
  return config


def _shrink_evaluations(config):
  """Readouts, finetuning and supervised training in a few hundred steps.

  Rates are higher than the official ones, which are for a thousand times as
  many steps, and drop at fixed steps: with so few evaluations, saturation
  cannot be told from noise.
  """
  readout = config.linear_eval
  readout.batch_size = 64
  readout.learning_rate = 0.2
  readout.num_steps = readout.static_num_steps = 300
  readout.drop_steps = readout.static_drop_steps = (200, 260)
  readout.eval_every_steps = 150
  readout.checkpoint_every_steps = 150

  finetune = config.finetune
  finetune.batch_size = 32
  finetune.learning_rate = 0.02
  finetune.scratch_learning_rate = 0.03
  finetune.num_steps = 300
  finetune.drop_steps = (200, 260)
  finetune.num_eval_clips = 5

  supervised = config.supervised
  supervised.batch_size = 64
  supervised.num_steps = 400
  supervised.drop_steps = (280, 350)
  for training in (finetune, supervised):
    training.schedule = 'drops'
    training.eval_every_steps = 100
    training.checkpoint_every_steps = 100
