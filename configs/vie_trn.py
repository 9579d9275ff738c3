"""VIE-TRN on Kinetics-400: 4 frames from neighbouring half seconds, in order.

  python main.py --config=configs/vie_trn.py --workdir=W \
      --config.dataset.dir=PREPARED

The transfer results of the paper are of a VIE-TRN that goes on from a finished
VIE-Single:

  python main.py --config=configs/vie_trn.py:from_single --workdir=W \
      --config.dataset.dir=PREPARED --config.init_from=WORKDIR_OF_VIE_SINGLE

Hardware, time and metric: not yet run. The paper's kNN is not given; its
linear readout of Conv5 on Kinetics is 44.91 %.
"""

from configs import default


def get_config(start='scratch'):
  """The defaults with TRN's network and clips.

  Args:
    start: 'scratch', or 'from_single', which starts with Local Aggregation,
      in the memory bank of the run that `init_from` names.

  The official settings give no drops of the learning rate from scratch:
  VIE-Slow's stand in, with the same batch size. From VIE-Single they count
  steps from that network's 1,375,000 on, and give no end: the one here leaves
  as long after the last drop as VIE-Single has.
  """
  config = default.get_config()
  config.model.name = 'vie_trn'
  config.clip.sampler = 'trn'
  config.clip.num_frames = 4
  config.clip.frame_step = 12
  config.batch_size = 64
  config.optimizer.drop_steps = (1_170_011, 1_380_011)
  config.num_steps = 1_440_000
  # Readouts: of Input-Single on TRN's clips on videos, of VIE-Slow on images;
  # TRN's official steps are counted from an unknown start.
  config.linear_eval.drop_steps = (149_998, 324_998)
  config.linear_eval.num_steps = 390_000
  config.linear_eval.static_drop_steps = (250_011, 500_011)
  config.linear_eval.static_num_steps = 600_000
  if start not in ('scratch', 'from_single'):
    raise ValueError(
      f'configs/vie_trn.py:{start} does not exist; known are scratch, '
      'from_single.'
    )
  if start == 'from_single':
    config.memory_bank.init = 'init_from'
    config.objective.instance_recognition_steps = 0
    config.optimizer.drop_steps = (80_011, 195_011)
    config.num_steps = 350_000
  return config
