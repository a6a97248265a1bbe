"""What is wrong with data, and the parquet files of a folder."""

from __future__ import annotations

from pathlib import Path

from streaming.errors import BadInput

__all__ = ["BadData", "parquet_files"]


class BadData(BadInput):
    """The input cannot be used; the message names file, column and, where it applies, row."""


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder that a command wrote, by name.

    Raises:
        BadData: there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise BadData(f"{folder}: there is no such folder")
    files = sorted(file for file in folder.glob("*.parquet") if not file.name.startswith(("_", ".")))
    if not files:
        raise BadData(f"{folder}: no *.parquet file in it")
    return files
