"""VIE-Single on less data, or on parts of videos: the paper's Table 3.

  python main.py --config=configs/vie_single_data.py:30 --workdir=W \
      --config.dataset.dir=PREPARED

Known are 30 and 70, percent of the videos, and 2bin and 5bin, in which
each stretch of 130 or 52 frames is an instance of its own.

Hardware, time and metric: not yet run. The paper's linear readouts of Conv5 on
Kinetics are 40.72 % (30), 43.59 % (70), 44.24 % (2bin) and 43.33 % (5bin).
"""

from configs import vie_single

# What is trained on; clusters, background neighbours, drops of the rate.
AMOUNTS = {
  '30': ({'share': 0.3}, 2400, 512, (860_011, 1_060_011)),
  '70': ({'share': 0.7}, 5600, 512, (860_011, 1_060_011)),
  '2bin': ({'bin_frames': 130}, 5000, 4096, (1_375_011, 1_600_011)),
  '5bin': ({'bin_frames': 52}, 10_000, 4096, (1_220_011, 1_505_011)),
}
# Of VIE-Single; the official settings leave the end of the others open.
STEPS_AFTER_LAST_DROP = 154_989


def get_config(amount='30'):
  """VIE-Single's config for one column of Table 3 (official)."""
  if amount not in AMOUNTS:
    raise ValueError(
      f'configs/vie_single_data.py:{amount} does not exist; known are '
      f'{", ".join(AMOUNTS)}.'
    )
  config = vie_single.get_config()
  dataset, clusters, neighbors, drops = AMOUNTS[amount]
  config.dataset.update(dataset)
  config.local_aggregation.num_clusters = clusters
  config.local_aggregation.num_neighbors = neighbors
  config.optimizer.drop_steps = drops
  config.num_steps = drops[-1] + STEPS_AFTER_LAST_DROP
  return config
