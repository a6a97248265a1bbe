"""The hash of a folder that a command read or wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path

from streaming.files.output_folder import MARKER

__all__ = ["digest"]


def digest(path: Path) -> str:
    """`sha256:…` of a file, or of all files below a folder with their relative names, but for markers."""
    sha = hashlib.sha256()
    if not path.is_dir():
        sha.update(path.read_bytes())
    else:
        for file in sorted(file for file in path.rglob("*") if file.is_file() and file.name != MARKER):
            sha.update(file.relative_to(path).as_posix().encode() + b"\0")
            sha.update(hashlib.sha256(file.read_bytes()).digest())
    return f"sha256:{sha.hexdigest()}"
