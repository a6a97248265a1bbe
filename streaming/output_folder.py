"""The one way in which a command writes a folder: whole or not at all, and never over what is not its own.

    with replacing(out, "features", inputs=[data]) as fresh:
        ...                                     # write into `fresh`: it takes the place of `out` at the end

A folder that was written holds a marker, `.jd-intent`: the kind of the folder, the version that made it, and each file
with its size. What is in a folder and not in its marker, of another size or younger, is somebody else's. A folder is
written where there is none, where it is empty, and where all that is in it is of the kind that is written; else it is
refused, or, with `force`, what goes is told first. Never written: a folder that is, holds or lies within an input; the
root, home, working and program's folder, and what holds one of them.

The new folder is made beside the old one and exchanged with it in one step. A run that fails leaves the old one and
nothing besides; what a killed run leaves is swept by the next one that writes there.
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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from streaming.errors import OutputRefused
from streaming.overlap import refuse_overlap

__all__ = ["EVERYTHING", "MARKER", "Say", "appending", "check", "link", "made", "mark", "replacing"]

MARKER = ".jd-intent"
MADE_BY = {
    "world": "`jd-intent-batch generate`",
    "features": "`jd-intent-batch extract`",
    "dataset": "`jd-intent-batch prepare` or `encode`",
    "checkpoint": "`jd-intent-batch train`",
    "evaluation": "`jd-intent-batch evaluate`",
    "artifact": "`jd-intent-batch export`",
    "outfile": "SELECT … INTO OUTFILE",
    "demo": "`make demo`",
    "environment": "`make environments`",
    "backend": "`python -m deploy.triton.server`",
}
FORCELESS = ("outfile", "environment", "backend")
"""Kinds whose writers have no `--force`."""

EVERYTHING = ("*",)
"""As `own`: whatever is in the folder is the command's, now and later."""

Say = Callable[[str], None]

_WORK = f"{MARKER}.work-"
_NAMES_MAX = 5  # of what is removed, that are told
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True)
class _Marker:
    """What `.jd-intent` says: files by their path in the folder → bytes, and when it was written (ns).

    `own`: entries of the folder that are the command's with whatever is in them.
    """

    kind: str
    files: dict[str, int]
    own: Collection[str]
    written: int = 0


@contextlib.contextmanager
def replacing(
    folder: Path,
    kind: str,
    *,
    inputs: Iterable[Path] = (),
    force: Say | None = None,
    own: Sequence[str] = (),
) -> Iterator[Path]:
    """An empty folder, which takes the place of `folder` when the block ends without an error, and else vanishes.

    Args:
        folder: a link to a folder stands for that folder.
        kind: a key of `MADE_BY`.
        inputs: files and folders that are read.
        force: removes what is not of this kind, too; told before what will be removed. None refuses.
        own: entries that come later (logs, state) and are the command's all the same.

    Raises:
        OutputRefused: see `check`; also when something came into `folder` meanwhile.
    """
    check(folder, kind, inputs=inputs, force=force)
    place = Path(os.path.realpath(folder))
    with _beside(place) as work:
        fresh = work / "new"
        fresh.mkdir()
        if place.exists():
            shutil.copymode(place, fresh)
        yield fresh
        mark(fresh, kind, own)
        if force is None and (stranger := next(_strangers(place, kind), None)):
            raise _refusal(folder, kind, stranger.why)
        _put(work, place)


@contextlib.contextmanager
def appending(folder: Path, kind: str) -> Iterator[Path]:
    """An empty folder, whose files come to those of `folder`, which exists, when the block ends without an error.

    Nothing that is there is changed; a file appears whole.

    Raises:
        OutputRefused: `folder` is a file, or has a file of that name.
    """
    place = Path(os.path.realpath(folder))
    if not place.is_dir():
        raise OutputRefused(f"{folder} is a file, not a folder")
    with _beside(place) as work:
        fresh = work / "new"
        fresh.mkdir()
        yield fresh
        marker = _read(place)
        if marker is None and not _entries(place):
            marker = _Marker(kind, {}, ())
        if marker is not None and marker.kind == kind:  # first told, then done: what is told and missing does no harm
            _write(place, _Marker(kind, {**marker.files, **_sizes(fresh)}, marker.own))
        for file in sorted(fresh.iterdir()):
            try:
                _link(file, place / file.name)
            except FileExistsError:
                raise OutputRefused(f"{folder} has a file {file.name} already") from None


