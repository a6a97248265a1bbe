"""A folder is made beside the one whose place it takes, and changes places with it: what `output_folder` stands on.

Linux exchanges two folders in one step. Where disk or system cannot, the old one is moved away first; where the old one
cannot be renamed at all (a mount point), its entries are, one after the other. A run that is killed in between has left
a work folder whose lock is free: the next one puts back what was moved, and takes it away.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LAST", "WORK", "beside", "put", "sweep"]

LAST = ".jd-intent"
"""The entry that is moved last where entries are moved: what it says is true then."""
WORK = f"{LAST}.work-"

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def beside(place: Path) -> Iterator[Path]:
    """A work folder on the same disk, for as long as the block lasts, with a lock in it that says that somebody lives.

    It is beside `place`, or in it where that cannot be renamed: a mount point, or below a folder of somebody else.
    """
    missing = [folder for folder in place.parents if not folder.exists()]
    within = _pinned(place)
    home = place if within else place.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=WORK if within else f".{place.name}{WORK}", dir=home))
        with (work / "making").open("wb") as lock:
            with contextlib.suppress(OSError):  # a disk without locks: then nobody sweeps here either
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (work / "making").rename(work / "lock")
            try:
                yield work
            finally:
                _remove(work, place)
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # not empty: somebody uses it by now
                folder.rmdir()
        raise


def _remove(work: Path, place: Path) -> None:
    _roll_back(work, place)
    shutil.rmtree(work, ignore_errors=True)


def _pinned(place: Path) -> bool:
    return place.is_dir() and (_mounted(place) or not os.access(place.parent, os.W_OK))


def _mounted(place: Path) -> bool:
    """Also where a folder of the same disk is mounted, which `ismount` does not tell."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        mounts = []
    return os.path.ismount(place) or str(place) in (line.split(" ")[4] for line in mounts)


def sweep(place: Path) -> None:
    """Takes away what killed runs left, and puts back what one of them had moved."""
    for home, prefix in ((place.parent, f".{place.name}{WORK}"), (place, WORK)):
        for work in _beginning(home, prefix):
            with contextlib.suppress(OSError), (work / "lock").open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(work, place)


def _beginning(home: Path, prefix: str) -> list[Path]:
    try:
        return [home / name for name in os.listdir(home) if name.startswith(prefix)]
    except OSError:  # not there yet, or not to be listed
        return []


def put(work: Path, place: Path) -> None:
    """Puts `new` of a work folder in its place; what was there is then somewhere in the work folder."""
    fresh, old = work / "new", work / "old"
    if not place.exists():
        fresh.rename(place)
    elif work.parent == place:
        # One entry after the other, the marker last: the plan tells `_roll_back` which of them are new.
        (work / "plan").write_text(json.dumps(sorted(os.listdir(fresh))), encoding="utf-8")
        old.mkdir()
        for name in sorted(name for name in os.listdir(place) if not name.startswith(WORK)):
            (place / name).rename(old / name)
        for name in sorted(os.listdir(fresh), key=lambda name: name == LAST):
            (fresh / name).rename(place / name)
        (work / "plan").unlink()
    elif not _exchange(fresh, place):
        place.rename(old)
        fresh.rename(place)


def _roll_back(work: Path, place: Path) -> None:
    """Undoes a `put` that did not come to its end; does nothing after one that did."""
    fresh, old, plan = work / "new", work / "old", work / "plan"
    if work.parent != place:
        if old.is_dir() and not place.exists():
            old.rename(place)
    elif plan.exists() and old.is_dir():
        for name in json.loads(plan.read_text(encoding="utf-8")):
            if not (fresh / name).exists() and (place / name).exists():
                (place / name).rename(fresh / name)
        for name in os.listdir(old):
            (old / name).rename(place / name)


def _exchange(left: Path, right: Path) -> bool:
    """Two folders change places in one step (Linux); false: this system or disk cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if rename(_AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE) == 0:
        return True
    if ctypes.get_errno() in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(right))
