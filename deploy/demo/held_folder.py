"""The demo's folder: a second demo is kept out, which would take the servers' files; a full disk is told."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from streaming.errors import OutputRefused

__all__ = ["full_disk", "hold"]

ROOM_BYTES = 4 * 2**20
"""With less, one of the servers has failed for it: each writes logs."""


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


def full_disk(folder: Path) -> str:
    """A line that says that there is no room on the folder's disk; "": there is, or no such folder."""
    if not folder.is_dir() or shutil.disk_usage(folder).free >= ROOM_BYTES:
        return ""
    return f"the disk of {folder} is full"
