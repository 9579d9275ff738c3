"""The Input-Single controls of Table 4: VIE-Single on the clips of others.

  python main.py --config=configs/input_single.py:slowfast --workdir=W \
      --mode=knn_eval --config.dataset.dir=PREPARED \
      --config.init_from=WORKDIR_OF_VIE_SINGLE

The network sees each frame for itself and averages; so what it gains over
VIE-Single, it gains from more frames alone.

Hardware, time and metric: not yet run. The paper's linear readouts of Conv5 on
Kinetics are 44.27 % (trn), 44.62 % (slow) and 44.29 % (slowfast).
"""

from configs import vie_slow, vie_slowfast, vie_trn

BASES = {
  'trn': vie_trn.get_config,
  'slow': vie_slow.get_config,
  'slowfast': vie_slowfast.get_config,
}

# Readouts on videos: the steps before the drops, and the end (ours).
READOUT_STEPS = {
  'trn': ((149_998, 324_998), 390_000),
  'slow': ((154_998, 344_998), 415_000),
  'slowfast': ((94_998, 209_999), 250_000),
}


def get_config(clips='slowfast'):
  """VIE-Single on the clips of 'trn', 'slow' or 'slowfast'."""
  if clips not in BASES:
    raise ValueError(
      f'configs/input_single.py:{clips} does not exist; known are '
      f'{", ".join(sorted(BASES))}.'
    )
  config = BASES[clips]()
  config.model.name = 'vie_single'
  readout = config.linear_eval
  readout.drop_steps, readout.num_steps = READOUT_STEPS[clips]
  # The bank of a network trained on single frames is of other clips.
  config.knn.reference = 'clips'
  return config
