"""Does a folder that is to be written touch what must stay? Told by identity, not by name.

Links, mounts and disks that do not tell capitals apart give one folder many names: two paths are the same where the
disk says so (device and inode).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from streaming.errors import OutputRefused

__all__ = ["refuse_overlap"]

_PROGRAM = Path(__file__).resolve().parents[2]
_CODE = ("streaming", "batch", "deploy", "sql", "tests", "docs", "benchmarks", ".git")
_TOPS = (
    "/dev",
    "/home",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/local",
    "/usr/share",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/tmp",
)
_SYSTEM = ("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/sbin", "/usr/bin", "/usr/lib", "/usr/sbin")
_SECRETS = (".ssh", ".gnupg", ".config", ".aws", ".kube")

Identity = tuple[int, int]


def refuse_overlap(folder: Path, inputs: Iterable[Path]) -> None:
    """Refuses a folder that is, holds or lies within an input, or what an input's links point to.

    And one that is or holds the root, the home folder, the working folder, the folder of this program; that is a folder
    of the system (/usr, /var, …); that is or lies within the program's code, /etc and the like, or ~/.ssh and the like.

    Raises:
        OutputRefused: it names both.
    """
    around = list(_upwards(folder))
    own = _identity(folder)
    for name, guarded in _guarded():
        if own is not None and own in _upwards(guarded):
            same = own == _identity(guarded)
            raise OutputRefused(f"{folder} {'is' if same else 'holds'} {name}{'' if same else f', {guarded}'}")
    for kept in _kept():
        found = _identity(kept)
        if found is not None and found in around:
            raise OutputRefused(f"{folder} {'is' if found == own else 'lies within'} {kept}, which holds no results")
    for given in inputs:
        for path in _with_links(given):
            found = _identity(path)
            if found is None:
                continue
            named = f"{given}" if path == given else f"{given} (by a link: {path})"
            if found == own:
                raise OutputRefused(f"{folder} is an input, {named}: results go to another folder")
            if found in around:
                raise OutputRefused(f"{folder} lies within an input, {named}: results go to another folder")
            if own is not None and own in _upwards(path):
                raise OutputRefused(f"{folder} holds an input, {named}: results go to another folder")


def _guarded() -> Iterator[tuple[str, Path]]:
    yield "the root", Path("/")
    yield "the folder of this program", _PROGRAM
    for name, where in (("the working folder", Path.cwd), ("the home folder", Path.home)):
        try:
            yield name, where()
        except (OSError, RuntimeError):  # it was removed, or the user has none
            continue
    for system in (*_TOPS, *_SYSTEM):
        yield "a folder of the system", Path(system)


def _kept() -> Iterator[Path]:
    """Folders in which, at any depth, nothing is written."""
    yield from (_PROGRAM / name for name in _CODE)
    yield from map(Path, _SYSTEM)
    with contextlib.suppress(RuntimeError):
        yield from (Path.home() / name for name in _SECRETS)


def _identity(path: Path) -> Identity | None:
    try:
        at = os.stat(path)
    except OSError:
        return None
    return at.st_dev, at.st_ino


def _upwards(path: Path) -> Iterator[Identity]:
    """Of what a path names and all folders above, as far as they exist."""
    real = Path(os.path.realpath(path))
    for step in (real, *real.parents):
        found = _identity(step)
        if found is not None:
            yield found


def _with_links(path: Path) -> Iterator[Path]:
    """An input, and what the links in it point to, at any depth."""
    yield path
    left, seen = [path], set[Identity]()
    while left:
        for top, folders, names in os.walk(left.pop()):
            found = _identity(Path(top))
            if found is None or found in seen:
                folders.clear()
                continue
            seen.add(found)
            for name in (*folders, *names):
                link = Path(top, name)
                if link.is_symlink():
                    target = Path(os.path.realpath(link))
                    yield target
                    left.append(target)
