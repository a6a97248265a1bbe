"""Told to stop before there is anything to finish: while the modules are imported.

It imports nothing that takes time: the program calls it first.
"""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["end_at_once_when_told"]

SERVING = ("run", "serve", "apiserver")
"""The commands that go on until they are told to stop: that is no failure of theirs."""


def end_at_once_when_told() -> None:
    """From now on SIGTERM and SIGINT end a command of `SERVING` with status 0; it sets its own handlers later."""
    if sys.argv[1:2] and sys.argv[1] in SERVING:
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not by an exception: an import that is under way might take it for its own.
            signal.signal(number, lambda *_: os._exit(0))
