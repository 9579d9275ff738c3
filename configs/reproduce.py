"""The paper's whole plan at a size for two cores: one width, one data set.

  make reproduce-demo

runs, among many others,

  python main.py --config=configs/reproduce.py:slowfast --workdir=W \
      --config.dataset.dir=PREPARED

and its readouts, finetunings and controls; `launch/reproduce.py` has the list.
"""

from configs import demo

# What stands for the paper's Table 3: shares of the videos, and bins of a
# video of 48 frames, two and five of them.
AMOUNTS = {
  '30': {'share': 0.3},
  '70': {'share': 0.7},
  '2bin': {'bin_frames': 24},
  '5bin': {'bin_frames': 10},
}
WIDTH = 8


def get_config(experiment='slowfast'):
  """The config of one network of the plan.

  Args:
    experiment: a network of `configs/demo.py`; 'single_ir', which never comes
      to Local Aggregation; or 30, 70, 2bin, 5bin: VIE-Single on so much data.

  All networks have the width of SlowFast's slow pathway in `configs/demo.py`
  and the same number of steps, a third more than there, so that what they
  differ in is what the paper compares.
  """
  known = [*demo.BASES, 'single_ir', *AMOUNTS]
  if experiment not in known:
    raise ValueError(
      f'configs/reproduce.py:{experiment} does not exist; known are '
      f'{", ".join(sorted(known))}.'
    )
  is_single = experiment == 'single_ir' or experiment in AMOUNTS
  config = demo.get_config('single' if is_single else experiment)
  config.dataset.dir = 'reproduce-demo/data/videos'
  config.dataset.update(AMOUNTS.get(experiment, {}))
  config.model.width = WIDTH
  config.num_steps = 600
  config.objective.instance_recognition_steps = 400
  config.eval_every_steps = 200
  config.keep_checkpoints = 1
  if experiment == 'single_ir':
    config.objective.instance_recognition_steps = config.get_ref('num_steps')
  return config
