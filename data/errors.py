"""What is said to a user of an error: their own, or one of a library."""


class InputError(Exception):
  """The command's input cannot be used; one line for the user."""


def words_of(error):
  """Gives one line: what it says, and behind it what kind of error it is.

  Args:
    error: of whatever kind.

  Returns:
    str, without a full stop.
  """
  text = ' '.join(str(error).split()).rstrip('.')
  kind = type(error).__name__
  return f'{text} ({kind})' if text else kind
