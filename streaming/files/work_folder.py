"""A folder is made beside the one whose place it takes, and changes places with it: what `output_folder` stands on.

Linux exchanges two folders in one step. Where disk or system cannot, the old one is moved away first; where the old one
cannot be renamed at all (a mount point), its entries are, one after the other. A run that is killed in between has left
a work folder whose lock is free: the next one puts back what was moved, and takes it away. Where something else stands
in the place by then, the work folder stays, and the run is refused: what was moved lies nowhere else.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from streaming.errors import OutputRefused

__all__ = ["LAST", "beside", "is_work", "put", "sweep"]

LAST = ".jd-intent"
"""The entry that is moved last where entries are moved: what it says is true then."""
WORK = f"{LAST}.work-"

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def beside(place: Path) -> Iterator[Path]:
    """A work folder on the same disk, for as long as the block lasts, with a lock in it that says that somebody lives.

    It is beside `place`, or in it where that cannot be renamed: a mount point, or below a folder of somebody else.

    Raises:
        OutputRefused: at the end, where what was moved away cannot be put back: see `sweep`.
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


def is_work(path: Path) -> bool:
    """Is an entry of a folder the work folder of a run that lives, or of one that was killed? No other has a lock."""
    return path.name.startswith(WORK) and any((path / name).is_file() for name in ("lock", "making"))


def _remove(work: Path, place: Path) -> None:
    _roll_back(work, place)
    (work / "plan").unlink(missing_ok=True)  # first: what is half removed must not be rolled back
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
    """Takes away what killed runs left, and puts back what one of them had moved.

    Raises:
        OutputRefused: something else stands where that was. Nothing is lost; the message names both folders.
    """
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
        plan = {name: _signature(fresh / name) for name in sorted(os.listdir(fresh))}
        (work / "plan").write_text(json.dumps(plan), encoding="utf-8")
        old.mkdir()
        for name in sorted(os.listdir(place)):
            if not is_work(place / name):
                (place / name).rename(old / name)
        for name in sorted(os.listdir(fresh), key=lambda name: name == LAST):
            (fresh / name).rename(place / name)
        (work / "plan").unlink()
    elif not _exchange(fresh, place):
        place.rename(old)
        fresh.rename(place)


def _signature(path: Path) -> list[list[str | int]]:
    """What tells a file, or a folder with all files in it, from what somebody made of it since."""
    files = [path] if path.is_symlink() or not path.is_dir() else sorted(path.rglob("*"))
    found = [(str(file.relative_to(path)), file.lstat()) for file in files]
    return [[name, at.st_size, at.st_mtime_ns] for name, at in found if not stat.S_ISDIR(at.st_mode)]


def _roll_back(work: Path, place: Path) -> None:
    """Undoes a `put` that did not come to its end; does nothing after one that did.

    Raises:
        OutputRefused: something else stands in the way. Nothing was moved.
    """
    fresh, old = work / "new", work / "old"
    if work.parent == place:
        _roll_back_entries(work, place)
    elif old.is_dir() and fresh.is_dir():
        try:
            old.rename(place)  # which may be there and empty
        except OSError:
            raise _in_the_way(work, place, "that folder is there again") from None


def _roll_back_entries(work: Path, place: Path) -> None:
    fresh, old = work / "new", work / "old"
    try:
        plan = json.loads((work / "plan").read_text(encoding="utf-8"))
        moved = os.listdir(old)
        back = {name for name in plan if os.path.lexists(place / name) and not os.path.lexists(fresh / name)}
        foreign = [name for name in back if plan[name] != _signature(place / name)]
    except FileNotFoundError:  # nothing was moved yet, or all is
        return
    except (ValueError, TypeError, KeyError):
        raise _in_the_way(work, place, f"{work / 'plan'}, which tells what is new, is damaged") from None
    foreign += [name for name in moved if os.path.lexists(place / name) and name not in back]
    if foreign:
        raise _in_the_way(work, place, f"it holds another {min(foreign)} now")
    for name in back:
        (place / name).rename(fresh / name)
    for name in moved:
        (old / name).rename(place / name)


def _in_the_way(work: Path, place: Path, why: str) -> OutputRefused:
    return OutputRefused(
        f"{place}: a run was stopped while it replaced this folder, and {why}; what was in it before lies in "
        f"{work / 'old'}: move what you need of both elsewhere, then remove {work}"
    )


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
