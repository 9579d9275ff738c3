"""Every field of a run, with its meaning, unit, legal values and source.

Other config files start from `get_config()` and assign existing fields only:
the dict is locked, so a mistyped name is an error. "Official" is the code that
accompanies the paper. Steps and counts are at most 2**31 - 1; sizes of clips,
crops, networks and batches have lower limits, see
`vie_jax/config/config_check.py`.
"""

import ml_collections


def _classifier_training() -> ml_collections.ConfigDict:
  """Fields that finetuning and supervised training share."""
  config = ml_collections.ConfigDict()
  # 'color_noise': as in pretraining, by the fields of crop and augmentation.
  # 'multiscale': squares of several sizes and no noise, see crop.method. In
  # both, clips are mirrored by augmentation.flip_probability (paper: both).
  config.augmentation = 'color_noise'
  # Videos in a batch, over all devices; 128 (official) and, to test, 64.
  config.batch_size = 128
  config.eval_batch_size = 64
  # SGD; 0.9 (official).
  config.momentum = 0.9
  # 'plateau': the rate drops to a tenth when validation saturates, that is
  # after `patience` evaluations without a better top-1, `num_drops` times, and
  # the training ends when it saturates again (paper). 'drops': after each of
  # drop_steps (official).
  config.schedule = 'plateau'
  config.patience = 5
  config.num_drops = 2
  config.drop_steps = ()
  # Clips of a video in validation, and where they lie: 'spread' evenly
  # (official), or 'consecutive', all that the video has (paper), which reads
  # no number. Their softmax is averaged.
  config.eval_clips = 'spread'
  config.num_eval_clips = 5
  return config


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked defaults: VIE-Single on Kinetics-400."""
  config = ml_collections.ConfigDict()

  # One seed decides parameters, bank, order of videos, frames, crops, noise. At
  # most 2**32 - 2.
  config.seed = 0
  # Devices to use; 0 takes all that JAX sees. Batches must split evenly.
  config.num_devices = 0
  # Where the network's weights come from: 'workdir' (the newest checkpoint
  # there), 'random' (a network that was never trained), 'official:PATH' (a
  # checkpoint of the official code), the workdir of another run, or a step of
  # any run: WORKDIR/checkpoints/STEP. A training starts from them, and goes on
  # from its own checkpoints.
  config.init_from = 'workdir'
  # Embeddings made elsewhere, in place of a network's, for knn_eval and
  # retrieve: a .parquet or .npy file, see docs/embeddings.md. Empty: none.
  config.embeddings = ''
  # Name of an evaluation's folder in WORKDIR/MODE; empty: the name of the data
  # set and, behind it, what else tells two results apart: a source of weights
  # other than 'workdir', 'multiscale', 'clips', some of several label columns
  # (not of linear_eval, which refuses others than its folder began with).
  config.result_name = ''

  config.dataset = ml_collections.ConfigDict()
  # A prepared data set, made by data/prepare.py: a folder, or the URL of one
  # (s3:// with the extra s3, gs:// with the extra gcs).
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
  # [short_side_min, short_side_max], then cropped at random (official). Not
  # read by 'multiscale'.
  config.crop.short_side_min = 256
  config.crop.short_side_max = 319
  # Evaluation: the short side before the centre crop (official).
  config.crop.eval_short_side = 256
  # 'multiscale': sides of the square, as shares of the frame's short side
  # (official).
  config.crop.multiscale_scales = (1.0, 2**-0.25, 2**-0.5, 2**-0.75, 0.5)
  # 'multiscale', in evaluation: 'largest_square' in the middle (official), or
  # 'short_side', as above (official for VIE-3DResNet).
  config.crop.multiscale_eval = 'largest_square'

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
  # 'uniform' (official); 'embeddings': of an epoch of videos, by the network as
  # it begins, which learns much sooner on small data sets; 'init_from': the
  # bank of the run that init_from names, of the same data set.
  config.memory_bank.init = 'uniform'

  config.objective = ml_collections.ConfigDict()
  # Temperature of all similarities; 0.07 (official). At least 0.02 with steps of
  # Instance Recognition by 'nce', 0.01 by 'softmax', else 0.002.
  config.objective.temperature = 0.07
  # Steps of Instance Recognition before Local Aggregation takes over; 50,000
  # (official). As many as num_steps, and LA is never reached: VIE (IR).
  config.objective.instance_recognition_steps = 50_000
  # The most memory, in bytes, that a matrix of similarities between a batch
  # and a device's rows of the bank takes; larger ones are formed block by
  # block. No result depends on it. See docs/scaling.md.
  config.objective.product_bytes = 2**30

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
  # Those of a clustering that starts from the means of the last clusters, as
  # all but the first can. 0 starts each from random rows (official). 3 to 5 are
  # enough, see docs/performance.md.
  config.local_aggregation.kmeans_warm_iterations = 0
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
  # Validation videos that evaluations in training look at, evenly spread over
  # them; 0 takes all, as --mode=knn_eval does. All of Kinetics would take a
  # tenth of the time of VIE-SlowFast, see docs/performance.md.
  config.eval_videos = 2000
  # Checkpoints kept, the newest ones; and those of steps that are multiples
  # of the second field, too, unless it is 0.
  config.keep_checkpoints = 3
  config.keep_checkpoint_every_steps = 0
  # After a checkpoint could not be saved, for want of room or whatever reason:
  # 'retry' goes on and saves the next one, with figures kept in memory until
  # there is room; 'stop' ends with exit code 75.
  config.on_failed_save = 'retry'

  # Whether a training writes a trace of some of its steps to WORKDIR/profile,
  # once, for XProf and Perfetto; see docs/performance.md.
  config.profile = False
  # Its first step, counted from 1; 0 begins once ten steps have run without a
  # compilation. To see k-means, an evaluation or a save, begin before one.
  config.profile_first_step = 0
  # Steps of the trace.
  config.profile_steps = 5

  config.knn = ml_collections.ConfigDict()
  # Neighbours that vote; 10 (official).
  config.knn.num_neighbors = 10
  # What --mode=knn_eval searches: 'bank' (official), or 'clips': the mean
  # embedding of each training video's evaluation clips. Weights that are not
  # from a pretraining have no bank here, so for them it is 'clips'.
  config.knn.reference = 'bank'
  # Clips in an evaluation batch, over all devices.
  config.knn.batch_size = 64

  config.linear_eval = ml_collections.ConfigDict()
  # What the readouts are trained and tested on: a prepared data set, an image
  # folder with train/CLASS/ and val/CLASS/, or 'tfds:NAME'. Images are shown
  # as static video. Empty: dataset.dir.
  config.linear_eval.dataset = ''
  # Where TFDS keeps its data sets; empty: where TFDS looks by itself.
  config.linear_eval.tfds_data_dir = ''
  # Layers that get a readout each, all trained together: any of conv1 ...
  # conv5 (paper: conv3, conv4, conv5).
  config.linear_eval.layers = ('conv3', 'conv4', 'conv5')
  # Layers averaged over space as well. Officially ('conv5',) for the
  # supervised Single, Slow and SlowFast on ImageNet, and no others.
  config.linear_eval.averaged_layers = ()
  # Clips in a batch, over all devices; 128 (official) and, to test, 64.
  config.linear_eval.batch_size = 128
  config.linear_eval.eval_batch_size = 64
  # SGD; rate, momentum and L2 penalty on kernel and bias (official).
  config.linear_eval.learning_rate = 0.01
  config.linear_eval.momentum = 0.9
  config.linear_eval.weight_decay = 1e-4
  # The last steps before the rate drops to a tenth, counted from 0, on videos
  # and on images (official, VIE-Single). The ends are ours: official runs were
  # ended by hand.
  config.linear_eval.drop_steps = (235_099, 519_998)
  config.linear_eval.num_steps = 620_000
  config.linear_eval.static_drop_steps = (116_301, 516_691)
  config.linear_eval.static_num_steps = 620_000
  # Images only: probability of grey, before the other noise (official).
  config.linear_eval.static_grey_probability = 0.2
  # Steps between evaluations and checkpoints.
  config.linear_eval.eval_every_steps = 20_000
  config.linear_eval.checkpoint_every_steps = 5000

  # --mode=finetune: the whole network, and a classifier on its pooled features,
  # on the labels of one column.
  config.finetune = _classifier_training()
  # A prepared data set; empty: dataset.dir.
  config.finetune.dataset = ''
  # Rate and L2 penalty (official). The penalty is on the classifier alone
  # unless decay_all is set, which leaves out batch norm (paper).
  config.finetune.learning_rate = 5e-4
  config.finetune.weight_decay = 1e-5
  config.finetune.decay_all = False
  # The same for a network, or streams, that start untrained, with the
  # penalty on everything but batch norm (official).
  config.finetune.scratch_learning_rate = 0.01
  config.finetune.scratch_weight_decay = 1e-4
  # At most; official runs end some 10,000 steps after the last drop.
  config.finetune.num_steps = 40_000
  config.finetune.eval_every_steps = 500
  config.finetune.checkpoint_every_steps = 500

  # --mode=supervised: the same from scratch on the labels of dataset.dir. The
  # official settings are not known; the rate is the default of the official
  # code.
  config.supervised = _classifier_training()
  config.supervised.learning_rate = 0.03
  config.supervised.weight_decay = 1e-4
  config.supervised.num_steps = 700_000
  config.supervised.eval_every_steps = 5000
  config.supervised.checkpoint_every_steps = 5000

  config.retrieve = ml_collections.ConfigDict()
  # Other workdirs, with commas between, whose --mode=retrieve on the same
  # videos is done: the page shows their neighbours beside this run's.
  config.retrieve.beside = ''
  # A video file of your own, or a folder of them: finds the training videos
  # nearest to each. Each path has a folder of its own for the answer, beside
  # result.json.
  config.retrieve.query = ''
  # What the page calls this network; empty: the last part of the workdir.
  config.retrieve.name = ''
  # Validation videos, or those of `query`, on the page, evenly spread over them,
  # and neighbours of each; 3 (the paper's Figure 2).
  config.retrieve.num_queries = 50
  config.retrieve.num_neighbors = 3

  config.embed = ml_collections.ConfigDict()
  # What --mode=embed embeds: a prepared data set, a folder of videos or of
  # images, or one file. Empty: dataset.dir.
  config.embed.source = ''
  # In place of `source`: an .npz file with an array `clips`, uint8
  # [n, T, H, W, 3], cropped already, of any size that the network accepts.
  config.embed.clips = ''
  # Splits of a prepared data set.
  config.embed.splits = ('train', 'val')
  # 'embedding', or the features of a layer: conv1 ... conv5, flattened.
  config.embed.layer = 'embedding'
  # One row for each evaluation clip, instead of one for their mean.
  config.embed.per_clip = False
  # Clips at a time, over all devices.
  config.embed.batch_size = 64

  config.export = ml_collections.ConfigDict()
  # What the file of --mode=export gives: 'embedding', or the features of a layer,
  # as in `embed`.
  config.export.layer = 'embedding'

  config.input = ml_collections.ConfigDict()
  # Threads, or processes, that read and decode; 0 is one per core, and at most
  # 64 processes. From a URL, where most of them wait: two processes per core, or
  # 32 threads.
  config.input.num_threads = 0
  # What they are, of clips: 'threads' of this process, in which Python runs on
  # one core at a time; 'processes' beside it; 'auto': these from four on, if
  # there are as many cores, or half as many for a URL.
  config.input.decode_in = 'auto'
  # Batches decoded ahead; 0 for none.
  config.input.prefetch_batches = 4
  # Share of the frames that were asked for, in [0, 1], that may be damaged: more
  # stop the run, and 0 stops it at the first. Damaged frames are replaced, or
  # left out of a test, as images are (data/README.md).
  config.input.max_bad_share = 0.05

  # --mode=describe also prints what a run would take on machines that are not
  # there: memory, time, communication, input; see docs/scaling.md. No
  # other mode reads it.
  config.plan = ml_collections.ConfigDict()
  # Training videos of the data set to plan for, such as 1e9; 0 plans nothing.
  # Of these dataset.share is trained on, in bins of dataset.bin_frames if any.
  config.plan.videos = 0.0
  # Devices: 1, 2, 4 ... 1024.
  config.plan.devices = 8
  # Videos in a batch over all devices; 0: batch_size, rounded up so that it
  # splits evenly over them.
  config.plan.batch_size = 0
  # 'v100', 'a100', 'h100', 'h200', 'tpu_v4', 'tpu_v5e', 'tpu_v5p' or 'tpu_v6e';
  # vie_jax/planning/accelerators.py has their peaks and where these are from.
  config.plan.accelerator = 'h100'
  # Share of the peak of matrix products that a network's step reaches, in
  # [0.001, 1]. On one H100 it was 0.13 to 0.23 in bfloat16
  # (docs/performance.md); elsewhere a guess.
  config.plan.efficiency = 0.2
  # Likewise, that products with the memory bank and of k-means reach. K-means
  # reached 0.6 of an H100's float32.
  config.plan.bank_efficiency = 0.6
  # Share of the peak bandwidth of memory and links, likewise; a guess.
  config.plan.bandwidth_efficiency = 0.8
  # Bytes a second that one host writes to where checkpoints are kept.
  config.plan.storage_bandwidth = 1e9
  # Frames of a video, 10 s at 25 per second, which bins are of, too; bytes of a
  # stored frame and milliseconds of a core to read and decode one
  # (docs/scaling.md).
  config.plan.frames_per_video = 250
  config.plan.bytes_per_frame = 42_590
  config.plan.host_ms_per_frame = 0.52
  # Processor cores of a host that decode; 0: as many as the devices ask for.
  # With fewer, the input sets the pace, and the days of a plan.
  config.plan.cores_per_host = 0

  config.fault = ml_collections.ConfigDict()
  # A step whose loss, gradient or new numbers are not finite changes nothing
  # but the number of steps done, by which the learning rate goes. 'stop' ends
  # the run there, with the last good checkpoint; 'skip' goes on with the next
  # batch.
  config.fault.on_nonfinite = 'stop'
  # 'skip': more of them in a row, or in all, stop the run.
  config.fault.max_skipped_in_a_row = 10
  config.fault.max_skipped_steps = 1000
  # Seconds that a batch or a step may take; a run that hangs prints where, and
  # ends with the exit code 75. 0 has nothing watched.
  config.fault.watchdog_seconds = 1800
  # The same for what compiles first or takes long: the start, with the opening
  # of the data set, the first step of an objective, k-means, a batch of an
  # evaluation or of --mode=embed, a checkpoint. At least watchdog_seconds.
  config.fault.watchdog_slow_seconds = 7200
  # Signals that mean the same as SIGTERM, which asks a run to save and leave:
  # SIGUSR1 is what SLURM is told to send (--signal=USR1@120).
  config.fault.signals = ('SIGUSR1',)

  config.lock()
  return config
