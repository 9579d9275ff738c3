"""What it means when the memory of a device does not suffice."""

import re

import jax

REMEDY = (
  'Smaller batches need less (config.batch_size in training, else that of the '
  'mode), as do more devices, fewer products at a time '
  '(config.objective.product_bytes) and config.model.dtype=bfloat16; nothing '
  'else may use the devices meanwhile. --mode=describe with '
  'config.plan.videos says what a training takes.'
)

# How XLA says so on CPUs and GPUs, CUDA, XLA's compiler for TPUs, and what
# loads programs there and allocates arrays.
_SAID = re.compile(
  r'((ran )?out[ _]of[ _]memory|attempting to (allocate|reserve)'
  r'|failed to allocate)[^\n]*',
  re.IGNORECASE,
)


def is_exhausted(error: BaseException) -> bool:
  """Whether an error says that a device has too little memory for a program."""
  return isinstance(error, jax.errors.JaxRuntimeError) and bool(
    _SAID.search(str(error))
  )


def message(error: BaseException) -> str:
  """What an error for which `is_exhausted` says, and what helps: one line."""
  said = _SAID.search(str(error)).group().rstrip('. ')
  return f'A device has too little memory: {said}. {REMEDY}'
