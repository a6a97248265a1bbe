"""What an application's files say, as one digest; needs nothing of the project, not even an engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FILES", "digest_of", "read_files"]

FILES = ("tables.sql", "features.sql", "events.sql", "app.toml")
"""What an application is."""


def digest_of(texts: Mapping[str, str]) -> str:
    """Names the texts of the four files: equal files, equal digests; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in FILES:
        text = texts[name].encode()
        digest.update(b"%s %d\n%s" % (name.encode(), len(text), text))
    return digest.hexdigest()


def read_files(folder: Path) -> dict[str, str]:
    """The texts of the four files.

    Raises:
        OSError: one cannot be read. UnicodeDecodeError: one is not UTF-8.
    """
    return {name: (folder / name).read_text(encoding="utf-8") for name in FILES}
