"""Folders that are there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["digest", "replacing"]


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place when the block ends without an error, and else vanishes.

    A reader sees the old folder, the new one or, for the moment between two renames, none; never a mixture.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh = work / "new"
        fresh.mkdir()
        yield fresh
        if folder.exists():
            folder.rename(work / "old")
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def digest(path: Path) -> str:
    """`sha256:…` of a file, or of all files below a folder with their relative names."""
    sha = hashlib.sha256()
    if not path.is_dir():
        sha.update(path.read_bytes())
    else:
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            sha.update(file.relative_to(path).as_posix().encode() + b"\0")
            sha.update(hashlib.sha256(file.read_bytes()).digest())
    return f"sha256:{sha.hexdigest()}"
