"""What a run would take on machines that nobody has bought yet.

`config.plan` names the data set's size and the machine; the rest of the config
says what is run. Neither data nor devices are needed. The formulas are those
of `scaling`, derived in docs/scaling.md.
"""

import functools
import math

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from vie_jax import blueprint
from vie_jax.config import config_check
from vie_jax.evaluation import knn
from vie_jax.input_pipeline import augmentation, frame_sampling
from vie_jax.models import activations
from vie_jax.objective import kmeans, memory_bank
from vie_jax.planning import accelerators, scaling
from vie_jax.wording import counted

MOST_VIDEOS = np.iinfo(np.int32).max
STORED_FRAME = {'max_short_side': 320, 'max_long_side': 569}
"""Frames as data/prepare.py stores those of videos of 16 to 9."""
_OPTIMIZER_SLOTS = {'sgd': 1, 'adam': 2}
_DAY = 86_400


def plan(config: ml_collections.ConfigDict, facts: dict) -> dict:
  """Estimates memory, time and input of a run.

  Args:
    config: checked; `plan.videos` is not 0.
    facts: of the network, see `describe.description`.

  Returns:
    JSON-compatible: videos of the data set, and instances that are trained on:
    rows of the bank, by `dataset.share` and `dataset.bin_frames`; bytes per
    device by item, peaks of each program and whether JAX takes that much of a
    device's memory, seconds of each part of a step, what travels, checkpoints,
    input, days in all.

  Raises:
    config_check.ConfigError: if the batch or the bank does not split over so
      many devices, or there are more videos than an index can tell apart.
  """
  sizes = sizes_of(config)
  network = network_of(
    config,
    facts,
    platform=_accelerator(config).platform,
    num_clips=sizes.batch_size // sizes.num_devices,
  )
  return estimate(config, sizes, network)


def estimate(
  config: ml_collections.ConfigDict,
  sizes: scaling.Sizes,
  network: scaling.Network,
) -> dict:
  """As `plan`, of sizes and of a network whose cost is known already."""
  wanted = config.plan
  machine = scaling.Machine(
    _accelerator(config),
    wanted.efficiency,
    wanted.bank_efficiency,
    wanted.bandwidth_efficiency,
  )
  device = machine.accelerator
  hosts = device.hosts(sizes.num_devices)
  usable = int(device.usable_memory * device.memory_bytes)
  peaks = scaling.peak_bytes(sizes, network)
  steps = scaling.step_seconds(sizes, network, machine)
  kmeans = scaling.kmeans_seconds(sizes, network, machine)
  seconds = {name: sum(parts.values()) for name, parts in steps.items()}
  quickest = min(
    seconds[name] for name, steps in _steps(config).items() if steps
  )
  feed = _input(config, sizes, hosts, quickest)
  paces = {
    name: max(step, feed['seconds_per_batch']) for name, step in seconds.items()
  }
  return {
    'videos': int(wanted.videos),
    'instances': sizes.num_videos,
    'devices': sizes.num_devices,
    'hosts': hosts,
    'accelerator': wanted.accelerator,
    'peaks_from': device.source,
    'batch_size': sizes.batch_size,
    'bytes_per_device': _bytes_per_device(sizes, network),
    'peak_bytes_per_device': peaks,
    'memory_bytes': int(device.memory_bytes),
    'usable_memory_bytes': usable,
    'fits': max(peaks.values()) <= usable,
    'step_seconds': steps,
    'seconds_per_step': seconds,
    'kmeans_seconds': kmeans,
    'knn_seconds_per_1000_clips': 1000
    / knn.QUERIES_AT_A_TIME
    * scaling.search_seconds(sizes, machine, knn.QUERIES_AT_A_TIME),
    'sent_bytes_per_device': _sent(sizes, network),
    'search_equals_network_at_videos': scaling.equal_cost_videos(
      sizes, network, machine
    ),
    'checkpoint': _checkpoint(sizes, network, hosts, wanted),
    'input': feed,
    'epochs': config.num_steps * sizes.batch_size / sizes.num_videos,
    'days': _days(config, sizes, paces, kmeans),
  }