def check(folder: Path, kind: str, *, inputs: Iterable[Path] = (), force: Say | None = None) -> None:
    """Refuses a folder that must not be written; tells `force` what will be removed. Removes nothing.

    Raises:
        OutputRefused: it is a file; it is, holds or lies within an input or a folder that nobody may replace; without
            `force`, something in it is not of this kind. The message names the folder and the first such thing.
    """
    place = Path(os.path.realpath(folder))
    if place.exists() and not place.is_dir():
        raise OutputRefused(f"{folder} is a file, not a folder")
    refuse_overlap(folder, inputs)
    _sweep(place)
    strangers = list(_strangers(place, kind))
    if not strangers:
        return
    if force is None:
        raise _refusal(folder, kind, strangers[0].why)
    names = ", ".join(stranger.name for stranger in strangers[:_NAMES_MAX])
    more = f" and {len(strangers) - _NAMES_MAX:,} more" if len(strangers) > _NAMES_MAX else ""
    size = sum(stranger.size for stranger in strangers)
    files = "1 file" if len(strangers) == 1 else f"{len(strangers):,} files"
    force(f"--force removes {files} ({size:,} bytes) from {folder}: {names}{more}")


def mark(folder: Path, kind: str, own: Sequence[str] = ()) -> None:
    """Writes the marker: what is in `folder` now is of this kind, and the entries `own` with what they will hold."""
    _write(folder, _Marker(kind, _sizes(folder, own), own))


def made(folder: Path) -> list[str]:
    """The files that its marker names, by their path in a folder; none where there is no marker."""
    marker = _read(folder)
    return [] if marker is None else sorted(marker.files)


def link(source: Path, target: Path) -> None:
    """The file `source` is `target`, too: by a hard link, or copied where the disk has none. Makes the folders."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


# -- whose it is -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stranger:
    """Something in a folder that is not of the kind to be written: its path in it, its bytes, why it is none."""

    name: str
    size: int
    why: str


def _refusal(folder: Path, kind: str, why: str) -> OutputRefused:
    force = "" if kind in FORCELESS else ", or give --force, which says what it removes"
    return OutputRefused(f"{folder} {why}; name a new or an empty folder{force}")


def _strangers(place: Path, kind: str) -> Iterator[_Stranger]:
    """All that is not of this kind in a folder that is to be written, in order; nothing: the folder may go."""
    entries = _entries(place)
    if not entries:
        return
    maker, marker = MADE_BY[kind], _read(place)
    if marker is None:
        files = [*_files(place), *([(MARKER, (place / MARKER).lstat())] if MARKER in entries else [])]
        for name, size in [(name, at.st_size) for name, at in files] or [(entries[0], 0)]:
            yield _Stranger(name, size, f"holds {name} and no {MARKER}: {maker} did not make it")
        return
    other = f"was made by {MADE_BY.get(marker.kind, marker.kind)}, not by {maker}" if marker.kind != kind else ""
    for name, at in _files(place):
        if other:
            yield _Stranger(name, at.st_size, f"{other}: it holds {name}")
        elif marker.own == EVERYTHING or name.partition("/")[0] in marker.own:
            continue
        elif name not in marker.files:
            yield _Stranger(name, at.st_size, f"holds {name}, which {maker} did not make")
        elif at.st_size != marker.files[name] or at.st_mtime_ns > marker.written:
            yield _Stranger(name, at.st_size, f"holds {name}, which was changed since {maker} made it")


def _entries(place: Path) -> list[str]:
    """Names in a folder, but for a command's work (see `_beside`); none where there is no folder."""
    if not place.is_dir():
        return []
    return sorted(name for name in os.listdir(place) if not name.startswith(_WORK))


