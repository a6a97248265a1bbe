"""Which files LOAD DATA INFILE and SELECT … INTO OUTFILE may touch, where others than the machine's user write them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["AllowedFolders", "OutOfReach"]


class OutOfReach(ValueError):
    """A statement names a file that it may not touch; the message names the path, and what to do."""


class AllowedFolders:
    """The folders below which files may be read, written and replaced; of none, no file at all.

    What a path means is found out before it is judged: `..` and symbolic links are followed, and so is every file that
    a pattern or a folder stands for. Who may put links into these folders by other means can still change a file
    between the look and the touch: they must belong to this process's user.

    Args:
        roots: as they are now; a link that is moved later leads nowhere new.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = [os.path.realpath(root) for root in roots]

    def to_read(self, path: str) -> str:
        """The real place of a file, a folder or a pattern, which may not be there.

        Raises:
            OutOfReach: it, or a file that it stands for, lies elsewhere.
        """
        return self._judged(path, self._readable)

    def to_write(self, path: str) -> str:
        """The real place of a file or folder, which may not be there yet.

        Raises:
            OutOfReach: it lies elsewhere, or is one of the folders itself.
        """
        return self._judged(path, self._writable)

    def _judged(self, path: str, resolve: Callable[[str], str | None]) -> str:
        if not self._roots:
            raise OutOfReach(f"{path}: this server touches no files: name the folders that it may with --files")
        try:
            resolved = resolve(path)
        except (OSError, ValueError):  # a NUL, a lone surrogate, a name that is too long: no file has it
            resolved = None
        if resolved is None:
            raise OutOfReach(f"{path}: not below a folder that it may touch (--files {', '.join(self._roots)})")
        return resolved

    def _readable(self, path: str) -> str | None:
        fixed, pattern = _split(path)
        if {"..", "**"} & set(pattern.split(os.sep)):
            return None  # `..` behind a wildcard would tell which files there are elsewhere; `**` is not OpenMLDB's
        real = os.path.realpath(fixed)
        if not pattern:
            return real if self._hold_all([real]) else None
        if not (self._holds(real) or real in self._roots):
            return None
        whole = os.path.join(glob.escape(real), pattern)
        # A reader may take the pattern for a name, too.
        return whole if self._hold_all([os.path.join(real, pattern), *glob.glob(whole)]) else None

    def _writable(self, path: str) -> str | None:
        real = os.path.realpath(path)
        return real if self._holds(real) else None

    def _hold_all(self, paths: Iterable[str]) -> bool:
        """Do these lie below the roots, and all that folders among them hold and links in these lead to?"""
        pending, seen = list(paths), set()
        while pending:
            real = os.path.realpath(pending.pop())
            if not self._holds(real):
                return False
            if real not in seen and os.path.isdir(real):
                with os.scandir(real) as entries:
                    pending += [e.path for e in entries if e.is_symlink() or e.is_dir(follow_symlinks=False)]
            seen.add(real)
        return True

    def _holds(self, real: str) -> bool:
        return any(real != root and os.path.commonpath([real, root]) == root for root in self._roots)


def _split(path: str) -> tuple[str, str]:
    """`path` up to the separator before its first wildcard, and the rest; without a wildcard there is no rest."""
    parts = path.split(os.sep)
    first = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    fixed = os.sep.join(parts[:first]) or (os.sep if path.startswith(os.sep) else os.curdir)
    return fixed, os.sep.join(parts[first:])
