"""Every field of a run, with its meaning, unit, legal values and source.

Other config files start from `get_config()` and assign existing fields only:
the dict is locked, so a mistyped name is an error. "Official" is the code that
accompanies the paper.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked defaults: VIE-Single on Kinetics-400."""
  config = ml_collections.ConfigDict()

  # One seed decides parameters, bank, order of videos, frames, crops, noise.
  config.seed = 0
  # Devices to use; 0 takes all that JAX sees. Batches must split evenly.
  config.num_devices = 0
  # Where the network's weights come from: 'workdir' (the newest checkpoint
  # there), 'random' (a network that was never trained), 'official:PATH' (a
  # checkpoint of the official code), or the workdir of another run. A
  # training starts from them, and goes on from its own checkpoints.
  config.init_from = 'workdir'

  config.dataset = ml_collections.ConfigDict()
  # A prepared data set, made by data/prepare.py.
  config.dataset.dir = 'data/prepared/kinetics400'
  # Label columns to evaluate on; () takes all that the data set has.
  config.dataset.label_columns = ()
  # Share of the training videos to train on, in (0, 1]: 0.3 and 0.7 in the
  # paper's Table 3. The draw is the same in every run.
  config.dataset.share = 1.0
  # Whether a share is drawn with replacement, repeats being videos of their
  # own (official); else each video is in it once at most (paper).
  config.dataset.with_replacement = False
  # Frames in a bin of a video, each bin being an instance of its own: 130
  # (2bin) and 52 (5bin) in the paper's Table 3; 0 takes whole videos.
  config.dataset.bin_frames = 0

  config.model = ml_collections.ConfigDict()
  # 'vie_single', 'vie_3dresnet', 'vie_trn', 'vie_slow', 'vie_slowfast',
  # 'vie_twostream_s' (Single and Slow) or 'vie_twostream_sf' (Single and
  # SlowFast).
  config.model.name = 'vie_single'
  # Two-stream networks: the two sources of weights, as in init_from, with a
  # comma between (so no path may have one), that of the single stream first
  # (official). Empty: both streams are one network, trained together.
  config.model.streams = ''
  # Channels of the first stage (slow pathway); 64 in the paper.
  config.model.width = 64
  # SlowFast: channels of the fast pathway's first stage; 8 in the paper.
  config.model.fast_width = 8
  # SlowFast: the slow pathway sees every alpha-th frame; 4 in the paper.
  config.model.alpha = 4
  # Share of batch norm's running statistics that a step keeps, in [0, 1);
  # 0.997 (official) averages over some 300 steps: too long for short runs.
  config.model.batch_norm_decay = 0.997
  # Dimensions of the embedding; 128 (official).
  config.model.embedding_size = 128
  # Of the convolutions: 'float32' or 'bfloat16'. Parameters, bank, losses,
  # norms and statistics are float32 in either case.
  config.model.dtype = 'float32'

  config.clip = ml_collections.ConfigDict()
  # How frames are picked: 'single', 'slow', 'slow_looped' (slow as the
  # official code samples in finetuning), 'slowfast', '3dresnet' or 'trn'.
  config.clip.sampler = 'single'
  # Frames in a clip.
  config.clip.num_frames = 1
  # Distance between a clip's frames, in frames at 25 per second; for 'trn'
  # the longest bin that a frame is drawn from (official: 12); not read by
  # 'single'.
  config.clip.frame_step = 1
  # Clips of a video in evaluation, evenly spread; 5 (paper).
  config.clip.num_eval_clips = 5

  config.crop = ml_collections.ConfigDict()
  # 'short_side': the frame is resized, then cropped at random (official, in
  # pretraining). 'multiscale': a square in the middle or a corner of the
  # frame is resized (the paper's multi-scale augmentation, in finetuning;
  # officially without colour noise, which the fields of augmentation set).
  config.crop.method = 'short_side'
  # Side of the square that the network sees, in pixels.
  config.crop.size = 224
  # Training: the short side is resized to a whole number drawn from
  # [short_side_min, short_side_max], then cropped at random (official). Like
  # eval_short_side not read by 'multiscale'.
  config.crop.short_side_min = 256
  config.crop.short_side_max = 319
  # Evaluation: the short side before the centre crop (official).
  config.crop.eval_short_side = 256
  # 'multiscale': sides of the square, as shares of the frame's short side
  # (official). Evaluation takes the whole short side.
  config.crop.multiscale_scales = (1.0, 2**-0.25, 2**-0.5, 2**-0.75, 0.5)

  # One draw per clip, shared by its frames (paper and official).
  config.augmentation = ml_collections.ConfigDict()
  # Probability of mirroring left and right, in [0, 1].
  config.augmentation.flip_probability = 0.5
  # Factors are drawn from [1 - x, 1 + x], in random order.
  config.augmentation.brightness = 0.4
  config.augmentation.contrast = 0.4
  config.augmentation.saturation = 0.4
  # Hue shift from [-x, x], as a fraction of the hue circle; at most 0.5.
  config.augmentation.hue = 0.4
  # Probability of turning the clip grey, last, in [0, 1].
  config.augmentation.grey_probability = 0.3

  config.memory_bank = ml_collections.ConfigDict()
  # Share of the old row kept at an update, in [0, 1); 0.5 (official).
  config.memory_bank.momentum = 0.5
  # 'uniform' (official); 'embeddings': one pass of the untrained network over
  # the videos, which learns much sooner on small data sets; 'init_from': the
  # bank of the run that init_from names, of the same data set.
  config.memory_bank.init = 'uniform'

  config.objective = ml_collections.ConfigDict()
  # Temperature of all similarities; 0.07 (official).
  config.objective.temperature = 0.07
  # Steps of Instance Recognition before Local Aggregation takes over; 50,000
  # (official). As many as num_steps, and LA is never reached: VIE (IR).
  config.objective.instance_recognition_steps = 50_000

  config.instance_recognition = ml_collections.ConfigDict()
  # 'nce' (official), or 'softmax': the exact loss over the whole bank.
  config.instance_recognition.loss = 'nce'
  # Noise videos per embedding; 4096 (official). Not read by 'softmax'.
  config.instance_recognition.num_noise = 4096

  config.local_aggregation = ml_collections.ConfigDict()
  # Background neighbours: 512 (paper). At most the number of videos.
  config.local_aggregation.num_neighbors = 512
  # k-means clusters: 8,000 (paper). Small data sets get fewer, so that
  # a cluster has at least min_videos_per_cluster videos on average; about 30
  # in the paper.
  config.local_aggregation.num_clusters = 8000
  config.local_aggregation.min_videos_per_cluster = 20
  # Clusterings, whose clusters are united; 1 (official).
  config.local_aggregation.num_clusterings = 1
  # Lloyd iterations of k-means; 20 (official).
  config.local_aggregation.kmeans_iterations = 20
  # Steps between clusterings; 0 is once an epoch (official).
  config.local_aggregation.recluster_every_steps = 0

  config.optimizer = ml_collections.ConfigDict()
  # 'sgd' with momentum (official), or 'adam'.
  config.optimizer.name = 'sgd'
  # The rate before any drop; 0.03 (official).
  config.optimizer.learning_rate = 0.03
  # SGD only; 0.9 (official).
  config.optimizer.momentum = 0.9
  # L2 penalty on everything but batch norm; 1e-4 (official). Part of the
  # gradient with 'sgd' (official); decoupled with 'adam', as AdamW has it.
  config.optimizer.weight_decay = 1e-4
  # 'drops': a tenth after each of drop_steps (official); 'cosine': to zero at
  # num_steps.
  config.optimizer.schedule = 'drops'
  # The steps that still have the old rate; of VIE-Single (official).
  config.optimizer.drop_steps = (1_020_011, 1_220_011)
  # Steps of a linear rise from zero; 0 (official).
  config.optimizer.warmup_steps = 0

  # Videos in a batch, over all devices; 128 for VIE-Single (official).
  config.batch_size = 128
  # Steps in all, both objectives together; of VIE-Single (official).
  config.num_steps = 1_375_000

  # Steps between log lines, evaluations and checkpoints.
  config.log_every_steps = 100
  config.eval_every_steps = 5000
  config.checkpoint_every_steps = 5000
  # Checkpoints kept, the newest ones.
  config.keep_checkpoints = 3

  config.knn = ml_collections.ConfigDict()
  # Neighbours that vote; 10 (official).
  config.knn.num_neighbors = 10
  # What --mode=knn_eval searches: 'bank' (official), or 'clips': the mean
  # embedding of each training video's evaluation clips. Untrained, official
  # and side-by-side weights have no bank here, so for them it is 'clips'.
  config.knn.reference = 'bank'
  # Clips in an evaluation batch, over all devices.
  config.knn.batch_size = 64

  config.embed = ml_collections.ConfigDict()
  # What --mode=embed embeds: an .npz file with an array `clips`, uint8
  # [n, T, H, W, 3], cropped already, of any size that the network accepts.
  config.embed.clips = ''
  # Clips at a time, over all devices.
  config.embed.batch_size = 64

  config.input = ml_collections.ConfigDict()
  # Threads that read and decode; 0 is one per core.
  config.input.num_threads = 0
  # Batches decoded ahead.
  config.input.prefetch_batches = 4

  config.lock()
  return config