def _sizes(folder: Path, own: Collection[str] = ()) -> dict[str, int]:
    if own == EVERYTHING:
        return {}
    return {name: at.st_size for name, at in _files(folder) if name.partition("/")[0] not in own}


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Files and links below a folder, in order, by their path in it.

    Not the marker, nor what Python makes of code that it runs there (Triton's model).
    """
    for top, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        folders[:] = sorted(name for name in folders if not name.startswith(_WORK))
        for name in sorted([*names, *links]):
            if name.endswith(".pyc") and os.path.basename(top) == "__pycache__":
                continue
            if top == os.fspath(folder) and name in (MARKER, f"{MARKER}.writing"):
                continue
            path = os.path.join(top, name)
            yield os.path.relpath(path, folder).replace(os.sep, "/"), os.lstat(path)


def _read(folder: Path) -> _Marker | None:
    """The marker; None where there is none that can be read: then the folder is somebody else's."""
    try:
        told = json.loads((folder / MARKER).read_bytes())
        files = {name: int(size) for name, size in told["files"].items()}
        written = (folder / MARKER).stat().st_mtime_ns
        return _Marker(str(told["kind"]), files, tuple(map(str, told["own"])), written)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(folder: Path, marker: _Marker) -> None:
    try:
        made_by = version("jd-intent-scorer")
    except PackageNotFoundError:  # run from a checkout that is not installed
        made_by = "unknown"
    told = {"kind": marker.kind, "version": made_by, "own": list(marker.own), "files": marker.files}
    writing = folder / f"{MARKER}.writing"
    writing.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    writing.replace(folder / MARKER)


# -- taking its place --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A work folder on the same disk, for as long as the block lasts, with a lock in it that says that somebody lives.

    It is beside `place`, or in it where that cannot be renamed: a mount point, or below a folder of somebody else.
    """
    missing = [folder for folder in place.parents if not folder.exists()]
    within = _pinned(place)
    home = place if within else place.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=_WORK if within else f".{place.name}{_WORK}", dir=home))
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


def _sweep(place: Path) -> None:
    """Takes away what killed runs left, and puts back what one of them had moved."""
    for home, prefix in ((place.parent, f".{place.name}{_WORK}"), (place, _WORK)):
        for work in _beginning(home, prefix):
            with contextlib.suppress(OSError), (work / "lock").open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(work, place)


def _beginning(home: Path, prefix: str) -> list[Path]:
    try:
        return [home / name for name in os.listdir(home) if name.startswith(prefix)]
    except OSError:  # not there yet, or not to be listed
        return []


def _put(work: Path, place: Path) -> None:
    """Puts `new` of a work folder in its place; what was there is then somewhere in the work folder."""
    fresh, old = work / "new", work / "old"
    if not place.exists():
        fresh.rename(place)
    elif work.parent == place:
        # One entry after the other, the marker last: the plan tells `_roll_back` which of them are new.
        (work / "plan").write_text(json.dumps(sorted(os.listdir(fresh))), encoding="utf-8")
        old.mkdir()
        for name in _entries(place):
            (place / name).rename(old / name)
        for name in sorted(os.listdir(fresh), key=lambda name: name == MARKER):
            (fresh / name).rename(place / name)
        (work / "plan").unlink()
    elif not _exchange(fresh, place):
        place.rename(old)
        fresh.rename(place)


def _roll_back(work: Path, place: Path) -> None:
    """Undoes a `_put` that did not come to its end; does nothing after one that did."""
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


def _link(source: Path, target: Path) -> None:
    """`target` is there at once and whole.

    Raises:
        FileExistsError: it is there already.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL))
        source.replace(target)
