"""VIE-Single on Kinetics-400: a 2D ResNet-18 on single frames.

  python main.py --config=configs/vie_single.py --workdir=W \
      --config.dataset.dir=PREPARED

`configs/vie_single.py:ir` is VIE-Single (IR), which never comes to Local
Aggregation.

Hardware, time and metric: not yet run. The paper's kNN is not given; its
linear readout of Conv5 on Kinetics is 44.41 %, and 43.85 % for IR.
"""

from configs import default


def get_config(objective='la'):
  """The defaults are VIE-Single's, as the official code trains it.

  Args:
    objective: 'la', or 'ir' for Instance Recognition to the end.
  """
  config = default.get_config()
  if objective not in ('la', 'ir'):
    raise ValueError(
      f'configs/vie_single.py:{objective} does not exist; known are la, ir.'
    )
  if objective == 'ir':
    config.objective.instance_recognition_steps = config.get_ref('num_steps')
    config.optimizer.drop_steps = (845_011, 1_280_011)
  return config
