"""Keeps a second demo out of the folder of one that runs: it would take the files from under its servers."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from streaming.errors import OutputRefused

__all__ = ["hold"]


def hold(folder: Path, stack: contextlib.ExitStack) -> None:
    """Holds a folder, where there is one, until `stack` ends or this process does.

    Raises:
        OutputRefused: another process holds it.
    """
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    stack.callback(os.close, held)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputRefused(
            f"another `make demo` runs in {folder}: end it, or start this one as `python -m deploy.demo --work FOLDER`"
        ) from None
