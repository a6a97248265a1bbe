"""Which files a path means: a file, a folder of part files, or a pattern."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from streaming.files.tables.errors import BadFile, listed

__all__ = ["files_of", "is_there"]


def files_of(path: str | Path, kind: str) -> list[Path]:
    """The files of a table, in the order of their names.

    A folder stands for its `*.kind`; such a name may be a folder of part files in turn. What begins with `_` or `.` is
    no data (`_SUCCESS`, `.part-0.crc`, `_temporary/`): it is left out, unless `path` spells it.

    Raises:
        BadFile: there is no such file; a folder holds something else, which would be left out in silence.
    """
    text = str(path)
    if os.path.lexists(text) or not glob.has_magic(text):
        return _expanded(Path(text), kind)
    found: list[Path] = []
    spelled = os.path.basename(text).startswith(("_", "."))
    for name in sorted(glob.glob(text)):
        if spelled or not _hidden(Path(name)):
            found += _expanded(Path(name), kind)
    if not found:
        raise BadFile(_nothing(Path(text)))
    return found


def is_there(path: str | Path) -> bool:
    """Whether there is a file or folder `path`, or the folder in which a pattern looks for files, be it empty."""
    text = str(path)
    if os.path.lexists(text):
        return True
    return glob.has_magic(text) and any(map(os.path.isdir, glob.glob(os.path.dirname(text) or os.curdir)))


def _expanded(path: Path, kind: str) -> list[Path]:
    if path.is_dir():
        return _parts(path, kind)
    if not path.exists():
        raise BadFile(f"{path}: no such file" if not path.is_symlink() else f"{path}: a link to nothing")
    if not path.is_file():
        raise BadFile(f"{path}: neither a file nor a folder")
    return [path]


def _parts(folder: Path, kind: str) -> list[Path]:
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if _hidden(entry):
            continue
        if not entry.name.lower().endswith(f".{kind}"):
            what = "a folder" if entry.is_dir() else "a file"
            raise BadFile(f"{folder}: {entry.name} in it is {what} whose name does not end in .{kind}: take it away")
        found += _expanded(entry, kind)
    if not found:
        raise BadFile(f"{folder}: no *.{kind} file in it")
    return found


def _hidden(path: Path) -> bool:
    return path.name.startswith(("_", "."))


def _nothing(pattern: Path) -> str:
    """Why a pattern meets nothing, with what lies where it looks."""
    folder = Path(_plain(pattern.parent))
    if not folder.is_dir():
        return f"{_plain(pattern)}: no such file"
    there = sorted(entry.name for entry in folder.iterdir() if not _hidden(entry))
    others = f", but {listed(there)}" if there else ""
    return f"{folder}: no {pattern.name} file in it{others}"


def _plain(pattern: Path) -> str:
    """The pattern without what `glob.escape` did to it."""
    return re.sub(r"\[([*?[])\]", r"\1", str(pattern))
