"""What the exit code of main.py says to whatever started it.

Any other code, such as that of a process that died of a signal, means `RETRY`,
too.
"""

DONE = 0

REFUSED = 2
"""The same command would fail again: the message says what to change."""

RETRY = 75
"""Stopped early: the same command goes on. `EX_TEMPFAIL` of sysexits.h."""

INTERRUPTED = 130
"""As `RETRY`, after Ctrl-C: who pressed it wants no retry."""

FINAL = (DONE, REFUSED, INTERRUPTED)
"""After these nothing is started again by itself."""
