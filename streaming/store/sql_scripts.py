"""The text of SQL scripts, and whose line and column an error means."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from streaming.engine.errors import BadRow, UnsupportedSQL
from streaming.errors import ConfigError

__all__ = ["script_text", "within"]


def script_text(path: Path, key: str = "") -> str:
    """Reads a script.

    Args:
        key: of the configuration, where that named the script's folder.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8; then the place of the first wrong byte is named.
    """
    named = f"{key}: {path}" if key else str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{named} cannot be read: {error.strerror}") from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise ConfigError(f"{named} is not UTF-8: byte 0x{content[error.start]:02x} at {line}:{column}") from error


@contextlib.contextmanager
def within(path: Path) -> Iterator[None]:
    """Puts the script's name before what the engine says about its text."""
    try:
        yield
    except UnsupportedSQL as error:
        raise UnsupportedSQL(f"{path}: {error}", error.line, error.column) from error
    except BadRow as error:
        raise BadRow(f"{path}: {error}", error.row) from error