def sizes_of(config: ml_collections.ConfigDict) -> scaling.Sizes:
  """The numbers of the method, fitted to the planned data set.

  Raises:
    config_check.ConfigError: as `plan`.
  """
  wanted = config.plan
  num_videos = _num_instances(config)
  if memory_bank.ROW_MULTIPLE % wanted.devices:
    raise config_check.ConfigError(
      f'config.plan.devices is {wanted.devices}; the memory bank splits over '
      f'1, 2, 4 ... {memory_bank.ROW_MULTIPLE} of them.'
    )
  if num_videos < wanted.devices:
    raise config_check.ConfigError(
      f'{_named(config, num_videos)}, fewer than config.plan.devices, '
      f'{wanted.devices}, of which each takes a video of a batch: set '
      'config.plan.devices.'
    )
  # The batch of the config, as it has to be on so many devices.
  batch = -(-config.batch_size // wanted.devices) * wanted.devices
  batch = wanted.batch_size or batch
  if batch % wanted.devices or batch > num_videos:
    raise config_check.ConfigError(
      f'the batch of the plan is {batch}; it must be a multiple of '
      f'config.plan.devices, {wanted.devices}, and at most {num_videos}, as '
      f'{_named(config, num_videos)}: set config.plan.batch_size.'
    )
  method = blueprint.method_of(config, num_videos)
  return scaling.Sizes(
    num_videos=num_videos,
    num_devices=wanted.devices,
    batch_size=batch,
    embedding_size=config.model.embedding_size,
    instance_loss=method.instance_loss,
    num_noise=method.num_noise,
    num_neighbors=method.num_neighbors,
    num_clusters=method.num_clusters,
    num_clusterings=config.local_aggregation.num_clusterings,
    # The first clustering of a run is a cold one in either case.
    kmeans_iterations=method.kmeans_warm_iterations or method.kmeans_iterations,
    product_bytes=method.product_bytes,
    kmeans_chunk=kmeans.rows_of_chunk(
      _accelerator(config).platform, method.num_clusters
    ),
  )


def _num_instances(config):
  """Rows of the memory bank: of a share of the videos, whole or in bins."""
  wanted, dataset = config.plan, config.dataset
  num_videos = int(wanted.videos)
  if num_videos != wanted.videos or num_videos > MOST_VIDEOS:
    raise config_check.ConfigError(
      f'config.plan.videos is {wanted.videos}; it must be a whole number of at '
      f'most {MOST_VIDEOS:,}, which an int32 index tells apart.'
    )
  found = int(num_videos * dataset.share)
  if dataset.bin_frames:
    found *= int(
      frame_sampling.num_bins(
        wanted.frames_per_video,
        bin_frames=dataset.bin_frames,
        sampler=config.clip.sampler,
        num_frames=config.clip.num_frames,
        frame_step=config.clip.frame_step,
      )
    )
  if found > MOST_VIDEOS:
    raise config_check.ConfigError(
      f'{_named(config, found)}, more than {MOST_VIDEOS:,}, which an int32 '
      'index tells apart.'
    )
  return found


def _named(config, num_instances):
  """Where the number of instances comes from."""
  said = f'config.plan.videos is {int(config.plan.videos)}'
  if num_instances == config.plan.videos:
    return said
  return (
    f'{said}, which with config.dataset.share and bin_frames are '
    f'{num_instances} instances'
  )


def _accelerator(config):
  return accelerators.ACCELERATORS[config.plan.accelerator]


def network_of(
  config: ml_collections.ConfigDict,
  facts: dict,
  *,
  platform: str = 'gpu',
  num_clips: int = 1,
) -> scaling.Network:
  """What the cost of the config's network depends on; traced, not run.

  Args:
    config: see configs/default.py.
    facts: of the network alone, see `describe.description`.
    platform: whose ways count, see `activations.saved_bytes`.
    num_clips: of a device, see there.
  """
  model, shape = blueprint.build_model(config), blueprint.clip_shape(config)
  clip = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  variables = jax.eval_shape(
    functools.partial(model.init, train=False), jax.random.key(0), clip
  )

  statistics = jax.tree.leaves(variables['batch_stats'])
  window = _window(config.crop)
  return scaling.Network(
    num_parameters=facts['parameters'],
    num_statistics=sum(math.prod(leaf.shape) for leaf in statistics),
    optimizer_slots=_OPTIMIZER_SLOTS[config.optimizer.name],
    flops_per_clip=facts['forward_flops_per_clip'],
    activation_bytes_per_clip=activations.saved_bytes(
      model, variables, shape, num_clips=num_clips, platform=platform
    ),
    # The window of every frame, the crop's four numbers and the index.
    input_bytes_per_clip=shape[0] * window * window * 3 + 5 * scaling.WORD,
    is_bfloat16=config.model.dtype == 'bfloat16',
  )


def _window(crop):
  """Side of the windows that are sent to the devices."""
  if crop.method == 'multiscale':
    return augmentation.multiscale_window_size(
      scales=crop.multiscale_scales,
      max_short_side=STORED_FRAME['max_short_side'],
    )
  return augmentation.window_size(
    size=crop.size, short_side=crop.short_side_min, **STORED_FRAME
  )


def _bytes_per_device(sizes, network):
  clips = sizes.batch_size / sizes.num_devices
  temporary = scaling.temporary_bytes(sizes)
  return {
    **scaling.state_bytes(sizes, network),
    'gradient': scaling.WORD * network.num_parameters,
    'activations': math.ceil(clips * network.activation_bytes_per_clip),
    'batches': math.ceil(2 * clips * network.input_bytes_per_clip),
    **{f'temporary_{name}': size for name, size in temporary.items()},
  }


def _sent(sizes, network):
  return {
    name: round(sum(one.sent(sizes.num_devices) for one in moved))
    for name, moved in scaling.transfers(sizes, network).items()
  }


def _checkpoint(sizes, network, hosts, wanted):
  size = scaling.checkpoint_bytes(sizes, network)
  return {
    'bytes': size,
    'seconds': size / hosts / wanted.storage_bandwidth,
  }


def _input(config, sizes, hosts, seconds):
  """What decoding and reading must bring, so that no step waits."""
  wanted, frames = config.plan, config.clip.num_frames
  per_second = sizes.batch_size / seconds
  core_seconds = sizes.batch_size * frames * wanted.host_ms_per_frame / 1000
  cores = wanted.cores_per_host * hosts
  per_batch = core_seconds / cores if cores else 0.0
  # The whole data set is stored, whatever share of it is trained on.
  stored = int(wanted.videos) * wanted.frames_per_video
  return {
    'clips_per_second': per_second,
    'cores_per_host': core_seconds / seconds / hosts,
    # Of the cores that there are; 0 if that is not said.
    'seconds_per_batch': per_batch,
    'sets_the_pace': per_batch > seconds,
    'read_bytes_per_second': per_second * frames * wanted.bytes_per_frame,
    'stored_bytes': stored * wanted.bytes_per_frame,
  }


def _days(config, sizes, seconds, kmeans):
  """The whole run: steps of both objectives, and the clusterings between."""
  steps = _steps(config)
  every = config.local_aggregation.recluster_every_steps or (
    sizes.num_videos // sizes.batch_size
  )
  total = sum(steps[name] * seconds[name] for name in steps)
  total += math.ceil(steps['local_aggregation'] / every) * kmeans
  return total / _DAY


def _steps(config):
  """Objective -> steps of the run that are of it."""
  first = min(config.objective.instance_recognition_steps, config.num_steps)
  return {
    'instance_recognition': first,
    'local_aggregation': config.num_steps - first,
  }


def table(planned: dict) -> str:
  """A plan as lines to read: name, and value with a unit."""
  lines = [
    '{videos:,} videos on {devices} {accelerator}, batch {batch_size}'.format(
      **planned
    ),
    *_instances(planned),
    'bytes on each device:',
  ]
  lines += _rows(planned['bytes_per_device'], _size)
  lines.append(
    f'most at a time, of {_memory(planned)}'
    + (':' if planned['fits'] else ', WHICH IS TOO LITTLE:')
  )
  lines += _rows(planned['peak_bytes_per_device'], _size)
  for name, parts in planned['step_seconds'].items():
    total = planned['seconds_per_step'][name]
    lines.append(f'a step of {name}: {_time(total)}')
    lines += _rows(parts, _time)
  checkpoint, feed = planned['checkpoint'], planned['input']
  lines += [
    f'k-means, each time: {_time(planned["kmeans_seconds"])}',
    'the exact search takes as long as the network at '
    f'{planned["search_equals_network_at_videos"]:,} videos',
    f'a checkpoint: {_size(checkpoint["bytes"])}, '
    f'{_time(checkpoint["seconds"])} to write',
    f'input: {feed["clips_per_second"]:,.0f} clips a second, '
    f'{counted(math.ceil(feed["cores_per_host"]), "core")} on each of '
    f'{counted(planned["hosts"], "host")}, '
    f'{_size(feed["read_bytes_per_second"])} a second of '
    f'{_size(feed["stored_bytes"])}',
  ]
  if feed['sets_the_pace']:
    lines.append(
      'THE INPUT SETS THE PACE: decoding a batch takes '
      f'{_time(feed["seconds_per_batch"])} (config.plan.cores_per_host)'
    )
  lines.append(
    f'the whole run: {planned["days"]:,.2f} days, '
    f'{planned["epochs"]:,.3g} epochs'
  )
  if not feed['seconds_per_batch']:
    lines.append(
      '  if the input keeps up: name the cores by config.plan.cores_per_host'
    )
  if planned['epochs'] < 1:
    lines.append(
      'LESS THAN AN EPOCH: some videos are never looked at; raise '
      'config.num_steps or config.plan.batch_size'
    )
  return '\n'.join(lines)


def _instances(planned):
  if planned['instances'] == planned['videos']:
    return []
  return [
    f'  trained on as {planned["instances"]:,} instances, a row of the memory '
    'bank each (config.dataset)'
  ]


def _memory(planned):
  whole, usable = planned['memory_bytes'], planned['usable_memory_bytes']
  if usable == whole:
    return _size(whole)
  return (
    f'{_size(usable)} that JAX takes of {_size(whole)} '
    '(XLA_PYTHON_CLIENT_MEM_FRACTION)'
  )


def _rows(values, form):
  return [f'  {name:32}{form(value):>12}' for name, value in values.items()]


def _size(num_bytes):
  for unit in ('B', 'kB', 'MB', 'GB', 'TB'):
    if num_bytes < 1000:
      return f'{num_bytes:.4g} {unit}'
    num_bytes /= 1000
  return f'{num_bytes:,.4g} PB'


def _time(seconds):
  if seconds >= 1:
    return f'{seconds:,.4g} s'
  return f'{1000 * seconds:.3g} ms'
