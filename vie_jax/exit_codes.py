"""What the exit code of main.py says to whatever started it.

0 is for done. A process that died of a signal says so by another code, and
means `RETRY`, too.
"""

REFUSED = 2
"""The same command would fail again: the message says what to change."""

RETRY = 75
"""Stopped early: the same command goes on. `EX_TEMPFAIL` of sysexits.h."""

INTERRUPTED = 130
"""As `RETRY`, after Ctrl-C: who pressed it wants no retry."""
