"""Reads the options of a command, in full, and says which may be meant."""

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


def near(word: str, known: Iterable[Any]) -> str:
  """The one of some words that may be meant by one that is none of them.

  Args:
    word: as it was given.
    known: the words; what is no text is none of them.

  Returns:
    The word; '' where none is like it.
  """
  names = [name for name in known if isinstance(name, str)]
  return ''.join(difflib.get_close_matches(word, names, 1))


def ending(meant: str) -> str:
  """Ends a sentence: with a question, or with a full stop if `meant` is ''."""
  return f'; did you mean {meant}?' if meant else '.'


def ending_of(word: str, known: Iterable[Any]) -> str:
  """`ending` of the one of some words that may be meant."""
  return ending(near(word, known))


class OptionParser(argparse.ArgumentParser):
  """An argparse parser of whole options; its subparsers are such, too.

  A mistake in the command line names the options, commands and other choices
  that are like those that there are not.
  """

  def __init__(self, **settings):
    super().__init__(**{'allow_abbrev': False} | settings)
    self._words, self._command = [], None

  def parse_known_args(self, args=None, namespace=None):
    """As that of argparse."""
    self._words = list(sys.argv[1:] if args is None else args)
    self._command = None
    return super().parse_known_args(args, namespace)

  def error(self, message: str) -> NoReturn:
    """Ends the process with the message and what may be meant."""
    super().error(message + self.hint(self._words))

  def hint(self, words: Sequence[str]) -> str:
    """Names options like those that there are not; '' if there are none.

    Args:
      words: of a command line; what follows `--` is that of another command.
    """
    own = words[: words.index('--')] if '--' in words else words
    known = self._options()
    text = ''
    for option in dict.fromkeys(word.partition('=')[0] for word in own):
      if not option.startswith('--') or option in known:
        continue
      if meant := near(option, known):
        text += f'; there is no {option}: did you mean {meant}?'
    return text

  def _options(self):
    """Names of options, with those of the command that was parsed."""
    own = [name for action in self._actions for name in action.option_strings]
    return own + (self._command._options() if self._command else [])

  def _check_value(self, action, value):
    """As that of argparse, with a hint; notes which command is parsed."""
    try:
      super()._check_value(action, value)
    except argparse.ArgumentError as error:
      if meant := near(str(value), action.choices):
        error.message += f'; did you mean {meant}?'
      raise
    if isinstance(action, argparse._SubParsersAction):
      self._command = action.choices[value]
