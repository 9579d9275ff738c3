import errno

import pytest

from vie_jax.input_pipeline import clip_batches, dataset_folder


@pytest.mark.parametrize(
  'error',
  [
    dataset_folder.DatasetError('gone'),
    dataset_folder.UnreachableError('away'),
    dataset_folder.UnreadableError('torn', 'mend it'),
    OSError(errno.ENOSPC, 'full', 'file'),
  ],
)
def test_a_copied_error_says_the_same_and_holds_no_frames(error):
  with pytest.raises(type(error)):
    raise error
  copied = clip_batches.copied(error)
  assert copied is not error
  assert type(copied) is type(error)
  assert (str(copied), vars(copied)) == (str(error), vars(error))
  assert copied.__traceback__ is None
  assert error.__traceback__ is not None
